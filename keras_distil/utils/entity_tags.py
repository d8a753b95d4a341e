"""Entities in the tags of words.

The tags of IOB1, IOB2 and IOBES are all read by the rules of the script of
CoNLL 2000, which is what seqeval does unless told otherwise: an entity also
begins where its type changes, with whatever tag.
"""

import dataclasses
import itertools
import re
from collections.abc import Sequence

import numpy as np

OUTSIDE = "O"
_TAG = re.compile(r"O|[BIES](-.*)?", re.DOTALL)


def is_entity_tag(tag: str) -> bool:
    """Checks whether a tag is one of IOB1, IOB2 or IOBES."""
    return _TAG.fullmatch(tag) is not None


def find_entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Returns the entities of a sentence.

    Args:
        tags: `O`, or one of B, I, E and S, a hyphen and the entity's type.

    Returns:
        Type, first and last word of each entity.

    Example:
        >>> find_entities(["B-PER", "I-PER", "O", "I-ORG"]) == {
        ...     ("PER", 0, 1),
        ...     ("ORG", 3, 3),
        ... }
        True

    Reference:
        Tjong Kim Sang and Buchholz 2000, Introduction to the CoNLL-2000 shared
        task: chunking, and its script conlleval. Differs: E and S.
    """
    found, begin = set(), 0
    for place, (tag, after) in enumerate(itertools.pairwise([*tags, OUTSIDE])):
        if _goes_on(tag, after):
            continue
        if tag != OUTSIDE:
            found.add((_split(tag)[1], begin, place))
        begin = place + 1
    return found


def _goes_on(before: str, tag: str) -> bool:
    """Whether a word belongs to the entity of the word before it."""
    if OUTSIDE in (before, tag):
        return False
    prefix_before, type_before = _split(before)
    prefix, type_ = _split(tag)
    return (
        prefix_before not in "ES"
        and prefix not in "BS"
        and type_ == type_before
    )


def _split(tag: str) -> tuple[str, str]:
    """Returns the prefix and the type of a tag; without a prefix, it is I."""
    return (tag[0], tag[2:]) if is_entity_tag(tag) else ("I", tag)


@dataclasses.dataclass(frozen=True, eq=False)
class EntityLabels:
    """What the classes of a model say of words.

    If no label is `O`, the classes are no entities (parts of speech, for
    example): every word is then found by itself, with its label as its type.

    Attributes:
        types: type of the entity that each class marks.
        is_outside: bool, (classes,), whether it marks none.
        goes_on: bool, (classes, classes), whether a word of the second class
            belongs to the entity of a word of the first class before it.
    """

    types: tuple[str, ...]
    is_outside: np.ndarray
    goes_on: np.ndarray

    @classmethod
    def of(cls, labels: Sequence[str]) -> "EntityLabels":
        """Reads the labels of a model, in the order of its classes."""
        count = len(labels)
        if OUTSIDE not in labels:
            return cls(
                tuple(labels),
                np.zeros(count, bool),
                np.zeros((count, count), bool),
            )
        return cls(
            tuple(_split(label)[1] for label in labels),
            np.array([label == OUTSIDE for label in labels]),
            np.array([[_goes_on(x, y) for y in labels] for x in labels]),
        )

    def find(self, classes: Sequence[int]) -> list[tuple[int, int]]:
        """Returns the first and the last word of each entity.

        Args:
            classes: the class of each word of a text.
        """
        found: list[tuple[int, int]] = []
        before = None
        for place, each in enumerate(classes):
            if before is not None and self.goes_on[before, each]:
                found[-1] = (found[-1][0], place)
            elif not self.is_outside[each]:
                found.append((place, place))
            before = each
        return found
