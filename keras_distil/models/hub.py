"""Downloads of checkpoints from the Hugging Face Hub."""

import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

from keras_distil.models.checkpoints import SAFETENSORS_FILES
from keras_distil.utils import disk
from keras_distil.utils.error_text import first_line

HUB_SCHEME = "hf://"

# Configuration, weights, vocabulary and what says the licence; never a pickle.
# Folders of sentence-transformers have some of them in folders of their own.
_PATTERNS = [
    "*.json",
    "model*.safetensors",
    "vocab.txt",
    "*/model.safetensors",
    "*/vocab.txt",
    "README.md",
]


# A Git commit, which names a folder in the Hub's cache.
_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubSource(NamedTuple):
    """A checkpoint on the Hub.

    Attributes:
        repository: `organisation/name`.
        revision: a branch, a tag or a commit; None for the main branch.
    """

    repository: str
    revision: str | None

    @property
    def options(self) -> dict[str, Any]:
        """The revision as keyword arguments for the client's functions."""
        return {} if self.revision is None else {"revision": self.revision}


def parse_source(source: str) -> HubSource:
    """Parses `hf://organisation/name[@revision]`.

    Raises:
        ValueError: if `source` does not have that form.
    """
    match = re.fullmatch(
        r"(\w[\w.-]*/\w[\w.-]*)(?:@(\w[\w./-]*))?",
        source.removeprefix(HUB_SCHEME),
        re.ASCII,
    )
    if not match or ".." in (match[2] or ""):
        raise ValueError(
            "A source on the Hugging Face Hub must have the form "
            "`hf://organisation/name@revision` or `hf://organisation/name`. "
            f"Received: {source!r}."
        )
    return HubSource(match[1], match[2])


def download_checkpoint(source: str) -> Path:
    """Downloads a checkpoint unless it is in the local cache.

    Args:
        source: str, `"hf://organisation/name[@revision]"`.

    Returns:
        Path of the local directory.

    Raises:
        ValueError: if `source` does not have that form.
        ConnectionError: if the checkpoint cannot be downloaded.
    """
    hub_source = parse_source(source)
    # Imported here because local sources do not need it.
    import huggingface_hub

    try:
        directory = huggingface_hub.snapshot_download(
            hub_source.repository,
            allow_patterns=_PATTERNS,
            **hub_source.options,
        )
    # The client passes on errors of its HTTP library, and has changed that
    # library before: no narrower class covers them.
    except Exception as error:
        raise download_error(repr(source), error) from error
    return Path(directory)


def cached_checkpoint(source: str) -> Path | None:
    """Returns the folder of a checkpoint that was downloaded before.

    Args:
        source: str, `"hf://organisation/name[@revision]"`.

    Returns:
        Path of the local directory; None if it is not in the local cache.

    Raises:
        ValueError: if `source` does not have that form.
    """
    hub_source = parse_source(source)
    # Imported here because local sources do not need it.
    import huggingface_hub

    try:
        directory = huggingface_hub.snapshot_download(
            hub_source.repository,
            local_files_only=True,
            **hub_source.options,
        )
    except (OSError, ValueError):
        return None
    return Path(directory)


def download_error(what: str, error: Exception) -> OSError:
    """Returns the error to raise for a failed download from the Hub.

    Args:
        what: what was being downloaded.
        error: the error that the client raised.
    """
    if disk.is_of_disk(error):
        import huggingface_hub.constants as constants

        return OSError(
            f"Could not download {what} to {constants.HF_HUB_CACHE}: "
            f"{disk.reason(error)}. Make room there, or set HF_HOME to a "
            "folder on another disk."
        )
    return ConnectionError(
        f"Could not download {what}: {first_line(error)} Check the name and "
        "the network, or pass a local directory."
    )


def commit_of(directory: Path) -> str | None:
    """Returns the commit of a downloaded directory; None if unknown.

    Args:
        directory: what `download_checkpoint` returned.
    """
    if directory.parent.name != "snapshots":
        return None
    return directory.name if _COMMIT.fullmatch(directory.name) else None


def check_download(source: str, directory: Path) -> None:
    """Refuses a checkpoint that the Hub has only in other formats.

    Args:
        source: str, `"hf://organisation/name"`.
        directory: what `download_checkpoint` returned.

    Raises:
        ValueError: if no weights were downloaded; the message says what to do.
    """
    if any((directory / name).is_file() for name in SAFETENSORS_FILES):
        return
    repository, revision = parse_source(source)
    folder = repository.rpartition("/")[2]
    of_revision = f" --revision {revision}" if revision else ""
    raise ValueError(
        f"{source!r} has no weights as safetensors on the Hugging Face Hub. "
        f"Download all it has with `hf download {repository}{of_revision} "
        f"--local-dir {shlex.quote(folder)}`, and give that folder instead: "
        "its files can be converted, and a message says how."
    )
