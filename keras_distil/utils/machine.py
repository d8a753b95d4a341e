"""The machine that this process runs on."""

import os
import platform
from pathlib import Path


def processor_name() -> str:
    """Returns the processor's name as the system says it; may be empty."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [x.split(":", 1)[1].strip() for x in lines if "model name" in x]
    return names[0] if names else platform.processor()


def cache_folder() -> Path:
    """Makes the folder of what runs on this machine share, such as corpora.

    Raises:
        OSError: if it cannot be made.
        RuntimeError: if it is to be in a home folder, and there is none.
    """
    named = os.environ.get("KERAS_DISTIL_CACHE") or "~/.cache/keras_distil"
    folder = Path(named).expanduser()
    # Its contents are loaded again, so nobody else may write to it.
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"The folder that runs share, {folder}, cannot be made: "
            f"{error.strerror}. Set KERAS_DISTIL_CACHE to another."
        ) from error
    return folder
