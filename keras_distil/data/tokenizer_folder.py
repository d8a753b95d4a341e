"""Builds the tokenizer that the files of a Hugging Face folder describe.

Several files say the same things, and Hugging Face's classes follow some of
them. This module follows the same ones, and refuses by name whatever has no
counterpart here. As of transformers 5.24:

- `BertTokenizer` takes the words of `tokenizer.json`, or else of `vocab.txt`,
  but `do_lower_case`, `strip_accents` and
  `tokenize_chinese_chars` of `tokenizer_config.json`.
- `PreTrainedTokenizerFast` takes `tokenizer.json` unchanged.
- Both use `added_tokens_decoder` of `tokenizer_config.json`, or else
  `special_tokens_map.json`, `added_tokens.json` and the added tokens of
  `tokenizer.json`. Special tokens without an id get the next one.
"""

import dataclasses
import json
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tokenizers

from keras_distil.utils import disk

SETTINGS_FILE = "tokenizer_config.json"
_BERT_CLASSES = ("BertTokenizer", "DistilBertTokenizer")
# Classes that read `tokenizer.json` alone.
_PLAIN_CLASSES = ("PreTrainedTokenizer", "TokenizersBackend")
# For each key of tokenizer_config.json: the normalizer's key in tokenizer.json,
# BertTokenizer's default, and the allowed values.
_NORMALIZER: dict[str, tuple[str, bool | None, tuple]] = {
    "do_lower_case": ("lowercase", True, (True, False)),
    "strip_accents": ("strip_accents", None, (True, False, None)),
    "tokenize_chinese_chars": ("handle_chinese_chars", True, (True, False)),
}
_NAMED_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
# Keys that can change a text's tokens, with the values that change nothing.
_WITHOUT_EFFECT: dict[str, tuple] = {
    "auto_map": (None,),
    "do_basic_tokenize": (None, True),
    "never_split": (None, []),
    "padding_side": (None, "right"),
    "split_special_tokens": (None, False),
    "truncation_side": (None, "right"),
    "word_tokenizer_type": (None, "basic"),
    "subword_tokenizer_type": (None, "wordpiece"),
    "wordpieces_prefix": (None, "##"),
}
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_MOST_IDS = 2**24
_LONGEST_WORD = 100  # BertTokenizer's limit, in characters


@dataclasses.dataclass(frozen=True)
class _AddedToken:
    """A token that is searched for before a text is split into words."""

    content: str
    flags: Mapping[str, bool]
    token_id: int | None = None
    where: str = ""

    def build(self) -> tokenizers.AddedToken:
        return tokenizers.AddedToken(self.content, **self.flags)


def build_tokenizer(directory: Path) -> tokenizers.Tokenizer:
    """Builds the tokenizer of a folder.

    Args:
        directory: a folder with `tokenizer.json` or `vocab.txt`.

    Raises:
        FileNotFoundError: if the folder holds neither file.
        ValueError: if a file is damaged, or asks for something unsupported.
    """
    complete = directory / "tokenizer.json"
    vocabulary = directory / "vocab.txt"
    settings = read_object(directory / SETTINGS_FILE)
    plain = _check_class(directory, settings)
    if complete.is_file():
        tokenizer = _read_json(complete)
        described = json.loads(tokenizer.to_str())
        _check_word_piece(complete, described)
        words = described["model"]["vocab"]
        if not plain:
            _check_agreement(complete, described, settings)
    elif vocabulary.is_file() and not plain:
        words = _read_lines(vocabulary)
        _check_ids(vocabulary, words)
        described = {"model": {"vocab": words}}
    else:
        name = "tokenizer.json" if plain else "tokenizer.json or vocab.txt"
        raise FileNotFoundError(
            f"No tokenizer in '{directory}': expected {name} there."
        )
    _check_settings(directory, settings)
    added = _added_tokens(directory, settings, described)
    if not plain:
        tokenizer = _bert_tokenizer(words, settings)
    _add(directory, tokenizer, added)
    return tokenizer


