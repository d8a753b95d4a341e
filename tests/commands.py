"""The command line, run in this process."""

import sys
from typing import Any

import pytest

from keras_distil.cli import app


def run_command(*arguments: Any) -> int:
    """Runs `keras-distil` in this process; returns its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["keras-distil", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            app.main()
    return ended.value.code or 0


def keras_distil(capsys, *arguments: Any) -> tuple[int, str, str]:
    """Runs the command; returns status, standard output and errors."""
    status = run_command(*arguments)
    return status, *capsys.readouterr()
