"""Datasets without tf.data's autotuning.

Its thread sleeps for up to a minute between two looks at a pipeline, twice as
long each time. The end of an iterator wakes it, but before the iterator counts
as ended, so it often sleeps again, and `fit` returns that much later. Without
it, `AUTOTUNE` means as many parallel calls as there are processors, up to 16.
"""

from typing import Any

import tensorflow as tf


def without_autotune(dataset: Any) -> Any:
    """Returns a dataset whose iterators end at once.

    Args:
        dataset: the dataset. One whose options say whether to tune, and what
            is no dataset, is returned as it is.
    """
    if not isinstance(dataset, tf.data.Dataset):
        return dataset
    if dataset.options().autotune.enabled is not None:
        return dataset
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
