"""Corpus preparation on one machine, from text to shards of token ids.

Units of text are tokenized in parallel into scratch files; repeated
paragraphs are marked; shards are written in parallel. Every file is written
atomically, so an interrupted preparation continues where it stopped. The
shards do not depend on which process did what.
"""

import dataclasses
import itertools
import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from keras_distil.data.corpus import prepared_corpus, shards
from keras_distil.data.corpus.lost_text import (
    MAX_SKIPPED_FRACTION,
    check_max_fraction,
)
from keras_distil.data.corpus.pack import packed_count
from keras_distil.data.corpus.pool import Pool, get_encoder
from keras_distil.data.corpus.prepared_corpus import PreparedCorpus, open_corpus
from keras_distil.data.corpus.scratch import (
    Table,
    is_whole,
    mark_repeats,
    measure,
    select_paragraphs,
    write_unit,
)
from keras_distil.data.corpus.shards import CorpusError
from keras_distil.data.corpus.split import check_fraction
from keras_distil.data.corpus.text_files import Source, Unit
from keras_distil.data.corpus.tokenized import Part, make_parts, tokenize_unit
from keras_distil.data.special_tokens import SpecialTokens, unknown_token
from keras_distil.data.tokenize import token_dtype
from keras_distil.data.vocabulary import vocabulary_hash, vocabulary_size
from keras_distil.utils import disk

_log = logging.getLogger(__name__)


def corpus_settings(
    tokenizer: tokenizers.Tokenizer,
    *,
    sequence_length: int,
    held_out_fraction: float,
    layout: str = "packed",
) -> dict[str, Any]:
    """Returns the settings that shards depend on, for their manifest.

    Raises:
        ValueError: if an argument is out of range.
    """
    check_fraction(held_out_fraction)
    packed_count(0, sequence_length)
    make_parts(layout, sequence_length, SpecialTokens.from_tokenizer(tokenizer))
    size = vocabulary_size(tokenizer)
    return {
        "vocabulary": vocabulary_hash(tokenizer),
        # Equal vocabularies may still be split or lower-cased differently.
        "tokenizer": disk.sha256(tokenizer.to_str().encode()),
        "dtype": token_dtype(size).name,
        "sequence_length": sequence_length,
        "held_out_fraction": held_out_fraction,
        "layout": layout,
    }


def prepare_corpus(
    sources: Sequence[Source],
    tokenizer: tokenizers.Tokenizer,
    *,
    sequence_length: int,
    held_out_fraction: float = 0.05,
    cache_dir: str | os.PathLike | None = None,
    output: str | os.PathLike | None = None,
    layout: str = "packed",
    max_skipped_fraction: float = MAX_SKIPPED_FRACTION,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
    warn: Callable[[str], None] = _log.warning,
    verify: bool = False,
) -> PreparedCorpus:
    """Reads, splits, tokenizes and packs a corpus, or opens a finished one.

    Every distinct paragraph is either trained on or held out, depending on
    its content (see `is_held_out`). Each process holds one unit of text and
    one shard in memory, whatever the size of the corpus. A finished corpus is
    reused as long as sources, tokenizer and settings are unchanged. An
    interrupted preparation continues where it stopped.

    Args:
        sources: such as `TextFiles` and `InstalledDocumentation`.
        tokenizer: as returned by `load_tokenizer`.
        sequence_length: int >= 3, tokens per sequence.
        held_out_fraction: float in [0, 1), expected share of paragraphs to
            hold out. Defaults to 0.05.
        cache_dir: folder for corpora that are named by their content; created
            if missing.
        output: a folder for this corpus alone, instead of `cache_dir`.
        layout: "packed", paragraphs joined and cut to full sequences, or
            "bucketed", one sequence per paragraph, grouped by similar length.
        max_skipped_fraction: float, 0 to 1. A text is refused if this share
            or more of it cannot be read; from 1% on there is a warning.
        workers: int >= 1, processes to use. With more than one, a script
            must guard its start with `if __name__ == "__main__":`.
        progress: called now and then with the steps done and their total.
        warn: called with one line for each oddity of the text.
        verify: whether to compare the sha256 of an existing corpus, and
            prepare it again if it is damaged.

    Returns:
        A `PreparedCorpus`.

    Raises:
        CorpusError: if `output` holds another corpus.
        FileNotFoundError: if a source matches no file.
        OSError: if the disk is full or may not be written.
        TypeError: if `sources` is not a list of sources.
        ValueError: if the sources hold no usable training paragraph, too much
            of them cannot be read, half of their tokens are unknown, or an
            argument is out of range.
    """
    _check_sources(sources)
    check_max_fraction(max_skipped_fraction)
    if workers < 1:
        raise ValueError(
            f"`workers` must be at least 1. Received: workers={workers}."
        )
    settings = corpus_settings(
        tokenizer,
        sequence_length=sequence_length,
        held_out_fraction=held_out_fraction,
        layout=layout,
    )
    described = [source.describe() for source in sources]
    key = disk.sha256(
        disk.canonical(
            [described, settings, prepared_corpus.FORMAT_VERSION],
        )
    )
    folder = disk.choose_folder(cache_dir, output, key)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # If several processes need the same corpus, one of them prepares it.
    lock = folder.with_name(f".{folder.name}.lock")
    with disk.locked(lock, "prepares this corpus"):
        corpus = _find(
            folder, settings, described, verify=verify, ours=output is None
        )
        if corpus is not None:
            corpus.report.lost.check(max_skipped_fraction)
            _warn(corpus, warn)
            return corpus
        scratch = folder.with_name(f".{folder.name}.{key[:16]}.partial")
        job = _Job(
            scratch,
            tokenizer,
            settings,
            max_skipped_fraction,
            workers,
            progress,
        )
        job.run(list(itertools.chain(*(s.units() for s in sources))), described)
        os.replace(job.shard_folder, folder)
        shutil.rmtree(scratch, ignore_errors=True)
    corpus = open_corpus(folder)
    _warn(corpus, warn)
    return corpus


