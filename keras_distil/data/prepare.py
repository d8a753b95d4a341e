"""A corpus, from its sources to cached arrays of packed token ids."""

import dataclasses
import hashlib
import json
import logging
import os
import shutil
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from keras_distil.data.corpus import CorpusReport, Source, unique_paragraphs
from keras_distil.data.pack import pack_stream, packed_count
from keras_distil.data.split import check_fraction, digest_is_held_out
from keras_distil.data.tokenize import (
    SpecialTokens,
    encode_paragraphs,
    token_dtype,
    vocabulary_hash,
)

_log = logging.getLogger(__name__)

# Raise it whenever the same sources would give other arrays.
_FORMAT_VERSION = 1
_ARRAYS = ("train", "held_out", "token_counts")
_PROGRESS_EVERY = 1000  # paragraphs


@dataclasses.dataclass(frozen=True)
class PreparedCorpus:
    """Packed token ids, ready for `masked_lm_dataset`.

    Attributes:
        train: uint16 or int32, (sequences, length), memory-mapped.
        held_out: the same of the held-out paragraphs; may have no rows.
        token_counts: int64, (vocabulary,), occurrences of each token in the
            training paragraphs.
        fingerprint: sha256 over the arrays and the settings.
        report: what was read and what was skipped.
    """

    train: np.ndarray
    held_out: np.ndarray
    token_counts: np.ndarray
    fingerprint: str
    report: CorpusReport


class _CacheError(Exception):
    """A cached corpus is incomplete or damaged."""


