"""Downloading a checkpoint from the Hugging Face Hub."""

import re
from pathlib import Path

HUB_SCHEME = "hf://"

# Configuration, weights and vocabulary; never a pickle.
_PATTERNS = ["*.json", "model*.safetensors", "vocab.txt"]


def repository_of(source: str) -> str:
    """Returns the `organisation/name` of a source, once checked."""
    repository = source.removeprefix(HUB_SCHEME)
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", repository):
        raise ValueError(
            "A source on the Hugging Face Hub must have the form "
            f"`hf://organisation/name`. Received: {source!r}."
        )
    return repository


def download_checkpoint(source: str) -> Path:
    """Downloads a checkpoint, or finds it in the local cache.

    Args:
        source: str, `"hf://organisation/name"`.

    Returns:
        Path of the local directory.

    Raises:
        ValueError: if `source` does not have that form.
        ConnectionError: if the checkpoint can not be downloaded.
    """
    repository = repository_of(source)
    # Imported here because local sources do not need it.
    import huggingface_hub

    try:
        directory = huggingface_hub.snapshot_download(
            repository, allow_patterns=_PATTERNS
        )
    # The client lets errors of its HTTP library through, and has changed
    # that library before: no narrower class covers them.
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ConnectionError(
            f"Could not download {source!r}: {reason[0]} Check the name and "
            "the network, or pass a local directory."
        ) from error
    return Path(directory)