def _check_sources(sources: Sequence[Source]) -> None:
    """Refuses a single source, and names of files in place of sources."""
    if not isinstance(sources, Sequence) or not all(
        hasattr(source, "units") for source in sources
    ):
        raise TypeError(
            "`sources` must be a list of sources, such as "
            "[data.TextFiles('notes.txt')]. "
            f"Received: sources={sources!r:.80}."
        )


def _warn(corpus: PreparedCorpus, warn: Callable[[str], None]) -> None:
    for line in corpus.report.warnings():
        warn(line)


def _find(
    folder: Path,
    settings: dict[str, Any],
    described: list[dict[str, Any]],
    *,
    verify: bool,
    ours: bool,
) -> PreparedCorpus | None:
    """Opens the corpus in `folder`; None if it has to be prepared."""
    if not folder.exists():
        return None
    if not ours and not (folder / prepared_corpus.MANIFEST).is_file():
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
            return None
        raise CorpusError(
            f"{folder} holds files but no prepared corpus. Give another folder."
        )
    try:
        corpus = open_corpus(folder, expected=settings, verify=verify)
    except CorpusError as error:
        if not ours:
            raise
        _log.warning("Preparing the corpus again: %s", error)
        shutil.rmtree(folder)
        return None
    if not ours:
        manifest = json.loads(
            (folder / prepared_corpus.MANIFEST).read_text("utf-8")
        )
        if manifest["sources"] != described:
            raise CorpusError(
                f"{folder} holds a corpus of other sources, or the sources "
                "have changed since. Give another folder."
            )
    return corpus


