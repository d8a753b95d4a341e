"""Tokenized units of text, and the items they add to a corpus's parts.

Every way of preparing a corpus, on one machine or many, calls these functions
in the same order of units, and so writes the same bytes.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from keras_distil.data.corpus.lost_text import LostText
from keras_distil.data.corpus.pack import pack_stream, packed_count
from keras_distil.data.corpus.split import content_digest
from keras_distil.data.corpus.text_files import CorpusReport, Unit
from keras_distil.data.special_tokens import SpecialTokens
from keras_distil.data.tokenize import Encoder

# Tokens per shard, with padding and special tokens. Part of the format.
SHARD_TOKENS = 2**24
_BUCKETS = 8


@dataclasses.dataclass(frozen=True)
class TokenizedUnit:
    """The paragraphs of a unit, without repeats within it.

    Attributes:
        digests: uint64, (paragraphs,), see `content_digest`.
        lengths: int32, (paragraphs,), tokens of each.
        characters: int32, (paragraphs,), characters of each.
        unknown: int32, (paragraphs,), tokens of each that are unknown.
        tokens: uint16 or int32, (sum of lengths,).
        report: what was read and skipped, without paragraph counts.
    """

    digests: np.ndarray
    lengths: np.ndarray
    characters: np.ndarray
    unknown: np.ndarray
    tokens: np.ndarray
    report: CorpusReport


def tokenize_unit(unit: Unit, encoder: Encoder) -> TokenizedUnit:
    """Reads and tokenizes a unit."""
    report = CorpusReport()
    digests: dict[int, None] = {}
    characters: list[int] = []

    def texts() -> Iterator[str]:
        for text in unit.paragraphs(report):
            digest = content_digest(text)
            if digest in digests:
                report.skipped["repeated paragraph"] += 1
                continue
            digests[digest] = None
            characters.append(len(text))
            yield text

    ids = list(encoder.encode(texts()))
    return TokenizedUnit(
        np.fromiter(digests, np.uint64, len(digests)),
        np.array([len(i) for i in ids], np.int32),
        np.array(characters, np.int32),
        np.array(
            [np.count_nonzero(i == encoder.unknown_id) for i in ids], np.int32
        ),
        np.concatenate([*ids, np.empty(0, encoder.dtype)]),
        report,
    )


def held_out_flags(digests: np.ndarray, fraction: float) -> np.ndarray:
    """Applies the rule of `is_held_out` to an array of digests."""
    return digests < np.uint64(math.ceil(fraction * 2.0**64))


class Part(Protocol):
    """A part of a corpus: sequences of one length, in shards.

    A unit adds items to a part, and a shard takes a fixed number of them, so
    the place of an item follows from the numbers of items alone.

    Attributes:
        name: prefix of the shards' names.
        held_out: bool, whether held-out paragraphs belong to it.
        length: int, tokens per sequence.
        items_per_shard: int.
    """

    name: str
    held_out: bool
    length: int
    items_per_shard: int

    def item_count(self, lengths: np.ndarray) -> int:
        """Counts the items that paragraphs of these lengths add."""
        ...

    def items(self, tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Returns the items of paragraphs, concatenated."""
        ...

    def used_items(self, total: int) -> int:
        """Returns how many of a corpus's items are used, from the first."""
        ...

    def sequences(self, items: np.ndarray) -> np.ndarray:
        """Returns the sequences of a shard, (sequences, length)."""
        ...


