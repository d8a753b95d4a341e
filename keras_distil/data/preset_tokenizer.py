"""The tokenizer of a KerasHub preset, read from its folder.

A preset describes KerasHub's own tokenizer. Its vocabulary, merges and settings
are read as those of Hugging Face's class of the same name, so all texts are
encoded by one library; the two differ on odd characters only.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import tokenizers

from keras_distil.data import tokenizer_folder
from keras_distil.data.tokenizer_files import (
    COMPLETE_FILE,
    SETTINGS_FILE,
    read_object,
)

_ASSETS = Path("assets", "tokenizer")
# KerasHub's names of the files, and Hugging Face's.
_FILES = {
    "vocabulary.txt": "vocab.txt",
    "vocabulary.json": "vocab.json",
    "merges.txt": "merges.txt",
}


def is_preset_tokenizer(directory: Path) -> bool:
    """Checks whether a folder holds the tokenizer of a KerasHub preset."""
    if not (directory / _ASSETS).is_dir():
        return False
    return "registered_name" in read_object(directory / COMPLETE_FILE)


def build_preset_tokenizer(directory: Path) -> tokenizers.Tokenizer:
    """Builds the tokenizer of a preset's folder.

    Args:
        directory: a folder that `is_preset_tokenizer` accepts.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is damaged, or the tokenizer is not supported.
    """
    described = read_object(directory / COMPLETE_FILE)
    config = described.get("config")
    settings: dict[str, Any] = {"tokenizer_class": described.get("class_name")}
    if isinstance(config, dict) and "lowercase" in config:
        settings["do_lower_case"] = config["lowercase"]
        settings["strip_accents"] = config.get("strip_accents")
    with tempfile.TemporaryDirectory() as scratch:
        for name, known_as in _FILES.items():
            if (directory / _ASSETS / name).is_file():
                shutil.copy(directory / _ASSETS / name, Path(scratch, known_as))
        Path(scratch, SETTINGS_FILE).write_text(json.dumps(settings), "utf-8")
        try:
            return tokenizer_folder.build_tokenizer(Path(scratch))
        except (FileNotFoundError, ValueError) as error:
            # The scratch folder means nothing to the reader.
            told = str(error).replace(scratch, str(directory / _ASSETS))
            raise type(error)(told) from error