class _Job:
    """The preparation of one corpus in a scratch folder."""

    def __init__(
        self,
        scratch: Path,
        tokenizer: tokenizers.Tokenizer,
        settings: dict[str, Any],
        max_skipped_fraction: float,
        workers: int,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.shard_folder = scratch / "shards"
        self._units = scratch / "units"
        self._tokenizer = tokenizer
        self._settings = settings
        self._max_skipped_fraction = max_skipped_fraction
        self._special = SpecialTokens.from_tokenizer(tokenizer)
        self._workers = workers
        self._progress = progress

    def run(
        self, units: Sequence[Unit], described: list[dict[str, Any]]
    ) -> None:
        """Writes the finished corpus to `shard_folder`."""
        for folder in (self._units, self.shard_folder):
            folder.mkdir(parents=True, exist_ok=True)
        parts = make_parts(
            self._settings["layout"],
            self._settings["sequence_length"],
            self._special,
        )
        paths = [
            self._units / f"{number:06d}.safetensors"
            for number in range(len(units))
        ]
        with Pool(self._workers, self._tokenizer) as pool:
            self._tokenize(pool, units, paths)
            mark_repeats(paths)
            table = measure(paths, parts, self._settings["held_out_fraction"])
            table.report.unknown_token = unknown_token(self._tokenizer)
            prepared_corpus.check_text(table.report, self._max_skipped_fraction)
            report = table.report
            tasks = self._shard_tasks(paths, parts, table)
            entries, counts = self._write_shards(pool, len(units), tasks)
        manifest = prepared_corpus.make_manifest(
            self._settings,
            {
                part.name: {
                    "length": part.length,
                    "shards": [
                        entry
                        for task, entry in zip(tasks, entries, strict=True)
                        if task.part.name == part.name
                    ],
                }
                for part in parts
            },
            counts,
            report,
            described,
        )
        prepared_corpus.write_manifest(
            self.shard_folder / prepared_corpus.MANIFEST, manifest
        )
        for sidecar in self.shard_folder.glob("*.done"):
            sidecar.unlink()

    def _tokenize(
        self, pool: "Pool", units: Sequence[Unit], paths: Sequence[Path]
    ) -> None:
        todo = [
            (unit, path)
            for unit, path in zip(units, paths, strict=True)
            if not is_whole(path)
        ]
        done = len(units) - len(todo)
        for _ in pool.map(_tokenize_to, todo):
            done += 1
            self._report_progress(done, 2 * len(units))

    def _shard_tasks(
        self, paths: Sequence[Path], parts: Sequence[Part], table: "Table"
    ) -> list["_ShardTask"]:
        tasks = []
        for part in parts:
            ends = np.cumsum([0, *table.items[part.name]])
            used = part.used_items(int(ends[-1]))
            count = -(-used // part.items_per_shard)
            for number in range(count):
                start = number * part.items_per_shard
                end = min(start + part.items_per_shard, used)
                first = int(np.searchsorted(ends, start, side="right")) - 1
                last = int(np.searchsorted(ends, end, side="left"))
                tasks.append(
                    _ShardTask(
                        part,
                        self.shard_folder
                        / shards.shard_name(part.name, number, count),
                        tuple(map(str, paths[first:last])),
                        start - int(ends[first]),
                        end - start,
                        self._settings["held_out_fraction"],
                    )
                )
        return tasks

    def _write_shards(
        self, pool: "Pool", units: int, tasks: Sequence["_ShardTask"]
    ) -> tuple[list[dict[str, Any]], np.ndarray]:
        entries, counts = [], []
        for done, (entry, counted) in enumerate(pool.map(_write, tasks), 1):
            entries.append(entry)
            counts.append(counted)
            self._report_progress(units + units * done // len(tasks), 2 * units)
        size = vocabulary_size(self._tokenizer)
        return entries, shards.total_counts(counts, size, self._special)

    def _report_progress(self, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(done, total)


# === Tasks of the pool's processes ===


def _tokenize_to(task: tuple[Unit, Path]) -> None:
    unit, path = task
    write_unit(path, tokenize_unit(unit, get_encoder()))


@dataclasses.dataclass(frozen=True)
class _ShardTask:
    """A shard to write: `size` items after the first `skip` of its units."""

    part: Part
    path: Path
    units: tuple[str, ...]
    skip: int
    size: int
    held_out_fraction: float


def _write(task: _ShardTask) -> tuple[dict[str, Any], np.ndarray]:
    """Writes a shard; returns its entry and the counts of its tokens.

    Held-out tokens are not counted.
    """
    sidecar = task.path.with_suffix(".done")
    done = _read_sidecar(sidecar, task.path)
    if done is not None:
        return done
    part = task.part
    pieces, missing = [], task.skip + task.size
    for name in task.units:
        tokens, lengths = select_paragraphs(
            Path(name), part, task.held_out_fraction
        )
        items = part.items(tokens, lengths)[:missing]
        pieces.append(items)
        missing -= len(items)
    joined = np.concatenate(pieces)
    # A shard is the largest thing in memory: free copies early.
    del pieces, items
    sequences = part.sequences(joined[task.skip :])
    del joined
    entry = shards.write_shard(task.path, sequences)
    counts = shards.token_counts(part, sequences)
    text = json.dumps({"entry": entry, "counts": counts.tolist()})
    sidecar.write_text(text, "utf-8")
    return entry, counts


def _read_sidecar(
    sidecar: Path, shard: Path
) -> tuple[dict[str, Any], np.ndarray] | None:
    try:
        done = json.loads(sidecar.read_text("utf-8"))
        if disk.file_sha256(shard) != done["entry"]["sha256"]:
            return None
        return done["entry"], np.array(done["counts"], np.int64)
    except (OSError, ValueError, KeyError, TypeError):
        return None
