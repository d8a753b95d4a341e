"""Whole texts on disk, without repeats: what embeddings are learned from."""

import array
import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias, overload

import numpy as np
import pydantic

from keras_distil.data.corpus import manifests
from keras_distil.data.corpus.lost_text import check_max_fraction
from keras_distil.data.corpus.manifests import FileCount, Section
from keras_distil.data.corpus.prepared_corpus import rebuild_report
from keras_distil.data.corpus.sentences import split_sentences
from keras_distil.data.corpus.shards import CorpusError
from keras_distil.data.corpus.split import (
    check_fraction,
    content_digest,
    digest_is_held_out,
)
from keras_distil.data.corpus.text_files import CorpusReport, Source
from keras_distil.utils import disk

# Increase it when an earlier keras_distil could not read what is written, or
# when the same sources would give other texts.
FORMAT_VERSION = 1
TextKind: TypeAlias = Literal["paragraphs", "sentences", "both"]
_MANIFEST = "texts.json"
_REMEDY = "Remove the folder, and the same command makes it again."
_PARTS = ("train", "held_out")


class StoredTexts(Sequence[str]):
    """Texts in a file, read by their numbers.

    Args:
        path: the file of their UTF-8 bytes.
        ends: int64, (texts,), where each ends in it.
        begins: int64, (texts,), where each begins; None if that is where the
            one before it ends.
    """

    def __init__(
        self, path: Path, ends: np.ndarray, begins: np.ndarray | None = None
    ) -> None:
        self._path = path
        self._ends = ends
        if begins is None:
            begins = np.concatenate([[0], ends[:-1]])
        self._begins = begins
        self._bytes = (
            np.memmap(path, np.uint8, "r") if len(ends) else np.zeros(0, "u1")
        )

    def __len__(self) -> int:
        """Number of texts."""
        return len(self._ends)

    @overload
    def __getitem__(self, number: int) -> str: ...

    @overload
    def __getitem__(self, number: slice) -> list[str]: ...

    def __getitem__(self, number: int | slice) -> str | list[str]:
        """Reads a text, or several."""
        if isinstance(number, slice):
            return [self[place] for place in range(*number.indices(len(self)))]
        place = range(len(self))[number]
        content = self._bytes[self._begins[place] : self._ends[place]]
        return content.tobytes().decode()

    def spaced(self, count: int | None) -> "StoredTexts":
        """Returns some of the texts, evenly spaced.

        Args:
            count: int >= 1, texts; all of them for None, or if there are fewer.
        """
        if count is None or count >= len(self):
            return self
        chosen = np.arange(count) * len(self) // count
        return StoredTexts(self._path, self._ends[chosen], self._begins[chosen])


@dataclasses.dataclass(frozen=True)
class TextCorpus:
    """Texts without repeats, of which some are held out.

    Attributes:
        train: the training texts.
        held_out: the held-out texts; may be none.
        fingerprint: sha256 over the texts.
        report: what was read and what was skipped; it counts texts as
            paragraphs, and no tokens.
        folder: the folder with the files.
    """

    train: StoredTexts
    held_out: StoredTexts
    fingerprint: str
    report: CorpusReport
    folder: Path

    def __str__(self) -> str:
        """Returns the counts in one line."""
        skipped = ", ".join(
            f"{reason}: {count:,}"
            for reason, count in sorted(self.report.skipped.items())
        )
        return (
            f"{len(self.train):,} texts to train on, {len(self.held_out):,} "
            f"held out, from {self.report.files:,} files; skipped: "
            f"{skipped or 'nothing'}"
        )


def prepare_texts(
    sources: Sequence[Source],
    *,
    kind: TextKind,
    held_out_fraction: float,
    max_skipped_fraction: float,
    cache_dir: str | os.PathLike,
    progress: Callable[[int, int], None] | None = None,
) -> TextCorpus:
    """Reads and splits texts, or opens those that were read before.

    A paragraph is held out by its content alone (see `is_held_out`), and its
    sentences with it. Of equal texts one is kept; it is held out if any of
    them is, so no held-out text is trained on.

    Args:
        sources: such as `TextFiles` and `InstalledDocumentation`.
        kind: what a text is: a paragraph, a sentence, or both.
        held_out_fraction: float in [0, 1), expected share of paragraphs to
            hold out.
        max_skipped_fraction: float, 0 to 1. Text is refused if this share or
            more of it cannot be read.
        cache_dir: folder for texts, which are named by their sources.
        progress: called with the number of units done and their total.

    Raises:
        FileNotFoundError: if a source matches no file.
        OSError: if the disk is full or may not be written.
        ValueError: if there is no text to train on, or too much of it cannot
            be read.
    """
    check_fraction(held_out_fraction)
    check_max_fraction(max_skipped_fraction)
    settings = {
        "kind": kind,
        "held_out_fraction": held_out_fraction,
        "sources": [source.describe() for source in sources],
    }
    key = disk.sha256(disk.canonical([FORMAT_VERSION, settings]))
    folder = disk.choose_folder(cache_dir, None, key)
    with disk.writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f".{folder.name}.lock")
    with disk.locked(lock, "reads these texts"):
        if not folder.exists():
            scratch = folder.with_name(f".{folder.name}.partial")
            with disk.writing(folder):
                shutil.rmtree(scratch, ignore_errors=True)
                scratch.mkdir()
                _write(scratch, sources, settings, progress)
                os.replace(scratch, folder)
    corpus = _open(folder)
    corpus.report.lost.check(max_skipped_fraction)
    _check_text(corpus)
    return corpus


def _check_text(corpus: TextCorpus) -> None:
    if len(corpus.train):
        return
    why = corpus.report.lost.explanation() or "Check the sources."
    if len(corpus.held_out):
        why = "Add text, or lower `held_out_fraction`."
    raise ValueError(f"There is no text to train on ({corpus}). {why}")