def prepare_corpus(
    sources: Sequence[Source],
    tokenizer: tokenizers.Tokenizer,
    *,
    sequence_length: int,
    held_out_fraction: float,
    cache_dir: str | os.PathLike,
    progress: Callable[[int], None] | None = None,
) -> PreparedCorpus:
    """Reads, splits, tokenizes and packs a corpus, or finds it done.

    Every distinct paragraph is either trained on or held out, by its content
    (see `is_held_out`). Tokens are streamed to disk, so that memory holds
    only 8 bytes a paragraph and the current batch. The result is kept under
    `cache_dir` and found again as long as sources, tokenizer and settings are
    unchanged; checksums are verified, and a damaged copy is made anew.

    Args:
        sources: such as `TextFiles` and `InstalledDocumentation`.
        tokenizer: as `load_tokenizer` returns it.
        sequence_length: int >= 3, tokens a sequence.
        held_out_fraction: float in [0, 1), share of paragraphs to hold out.
        cache_dir: folder for prepared corpora; made if missing.
        progress: called now and then with the number of paragraphs done.

    Returns:
        A `PreparedCorpus`.

    Raises:
        FileNotFoundError: if a source matches no file.
        ValueError: if the sources hold no usable training paragraph, or an
            argument is out of range.
    """
    check_fraction(held_out_fraction)
    packed_count(0, sequence_length)
    settings = {
        "format_version": _FORMAT_VERSION,
        "vocabulary": vocabulary_hash(tokenizer),
        # Equal vocabularies may still be split or lower-cased differently.
        "tokenizer": _sha256(tokenizer.to_str().encode()),
        "sequence_length": sequence_length,
        "held_out_fraction": held_out_fraction,
    }
    described = [source.describe() for source in sources]
    key = _sha256(_json({"sources": described, **settings}).encode())
    folder = Path(cache_dir).expanduser() / key[:32]
    if folder.exists():
        try:
            return _load(folder)
        except _CacheError as error:
            _log.warning("Preparing the corpus again: %s", error)
            shutil.rmtree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = folder.parent / f".tmp-{uuid.uuid4().hex}"
    scratch.mkdir()
    try:
        report = _write_streams(
            scratch, sources, tokenizer, held_out_fraction, progress
        )
        _write_arrays(scratch, tokenizer, sequence_length)
        _write_manifest(scratch, settings, described, report)
        _publish(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return _load(folder)


class _Stream:
    """The tokens of one part of the corpus, joined with [SEP], on disk."""

    def __init__(self, path: Path, separator: bytes):
        self._file = open(path, "wb")
        self._separator = separator
        self.paragraphs = 0
        self.tokens = 0

    def __enter__(self) -> "_Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, ids: np.ndarray) -> None:
        if self.paragraphs:
            self._file.write(self._separator)
        self._file.write(ids.tobytes())
        self.paragraphs += 1
        self.tokens += len(ids)


def _write_streams(
    scratch: Path,
    sources: Sequence[Source],
    tokenizer: tokenizers.Tokenizer,
    held_out_fraction: float,
    progress: Callable[[int], None] | None,
) -> CorpusReport:
    """Writes the tokens of both parts and the counts of the training part."""
    report = CorpusReport()
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    counts = np.zeros(size, np.int64)
    sep_id = SpecialTokens.from_tokenizer(tokenizer).sep_id
    separator = np.array([sep_id], token_dtype(size)).tobytes()
    held_out_flags: deque[bool] = deque()  # of paragraphs not yet encoded

    def texts() -> Iterator[str]:
        for digest, text in unique_paragraphs(sources, report):
            held_out_flags.append(digest_is_held_out(digest, held_out_fraction))
            yield text

    with (
        _Stream(scratch / "train.stream", separator) as train,
        _Stream(scratch / "held_out.stream", separator) as held_out,
    ):
        for done, ids in enumerate(encode_paragraphs(tokenizer, texts()), 1):
            is_held_out = held_out_flags.popleft()
            if not len(ids):
                report.skipped["paragraph without tokens"] += 1
            elif is_held_out:
                held_out.write(ids)
            else:
                train.write(ids)
                np.add.at(counts, ids, 1)
            if progress and done % _PROGRESS_EVERY == 0:
                progress(done)
    report.train_tokens = train.tokens
    report.held_out_tokens = held_out.tokens
    report.held_out_paragraphs = held_out.paragraphs
    if not train.paragraphs:
        raise ValueError(
            f"The corpus has no usable training paragraph ({report}). Check "
            "the sources and `held_out_fraction`."
        )
    if progress:
        progress(report.paragraphs)
    np.save(scratch / "token_counts.npy", counts, allow_pickle=False)
    return report


def _write_arrays(
    scratch: Path, tokenizer: tokenizers.Tokenizer, sequence_length: int
) -> None:
    """Packs the streams into .npy files and removes them."""
    special = SpecialTokens.from_tokenizer(tokenizer)
    dtype = token_dtype(tokenizer.get_vocab_size(with_added_tokens=True))
    for part in ("train", "held_out"):
        path = scratch / f"{part}.stream"
        length = path.stat().st_size // dtype.itemsize
        shape = (packed_count(length, sequence_length), sequence_length)
        if length:  # an empty file cannot be mapped
            stream = np.memmap(path, dtype, mode="r")
            packed = np.lib.format.open_memmap(
                scratch / f"{part}.npy", mode="w+", dtype=dtype, shape=shape
            )
            pack_stream(stream, special, out=packed)
            packed.flush()
            del stream, packed
        else:
            np.save(scratch / f"{part}.npy", np.empty(shape, dtype))
        path.unlink()


def _write_manifest(
    folder: Path,
    settings: dict[str, Any],
    described: list[dict[str, Any]],
    report: CorpusReport,
) -> None:
    arrays = {name: _file_sha256(folder / f"{name}.npy") for name in _ARRAYS}
    manifest = {
        "fingerprint": _sha256(_json({**settings, **arrays}).encode()),
        "settings": settings,
        "arrays": arrays,
        "report": vars(report),
        "sources": described,
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False)
    (folder / "manifest.json").write_text(text, encoding="utf-8")


def _publish(scratch: Path, folder: Path) -> None:
    """Renames the finished folder into place, all or nothing."""
    try:
        scratch.rename(folder)
    except OSError:
        # Another process may have finished the same corpus meanwhile.
        if not (folder / "manifest.json").is_file():
            raise


def _load(folder: Path) -> PreparedCorpus:
    """Opens a cached corpus; _CacheError if anything is not as written."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
        for name in _ARRAYS:
            if _file_sha256(folder / f"{name}.npy") != manifest["arrays"][name]:
                raise _CacheError(f"checksum of '{folder / name}.npy' differs.")
        report = manifest["report"]
        report["skipped"] = Counter(report["skipped"])
        return PreparedCorpus(
            **{name: _open(folder / f"{name}.npy") for name in _ARRAYS},
            fingerprint=manifest["fingerprint"],
            report=CorpusReport(**report),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _CacheError(f"'{folder}' cannot be read ({error}).") from error


def _open(path: Path) -> np.ndarray:
    mapped = path.stat().st_size > 4096
    return np.load(path, "r" if mapped else None, allow_pickle=False)


def _json(data: Any) -> str:
    return json.dumps(data, sort_keys=True)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
