"""How many entities of a sentence a model finds."""

from collections.abc import Sequence

import numpy as np

from keras_distil.utils.entity_tags import find_entities, is_entity_tag


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
    wrong = [tag for tag in tags if not is_entity_tag(tag)]
    if wrong:
        raise ValueError(
            f"{task}: `metric: entity_f1` needs tags of IOB1, IOB2 or IOBES: O,"
            " or B, I, E or S with a type, such as B-PER. Received: "
            f"{wrong[0]!r:.60}. Use `metric: accuracy` for other tags."
        )
