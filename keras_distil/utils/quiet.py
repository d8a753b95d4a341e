"""TensorFlow without its start-up noise."""

import contextlib
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

# By what a program says that it was asked to end.
WORDS = {signal.SIGINT: "Interrupted", signal.SIGTERM: "Terminated"}


def import_tensorflow(*, errors: bool = True) -> None:
    """Imports TensorFlow and Keras without the notes TensorFlow prints.

    The notes come from C++ code before any logging level counts, so the
    process's standard error is held back for the length of the import. If the
    import fails, all that was held back is printed.

    Args:
        errors: whether C++ code may print errors later. With several workers
            it prints pages for one that is lost, and raises them too.
    """
    # 2 leaves errors, 3 fatal ones; the user's own setting wins.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if errors else "3")
    with _ends_at_once(), held_back_stderr():
        import keras_hub  # noqa: F401
        import tensorflow as tf

        # Looks for GPUs, and says at length that it found no driver.
        tf.config.list_physical_devices()
    # It warns that every model of a run traces a step of its own, as it must.
    tf.get_logger().setLevel("ERROR")


@contextlib.contextmanager
def _ends_at_once() -> Iterator[None]:
    """Ends the process at a signal, with one line.

    An exception in the middle of the import would be caught, or printed, by
    whatever is being imported.
    """
    # Python allows signal handlers in the main thread only.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    original = os.dup(2)

    def end(number: int, frame: Any) -> None:
        word = WORDS[signal.Signals(number)]
        line = f"keras-distil: {word} while loading TensorFlow.\n"
        os.write(original, line.encode())
        os._exit(128 + number)

    before = {number: signal.signal(number, end) for number in WORDS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(original)


@contextlib.contextmanager
def held_back_stderr() -> Iterator[None]:
    """Drops what C++ code prints as errors, unless the block fails."""
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(original, 2)
            held.seek(0)
            os.write(2, held.read())
            raise
        finally:
            os.dup2(original, 2)
            os.close(original)
