"""The scratch files of a preparation: tokenized units and repeat flags."""

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

# Digests that are compared at once, at about 40 bytes of memory each.
DIGESTS_AT_ONCE = 2**21


def write_unit(path: Path, unit: TokenizedUnit) -> None:
    """Writes a unit's scratch file atomically.

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
    """Reads only the named arrays of a unit's scratch file."""
    with safe_open(path, framework="numpy") as file:
        return [file.get_tensor(name) for name in names]


def is_whole(path: Path) -> bool:
    """Checks whether a unit's scratch file exists and is complete."""
    try:
        with safe_open(path, framework="numpy"):
            return True
    except (OSError, SafetensorError):
        return False


def select_paragraphs(
    path: Path, part: Part, held_out_fraction: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns tokens and lengths of a unit's paragraphs in a part."""
    digests, lengths, tokens = read_unit(path, "digests", "lengths", "tokens")
    selected = _select(path, digests, part, held_out_fraction)
    return tokens[np.repeat(selected, lengths)], lengths[selected]


def _select(
    path: Path, digests: np.ndarray, part: Part, held_out_fraction: float
) -> np.ndarray:
    first = np.load(_flags_path(path), allow_pickle=False)
    held_out = held_out_flags(digests, held_out_fraction)
    return first & (held_out == part.held_out)


def mark_repeats(paths: Sequence[Path]) -> None:
    """Marks, in a file per unit, the paragraphs that first appear in it.

    Digests are compared one range of values at a time, so memory does not
    grow with the corpus.
    """
    sizes = []
    for path in paths:
        (digests,) = read_unit(path, "digests")
        sizes.append(len(digests))
        np.save(_flags_path(path), np.zeros(len(digests), bool))
    ranges = -(-sum(sizes) // DIGESTS_AT_ONCE)
    bounds = [i * 2**64 // max(ranges, 1) for i in range(ranges + 1)]
    for low, high in itertools.pairwise(bounds):
        places, digest_lists = [], []
        for path in paths:
            (digests,) = read_unit(path, "digests")
            inside = (digests >= np.uint64(low)) & (
                digests <= np.uint64(high - 1)
            )
            places.append(np.flatnonzero(inside))
            digest_lists.append(digests[inside])
        # The first of equal digests, in the order of the units.
        is_first = np.zeros(sum(map(len, digest_lists)), bool)
        is_first[
            np.unique(np.concatenate(digest_lists), return_index=True)[1]
        ] = True
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
    """The items that each unit adds to each part, and the report."""

    items: dict[str, list[int]]
    report: CorpusReport


def measure(
    paths: Sequence[Path], parts: Sequence[Part], held_out_fraction: float
) -> Table:
    """Counts the items of the units, once repeats are marked."""
    table = Table({part.name: [] for part in parts}, CorpusReport())
    for path in paths:
        digests, lengths, characters, unknown = read_unit(
            path, "digests", "lengths", "characters", "unknown"
        )
        for part in parts:
            selected = lengths[_select(path, digests, part, held_out_fraction)]
            table.items[part.name].append(part.item_count(selected))
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
