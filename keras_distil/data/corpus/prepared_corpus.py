"""A prepared corpus: the manifest that describes its shards."""

import dataclasses
import json
import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pydantic

from keras_distil.data.corpus import manifests
from keras_distil.data.corpus.lost_text import LostText
from keras_distil.data.corpus.manifests import FileCount, Section, Shard
from keras_distil.data.corpus.shards import (
    REMEDY,
    CorpusError,
    ShardedSequences,
)
from keras_distil.data.corpus.text_files import CorpusReport
from keras_distil.data.corpus.unknown import check_unknown
from keras_distil.utils import disk

# Increase it when an earlier keras_distil could not read what is written, or
# when the same sources would give other shards.
FORMAT_VERSION = 3
MANIFEST = "manifest.json"


@dataclasses.dataclass(frozen=True)
class PreparedCorpus:
    """Token ids on disk, ready for `masked_lm_dataset`.

    Attributes:
        train: the training sequences: one array-like if they are packed, a
            list with one entry per bucket if they are bucketed.
        held_out: the held-out sequences; may have no rows.
        token_counts: int64, (vocabulary,), occurrences of each token in the
            training paragraphs.
        fingerprint: sha256 over the shards and the settings.
        report: what was read and what was skipped.
        folder: the folder with the manifest and the shards.
    """

    train: ShardedSequences | list[ShardedSequences]
    held_out: ShardedSequences
    token_counts: np.ndarray
    fingerprint: str
    report: CorpusReport
    folder: Path

    @property
    def train_sequences(self) -> int:
        """Number of training sequences."""
        buckets = self.train if isinstance(self.train, list) else [self.train]
        return sum(map(len, buckets))


def check_text(report: CorpusReport, max_skipped_fraction: float) -> None:
    """Raises ValueError if too much was lost, or nothing is left to train on.

    Args:
        report: what was read.
        max_skipped_fraction: float, 0 to 1; this share or more is too much.
    """
    if not report.train_tokens and not report.held_out_tokens:
        raise ValueError(
            f"The corpus has no usable training paragraph ({report}). "
            f"{report.lost.explanation() or 'Check the sources.'}"
        )
    report.lost.check(max_skipped_fraction)
    check_unknown(
        report.unknown_tokens,
        report.tokens,
        "the corpus",
        token=report.unknown_token,
    )
    if report.train_tokens:
        return
    count = report.held_out_paragraphs
    what = (
        "The only paragraph of the corpus is"
        if count == 1
        else f"All {count:,} paragraphs of the corpus are"
    )
    raise ValueError(
        f"{what} held out by content, so there is no usable training "
        f"paragraph ({report}). Add text, or lower `held_out_fraction`."
    )


def make_manifest(
    settings: dict[str, Any],
    parts: dict[str, dict[str, Any]],
    token_counts: np.ndarray,
    report: CorpusReport,
    described: list[dict[str, Any]],
) -> dict[str, Any]:
    """Builds the manifest of a corpus.

    Args:
        settings: everything besides the text that the shards depend on.
        parts: for each name, "length" and "shards", a list of entries.
        token_counts: integers, (vocabulary,).
        report: what was read and skipped.
        described: descriptions of the sources.
    """
    body = {
        "format_version": FORMAT_VERSION,
        "settings": settings,
        "parts": parts,
        "token_counts": token_counts.tolist(),
        "report": report.to_json(),
        "sources": described,
    }
    content = {key: body[key] for key in ("settings", "parts", "token_counts")}
    body["fingerprint"] = disk.sha256(disk.canonical(content))
    return {**body, "sha256": disk.sha256(disk.canonical(body))}


def write_manifest(path: Path, manifest: dict[str, Any]) -> None:
    """Writes the manifest, which completes a corpus."""
    path.write_text(json.dumps(manifest, ensure_ascii=False), "utf-8")
    disk.flush(path)


