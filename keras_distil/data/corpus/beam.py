"""Corpus preparation as an Apache Beam pipeline.

For corpora that are too large for one machine. It writes the same shards, byte
for byte, as `prepare_corpus`: the same functions make units, parts and shards,
and their order is part of the data that goes through the pipeline.
"""

import dataclasses
import json
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from keras_distil.data.corpus import prepared_corpus, shards
from keras_distil.data.corpus.lost_text import (
    MAX_SKIPPED_FRACTION,
    check_max_fraction,
)
from keras_distil.data.corpus.text_files import CorpusReport, Source, Unit
from keras_distil.data.corpus.tokenized import (
    Part,
    add_to_report,
    held_out_flags,
    make_parts,
    tokenize_unit,
)
from keras_distil.data.special_tokens import SpecialTokens, unknown_token
from keras_distil.data.tokenize import Encoder
from keras_distil.data.vocabulary import vocabulary_size
from keras_distil.utils.extras import names_package

try:
    import apache_beam as beam
    from apache_beam.io import filesystems
    from apache_beam.options import pipeline_options
except ImportError as error:
    if not names_package(error, "apache_beam"):
        raise
    raise ImportError(
        "Preparing a corpus on Apache Beam needs the extra `beam`. Install it "
        "with: pip install 'keras-distil[beam]'."
    ) from error

_REPORTS = "reports"


@dataclasses.dataclass(frozen=True)
class _Paragraph:
    """A tokenized paragraph and its place in the corpus."""

    place: tuple[int, int]  # (unit, index within it)
    characters: int
    tokens: bytes


def prepare_with_beam(
    sources: Sequence[Source],
    tokenizer: tokenizers.Tokenizer,
    settings: dict[str, Any],
    *,
    output: str,
    max_skipped_fraction: float = MAX_SKIPPED_FRACTION,
    options: Sequence[str] = (),
) -> CorpusReport:
    """Prepares a corpus; the manifest, written last, completes it.

    Args:
        sources: text sources. Workers must find their files at the same paths.
        tokenizer: as returned by `load_tokenizer`.
        settings: as returned by `corpus_settings`.
        output: the corpus's folder, on a file system that Beam supports and
            all workers can reach.
        max_skipped_fraction: float, 0 to 1. A text is refused if this share
            or more of it cannot be read.
        options: pipeline options, in command-line form.

    Returns:
        What was read and skipped.

    Raises:
        ValueError: if `output` exists, the sources hold no usable training
            paragraph, or too much of them cannot be read.
    """
    check_max_fraction(max_skipped_fraction)
    files = filesystems.FileSystems
    if files.exists(files.join(output, prepared_corpus.MANIFEST)):
        raise ValueError(
            f"{output} already holds a corpus. Give another folder."
        )
    described = [source.describe() for source in sources]
    units = [unit for source in sources for unit in source.units()]
    job = _Job(tokenizer.to_str(), settings, output, max_skipped_fraction)
    with beam.Pipeline(
        options=pipeline_options.PipelineOptions(list(options))
    ) as pipeline:
        _build(pipeline, job, units, described)
    with files.open(files.join(output, prepared_corpus.MANIFEST)) as file:
        return prepared_corpus.rebuild_report(json.load(file)["report"])


@dataclasses.dataclass(frozen=True)
class _Job:
    """The settings that every worker receives."""

    tokenizer_json: str
    settings: dict[str, Any]
    output: str
    max_skipped_fraction: float

    @property
    def tokenizer(self) -> tokenizers.Tokenizer:
        """The tokenizer, built from its JSON."""
        return tokenizers.Tokenizer.from_str(self.tokenizer_json)

    @property
    def special(self) -> SpecialTokens:
        """The special tokens of the tokenizer."""
        return SpecialTokens.from_tokenizer(self.tokenizer)

    @property
    def dtype(self) -> np.dtype:
        """The data type of the token ids."""
        return np.dtype(self.settings["dtype"])

    @property
    def parts(self) -> dict[str, Part]:
        """The parts of the corpus, by name."""
        parts = make_parts(
            self.settings["layout"],
            self.settings["sequence_length"],
            self.special,
        )
        return {part.name: part for part in parts}


