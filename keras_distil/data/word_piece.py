"""Reads and writes WordPiece tokenizers, as BERT's.

As of transformers 5.24:

- `BertTokenizer` takes the words of `tokenizer.json`, or else of `vocab.txt`,
  but `do_lower_case`, `strip_accents` and `tokenize_chinese_chars` of
  `tokenizer_config.json`. It frames a pair as `[CLS] A [SEP] B [SEP]`.
- The plain classes take `tokenizer.json` unchanged.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers

from keras_distil.data import added_tokens
from keras_distil.data.special_tokens import frame_ids, missing_roles
from keras_distil.data.tokenizer_files import (
    COMPLETE_FILE,
    PLAIN_CLASS,
    SETTINGS_FILE,
    TokenizerFolder,
    check_agreement,
    check_ids,
    read_complete,
)
from keras_distil.data.vocabulary import require_id, words_by_id
from keras_distil.utils import disk

MODEL = "WordPiece"
CLASSES = ("BertTokenizer", "DistilBertTokenizer")
VOCABULARY_FILE = "vocab.txt"
FILES = (VOCABULARY_FILE,)
# Decoded tokens have a space before punctuation marks.
HAS_SPACES_TO_CLEAN = True
# For each key of tokenizer_config.json: the normalizer's key in tokenizer.json,
# BertTokenizer's default, and the allowed values.
_NORMALIZER: dict[str, tuple[str, bool | None, tuple]] = {
    "do_lower_case": ("lowercase", True, (True, False)),
    "strip_accents": ("strip_accents", None, (True, False, None)),
    "tokenize_chinese_chars": ("handle_chinese_chars", True, (True, False)),
}
_DEFAULTS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
# Keys that can change a text's tokens, with the values that change nothing.
_WITHOUT_EFFECT: dict[str, tuple] = {
    "do_basic_tokenize": (None, True),
    "never_split": (None, []),
    "word_tokenizer_type": (None, "basic"),
    "subword_tokenizer_type": (None, "wordpiece"),
    "wordpieces_prefix": (None, "##"),
}
_PARTS = ("normalizer", "pre_tokenizer")
_LONGEST_WORD = 100  # BertTokenizer's limit, in characters


def build(
    folder: TokenizerFolder,
) -> tuple[tokenizers.Tokenizer, dict[str, str]]:
    """Builds the tokenizer of a folder.

    Returns:
        The tokenizer, and its special tokens by role.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is damaged, or asks for something unsupported.
    """
    tokenizer, described = _read(folder)
    folder.check_values(
        {key: allowed for key, (_, _, allowed) in _NORMALIZER.items()}
    )
    folder.check_without_effect(_WITHOUT_EFFECT)
    defaults = dict(_DEFAULTS)
    if tokenizer is not None:
        defaults["unk_token"] = described["model"]["unk_token"]
    added, roles = added_tokens.list_added(
        folder.path, folder.settings, described, defaults
    )
    if tokenizer is None:
        _check_usable(folder, described, roles["unk_token"])
        tokenizer = _bert_tokenizer(
            described["model"]["vocab"], folder.settings, roles["unk_token"]
        )
    added_tokens.add(folder.path, tokenizer, added)
    _check_roles(folder.path, tokenizer, roles)
    if tokenizer.post_processor is None:
        cls, sep = (
            (roles[role], require_id(tokenizer, roles[role]))
            for role in ("cls_token", "sep_token")
        )
        tokenizer.post_processor = tokenizers.processors.BertProcessing(
            sep, cls
        )
    _check_frame(folder.path, tokenizer, roles)
    return tokenizer, roles


def _read(
    folder: TokenizerFolder,
) -> tuple[tokenizers.Tokenizer | None, dict[str, Any]]:
    """Reads the words, and the tokenizer if it is used as is."""
    vocabulary = folder.path / VOCABULARY_FILE
    if folder.complete_path.is_file():
        tokenizer = read_complete(folder.complete_path)
        described = json.loads(tokenizer.to_str())
        kind = described["model"].get("type")
        if kind != MODEL:
            raise ValueError(
                f"The model in '{folder.complete_path}' must be WordPiece, "
                f"BERT's. Received: {kind}."
            )
        return tokenizer if folder.is_plain else None, described
    if vocabulary.is_file() and not folder.is_plain:
        words = _read_lines(vocabulary)
        check_ids(vocabulary, words)
        return None, {"model": {"vocab": words}}
    raise folder.missing(
        "tokenizer.json" if folder.is_plain else "tokenizer.json or vocab.txt"
    )


def _check_roles(
    directory: Path, tokenizer: tokenizers.Tokenizer, roles: Mapping[str, str]
) -> None:
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    missing = [role for role in _DEFAULTS if roles[role] not in vocabulary]
    if missing:
        names = ", ".join(roles[role] for role in missing)
        raise ValueError(
            f"'{directory}': the vocabulary lacks {names}. It must have "
            f"{missing_roles(missing)}"
        )


def _check_frame(
    directory: Path, tokenizer: tokenizers.Tokenizer, roles: Mapping[str, str]
) -> None:
    """Refuses a tokenizer that does not frame texts as BERT's does."""
    ids, segments = frame_ids(tokenizer)
    cls, sep = (
        tokenizer.token_to_id(roles[role])
        for role in ("cls_token", "sep_token")
    )
    if ids != [cls, sep, sep] or segments != [0, 0, 1]:
        tokens = " ".join(tokenizer.id_to_token(i) or "?" for i in ids)
        raise ValueError(
            f"`post_processor` in '{directory / COMPLETE_FILE}' must turn "
            "two texts into `[CLS] A [SEP] B [SEP]`, with segments 0 and 1. "
            f"Received: {tokens or 'nothing'} around two empty texts."
        )


