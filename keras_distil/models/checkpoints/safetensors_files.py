"""Tensors of a local directory, in one safetensors file or in shards."""

import dataclasses
import reprlib
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from keras_distil.models.checkpoints.conversion import describe_missing_weights
from keras_distil.utils.disk import read_json

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
SAFETENSORS_FILES = (SINGLE_FILE, INDEX_FILE)

_FLOATING = ("F64", "F32", "F16", "BF16")


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file: its header, and its values on demand."""

    name: str
    file: Path
    shape: tuple[int, ...]
    stored_dtype: str

    def read(self) -> np.ndarray:
        """Returns the values as float32.

        Raises:
            ValueError: if the tensor does not hold floating point values.
        """
        if self.stored_dtype not in _FLOATING:
            raise ValueError(
                f"`{self.name}` in `{self.file}` must be one of {_FLOATING}. "
                f"Received: {self.stored_dtype}."
            )
        with safe_open(self.file, framework="numpy") as file:
            return file.get_tensor(self.name).astype("float32")


def list_tensors(directory: Path) -> dict[str, StoredTensor]:
    """Lists the tensors of a directory by name, reading only headers.

    Args:
        directory: Path that holds `model.safetensors`, or
            `model.safetensors.index.json` and the shards it names.

    Returns:
        A dict of `StoredTensor`.

    Raises:
        ValueError: if there is no safetensors file, or a file is broken.
    """
    directory = Path(directory)
    index = directory / INDEX_FILE
    if (directory / SINGLE_FILE).is_file():
        return _list_file(directory / SINGLE_FILE)
    if index.is_file():
        return _list_shards(index)
    raise ValueError(
        describe_missing_weights(
            directory, f"`{SINGLE_FILE}` nor `{INDEX_FILE}`"
        )
    )


def _list_file(path: Path) -> dict[str, StoredTensor]:
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {}
            for name in file.keys():
                header = file.get_slice(name)
                tensors[name] = StoredTensor(
                    name, path, tuple(header.get_shape()), header.get_dtype()
                )
            return tensors
    except SafetensorError as error:
        raise ValueError(
            f"`{path}` is damaged or truncated: {str(error)[:200]}. Copy or "
            "download it again."
        ) from error


def _list_shards(index: Path) -> dict[str, StoredTensor]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"`{index}` has no `weight_map` of tensors to files.")
    tensors: dict[str, StoredTensor] = {}
    # Sorted, so that the first error does not depend on hash order.
    for shard in sorted(set(map(str, weight_map.values()))):
        # Only a file name: the index must not reach other folders.
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise ValueError(
                f"`{index}` must name `.safetensors` files in its folder. "
                f"Received: {reprlib.repr(shard)}."
            )
        path = index.parent / shard
        if not path.is_file():
            raise ValueError(
                f"`{index}` names `{shard[:80]}`, which is missing. Copy or "
                "download it again."
            )
        for name, tensor in _list_file(path).items():
            if name in tensors:
                raise ValueError(
                    f"`{name}` is in two shards: `{tensors[name].file}` and "
                    f"`{path}`."
                )
            tensors[name] = tensor
    for name, shard in weight_map.items():
        if name not in tensors:
            raise ValueError(
                f"`{index}` places `{name}` in `{shard}`, which does not "
                "hold it."
            )
    return tensors