def _build(
    pipeline: beam.Pipeline,
    job: _Job,
    units: Sequence[Unit],
    described: list[dict[str, Any]],
) -> None:
    tokenized = (
        pipeline
        | "Units" >> beam.Create(list(enumerate(units)))
        | "Spread units" >> beam.Reshuffle()
        | "Tokenize"
        >> beam.ParDo(_Tokenize(job)).with_outputs(_REPORTS, main="paragraphs")
    )
    first = (
        tokenized.paragraphs
        | "By content" >> beam.GroupByKey()
        | "First of the same" >> beam.Map(_keep_first)
    )
    # The items of each unit and part, before they are assigned to shards.
    items = (
        first
        | "By unit" >> beam.GroupByKey()
        | "Items" >> beam.ParDo(_Items(job)).with_outputs(_REPORTS, main="all")
    )
    reports = (
        (tokenized[_REPORTS], items[_REPORTS])
        | "All reports" >> beam.Flatten()
        | "Add reports" >> beam.CombineGlobally(_add_reports)
        | "Name unknown" >> beam.Map(_name_unknown, job)
    )
    places = (
        items.all
        | "Sizes" >> beam.Map(lambda x: (x[0], len(x[1])))
        | "All sizes" >> beam.combiners.ToList()
        | "Places" >> beam.Map(_places, job, beam.pvalue.AsSingleton(reports))
    )
    written = (
        items.all
        | "Cut" >> beam.FlatMap(_cut, job, beam.pvalue.AsSingleton(places))
        | "By shard" >> beam.GroupByKey()
        | "Write" >> beam.Map(_write, job, beam.pvalue.AsSingleton(places))
    )
    (
        pipeline
        | "Once" >> beam.Create([None])
        | "Manifest"
        >> beam.Map(
            _write_manifest,
            job,
            described,
            beam.pvalue.AsList(written),
            beam.pvalue.AsSingleton(reports),
        )
    )


class _Tokenize(beam.DoFn):
    """Turns a unit into (digest, paragraph) pairs and a report."""

    def __init__(self, job: _Job) -> None:
        self._job = job

    def setup(self) -> None:
        """Creates the encoder, once per worker."""
        # Beam already runs one worker per core.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        self._encoder = Encoder(
            tokenizers.Tokenizer.from_str(self._job.tokenizer_json)
        )

    # Beam checks annotations, but cannot check a protocol.
    def process(self, element: tuple[int, Any]) -> Iterator[Any]:
        """Yields the unit's paragraphs, then its report."""
        number, unit = element
        unit_tokens = tokenize_unit(unit, self._encoder)
        ends = np.cumsum([0, *unit_tokens.lengths])
        for index, digest in enumerate(unit_tokens.digests.tolist()):
            tokens = unit_tokens.tokens[ends[index] : ends[index + 1]]
            yield (
                # Beam's integers are signed.
                digest.to_bytes(8, "big"),
                _Paragraph(
                    (number, index),
                    int(unit_tokens.characters[index]),
                    tokens.tobytes(),
                ),
            )
        yield beam.pvalue.TaggedOutput(_REPORTS, unit_tokens.report)


def _keep_first(
    group: tuple[bytes, Iterable[_Paragraph]],
) -> tuple[int, tuple[bytes, int, _Paragraph]]:
    """Keeps the first copy, as (unit, (digest, repeats, paragraph))."""
    digest, paragraphs = group
    listed = sorted(paragraphs, key=lambda p: p.place)
    return listed[0].place[0], (digest, len(listed) - 1, listed[0])


class _Items(beam.DoFn):
    """Turns a unit's paragraphs into ((part, unit), items) and a report."""

    def __init__(self, job: _Job) -> None:
        self._job = job

    def process(
        self, group: tuple[int, Iterable[tuple[bytes, int, _Paragraph]]]
    ) -> Iterator[Any]:
        """Yields the items for each part that has any."""
        unit, entries = group
        unknown_id = self._job.special.unknown_id
        listed = sorted(entries, key=lambda entry: entry[2].place)
        dtype = self._job.dtype
        tokens = [np.frombuffer(p.tokens, dtype) for _, _, p in listed]
        lengths = np.array([len(t) for t in tokens], np.int32)
        held_out = held_out_flags(
            np.array(
                [int.from_bytes(digest, "big") for digest, _, _ in listed],
                np.uint64,
            ),
            self._job.settings["held_out_fraction"],
        )
        for name, part in self._job.parts.items():
            selected = np.flatnonzero(held_out == part.held_out)
            chosen = np.concatenate(
                [np.empty(0, dtype), *(tokens[i] for i in selected)]
            )
            items = part.items(chosen, lengths[selected])
            if len(items):
                yield (name, unit), items
        report = CorpusReport()
        add_to_report(
            report,
            {"files": 0, "skipped": {}},
            lengths,
            np.array([p.characters for _, _, p in listed], np.int64),
            np.array(
                [np.count_nonzero(t == unknown_id) for t in tokens], np.int64
            ),
            np.ones(len(listed), bool),
            held_out,
        )
        repeats = sum(count for _, count, _ in listed)
        if repeats:
            report.skipped["repeated paragraph"] += repeats
        yield beam.pvalue.TaggedOutput(_REPORTS, report)


