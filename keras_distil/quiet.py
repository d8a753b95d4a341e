"""TensorFlow without its start-up noise."""

import contextlib
import os
import sys
import tempfile


def import_tensorflow() -> None:
    """Imports TensorFlow and Keras without the notes TensorFlow prints.

    The notes come from C++ code before any logging level counts, so the
    process's standard error is held back for the length of the import. If the
    import fails, all that was held back is printed.
    """
    # 2 leaves errors; the user's own setting wins.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with _held_back_stderr():
        import keras_hub  # noqa: F401
        import tensorflow as tf

        # Looks for GPUs, and says at length that it found no driver.
        tf.config.list_physical_devices()
    # It warns that every model of a run traces a step of its own, as it must.
    tf.get_logger().setLevel("ERROR")


@contextlib.contextmanager
def _held_back_stderr():
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