def read_max_length(directory: Path) -> int | None:
    """Reads how many tokens a folder's tokenizer lets a sequence have.

    Args:
        directory: a folder with `tokenizer_config.json`.

    Returns:
        Its `model_max_length`; None if it states no limit. Hugging Face writes
        1e30 for that.

    Raises:
        ValueError: if the value is not a positive number.
    """
    path = directory / SETTINGS_FILE
    limit = read_object(path).get("model_max_length")
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, int | float):
        limit = repr(limit)
    elif limit >= 1:
        return int(limit) if limit < 1e9 else None
    raise ValueError(
        f"`model_max_length` of '{path}' must be a positive number. "
        f"Received: {limit}."
    )


def read_object(path: Path) -> dict[str, Any]:
    """Reads the object in a JSON file; an empty one if there is no file."""
    return disk.read_json(path) if path.is_file() else {}


def _check_class(directory: Path, settings: Mapping[str, Any]) -> bool:
    """Checks whether `tokenizer.json` is used as is, without BERT's rules."""
    name, path = settings.get("tokenizer_class"), directory / SETTINGS_FILE
    if name is None:
        path = directory / "config.json"
        name = read_object(path).get("tokenizer_class")
    if name is None:
        return False
    known = (*_BERT_CLASSES, *_PLAIN_CLASSES)
    short = name.removesuffix("Fast") if isinstance(name, str) else None
    if short not in known:
        raise ValueError(
            f"`tokenizer_class` in '{path}' must be one of {list(known)}, "
            "with or without `Fast` at its end: other tokenizers split text "
            f"in other ways. Received: {reprlib.repr(name)}."
        )
    return short in _PLAIN_CLASSES


def _check_settings(directory: Path, settings: Mapping[str, Any]) -> None:
    path = directory / SETTINGS_FILE
    for key, (_, _, allowed) in _NORMALIZER.items():
        # 1 == True in Python, so the values are compared as JSON.
        if key in settings and not any(settings[key] is v for v in allowed):
            raise ValueError(
                f"`{key}` in '{path}' must be one of {_format_json(allowed)}. "
                f"Received: {reprlib.repr(settings[key])}."
            )
    for key, allowed in _WITHOUT_EFFECT.items():
        if settings.get(key) not in allowed:
            raise ValueError(
                f"`{key}` in '{path}' must be {json.dumps(allowed[-1])} or "
                "left out: no other value is supported. "
                f"Received: {reprlib.repr(settings[key])}."
            )
    sentence = directory / "sentence_bert_config.json"
    if read_object(sentence).get("do_lower_case") not in (None, False):
        raise ValueError(
            f"`do_lower_case` in '{sentence}' must be false. Set it in "
            f"{SETTINGS_FILE} if texts are to be lower-cased."
        )


def _format_json(values: Iterable[Any]) -> str:
    return ", ".join(map(json.dumps, values))


# === Words ===


def _read_json(path: Path) -> tokenizers.Tokenizer:
    disk.check_size(path, disk.VOCABULARY_BYTES)
    try:
        written = json.loads(path.read_text("utf-8"))["model"]["vocab"]
    except (ValueError, LookupError, TypeError, RecursionError):
        written = None  # The library's error will say what is wrong.
    if isinstance(written, dict):
        # Check first: the library takes minutes for an enormous id, and
        # keeps only one of two words with equal ids.
        _check_ids(path, written)
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


def _check_word_piece(path: Path, described: Mapping[str, Any]) -> None:
    kind = described["model"].get("type")
    if kind != "WordPiece":
        raise ValueError(
            f"The model in '{path}' must be WordPiece, BERT's. "
            f"Received: {kind}."
        )


