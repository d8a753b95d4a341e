"""Writing TensorBoard's event files."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from keras_distil.utils import disk

# The text that TensorFlow puts around a system message.
_AROUND = re.compile(r"^\{\{.*?\}\} | \[Op:.*$")


@contextlib.contextmanager
def writing_events(folder: Path) -> Iterator[None]:
    """Adds the folder's name to TensorFlow's write errors."""
    try:
        with disk.writing(folder):
            yield
    except tf.errors.OpError as error:
        if not disk.is_of_disk(error):
            raise
        # The form is "{{node ...}} file; system message\nmore [Op:...]".
        first = (error.message or str(error)).split("\n")[0]
        why = _AROUND.sub("", first).rpartition("; ")[2]
        raise disk.unwritten(folder, why) from error
