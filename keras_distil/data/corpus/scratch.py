"""The scratch files of a preparation: tokenized units, and what repeats."""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from keras_distil.data.corpus.text_files import CorpusReport
from keras_distil.data.corpus.tokenized import (
    Part,
    TokenizedUnit,
    add_to_report,
    held_out_flags,
)
from keras_distil.utils import disk

# Digests that are compared at once; memory is about 40 bytes a digest.
DIGESTS_AT_ONCE = 2**21


def write_unit(path: Path, unit: TokenizedUnit) -> None:
    """Writes a unit's scratch file, whole or not at all.

    Raises:
        OSError: if the disk is full or may not be written.
    """
    arrays = {
        name: getattr(unit, name)
        for name in ("digests", "lengths", "characters", "unknown", "tokens")
    }
    partial = path.with_suffix(".partial")
    report = json.dumps(unit.report.to_json())
    with disk.replacing(path, partial):
        save_file(arrays, partial, metadata={"report": report})


def read_unit(path: Path, *names: str) -> list[np.ndarray]:
    """Reads arrays of a unit's scratch file, and no others."""
    with safe_open(path, framework="numpy") as file:
        return [file.get_tensor(name) for name in names]


def is_whole(path: Path) -> bool:
    """Tells whether a unit's scratch file is there and complete."""
    try:
        with safe_open(path, framework="numpy"):
            return True
    except (OSError, SafetensorError):
        return False


def chosen_paragraphs(
    path: Path, part: Part, held_out_fraction: float
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and lengths of a unit's paragraphs that belong to a part."""
    digests, lengths, tokens = read_unit(path, "digests", "lengths", "tokens")
    mine = _mine(path, digests, part, held_out_fraction)
    return tokens[np.repeat(mine, lengths)], lengths[mine]


def _mine(
    path: Path, digests: np.ndarray, part: Part, held_out_fraction: float
) -> np.ndarray:
    first = np.load(_flags_path(path), allow_pickle=False)
    held_out = held_out_flags(digests, held_out_fraction)
    return first & (held_out == part.held_out)


def mark_repeats(paths: Sequence[Path]) -> None:
    """Writes, beside each unit, which of its paragraphs come up first in it.

    Digests are compared a range of their values at a time, so that memory
    does not grow with the corpus.
    """
    sizes = []
    for path in paths:
        (digests,) = read_unit(path, "digests")
        sizes.append(len(digests))
        np.save(_flags_path(path), np.zeros(len(digests), bool))
    ranges = -(-sum(sizes) // DIGESTS_AT_ONCE)
    bounds = [i * 2**64 // max(ranges, 1) for i in range(ranges + 1)]
    for low, high in itertools.pairwise(bounds):
        places, found = [], []
        for path in paths:
            (digests,) = read_unit(path, "digests")
            inside = (digests >= np.uint64(low)) & (
                digests <= np.uint64(high - 1)
            )
            places.append(np.flatnonzero(inside))
            found.append(digests[inside])
        # The first of equal ones, in the order of the units.
        is_first = np.zeros(sum(map(len, found)), bool)
        is_first[np.unique(np.concatenate(found), return_index=True)[1]] = True
        start = 0
        for path, place in zip(paths, places, strict=True):
            if len(place):
                flags = np.load(_flags_path(path), "r+", allow_pickle=False)
                flags[place] = is_first[start : start + len(place)]
                flags.flush()
                start += len(place)


def _flags_path(unit: Path) -> Path:
    return unit.with_suffix(".first.npy")


@dataclasses.dataclass
class Table:
    """Items that each unit adds to each part, and the corpus's report."""

    items: dict[str, list[int]]
    report: CorpusReport


def measure(
    paths: Sequence[Path], parts: Sequence[Part], held_out_fraction: float
) -> Table:
    """Counts what the units hold, once repeats are marked."""
    table = Table({part.name: [] for part in parts}, CorpusReport())
    for path in paths:
        digests, lengths, characters, unknown = read_unit(
            path, "digests", "lengths", "characters", "unknown"
        )
        for part in parts:
            mine = lengths[_mine(path, digests, part, held_out_fraction)]
            table.items[part.name].append(part.item_count(mine))
        with safe_open(path, framework="numpy") as file:
            report = json.loads(file.metadata()["report"])
        first = np.load(_flags_path(path), allow_pickle=False)
        held_out = held_out_flags(digests, held_out_fraction)
        add_to_report(
            table.report,
            report,
            lengths,
            characters,
            unknown,
            first,
            held_out,
        )
    return table
