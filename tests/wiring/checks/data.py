"""Checks of the section `data`."""

import dataclasses
import math
from typing import Any

import numpy as np
from recording import same_batches

from checks.table import CHECKS, seen


def of_source(number: int, key: str, attribute: str, **options: Any) -> None:
    seen(key, "sources", at=f"data.sources.{number}.{key.split('.')[1]}")(
        lambda runs, made: getattr(
            made.calls["prepare_corpus"][0][""][0][number], attribute
        )
    )


of_source(0, "DocumentationSource.packages", "packages")
of_source(1, "FilesSource.pattern", "pattern")
of_source(1, "FilesSource.field", "field")
of_source(1, "FilesSource.encoding", "encoding")
of_source(1, "data.root", "root")
of_source(2, "TfdsSource.name", "name")
of_source(2, "TfdsSource.split", "split")
of_source(2, "TfdsSource.field", "field")
of_source(1, "data.allow_outside_root", "allow_outside_root")
CHECKS["data.allow_outside_root"] = dataclasses.replace(
    CHECKS["data.allow_outside_root"], at=None
)
CHECKS["data.root"] = dataclasses.replace(CHECKS["data.root"], at=None)
for number, kind in enumerate(("Documentation", "Files", "Tfds")):
    names = ("InstalledDocumentation", "TextFiles", "TfdsText")
    seen(
        f"{kind}Source.kind",
        "sources",
        wanted=names[number],
        at=f"data.sources.{number}.kind",
    )(
        lambda runs, made, number=number: (
            type(made.calls["prepare_corpus"][0][""][0][number]).__name__
        )
    )


@seen("data.sources", "sources", wanted=3)
def _(runs, made):
    return len(made.calls["prepare_corpus"][0][""][0])


@seen("data.prepared", "prepared", wanted=(True, 0))
def _(runs, made):
    """The batches match those of a corpus made in the run itself."""
    itself = runs("text").fit("distill")
    return (
        same_batches(made.fit("distill").batches, itself.batches),
        len(made.calls["prepare_corpus"]),
    )


@seen("data.layout", "balance")
def _(runs, made):
    return made.calls["prepare_corpus"][0]["layout"]


@seen("data.sequence_length", "text", wanted=({11}, {11}))
def _(runs, made):
    return tuple(
        {x["token_ids"].shape[1] for x, *_ in batches}
        for batches in (
            made.fit("distill").batches,
            [batch for each in made.evaluations for batch in each],
        )
    )


@seen("data.held_out_fraction", "text")
def _(runs, made):
    return made.calls["prepare_corpus"][0]["held_out_fraction"]


@seen("data.max_skipped_fraction", "text")
def _(runs, made):
    return made.calls["prepare_corpus"][0]["max_skipped_fraction"]


def masked_share(batches: list[Any]) -> float:
    """Share of masked tokens among those other than [CLS] and [SEP]."""
    masked = sum(float(weight.sum()) for _, _, weight in batches)
    return masked / sum(int((y > 4).sum()) for _, y, _ in batches)


@seen("data.masking.rate", "text", wanted=([0.4, 0.15], 0.4))
def _(runs, made):
    """In training and held-out batches, and in those for a cached teacher."""
    return (
        [
            # A sequence has at most nine tokens, so a step is a ninth.
            min((0.15, 0.4), key=lambda rate: abs(rate - masked_share(batches)))
            for batches in (made.fit("distill").batches, made.evaluations[0])
        ],
        runs("cache").fit("distill").distiller.teacher.settings.masking.rate,
    )


@seen("data.masking.rare_token_exponent", "text", wanted=(0.6, 0.6))
def _(runs, made):
    """Computed from the weights of a frequent and a rare token."""
    counts = made.calls["prepare_corpus"][0]["returned"].token_counts
    weights = made.calls["masked_lm_dataset"][0]["token_weights"]
    most = int(np.argmax(counts))
    least = int(np.argmin(np.where(counts > 0, counts, np.inf)))
    cached = runs("cache").fit("distill").distiller.teacher.settings.masking
    return (
        math.log(weights[least] / weights[most])
        / math.log(counts[most] / counts[least]),
        cached.rare_token_exponent,
    )


@seen("data.license", "finished", wanted=True)
def _(runs, made):
    card = (made.folder / "MODEL_CARD.md").read_text()
    return "- Data: Licence of the data." in card
