"""Static tables of token vectors in the layout of sentence-transformers.

Its `StaticEmbedding` is a mean over a text's tokens, without those that frame
it; the text is cut where `tokenizer.json` says.
"""

import dataclasses
from pathlib import Path

import numpy as np
import tokenizers
from safetensors.numpy import save_file

from keras_distil.models.checkpoints.safetensors_files import (
    SINGLE_FILE,
    list_tensors,
)
from keras_distil.models.checkpoints.sentence_transformers import (
    list_modules,
    read_prompts,
    write_modules,
)

TOKENIZER_FILE = "tokenizer.json"
_MODULES = ("StaticEmbedding", "Normalize")
_TABLE = "embedding.weight"


@dataclasses.dataclass(frozen=True)
class StaticFolder:
    """A folder of a table.

    Attributes:
        table: float32, (tokens, dimension).
        tokenizer_file: path of the tokenizer.
        prompts: by name, what is put before a text.
        default_prompt_name: the prompt of texts without another, or None.
    """

    table: np.ndarray
    tokenizer_file: Path
    prompts: dict[str, str]
    default_prompt_name: str | None


def is_static_folder(directory: Path) -> bool:
    """Checks whether the first module of a folder is a table."""
    return list(list_modules(directory))[:1] == list(_MODULES[:1])


def read_static_folder(directory: Path) -> StaticFolder:
    """Reads a table and its prompts.

    Raises:
        ValueError: if a file is missing or damaged, or vectors are not scaled
            to length 1.
    """
    modules = list_modules(directory)
    if tuple(modules) != _MODULES:
        raise ValueError(
            f"A static table in `{directory}` must be followed by Normalize "
            f"alone. Received: {list(modules)}."
        )
    place = modules[_MODULES[0]]
    tensors = list_tensors(place)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    if list(shapes) != [_TABLE] or len(shapes[_TABLE]) != 2:
        raise ValueError(
            f"`{place}` must hold the tensor {_TABLE} of tokens and "
            f"dimensions alone. Received: {shapes!r:.200}."
        )
    path = place / TOKENIZER_FILE
    if not path.is_file():
        raise ValueError(f"The tokenizer `{path}` is missing.")
    prompts, default = read_prompts(directory)
    return StaticFolder(tensors[_TABLE].read(), path, prompts, default)


def write_static_folder(
    directory: Path,
    table: np.ndarray,
    tokenizer: tokenizers.Tokenizer,
    *,
    sequence_length: int,
    prompts: dict[str, str],
    default_prompt_name: str | None,
) -> None:
    """Writes a table, whose vectors are scaled to length 1.

    Args:
        directory: a folder.
        table: float32, (tokens, dimension).
        tokenizer: reads the texts; it is not changed.
        sequence_length: tokens at which a text is cut, with those that frame
            it.
        prompts: by name, what is put before a text.
        default_prompt_name: the prompt of texts without another, or None.
    """
    write_modules(directory, _MODULES, prompts, default_prompt_name)
    table = np.ascontiguousarray(table, np.float32)
    metadata = {"format": "pt"}
    save_file({_TABLE: table}, directory / SINGLE_FILE, metadata=metadata)
    copy = tokenizers.Tokenizer.from_str(tokenizer.to_str())
    framing = copy.num_special_tokens_to_add(False)
    copy.enable_truncation(sequence_length - framing)
    text = copy.to_str(pretty=True)
    (directory / TOKENIZER_FILE).write_text(text, "utf-8")