@dataclasses.dataclass(frozen=True)
class _Places:
    """Where each (part, unit) starts, and the item count of each part."""

    starts: dict[tuple[str, int], int]
    totals: dict[str, int]


def _places(
    sizes: list[tuple[tuple[str, int], int]], job: _Job, report: CorpusReport
) -> _Places:
    """Finds the places, or refuses the corpus before a shard is written."""
    prepared_corpus.check_text(report, job.max_skipped_fraction)
    starts: dict[tuple[str, int], int] = {}
    totals: dict[str, int] = {}
    for (name, unit), size in sorted(sizes):
        starts[name, unit] = totals.get(name, 0)
        totals[name] = starts[name, unit] + size
    return _Places(starts, totals)


def _cut(
    element: tuple[tuple[str, int], Any], job: _Job, places: _Places
) -> Iterator[Any]:
    """Yields ((part, shard), (unit, items)), one piece per shard."""
    (name, unit), items = element
    part = job.parts[name]
    start = places.starts[name, unit]
    used = part.used_items(places.totals[name])
    items = items[: max(used - start, 0)]
    done = 0
    while done < len(items):
        shard, place = divmod(start + done, part.items_per_shard)
        piece = items[done : done + part.items_per_shard - place]
        yield (name, shard), (unit, piece)
        done += len(piece)


def _write(
    group: tuple[tuple[str, int], Iterable[Any]], job: _Job, places: _Places
) -> tuple[tuple[str, int], dict[str, Any], np.ndarray]:
    """Writes a shard; returns its key, manifest entry and token counts."""
    (name, number), pieces = group
    part = job.parts[name]
    items = np.concatenate(
        [piece for _, piece in sorted(pieces, key=lambda entry: entry[0])]
    )
    sequences = part.sequences(items)
    used = part.used_items(places.totals[name])
    count = -(-used // part.items_per_shard)
    file = shards.shard_name(name, number, count)
    with tempfile.TemporaryDirectory() as scratch:
        entry = shards.write_shard(Path(scratch) / file, sequences)
        _publish(Path(scratch) / file, job.output)
    counts = shards.token_counts(part, sequences)
    return (name, number), entry, counts


def _publish(path: Path, output: str) -> None:
    """Copies a file to the output folder, atomically."""
    files = filesystems.FileSystems
    if not files.exists(output):
        try:
            files.mkdirs(output)
        except OSError:
            if not files.exists(output):  # Another worker was faster.
                raise
    partial = files.join(output, f".{uuid.uuid4().hex}.partial")
    with files.create(partial) as target, path.open("rb") as source:
        while block := source.read(2**22):
            target.write(block)
    files.rename([partial], [files.join(output, path.name)])


def _add_reports(reports: Iterable[CorpusReport]) -> CorpusReport:
    total = CorpusReport()
    for report in reports:
        for field in dataclasses.fields(report):
            if field.name == "skipped":
                total.skipped.update(report.skipped)
            elif field.name == "lost":
                total.lost.add(report.lost)
            elif field.name != "unknown_token":
                value = getattr(total, field.name)
                value += getattr(report, field.name)
                setattr(total, field.name, value)
    return total


def _name_unknown(report: CorpusReport, job: _Job) -> CorpusReport:
    token = unknown_token(job.tokenizer)
    return dataclasses.replace(report, unknown_token=token)


def _write_manifest(
    _: None,
    job: _Job,
    described: list[dict[str, Any]],
    written: list[tuple[tuple[str, int], dict[str, Any], np.ndarray]],
    report: CorpusReport,
) -> None:
    written = sorted(written, key=lambda entry: entry[0])
    parts = {
        name: {
            "length": part.length,
            "shards": [entry for key, entry, _ in written if key[0] == name],
        }
        for name, part in job.parts.items()
    }
    size = vocabulary_size(job.tokenizer)
    counts = shards.total_counts((c for _, _, c in written), size, job.special)
    manifest = prepared_corpus.make_manifest(
        job.settings, parts, counts, report, described
    )
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / prepared_corpus.MANIFEST
        prepared_corpus.write_manifest(path, manifest)
        _publish(path, job.output)