def _texts_of(paragraph: str, kind: TextKind) -> Iterator[str]:
    if kind != "sentences":
        yield paragraph
    if kind != "paragraphs":
        sentences = list(split_sentences(paragraph))
        # A paragraph of one sentence is there already.
        if kind == "sentences" or len(sentences) > 1:
            yield from sentences


class _Gathered:
    """All texts of some sources, with their digests, in a file.

    Attributes:
        report: counts of what was read.
    """

    def __init__(self, path: Path, kind: TextKind, fraction: float) -> None:
        self.report = CorpusReport()
        self._path = path
        self._kind = kind
        self._fraction = fraction
        self._sizes = array.array("q")
        self._digests = array.array("Q")
        self._flags = array.array("b")

    def read(
        self,
        sources: Sequence[Source],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        """Reads all units of the sources."""
        units = [unit for source in sources for unit in source.units()]
        with self._path.open("wb") as file:
            for number, unit in enumerate(units, 1):
                for paragraph in unit.paragraphs(self.report):
                    self._add(paragraph, file)
                if progress is not None:
                    progress(number, len(units))

    def _add(self, paragraph: str, file: IO[bytes]) -> None:
        held_out = digest_is_held_out(content_digest(paragraph), self._fraction)
        for text in _texts_of(paragraph, self._kind):
            if not any(map(str.isalnum, text)):
                self.report.skipped["text without a letter or digit"] += 1
                continue
            # JSON can encode half a character.
            content = text.encode("utf-8", "replace")
            file.write(content)
            self._sizes.append(len(content))
            self._digests.append(content_digest(text))
            self._flags.append(held_out)

    def write(self, folder: Path) -> dict[str, np.ndarray]:
        """Writes each part's texts; returns where they end, by part."""
        digests = np.frombuffer(self._digests, np.uint64)
        flags = np.frombuffer(self._flags, np.int8).astype(bool)
        _, first, which = np.unique(
            digests, return_index=True, return_inverse=True
        )
        held_out = np.zeros(len(first), bool)
        np.logical_or.at(held_out, which, flags)
        repeats = len(digests) - len(first)
        if repeats:
            self.report.skipped["repeated text"] += repeats
        self.report.paragraphs = len(first)
        self.report.held_out_paragraphs = int(held_out.sum())
        ends = np.cumsum(np.frombuffer(self._sizes, np.int64))
        texts = StoredTexts(self._path, ends)
        found = {}
        for part, chosen in zip(_PARTS, (~held_out, held_out), strict=True):
            found[part] = self._copy(
                texts, np.sort(first[chosen]), folder / f"{part}.txt"
            )
        return found

    def _copy(
        self, texts: StoredTexts, numbers: np.ndarray, path: Path
    ) -> np.ndarray:
        sizes = []
        with path.open("wb") as file:
            for number in numbers.tolist():
                text = texts[number]
                self.report.characters += len(text)
                sizes.append(file.write(text.encode()))
            file.flush()
            os.fsync(file.fileno())
        return np.cumsum(sizes, dtype=np.int64)


def _write(
    folder: Path,
    sources: Sequence[Source],
    settings: dict[str, Any],
    progress: Callable[[int, int], None] | None,
) -> None:
    gathered = _Gathered(
        folder / "all", settings["kind"], settings["held_out_fraction"]
    )
    gathered.read(sources, progress)
    parts = {}
    for part, ends in gathered.write(folder).items():
        np.save(folder / f"{part}.npy", ends)
        parts[part] = {
            "texts": len(ends),
            "sha256": disk.file_sha256(folder / f"{part}.txt"),
            "ends_sha256": disk.file_sha256(folder / f"{part}.npy"),
        }
    (folder / "all").unlink()
    body = {
        "format_version": FORMAT_VERSION,
        "settings": settings,
        "parts": parts,
        "report": gathered.report.to_json(),
    }
    content = {**body, "sha256": disk.sha256(disk.canonical(body))}
    (folder / _MANIFEST).write_text(json.dumps(content), "utf-8")
    disk.flush(folder / _MANIFEST)


class _Part(Section):
    texts: FileCount
    sha256: str
    ends_sha256: str


class _Manifest(Section):
    format_version: int
    settings: dict[str, Any]
    parts: dict[Literal["train", "held_out"], _Part]
    report: dict[str, Any]
    sha256: str

    @pydantic.model_validator(mode="after")
    def _complete(self) -> "_Manifest":
        if set(self.parts) != set(_PARTS):
            raise ValueError("`parts` must be train and held_out")
        return self


def _open(folder: Path) -> TextCorpus:
    """Opens texts, after comparing their checksums.

    Raises:
        CorpusError: if they are damaged.
    """
    manifest = manifests.read_manifest(
        folder / _MANIFEST,
        _Manifest,
        missing=f"{folder} is damaged: {_MANIFEST} is missing. {_REMEDY}",
        check=lambda content: None,
        remedy=_REMEDY,
    )
    found = {}
    for name, part in manifest.parts.items():
        path = folder / f"{name}.txt"
        for file, wanted in (
            (path, part.sha256),
            (path.with_suffix(".npy"), part.ends_sha256),
        ):
            if not file.is_file() or disk.file_sha256(file) != wanted:
                raise CorpusError(f"{file} is missing or damaged. {_REMEDY}")
        ends = np.load(path.with_suffix(".npy"), allow_pickle=False)
        found[name] = StoredTexts(path, ends)
    content = [part.model_dump() for part in manifest.parts.values()]
    return TextCorpus(
        found["train"],
        found["held_out"],
        disk.sha256(disk.canonical(content)),
        rebuild_report(manifest.report),
        folder,
    )
