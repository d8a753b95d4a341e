"""The program: from its very first moment, asked to end, it says so."""

import os
import signal
import sys
from typing import Any

_WORDS = {signal.SIGINT: "Interrupted", signal.SIGTERM: "Terminated"}


def main() -> None:
    """Runs the command line.

    Until it is loaded there is nothing to keep: a signal ends the process at
    once. An exception would be caught, or printed, by the code that is being
    imported.
    """
    for number in _WORDS:
        signal.signal(number, _end)
    from keras_distil.utils.backend import check_backend
    from keras_distil.utils.extras import names_package

    try:
        check_backend()
    except ImportError as error:
        sys.exit(f"keras-distil: {error}")
    try:
        from keras_distil.cli import app
    except ModuleNotFoundError as error:
        # Without its requirements, as `keras_distil.edge` is installed.
        if names_package(error, "keras_distil"):
            raise
        sys.exit(
            "keras-distil: the command needs all requirements of the package, "
            f"but {error.name} is not installed. Install them with: pip "
            "install keras-distil. Only `keras_distil.edge` does without."
        )
    app.main()


def _end(number: int, frame: Any) -> None:
    word = _WORDS[signal.Signals(number)]
    os.write(2, f"keras-distil: {word}. Nothing was started.\n".encode())
    os._exit(128 + number)


if __name__ == "__main__":
    main()