def _check_usable(
    folder: TokenizerFolder, described: Mapping[str, Any], unknown: str
) -> None:
    """Checks that the words can be used as BertTokenizer does."""
    if folder.complete_path.is_file():
        _check_followed(folder, described, unknown)
    elif unknown not in described["model"]["vocab"]:
        raise ValueError(
            f"'{folder.path / VOCABULARY_FILE}' has no {unknown} line: it is "
            "not the vocabulary of a BERT WordPiece tokenizer."
        )


def _check_followed(
    folder: TokenizerFolder, described: Mapping[str, Any], unknown: str
) -> None:
    """Refuses a tokenizer.json that Hugging Face would follow only in part."""
    path = folder.complete_path
    model = described["model"]
    normalizer = described["normalizer"] or {}
    pre_tokenizer = (described["pre_tokenizer"] or {}).get("type")
    check_agreement(
        path,
        CLASSES[0],
        (
            ("model.unk_token", model["unk_token"], unknown),
            (
                "model.continuing_subword_prefix",
                model["continuing_subword_prefix"],
                "##",
            ),
            (
                "model.max_input_chars_per_word",
                model["max_input_chars_per_word"],
                _LONGEST_WORD,
            ),
            ("normalizer.type", normalizer.get("type"), "BertNormalizer"),
            ("pre_tokenizer.type", pre_tokenizer, "BertPreTokenizer"),
        ),
    )
    for key, (ours, default, _) in _NORMALIZER.items():
        value = normalizer.get(ours)
        if key in folder.settings or value == default:
            continue
        if key == "strip_accents" and value == normalizer.get("lowercase"):
            # By default, accents are stripped whenever case is.
            continue
        raise ValueError(
            f"'{path}' has {ours}={json.dumps(value)}, and {SETTINGS_FILE} "
            f"has no `{key}`, for which Hugging Face uses "
            f"{json.dumps(default)}. Write `{key}` into "
            f"'{folder.settings_path}'."
        )


def _read_lines(path: Path) -> dict[str, int]:
    """Reads the words of `vocab.txt`; for repeats, the last line counts."""
    disk.check_size(path, disk.VOCABULARY_BYTES)
    try:
        with path.open(encoding="utf-8") as file:
            words = {line.rstrip("\n"): i for i, line in enumerate(file)}
    except UnicodeDecodeError as error:
        raise ValueError(
            f"'{path}' must be UTF-8. Received: byte "
            f"{error.object[error.start]:#04x}."
        ) from error
    if next(iter(words), "").startswith("\ufeff"):
        raise ValueError(
            f"'{path}' begins with a byte order mark, which would belong to "
            "its first word. Save it as UTF-8 without one."
        )
    return words


def _bert_tokenizer(
    vocabulary: dict[str, int], settings: Mapping[str, Any], unknown: str
) -> tokenizers.Tokenizer:
    """Builds what Hugging Face's BertTokenizer would."""
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(
            vocabulary,
            unk_token=unknown,
            max_input_chars_per_word=_LONGEST_WORD,
        )
    )
    options = {
        ours: settings.get(key, default)
        for key, (ours, default, _) in _NORMALIZER.items()
    }
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(
        clean_text=True, **options
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = tokenizers.decoders.WordPiece()
    return tokenizer


# === Writing ===


def hugging_face_settings(
    tokenizer: tokenizers.Tokenizer, class_name: str
) -> dict[str, Any]:
    """Describes a tokenizer in the words of `tokenizer_config.json`.

    Args:
        tokenizer: the tokenizer.
        class_name: the class that the model's family has there.

    Returns:
        The class that reads `tokenizer.json` without changes, and the
        normalizer's settings. BERT's class follows the settings and knows
        only one way to split words; the plain one follows the file alone.
    """
    described = json.loads(tokenizer.to_str())
    model, normalizer = described["model"], described["normalizer"] or {}
    parts = [(described[part] or {}).get("type") for part in _PARTS]
    name = PLAIN_CLASS
    if (
        parts == ["BertNormalizer", "BertPreTokenizer"]
        and normalizer["clean_text"]
        and model["continuing_subword_prefix"] == "##"
        and model["max_input_chars_per_word"] == _LONGEST_WORD
    ):
        name = class_name if class_name in CLASSES else CLASSES[0]
    settings = {
        key: normalizer[ours]
        for key, (ours, _, _) in _NORMALIZER.items()
        if ours in normalizer
    }
    return {"tokenizer_class": name, **settings}


def write_vocabulary(tokenizer: tokenizers.Tokenizer, folder: Path) -> None:
    """Writes `vocab.txt`, with one word per line in the order of the ids."""
    words = words_by_id(tokenizer, "")
    (folder / VOCABULARY_FILE).write_text("\n".join(words) + "\n", "utf-8")