class PackedPart:
    """Paragraphs joined with [SEP] and cut into full sequences; see `pack`.

    An item is a token of the joined paragraphs.

    Args:
        name: prefix of the shards' names.
        length: int >= 3, tokens per sequence.
        special: the ids of the special tokens.
        held_out: bool, whether held-out paragraphs belong to it.
    """

    def __init__(
        self, name: str, length: int, special: SpecialTokens, *, held_out: bool
    ) -> None:
        self.name = name
        self.length = length
        self.held_out = held_out
        self.items_per_shard = max(SHARD_TOKENS // length, 1) * (length - 2)
        self._special = special

    def item_count(self, lengths: np.ndarray) -> int:
        """Counts the items that paragraphs of these lengths add."""
        return int(lengths.sum(dtype=np.int64) + np.count_nonzero(lengths))

    def items(self, tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Returns the tokens, each paragraph followed by [SEP]."""
        lengths = lengths[lengths > 0]
        joined = np.full(
            len(tokens) + len(lengths), self._special.sep_id, tokens.dtype
        )
        before = np.repeat(np.arange(len(lengths)), lengths)
        joined[np.arange(len(tokens)) + before] = tokens
        return joined

    def used_items(self, total: int) -> int:
        """Returns all but the last [SEP], which no paragraph follows."""
        return max(total - 1, 0)

    def sequences(self, items: np.ndarray) -> np.ndarray:
        """Returns the sequences of a shard, (sequences, length)."""
        count = packed_count(len(items), self.length)
        sequences = np.empty((count, self.length), items.dtype)
        pack_stream(items, self._special, out=sequences)
        return sequences


class BucketPart:
    """One sequence per paragraph, for paragraphs of similar length.

    An item is a sequence: [CLS], tokens, [SEP], [PAD] up to `length`. A
    paragraph too long for the longest bucket is cut.

    Args:
        name: prefix of the shards' names.
        shorter: int, length of the next shorter bucket, 0 for none.
        length: int, tokens per sequence of this bucket.
        longest: int, tokens per sequence of the longest bucket.
        special: the ids of the special tokens.
    """

    held_out = False

    def __init__(
        self,
        name: str,
        shorter: int,
        length: int,
        longest: int,
        special: SpecialTokens,
    ) -> None:
        self.name = name
        self.length = length
        self.items_per_shard = max(SHARD_TOKENS // length, 1)
        self._above = max(shorter - 2, 0)
        self._most = length - 2
        self._body = longest - 2
        self._special = special

    def item_count(self, lengths: np.ndarray) -> int:
        """Counts the items that paragraphs of these lengths add."""
        return len(self._pieces(lengths)[0])

    def items(self, tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Returns this bucket's sequences, in the order of the paragraphs."""
        starts, sizes = self._pieces(lengths)
        rows = np.full(
            (len(sizes), self.length), self._special.pad_id, tokens.dtype
        )
        rows[:, 0] = self._special.cls_id
        row = np.repeat(np.arange(len(sizes)), sizes)
        firsts = np.repeat(np.cumsum(sizes) - sizes, sizes)
        place = np.arange(len(row)) - firsts
        rows[row, 1 + place] = tokens[np.repeat(starts, sizes) + place]
        rows[np.arange(len(sizes)), 1 + sizes] = self._special.sep_id
        return rows

    def _pieces(self, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns start and size of each piece in this bucket."""
        lengths = lengths.astype(np.int64)
        counts = -(-lengths // self._body)  # pieces of each paragraph
        first = np.repeat(np.cumsum(counts) - counts, counts)
        within = (np.arange(len(first)) - first) * self._body
        starts = np.repeat(np.cumsum(lengths) - lengths, counts) + within
        sizes = np.minimum(np.repeat(lengths, counts) - within, self._body)
        selected = (sizes > self._above) & (sizes <= self._most)
        return starts[selected], sizes[selected]

    def used_items(self, total: int) -> int:
        """Returns `total`: all items are used."""
        return total

    def sequences(self, items: np.ndarray) -> np.ndarray:
        """Returns the sequences of a shard, (sequences, length)."""
        return items


def make_parts(
    layout: str, sequence_length: int, special: SpecialTokens
) -> list[Part]:
    """Lists the parts of a corpus.

    Args:
        layout: "packed" or "bucketed", the form of training sequences.
            Held-out ones are always packed, so that scores can be compared.
        sequence_length: int, tokens of the longest sequence.
        special: the ids of the special tokens.

    Returns:
        The training parts, the shortest first, then the held-out one.

    Raises:
        ValueError: if `layout` is unknown.
    """
    held_out = PackedPart("held_out", sequence_length, special, held_out=True)
    if layout == "packed":
        train = PackedPart("train", sequence_length, special, held_out=False)
        return [train, held_out]
    if layout != "bucketed":
        raise ValueError(
            "`layout` must be 'packed' or 'bucketed'. "
            f"Received: layout={layout!r}."
        )
    lengths = bucket_lengths(sequence_length)
    buckets: list[Part] = [
        BucketPart(f"train_{length}", shorter, length, sequence_length, special)
        for shorter, length in zip([0, *lengths], lengths, strict=False)
    ]
    return [*buckets, held_out]


def bucket_lengths(sequence_length: int) -> list[int]:
    """Returns up to eight evenly spaced lengths, up to `sequence_length`."""
    step = -(-sequence_length // _BUCKETS)
    step = max(step, min(8, sequence_length))
    lengths = list(range(step, sequence_length, step))
    return [*lengths, sequence_length]


def add_to_report(
    total: CorpusReport,
    report: dict[str, Any],
    lengths: np.ndarray,
    characters: np.ndarray,
    unknown: np.ndarray,
    first: np.ndarray,
    held_out: np.ndarray,
) -> None:
    """Adds a unit's counts to those of the corpus.

    Args:
        total: the corpus's report; changed in place.
        report: the unit's report, as JSON data.
        lengths: tokens of its paragraphs.
        characters: characters of its paragraphs.
        unknown: tokens of its paragraphs that are unknown.
        first: bool, False for repeats of earlier paragraphs.
        held_out: bool, whether each is held out.
    """
    lengths = lengths.astype(np.int64)
    empty = int(np.count_nonzero(lengths[first] == 0))
    total.files += report["files"]
    total.skipped.update(report["skipped"])
    if "lost" in report:
        total.lost.add(LostText.from_json(report["lost"]))
    distinct = int(np.count_nonzero(first))
    total.paragraphs += distinct
    total.characters += int(characters[first].sum(dtype=np.int64))
    total.unknown_tokens += int(unknown[first].sum(dtype=np.int64))
    for reason, count in (
        ("repeated paragraph", len(first) - distinct),
        ("paragraph without tokens", empty),
    ):
        if count:
            total.skipped[reason] += count
    total.held_out_paragraphs += int(
        np.count_nonzero(first & held_out & (lengths > 0))
    )
    total.train_tokens += int(lengths[first & ~held_out].sum())
    total.held_out_tokens += int(lengths[first & held_out].sum())
