"""A unit of text as tokens, and what it adds to each part of a corpus.

Every way of preparing a corpus, on one machine or many, goes through these
functions in the same order of units, and so writes the same bytes.
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
from keras_distil.data.tokenize import Encoder, SpecialTokens

# Tokens of a shard, padding and special tokens included. Part of the format.
SHARD_TOKENS = 2**24
_BUCKETS = 8


@dataclasses.dataclass(frozen=True)
class TokenizedUnit:
    """The paragraphs of a unit, without those that repeat in it.

    Attributes:
        digests: uint64, (paragraphs,), see `content_digest`.
        lengths: int32, (paragraphs,), tokens of each.
        characters: int32, (paragraphs,), of each.
        unknown: int32, (paragraphs,), tokens of each that are [UNK].
        tokens: uint16 or int32, (sum of lengths,).
        report: what was read and skipped, without counts of paragraphs.
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
    """The rule of `is_held_out` for an array of digests."""
    return digests < np.uint64(math.ceil(fraction * 2.0**64))


class Part(Protocol):
    """A part of a corpus: sequences of one length, in shards.

    A unit adds items to a part, and a shard takes a fixed number of them, so
    that where an item goes follows from the numbers of items alone.

    Attributes:
        name: of the shards.
        held_out: bool, whether held-out paragraphs belong to it.
        length: int, tokens of a sequence.
        items_per_shard: int.
    """

    name: str
    held_out: bool
    length: int
    items_per_shard: int

    def item_count(self, lengths: np.ndarray) -> int:
        """Items that paragraphs of these lengths add."""
        ...

    def items(self, tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The items of paragraphs, one behind the other."""
        ...

    def used_items(self, total: int) -> int:
        """How many of all items of a corpus are used, from the first on."""
        ...

    def sequences(self, items: np.ndarray) -> np.ndarray:
        """The sequences of a shard, (sequences, length)."""
        ...


class PackedPart:
    """Paragraphs joined with [SEP] and cut into full sequences, see `pack`.

    An item is a token of the joined paragraphs.

    Args:
        name: of the shards.
        length: int >= 3, tokens of a sequence.
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
        """Items that paragraphs of these lengths add."""
        return int(lengths.sum(dtype=np.int64) + np.count_nonzero(lengths))

    def items(self, tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The tokens, each paragraph followed by [SEP]."""
        lengths = lengths[lengths > 0]
        joined = np.full(
            len(tokens) + len(lengths), self._special.sep_id, tokens.dtype
        )
        before = np.repeat(np.arange(len(lengths)), lengths)
        joined[np.arange(len(tokens)) + before] = tokens
        return joined

    def used_items(self, total: int) -> int:
        """All but the last [SEP], behind which there is no paragraph."""
        return max(total - 1, 0)

    def sequences(self, items: np.ndarray) -> np.ndarray:
        """The sequences of a shard, (sequences, length)."""
        count = packed_count(len(items), self.length)
        made = np.empty((count, self.length), items.dtype)
        pack_stream(items, self._special, out=made)
        return made


class BucketPart:
    """One sequence a paragraph, of those whose lengths are alike.

    An item is a sequence: [CLS], tokens, [SEP], [PAD] up to `length`. A
    paragraph too long for the longest bucket is cut.

    Args:
        name: of the shards.
        shorter: int, length of the next shorter bucket, 0 for none.
        length: int, tokens of a sequence of this bucket.
        longest: int, tokens of a sequence of the longest bucket.
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
        """Items that paragraphs of these lengths add."""
        return len(self._pieces(lengths)[0])

    def items(self, tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The sequences of this bucket, in the order of the paragraphs."""
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
        """Start and size of each piece of this bucket."""
        lengths = lengths.astype(np.int64)
        counts = -(-lengths // self._body)  # pieces of each paragraph
        first = np.repeat(np.cumsum(counts) - counts, counts)
        within = (np.arange(len(first)) - first) * self._body
        starts = np.repeat(np.cumsum(lengths) - lengths, counts) + within
        sizes = np.minimum(np.repeat(lengths, counts) - within, self._body)
        mine = (sizes > self._above) & (sizes <= self._most)
        return starts[mine], sizes[mine]

    def used_items(self, total: int) -> int:
        """All of them."""
        return total

    def sequences(self, items: np.ndarray) -> np.ndarray:
        """The sequences of a shard, (sequences, length)."""
        return items


def parts_of(
    layout: str, sequence_length: int, special: SpecialTokens
) -> list[Part]:
    """The parts of a corpus.

    Args:
        layout: "packed" or "bucketed", how training sequences are made.
            Held-out ones are always packed, so that scores can be compared.
        sequence_length: int, tokens of the longest sequence.
        special: the ids of the special tokens.

    Returns:
        The training parts, the shortest first, then the held-out one.

    Raises:
        ValueError: if `layout` is neither.
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
    """Up to eight lengths, evenly apart, the last `sequence_length`."""
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
        total: changed.
        report: the unit's own, as a dict of JSON.
        lengths: tokens of its paragraphs.
        characters: characters of its paragraphs.
        unknown: tokens of its paragraphs that are [UNK].
        first: bool, whether no earlier paragraph is the same.
        held_out: bool, whether they are held out.
    """
    lengths = lengths.astype(np.int64)
    empty = int(np.count_nonzero(lengths[first] == 0))
    total.files += report["files"]
    total.skipped.update(report["skipped"])
    if "lost" in report:
        total.lost.add(LostText.from_json(report["lost"]))
    kept = int(np.count_nonzero(first))
    total.paragraphs += kept
    total.characters += int(characters[first].sum(dtype=np.int64))
    total.unknown_tokens += int(unknown[first].sum(dtype=np.int64))
    for reason, count in (
        ("repeated paragraph", len(first) - kept),
        ("paragraph without tokens", empty),
    ):
        if count:
            total.skipped[reason] += count
    total.held_out_paragraphs += int(
        np.count_nonzero(first & held_out & (lengths > 0))
    )
    total.train_tokens += int(lengths[first & ~held_out].sum())
    total.held_out_tokens += int(lengths[first & held_out].sum())
