"""Reads and writes byte-level BPE tokenizers, as GPT-2's and RoBERTa's.

As of transformers 5.24:

- `RobertaTokenizer` and `GPT2Tokenizer` take the words and merges of
  `tokenizer.json`, or else of `vocab.json` and `merges.txt`, but
  `add_prefix_space` of `tokenizer_config.json`.
- `RobertaTokenizer` frames a pair as `<s> A </s></s> B </s>`, with one segment,
  and takes `trim_offsets` of `tokenizer_config.json`. `GPT2Tokenizer` frames
  texts only as `tokenizer.json` says.
- The plain classes take `tokenizer.json` unchanged.

None of these has an unknown token: whatever bytes the vocabulary lacks are left
out.
"""

import dataclasses
import json
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers

from keras_distil.data import added_tokens
from keras_distil.data.byte_level_agreement import (
    check_followed,
    is_followed,
    read_flag,
)
from keras_distil.data.special_tokens import (
    SpecialTokens,
    missing_roles,
)
from keras_distil.data.tokenizer_files import (
    PLAIN_CLASS,
    TokenizerFolder,
    check_ids,
    model_setting,
    read_complete,
    read_object,
)
from keras_distil.data.vocabulary import require_id
from keras_distil.utils import disk, token_roles

MODEL = "BPE"
VOCABULARY_FILE = "vocab.json"
MERGES_FILE = "merges.txt"
FILES = (VOCABULARY_FILE, MERGES_FILE)
# Decoded tokens have the spaces of the text.
HAS_SPACES_TO_CLEAN = False
_ROLES = (
    "bos_token",
    "eos_token",
    "unk_token",
    *added_tokens.FRAMING_ROLES,
)


@dataclasses.dataclass(frozen=True)
class _Class:
    """What a class of Hugging Face's does by itself.

    Attributes:
        defaults: its special tokens by role.
        frames: whether it frames texts, whatever `tokenizer.json` says.
    """

    defaults: Mapping[str, str]
    frames: bool


_CLASSES = {
    "RobertaTokenizer": _Class(
        {
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "sep_token": "</s>",
            "pad_token": "<pad>",
            "cls_token": "<s>",
            "mask_token": "<mask>",
        },
        frames=True,
    ),
    "GPT2Tokenizer": _Class(
        dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>"),
        frames=False,
    ),
}
_PLAIN = _Class({}, frames=False)
CLASSES = tuple(_CLASSES)
_FLAGS = {"add_prefix_space": (True, False), "trim_offsets": (True, False)}
_DEFAULTS = {"add_prefix_space": False, "trim_offsets": True}
# Keys that can change a text's tokens, with the values that change nothing.
# Hugging Face's classes decode what is not UTF-8 to U+FFFD.
_WITHOUT_EFFECT: dict[str, tuple] = {
    "do_lower_case": (None, False),
    "strip_accents": (None, False),
    "errors": (None, "replace"),
}


def build(
    folder: TokenizerFolder,
) -> tuple[tokenizers.Tokenizer, dict[str, str]]:
    """Builds the tokenizer of a folder.

    Returns:
        The tokenizer, and its special tokens by role, as far as they are
        named.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is damaged, or asks for something unsupported.
    """
    of_class = _CLASSES.get(folder.class_name or "", _PLAIN)
    as_written, described = _read(folder)
    folder.check_values(_FLAGS)
    folder.check_without_effect(_WITHOUT_EFFECT)
    added, roles = added_tokens.list_added(
        folder.path,
        folder.settings,
        described,
        {role: of_class.defaults.get(role) for role in _ROLES},
    )
    tokenizer = (
        _rebuild(folder, described["model"])
        if as_written is None or not folder.is_plain
        else as_written
    )
    if as_written is not None and not of_class.frames:
        tokenizer.post_processor = as_written.post_processor
    added_tokens.add(folder.path, tokenizer, added)
    if of_class.frames:
        _check_roles(folder.path, tokenizer, roles)
        _frame(tokenizer, roles, folder.settings)
    if as_written is not None:
        check_followed(folder, as_written, tokenizer)
    return tokenizer, roles


def _read(
    folder: TokenizerFolder,
) -> tuple[tokenizers.Tokenizer | None, dict[str, Any]]:
    """Reads `tokenizer.json`, or else the older files, and describes them."""
    if folder.complete_path.is_file():
        _check_prefix(folder.complete_path)
        tokenizer = read_complete(folder.complete_path)
        described = json.loads(tokenizer.to_str())
        _check_byte_level(folder.complete_path, described)
        return tokenizer, described
    vocabulary, merges = (folder.path / name for name in FILES)
    if folder.is_plain or not (vocabulary.is_file() and merges.is_file()):
        files = f"{VOCABULARY_FILE} and {MERGES_FILE}"
        raise folder.missing(
            "tokenizer.json" + ("" if folder.is_plain else f", or {files},")
        )
    check_ids(vocabulary, read_object(vocabulary))
    disk.check_size(merges, disk.VOCABULARY_BYTES)
    try:
        words, pairs = tokenizers.models.BPE.read_file(
            str(vocabulary), str(merges)
        )
    except Exception as error:  # the library raises bare Exception
        raise ValueError(
            f"'{vocabulary}' and '{merges}' cannot be read: {error!s:.200}. "
            "Each line of merges.txt holds two tokens and one space. Copy the "
            "files again."
        ) from error
    return None, {"model": {"vocab": words, "merges": pairs}}


