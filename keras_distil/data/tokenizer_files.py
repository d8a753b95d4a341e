"""What the readers of every kind of tokenizer share: files and settings."""

import dataclasses
import json
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tokenizers

from keras_distil.utils import disk

COMPLETE_FILE = "tokenizer.json"
SETTINGS_FILE = "tokenizer_config.json"
MOST_IDS = 2**24
# Classes of any kind that read `tokenizer.json` alone.
PLAIN_CLASSES = ("PreTrainedTokenizer", "TokenizersBackend")
PLAIN_CLASS = "PreTrainedTokenizerFast"
# Keys that can change the tokens of any kind, with the values that change
# nothing.
_WITHOUT_EFFECT: dict[str, tuple] = {
    "auto_map": (None,),
    "padding_side": (None, "right"),
    "split_special_tokens": (None, False),
    "truncation_side": (None, "right"),
}


@dataclasses.dataclass(frozen=True)
class TokenizerFolder:
    """A folder with a tokenizer, and what it says of the tokenizer's kind.

    Attributes:
        path: the folder.
        settings: content of `tokenizer_config.json`.
        class_name: name of Hugging Face's class, without `Fast` at its end;
            None if the folder names none.
        class_path: the file that names it.
    """

    path: Path
    settings: Mapping[str, Any]
    class_name: str | None
    class_path: Path

    @property
    def is_plain(self) -> bool:
        """Whether `tokenizer.json` is used as is."""
        return self.class_name in PLAIN_CLASSES

    @property
    def complete_path(self) -> Path:
        """Path of `tokenizer.json`, which need not exist."""
        return self.path / COMPLETE_FILE

    @property
    def settings_path(self) -> Path:
        """Path of `tokenizer_config.json`, which need not exist."""
        return self.path / SETTINGS_FILE

    def check_values(self, allowed: Mapping[str, tuple]) -> None:
        """Raises ValueError if a key has a value that is not allowed."""
        for key, values in allowed.items():
            # 1 == True in Python, so the values are compared by identity.
            if key in self.settings and not any(
                self.settings[key] is value for value in values
            ):
                raise ValueError(
                    f"`{key}` in '{self.settings_path}' must be one of "
                    f"{_format_json(values)}. "
                    f"Received: {reprlib.repr(self.settings[key])}."
                )

    def check_without_effect(self, of_kind: Mapping[str, tuple]) -> None:
        """Raises ValueError if a key asks for what is not supported.

        Args:
            of_kind: for each key that matters to one kind of tokenizer, the
                values that change nothing.
        """
        for key, allowed in (_WITHOUT_EFFECT | dict(of_kind)).items():
            if self.settings.get(key) not in allowed:
                raise ValueError(
                    f"`{key}` in '{self.settings_path}' must be "
                    f"{json.dumps(allowed[-1])} or left out: no other value is "
                    "supported. "
                    f"Received: {reprlib.repr(self.settings[key])}."
                )
        sentence = self.path / "sentence_bert_config.json"
        if read_object(sentence).get("do_lower_case") not in (None, False):
            raise ValueError(
                f"`do_lower_case` in '{sentence}' must be false. Set it in "
                f"{SETTINGS_FILE} if texts are to be lower-cased."
            )

    def missing(self, files: str) -> FileNotFoundError:
        """Returns the error for a folder that lacks the tokenizer's files."""
        return FileNotFoundError(
            f"No tokenizer in '{self.path}': expected {files} there. The "
            "folder of a teacher's source, such as 'embedded', is "
            "`models.checkpoint_directory(source)`."
        )


def read_object(path: Path) -> dict[str, Any]:
    """Reads the object in a JSON file; an empty one if there is no file."""
    return disk.read_json(path) if path.is_file() else {}


def _format_json(values: Iterable[Any]) -> str:
    return ", ".join(map(json.dumps, values))


def read_complete(path: Path) -> tokenizers.Tokenizer:
    """Reads a `tokenizer.json`.

    Raises:
        ValueError: if it is damaged.
    """
    disk.check_size(path, disk.VOCABULARY_BYTES)
    try:
        written = json.loads(path.read_text("utf-8"))["model"]["vocab"]
    except (ValueError, LookupError, TypeError, RecursionError):
        written = None  # The library's error will say what is wrong.
    if isinstance(written, dict):
        # Check first: the library takes minutes for an enormous id, and
        # keeps only one of two words with equal ids.
        check_ids(path, written)
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
        # An unknown word as well: a missing [UNK] shows up here.
        tokenizer.encode("\u2603", add_special_tokens=False)
        return tokenizer
    except Exception as error:  # the library raises bare Exception
        raise ValueError(
            f"'{path}' is not a readable tokenizer.json: {error!s:.300}. Copy "
            "it again, or delete it if the folder also holds vocab.txt."
        ) from error


def model_setting(path: Path, name: str) -> Any:
    """Returns a setting of the model in a `tokenizer.json`.

    None if there is no such file, or it does not say: reading it as a
    tokenizer will tell what is wrong.
    """
    if not path.is_file():
        return None
    disk.check_size(path, disk.VOCABULARY_BYTES)
    try:
        return json.loads(path.read_text("utf-8"))["model"][name]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def check_ids(path: Path, vocabulary: Mapping[str, int]) -> None:
    """Raises ValueError unless ids are whole numbers, all different."""
    for word, token_id in vocabulary.items():
        if type(token_id) is not int or not 0 <= token_id < MOST_IDS:
            raise ValueError(
                f"The ids in '{path}' must be whole numbers from 0 to "
                f"{MOST_IDS - 1:,}. Received: {reprlib.repr(token_id)} for "
                f"{word!r:.60}."
            )
    if len(set(vocabulary.values())) < len(vocabulary):
        word_of: dict[int, str] = {}
        for word, token_id in vocabulary.items():
            if token_id in word_of:
                raise ValueError(
                    f"'{path}' gives {word_of[token_id]!r:.60} and "
                    f"{word!r:.60} the same id {token_id}."
                )
            word_of[token_id] = word


def check_agreement(
    path: Path, of_class: str, values: Iterable[tuple[str, Any, Any]]
) -> None:
    """Refuses a tokenizer.json that Hugging Face would follow only in part.

    Args:
        path: the file.
        of_class: the class that would read it.
        values: names in the file, each with the value there and the only one
            that the class supports.
    """
    for what, actual, expected in values:
        if actual != expected:
            raise ValueError(
                f"`{what}` in '{path}' must be {expected!r}: Hugging Face's "
                f"{of_class} supports no other value. With `tokenizer_class` "
                f'"{PLAIN_CLASS}" in {SETTINGS_FILE} the file is '
                f"used as is. Received: {reprlib.repr(actual)}."
            )