def open_corpus(
    folder: str | os.PathLike,
    *,
    expected: dict[str, Any] | None = None,
    verify: bool = False,
) -> PreparedCorpus:
    """Opens a prepared corpus.

    The sizes of all shards are compared with the manifest. The hashes of the
    ArrayRecord format check the content as it is read; `verify` reads and
    checks everything now.

    Args:
        folder: holds the manifest and the shards.
        expected: settings that the corpus must have been prepared with.
        verify: whether to compare the sha256 of every shard as well.

    Returns:
        A `PreparedCorpus`.

    Raises:
        CorpusError: if the corpus is incomplete, damaged, of a later version
            or prepared with other settings.
    """
    folder = Path(folder).expanduser()
    manifest = _read_manifest(folder)
    _check_settings(folder, manifest.settings, expected or {})
    dtype = np.dtype(manifest.settings["dtype"])
    parts = {
        name: _open_part(folder, part, dtype, verify=verify)
        for name, part in manifest.parts.items()
    }
    held_out = parts.pop("held_out")
    return PreparedCorpus(
        parts.get("train", list(parts.values())),
        held_out,
        np.array(manifest.token_counts, np.int64),
        manifest.fingerprint,
        rebuild_report(manifest.report.model_dump(exclude_unset=True)),
        folder,
    )


class _Part(Section):
    length: Annotated[int, pydantic.Field(ge=3, lt=2**20)]
    shards: list[Shard]


def rebuild_report(values: dict[str, Any]) -> CorpusReport:
    """Rebuilds the report of a corpus from its manifest.

    Args:
        values: the manifest's report; corpora of earlier versions have no
            "lost".
    """
    values = {**values, "skipped": Counter(values["skipped"])}
    if "lost" in values:
        values["lost"] = LostText.from_json(values["lost"])
    return CorpusReport(**values)


class _Place(Section):
    source: str
    start: FileCount
    kind: str
    number: FileCount
    problem: str


class _Lost(Section):
    lines: FileCount
    bytes: FileCount
    lost_lines: FileCount
    lost_bytes: FileCount
    first: _Place | None
    tables: FileCount
    first_table: _Place | None


class _Report(Section):
    files: FileCount
    paragraphs: FileCount
    characters: FileCount
    held_out_paragraphs: FileCount
    train_tokens: FileCount
    held_out_tokens: FileCount
    unknown_tokens: FileCount
    skipped: dict[str, FileCount]
    # Absent from corpora of earlier versions.
    lost: _Lost | None = None
    # Absent if it is BERT's.
    unknown_token: str | None = None


class _Manifest(Section):
    format_version: int
    settings: dict[str, Any]
    parts: dict[str, _Part]
    token_counts: list[FileCount]
    report: _Report
    sources: list[dict[str, Any]]
    fingerprint: str
    sha256: str

    @pydantic.model_validator(mode="after")
    def _complete(self) -> "_Manifest":
        if not {"held_out"} < set(self.parts):
            raise ValueError("`parts` lacks held_out or training parts")
        if self.settings.get("dtype") not in ("uint16", "int32"):
            raise ValueError("`settings.dtype` is neither uint16 nor int32")
        return self


def _read_manifest(folder: Path) -> _Manifest:
    def check(content: dict[str, Any]) -> None:
        version = content.get("format_version")
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise CorpusError(
                f"The corpus in {folder} has format version {version}; this "
                f"keras_distil reads up to {FORMAT_VERSION}. Update "
                "keras_distil."
            )
        if version != FORMAT_VERSION:
            raise CorpusError(
                f"The corpus in {folder} has format version {version!r}; this "
                f"keras_distil reads {FORMAT_VERSION}. Prepare it again."
            )

    return manifests.read_manifest(
        folder / MANIFEST,
        _Manifest,
        missing=(
            f"{folder} does not hold a prepared corpus: {MANIFEST} is missing. "
            "Give the folder that `keras-distil prepare` wrote."
        ),
        check=check,
        remedy=REMEDY,
    )


def _check_settings(
    folder: Path, settings: dict[str, Any], expected: dict[str, Any]
) -> None:
    for key, value in expected.items():
        actual = settings.get(key)
        if actual == value:
            continue
        if key in ("tokenizer", "vocabulary"):
            raise CorpusError(
                f"The corpus in {folder} was prepared for another tokenizer "
                f"(its {key} has hash {str(actual)[:12]}, the teacher's "
                f"{value[:12]}). Prepare the text with this teacher's."
            )
        raise CorpusError(
            f"The corpus in {folder} was prepared with {key}={actual!r}, "
            f"but {value!r} was requested. Change one of them."
        )


def _open_part(
    folder: Path, part: _Part, dtype: np.dtype, *, verify: bool
) -> ShardedSequences:
    for shard in part.shards:
        manifests.check_shard(
            folder / shard.file, shard, remedy=REMEDY, verify=verify
        )
    return ShardedSequences(
        [folder / shard.file for shard in part.shards],
        [shard.sequences for shard in part.shards],
        length=part.length,
        dtype=dtype,
    )
