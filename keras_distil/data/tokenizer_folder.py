"""Builds the tokenizer that the files of a Hugging Face folder describe.

Several files say the same things, and Hugging Face's classes follow some of
them. `word_piece` and `byte_level_bpe` follow the same ones, each for its kind
of tokenizer, and refuse by name whatever has no counterpart here, as
`added_tokens` does for what all kinds have.
"""

import reprlib
from pathlib import Path
from types import ModuleType
from typing import Any

import tokenizers

from keras_distil.data import byte_level_bpe, word_piece
from keras_distil.data.special_tokens import SpecialTokens, store_roles
from keras_distil.data.tokenizer_files import (
    COMPLETE_FILE,
    PLAIN_CLASS,
    PLAIN_CLASSES,
    SETTINGS_FILE,
    TokenizerFolder,
    model_setting,
    read_object,
)

# Of each kind: its classes, its files, and the functions that read and write.
KINDS: tuple[ModuleType, ...] = (word_piece, byte_level_bpe)


def build_tokenizer(directory: Path) -> tokenizers.Tokenizer:
    """Builds the tokenizer of a folder.

    Args:
        directory: a folder with `tokenizer.json`, with `vocab.txt`, or with
            `vocab.json` and `merges.txt`.

    Raises:
        FileNotFoundError: if the folder lacks the files.
        ValueError: if a file is damaged, or asks for something unsupported.
    """
    folder = _open(directory)
    kind = _choose_kind(folder)
    tokenizer, roles = kind.build(folder)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    try:
        odd = {r: roles[r] for r in ("pad_token", "mask_token") if r in roles}
        tokenizer = store_roles(tokenizer, odd)
        special = SpecialTokens.from_tokenizer(tokenizer)
    except ValueError as error:
        raise ValueError(f"'{directory}': {error}") from None
    _check_frame(folder, tokenizer, special)
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


def kind_of(tokenizer: tokenizers.Tokenizer) -> ModuleType:
    """Returns the module of a tokenizer's kind.

    Raises:
        ValueError: if the kind is not supported.
    """
    model = type(tokenizer.model).__name__
    for kind in KINDS:
        if kind.MODEL == model:
            return kind
    raise ValueError(
        "`tokenizer` must have a model of one of the kinds "
        f"{[kind.MODEL for kind in KINDS]}, as those of BERT and RoBERTa. "
        f"Received: {model}."
    )


def _open(directory: Path) -> TokenizerFolder:
    """Reads the settings, and which class of Hugging Face's they are for."""
    path = directory / SETTINGS_FILE
    settings = read_object(path)
    name = settings.get("tokenizer_class")
    if name is None:
        path = directory / "config.json"
        model = read_object(path)
        name = model.get("tokenizer_class")
        if name is None:
            name = _class_of_model(model.get("model_type"))
    if name is None:
        return TokenizerFolder(directory, settings, None, path)
    known = [*(name for kind in KINDS for name in kind.CLASSES), *PLAIN_CLASSES]
    short = name.removesuffix("Fast") if isinstance(name, str) else None
    if short not in known:
        raise ValueError(
            f"`tokenizer_class` in '{path}' must be one of {known}, "
            "with or without `Fast` at its end: other tokenizers split text "
            f"in other ways. Received: {reprlib.repr(name)}."
        )
    return TokenizerFolder(directory, settings, short, path)


def _class_of_model(model_type: object) -> str | None:
    """Finds the class of a model that names none: "BertTokenizer" of "bert"."""
    wanted = f"{model_type}Tokenizer".lower()
    names = (name for kind in KINDS for name in kind.CLASSES)
    return next((name for name in names if name.lower() == wanted), None)


def _choose_kind(folder: TokenizerFolder) -> ModuleType:
    """Chooses the kind by the class, or else by the files."""
    for kind in KINDS:
        if folder.class_name in kind.CLASSES:
            _check_files(folder, kind)
            return kind
    model = model_setting(folder.complete_path, "type")
    if folder.is_plain:
        return _kind_of_model(folder, model)
    if model == byte_level_bpe.MODEL or (
        model is None
        and _has(folder, byte_level_bpe)
        and not _has(folder, word_piece)
    ):
        raise ValueError(
            f"'{folder.settings_path}' must name the `tokenizer_class` of a "
            "byte-level BPE tokenizer, because they differ: one of "
            f'{list(byte_level_bpe.CLASSES)}, or "{PLAIN_CLASS}" to use '
            f"{COMPLETE_FILE} as it is. Received none."
        )
    return word_piece


def _kind_of_model(folder: TokenizerFolder, model: Any) -> ModuleType:
    for kind in KINDS:
        if model in (None, kind.MODEL):
            # The first kind reports a file that is missing or damaged.
            return kind
    raise ValueError(
        f"The model in '{folder.complete_path}' must be one of "
        f"{[kind.MODEL for kind in KINDS]}. Received: {reprlib.repr(model)}."
    )


def _check_files(folder: TokenizerFolder, kind: ModuleType) -> None:
    """Refuses a folder with the files of a kind other than its class's."""
    if folder.complete_path.is_file() or _has(folder, kind):
        return
    for other in KINDS:
        if other is not kind and _has(folder, other):
            raise ValueError(
                f"`tokenizer_class` in '{folder.class_path}' needs "
                f"{' and '.join(kind.FILES)}, but '{folder.path}' holds "
                f"{' and '.join(other.FILES)}. Received: "
                f"{folder.class_name!r}."
            )


def _has(folder: TokenizerFolder, kind: ModuleType) -> bool:
    return all((folder.path / name).is_file() for name in kind.FILES)


def _check_frame(
    folder: TokenizerFolder,
    tokenizer: tokenizers.Tokenizer,
    special: SpecialTokens,
) -> None:
    """Refuses a tokenizer whose texts are not framed as empty ones are."""
    text = tokenizer.id_to_token(special.mask_id)
    try:
        single, encoding = tokenizer.encode(text), tokenizer.encode(text, text)
    except Exception as error:  # the library raises bare Exception
        raise ValueError(
            f"The tokenizer in '{folder.path}' cannot encode: {error!s:.200}."
        ) from error
    cls, sep, mask = special.cls_id, special.sep_id, special.mask_id
    middle, second = [sep] * special.separators, special.second_segment
    if (
        single.ids != [cls, mask, sep]
        or single.type_ids != [0, 0, 0]
        or encoding.ids != [cls, mask, *middle, mask, sep]
        or encoding.type_ids != [0, 0, *[0] * len(middle), second, second]
    ):
        raise ValueError(
            f"The tokenizer in '{folder.path}' must turn a text into `CLS A "
            "SEP`, two texts into `CLS A SEP B SEP`, with one segment for "
            "each, and keep its mask token whole. Received: "
            f"{' '.join(single.tokens):.60} and "
            f"{' '.join(encoding.tokens):.80}."
        )
