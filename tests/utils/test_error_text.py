"""The one line that is shown of an error of another library."""

import pytest

from keras_distil.utils.error_text import first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("no such layer."), "no such layer."),
        (ValueError("a package is missing: 'beam'"), None),
        (KeyError("config.json"), "config.json."),
        (ValueError(""), "ValueError."),
        (ValueError("\n  Disk full:\nTraceback"), "Disk full."),
        (
            ValueError(
                "Exception encountered when calling Dense.call().\n\n"
                "\x1b[1mwidths differ\x1b[0m\n\nArguments received"
            ),
            "widths differ.",
        ),
        (ValueError("x" * 400), "x" * 300 + "."),
    ],
)
def test_first_line(error, line):
    assert first_line(error) == (line or f"{error}.")
