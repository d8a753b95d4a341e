"""Entities in tags, and how many of them a model finds.

The tags of IOB1, IOB2 and IOBES are all read by the rules of the script of
CoNLL 2000, which is what seqeval does unless told otherwise: an entity also
begins where its type changes, with whatever tag.
"""

import re
from collections.abc import Sequence

import numpy as np

_TAG = re.compile(r"O|[BIES](-.*)?", re.DOTALL)


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
    found = set()
    begin, before, kind_before = 0, "O", ""
    for place, tag in enumerate([*tags, "O"]):
        prefix, kind = tag[:1], tag[2:] if tag != "O" else ""
        changes = kind != kind_before
        if before != "O" and (before in "ES" or prefix in "BSO" or changes):
            found.add((kind_before, begin, place - 1))
        if prefix != "O" and (prefix in "BS" or before in "OES" or changes):
            begin = place
        before, kind_before = prefix, kind
    return found


def count_entities(tags: Sequence[str], predicted: Sequence[str]) -> np.ndarray:
    """Returns the entities that are right, predicted and there, int64, (3,)."""
    true, said = find_entities(tags), find_entities(predicted)
    return np.array([len(true & said), len(said), len(true)])


def check_entity_tags(tags: Sequence[str], task: str) -> None:
    """Raises ValueError unless all tags mark entities.

    Args:
        tags: all tags of a task.
        task: its name, for the message.
    """
    wrong = [tag for tag in tags if not _TAG.fullmatch(tag)]
    if wrong:
        raise ValueError(
            f"{task}: `metric: entity_f1` needs tags of IOB1, IOB2 or IOBES: O,"
            " or B, I, E or S with a type, such as B-PER. Received: "
            f"{wrong[0]!r:.60}. Use `metric: accuracy` for other tags."
        )
