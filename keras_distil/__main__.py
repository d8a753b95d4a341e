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

    try:
        check_backend()
    except ImportError as error:
        sys.exit(f"keras-distil: {error}")
    from keras_distil.cli import app

    app.main()


def _end(number: int, frame: Any) -> None:
    word = _WORDS[signal.Signals(number)]
    os.write(2, f"keras-distil: {word}. Nothing was started.\n".encode())
    os._exit(128 + number)


if __name__ == "__main__":
    main()
