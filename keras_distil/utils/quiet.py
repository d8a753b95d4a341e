"""Import of TensorFlow without its start-up noise."""

import contextlib
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

# The words for the signals that ask a program to end.
WORDS = {signal.SIGINT: "Interrupted", signal.SIGTERM: "Terminated"}


def import_tensorflow(*, errors: bool = True) -> None:
    """Imports TensorFlow and Keras without TensorFlow's messages.

    The messages come from C++ code before any logging level applies, so the
    standard error of the process is held back during the import. If the
    import fails, everything held back is printed.

    Args:
        errors: whether C++ code may print errors later. With several workers
            it prints pages about a lost one, and raises an error as well.
    """
    # 2 allows errors, 3 only fatal ones; the user's setting has priority.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if errors else "3")
    with _end_on_signal(), held_back_stderr():
        import keras_hub  # noqa: F401
        import tensorflow as tf

        # This looks for GPUs, and prints a lot if there is no driver.
        tf.config.list_physical_devices()
    # It warns that every model of a run traces a step, which is necessary.
    tf.get_logger().setLevel("ERROR")


@contextlib.contextmanager
def _end_on_signal() -> Iterator[None]:
    """Ends the process on a signal, with one line.

    An exception in the middle of the import would be caught or printed by
    whatever is being imported.
    """
    # Python allows signal handlers only in the main thread.
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
    """Drops what C++ code prints to standard error, unless the block fails."""
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
