"""Checks of tasks from files, a part of `finetune`."""

from collections.abc import Callable
from typing import Any

import numpy as np

from checks.table import ITSELF, seen
from keras_distil.models.task_model import kind_of


def of_own(key: str, wanted: Any = ITSELF, number: int = 0) -> Callable:
    """A check of one of the two tasks from files, from what was read."""
    at = f"finetune.tasks.{number}.{key}"

    def register(see: Callable[[Any], Any]) -> Callable:
        seen(f"OwnTask.{key}", "own", wanted=wanted, at=at)(
            lambda runs, made: see(
                made.calls["load_own_task"][number]["returned"]
            )
        )
        return see

    return register


seen(
    "OwnTask.name",
    "own",
    wanted=["mine/teacher/seed_0", "several/teacher/seed_0"],
    at="finetune.tasks.0.name",
)(lambda runs, made: [fit.stage for fit in made.fits])
seen(
    "OwnTask.kind",
    "own",
    wanted=["classification", "multi_label"],
    at="finetune.tasks.0.kind",
)(lambda runs, made: [kind_of(fit.student) for fit in made.fits])
seen(
    "OwnTask.tfds",
    "own",
    wanted=("toy_labels", "part"),
    at="finetune.tasks.1.tfds",
)(lambda runs, made: made.calls["open_tfds"][0][""])
# A list of a path and a pattern.
of_own("train", wanted=20)(lambda own: len(set(own.train.owners)))
of_own("dev", wanted=10)(lambda own: len(own.evaluator.labels["dev"]))
of_own("test", wanted=5)(lambda own: len(own.evaluator.splits["test"].labels))
of_own("columns", wanted=["no", "yes", "yes"])(
    lambda own: [own.labels[i] for i in own.evaluator.labels["dev"][:3]]
)
of_own("labels", wanted=("no", "yes"))(lambda own: own.labels)
of_own("metric")(lambda own: own.evaluator.metric)
# Every text ends in the same letter of another encoding.
of_own("encoding", wanted=1)(
    lambda own: len(
        {
            int(own.train.token_ids[own.train.starts[i + 1] - 2])
            for i in np.flatnonzero(np.diff(own.train.owners, append=-1))
        }
    )
)
of_own("class_weights", wanted={(0, 3.0), (1, 1.0)})(
    lambda own: {
        (int(label), round(float(weight), 6))
        for label, weight in zip(
            own.train.labels[np.unique(own.train.owners, return_index=True)[1]],
            np.bincount(own.train.owners, own.train.weights),
            strict=True,
        )
    }
)
# Windows of six tokens share two.
of_own("stride", wanted=True)(
    lambda own: (
        all(
            list(one[-3:-1]) == list(other[1:3])
            for one, other, same_text in zip(
                np.split(own.train.token_ids, own.train.starts[1:-1])[:-1],
                np.split(own.train.token_ids, own.train.starts[1:-1])[1:],
                np.diff(own.train.owners) == 0,
                strict=True,
            )
            if same_text
        )
        and len(own.train) > 20
    )
)
of_own("dev_fraction", wanted=(6, 4), number=1)(
    lambda own: (len(own.train), len(own.evaluator.labels["dev"]))
)
of_own("separator", wanted=("a", "b", "c"), number=1)(lambda own: own.labels)