def _check_prefix(path: Path) -> None:
    """Refuses what the library would end the process for, in some files."""
    prefix = model_setting(path, "continuing_subword_prefix")
    if prefix:
        raise ValueError(
            f"`model.continuing_subword_prefix` in '{path}' must be null: "
            "byte-level BPE marks the beginnings of words, by their spaces. "
            f"Received: {reprlib.repr(prefix)}."
        )


def _check_byte_level(path: Path, described: Mapping[str, Any]) -> None:
    model = described["model"]
    if model["type"] != MODEL:
        raise ValueError(
            f"The model in '{path}' must be BPE. Received: {model['type']}."
        )
    kinds = [
        part["type"] for part in token_roles.parts(described["pre_tokenizer"])
    ]
    if "ByteLevel" not in kinds:
        raise ValueError(
            f"`pre_tokenizer` in '{path}' must be ByteLevel: other kinds of "
            f"BPE are not supported. Received: {', '.join(kinds) or 'none'}."
        )
    if model["dropout"]:
        raise ValueError(
            f"`model.dropout` in '{path}' must be null: with it, a text has "
            f"other tokens each time. Received: {model['dropout']}."
        )


def _rebuild(
    folder: TokenizerFolder, model: Mapping[str, Any]
) -> tokenizers.Tokenizer:
    """Builds what Hugging Face's classes do, without a frame."""
    try:
        tokenizer = tokenizers.Tokenizer(
            tokenizers.models.BPE(
                model["vocab"],
                [tuple(pair) for pair in model["merges"]],
                continuing_subword_prefix="",
                end_of_word_suffix="",
                fuse_unk=False,
            )
        )
    except Exception as error:  # the library raises bare Exception
        raise ValueError(
            f"The merges in '{folder.path}' do not fit its vocabulary: "
            f"{error!s:.200}."
        ) from error
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=_flag(folder.settings, "add_prefix_space")
    )
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return tokenizer


def _flag(settings: Mapping[str, Any], name: str) -> bool:
    return settings.get(name, _DEFAULTS[name])


def _check_roles(
    directory: Path, tokenizer: tokenizers.Tokenizer, roles: Mapping[str, str]
) -> None:
    missing = [
        role
        for role in added_tokens.FRAMING_ROLES
        if tokenizer.token_to_id(roles[role]) is None
    ]
    if missing:
        names = ", ".join(dict.fromkeys(roles[role] for role in missing))
        raise ValueError(
            f"'{directory}': the vocabulary lacks {names}. It must have "
            f"{missing_roles(missing)}"
        )


def _frame(
    tokenizer: tokenizers.Tokenizer,
    roles: Mapping[str, str],
    settings: Mapping[str, Any],
) -> None:
    cls, sep = (
        (roles[role], require_id(tokenizer, roles[role]))
        for role in ("cls_token", "sep_token")
    )
    tokenizer.post_processor = tokenizers.processors.RobertaProcessing(
        sep,
        cls,
        trim_offsets=_flag(settings, "trim_offsets"),
        add_prefix_space=_flag(settings, "add_prefix_space"),
    )


# === Writing ===


def hugging_face_settings(
    tokenizer: tokenizers.Tokenizer, class_name: str
) -> dict[str, Any]:
    """Describes a tokenizer in the words of `tokenizer_config.json`.

    Args:
        tokenizer: the tokenizer.
        class_name: the class that the model's family has there.

    Returns:
        The class that reads `tokenizer.json` without changes, with the
        settings that it follows.
    """
    special = SpecialTokens.from_tokenizer(tokenizer)
    names = (class_name, *CLASSES)
    name = next(n for n in names if _CLASSES.get(n, _PLAIN).frames)
    if not is_followed(tokenizer, special):
        return {"tokenizer_class": PLAIN_CLASS}
    return {
        "tokenizer_class": name,
        "add_prefix_space": read_flag(
            tokenizer.pre_tokenizer, "add_prefix_space"
        ),
        "trim_offsets": read_flag(tokenizer.post_processor, "trim_offsets"),
        "errors": "replace",
        # Hugging Face would make up the tokens that nobody names.
        "bos_token": tokenizer.id_to_token(special.cls_id),
        "eos_token": tokenizer.id_to_token(special.sep_id),
    }


def write_vocabulary(tokenizer: tokenizers.Tokenizer, folder: Path) -> None:
    """Writes `vocab.json`, in the order of the ids, and `merges.txt`."""
    model = json.loads(tokenizer.to_str())["model"]
    words = dict(sorted(model["vocab"].items(), key=lambda item: item[1]))
    text = json.dumps(words, ensure_ascii=False)
    (folder / VOCABULARY_FILE).write_text(text, "utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    (folder / MERGES_FILE).write_text("\n".join(lines) + "\n", "utf-8")