def _check_agreement(
    path: Path, described: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    """Refuses a tokenizer.json that Hugging Face would follow only in part."""
    model = described["model"]
    normalizer = described["normalizer"] or {}
    pre_tokenizer = (described["pre_tokenizer"] or {}).get("type")
    for what, actual, expected in (
        ("model.unk_token", model["unk_token"], "[UNK]"),
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
    ):
        if actual != expected:
            raise ValueError(
                f"`{what}` in '{path}' must be {expected!r}: Hugging Face's "
                "BertTokenizer supports no other value. With `tokenizer_class` "
                f'"PreTrainedTokenizerFast" in {SETTINGS_FILE} the file is '
                f"used as is. Received: {reprlib.repr(actual)}."
            )
    for key, (ours, default, _) in _NORMALIZER.items():
        value = normalizer.get(ours)
        if key in settings or value == default:
            continue
        if key == "strip_accents" and value == normalizer.get("lowercase"):
            # By default, accents are stripped whenever case is.
            continue
        raise ValueError(
            f"'{path}' has {ours}={json.dumps(value)}, and {SETTINGS_FILE} "
            f"has no `{key}`, for which Hugging Face uses "
            f"{json.dumps(default)}. Write `{key}` into "
            f"'{path.parent / SETTINGS_FILE}'."
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
    if "[UNK]" not in words:
        raise ValueError(
            f"'{path}' has no [UNK] line: it is not the vocabulary of a BERT "
            "WordPiece tokenizer."
        )
    return words


def _check_ids(path: Path, vocabulary: Mapping[str, int]) -> None:
    for word, token_id in vocabulary.items():
        if type(token_id) is not int or not 0 <= token_id < _MOST_IDS:
            raise ValueError(
                f"The ids in '{path}' must be whole numbers from 0 to "
                f"{_MOST_IDS - 1:,}. Received: {reprlib.repr(token_id)} for "
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


def _bert_tokenizer(
    vocabulary: dict[str, int], settings: Mapping[str, Any]
) -> tokenizers.Tokenizer:
    """Builds what Hugging Face's BertTokenizer would."""
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(
            vocabulary,
            unk_token="[UNK]",
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


# === Added tokens ===


def _added_tokens(
    directory: Path, settings: Mapping[str, Any], described: Mapping[str, Any]
) -> list[_AddedToken]:
    """Lists all added tokens: those with ids in order, then the others."""
    path = directory / SETTINGS_FILE
    named = dict(settings)
    if "added_tokens_decoder" in settings:
        with_ids = _decoder_tokens(path, settings["added_tokens_decoder"])
    else:
        map_path = directory / "special_tokens_map.json"
        named |= read_object(map_path)
        with_ids = _legacy_tokens(directory, path, named, described)
    without = []
    for key, expected in _NAMED_TOKENS.items():
        token = _named_token(path, key, named.get(key, expected))
        if token.content != expected:
            raise ValueError(
                f"`{key}` in '{path}' or special_tokens_map.json must be "
                f"{expected!r}: special tokens with other names are not "
                f"supported. Received: {token.content!r:.60}."
            )
        # Not made up if the vocabulary lacks it: a later check reports it.
        if token.content in described["model"]["vocab"]:
            without.append(token)
    without += [
        _named_token(path, "extra_special_tokens", value)
        for value in _extra_specials(path, named)
    ]
    known = {token.content for token in with_ids}
    listed = sorted(with_ids, key=lambda token: token.token_id or 0)
    for token in without:
        if token.content not in known:
            known.add(token.content)
            listed.append(token)
    return [_make_special(token) for token in listed]


def _make_special(token: _AddedToken) -> _AddedToken:
    if token.content not in _NAMED_TOKENS.values():
        return token
    return dataclasses.replace(token, flags={**token.flags, "special": True})


def _decoder_tokens(path: Path, decoder: Any) -> list[_AddedToken]:
    where = f"`added_tokens_decoder` in '{path}'"
    if not isinstance(decoder, dict):
        raise ValueError(f"{where} must be an object of ids.")
    return [
        _AddedToken(
            *_content_and_flags(where, token), _token_id(where, key), where
        )
        for key, token in decoder.items()
    ]


def _legacy_tokens(
    directory: Path,
    path: Path,
    named: Mapping[str, Any],
    described: Mapping[str, Any],
) -> list[_AddedToken]:
    """Reads the other files if there is no `added_tokens_decoder`."""
    specials = {
        _named_token(path, key, named[key]).content
        for key in _NAMED_TOKENS
        if named.get(key) is not None
    }
    specials |= {
        _named_token(path, "extra_special_tokens", value).content
        for value in _extra_specials(path, named)
    }
    added_path = directory / "added_tokens.json"
    tokens_by_id = {}
    for content, token_id in read_object(added_path).items():
        special = content in specials
        flags = {"normalized": not special, "special": special}
        where = f"'{added_path}'"
        number = _token_id(where, token_id)
        tokens_by_id[number] = _AddedToken(content, flags, number, where)
    where = f"'{directory / 'tokenizer.json'}'"
    for token in described.get("added_tokens", ()):
        content, flags = _content_and_flags(where, token)
        tokens_by_id[token["id"]] = _AddedToken(
            content, flags, token["id"], where
        )
    return list(tokens_by_id.values())


def _extra_specials(path: Path, named: Mapping[str, Any]) -> list[Any]:
    for key in ("extra_special_tokens", "additional_special_tokens"):
        values = named.get(key)
        if isinstance(values, dict):
            values = list(values.values())
        if values:
            if not isinstance(values, list):
                raise ValueError(
                    f"`{key}` in '{path}' must be a list of tokens. "
                    f"Received: {reprlib.repr(values)}."
                )
            return values
    return []


def _named_token(path: Path, key: str, value: Any) -> _AddedToken:
    where = f"`{key}` in '{path}'"
    if isinstance(value, str):
        return _AddedToken(value, {"normalized": False, "special": True})
    content, flags = _content_and_flags(where, value)
    return _AddedToken(content, {**flags, "special": True})


def _content_and_flags(where: str, token: Any) -> tuple[str, dict[str, bool]]:
    content = token.get("content") if isinstance(token, dict) else None
    if not isinstance(content, str) or not content:
        raise ValueError(
            f"{where} must hold tokens with a `content`. "
            f"Received: {reprlib.repr(token)}."
        )
    flags = {name: token[name] for name in _FLAGS if name in token}
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise ValueError(
                f"{where}: `{name}` of {content!r:.60} must be true or false. "
                f"Received: {reprlib.repr(value)}."
            )
    return content, flags


def _token_id(where: str, value: Any) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:20])
    if type(value) is not int or not 0 <= value < _MOST_IDS:
        raise ValueError(
            f"{where}: ids must be whole numbers from 0 to {_MOST_IDS - 1:,}. "
            f"Received: {reprlib.repr(value)}."
        )
    return value


def _add(
    directory: Path,
    tokenizer: tokenizers.Tokenizer,
    added: Iterable[_AddedToken],
) -> None:
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    token_of = {token_id: token for token, token_id in vocabulary.items()}
    for token in added:
        tokenizer.add_tokens([token.build()])
        token_id = tokenizer.token_to_id(token.content)
        if token_id is None:
            raise ValueError(
                f"{token.where or 'A special token'} in '{directory}' cannot "
                f"be added: {token.content!r:.60}."
            )
        if token.token_id not in (None, token_id):
            raise ValueError(
                f"{token.where} gives {token.content!r:.60} the id "
                f"{token.token_id}, but it gets {token_id}: added tokens "
                "follow the vocabulary without gaps."
            )
        if token_of.setdefault(token_id, token.content) != token.content:
            raise ValueError(
                f"The added token {token.content!r:.60} in '{directory}' "
                f"would get the id {token_id} of {token_of[token_id]!r:.60}: "
                "the vocabulary has gaps."
            )
