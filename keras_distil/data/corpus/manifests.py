"""The parts that all shard manifests share, whatever the shards hold."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

import pydantic

from keras_distil.data.corpus.shards import CorpusError
from keras_distil.utils import disk

FileCount: TypeAlias = Annotated[int, pydantic.Field(ge=0, lt=2**53)]


class Section(pydantic.BaseModel):
    """A part of a manifest; no conversions, no unknown keys."""

    model_config = pydantic.ConfigDict(strict=True, extra="forbid", frozen=True)


class Shard(Section):
    """A shard: its file in the manifest's folder, and its expected content."""

    # A plain name: shards are directly in the manifest's folder.
    file: Annotated[str, pydantic.Field(pattern=r"^\w[\w.-]*$")]
    sequences: Annotated[FileCount, pydantic.Field(ge=1)]
    bytes: FileCount
    sha256: str


AnySection = TypeVar("AnySection", bound=Section)


def read_manifest(
    path: Path,
    schema: type[AnySection],
    *,
    missing: str,
    check: Callable[[dict[str, Any]], None],
    remedy: str,
) -> AnySection:
    """Reads a manifest that ends with a hash of itself.

    Args:
        path: the file.
        schema: the model that its content must match.
        missing: the error message if the file does not exist.
        check: called with the content before its hash is compared; raises
            CorpusError if it is of another version or kind.
        remedy: how to fix a damaged manifest, for error messages.

    Raises:
        CorpusError: if it is missing, damaged or of another version.
    """

    def damaged(reason: str) -> CorpusError:
        return CorpusError(f"{path} is damaged ({reason}). {remedy}")

    if path.is_file():
        disk.check_size(path, disk.DATA_JSON_BYTES)
    try:
        content = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CorpusError(missing) from error
    except (ValueError, RecursionError) as error:
        raise damaged("it is not JSON") from error
    if not isinstance(content, dict):
        raise damaged("it is not a JSON object")
    check(content)
    body = {key: content[key] for key in content if key != "sha256"}
    if content.get("sha256") != disk.sha256(disk.canonical(body)):
        raise damaged("its checksum differs")
    try:
        return schema.model_validate(content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise damaged(f"{place}: {first['msg']}") from error


def check_shard(
    path: Path, shard: Shard, *, remedy: str, verify: bool = False
) -> None:
    """Raises CorpusError unless a shard matches its manifest.

    Args:
        path: the shard's file.
        shard: its entry in the manifest.
        remedy: how to fix a mismatch, for error messages.
        verify: whether to compare its checksum as well.
    """
    if not path.is_file():
        raise CorpusError(f"The shard {path} is missing. {remedy}")
    size = path.stat().st_size
    if size != shard.bytes:
        raise CorpusError(
            f"The shard {path} has {size:,} bytes, but its manifest says "
            f"{shard.bytes:,}: it is truncated or altered. {remedy}"
        )
    if verify and disk.file_sha256(path) != shard.sha256:
        raise CorpusError(f"The checksum of the shard {path} differs. {remedy}")
