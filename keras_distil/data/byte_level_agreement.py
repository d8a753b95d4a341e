"""Whether Hugging Face's classes follow a byte-level `tokenizer.json`.

They take its words and merges, and build the rest of the tokenizer themselves.
"""

import json
from collections.abc import Mapping
from typing import Any

import tokenizers

from keras_distil.data.special_tokens import SpecialTokens, frame_ids
from keras_distil.data.tokenizer_files import (
    SETTINGS_FILE,
    TokenizerFolder,
    check_agreement,
)
from keras_distil.utils import token_roles

# What the classes make of `tokenizer.json`'s model, whatever it says.
MODEL_SETTINGS: dict[str, Any] = {
    "dropout": None,
    "unk_token": None,
    "continuing_subword_prefix": "",
    "end_of_word_suffix": "",
    "fuse_unk": False,
    "byte_fallback": False,
    "ignore_merges": False,
}


def check_followed(
    folder: TokenizerFolder,
    as_written: tokenizers.Tokenizer,
    used: tokenizers.Tokenizer,
) -> None:
    """Refuses files that Hugging Face would follow only in part.

    Args:
        folder: the tokenizer's folder.
        as_written: what its `tokenizer.json` describes.
        used: what Hugging Face's class makes of it, and this package.

    Raises:
        ValueError: if the two differ, or the settings are others.
    """
    if not folder.is_plain:
        _check_parts(folder, json.loads(as_written.to_str()))
        _check_same_frame(folder, as_written, used)
    for name, part in (
        ("add_prefix_space", "pre_tokenizer"),
        ("trim_offsets", "post_processor"),
    ):
        written, value = (
            read_flag(getattr(tokenizer, part), name)
            for tokenizer in (as_written, used)
        )
        _check_flag(folder, name, part, written, value)


def _check_parts(folder: TokenizerFolder, described: Mapping[str, Any]) -> None:
    model, pre_tokenizer = described["model"], described["pre_tokenizer"]
    check_agreement(
        folder.complete_path,
        folder.class_name or "",
        [
            # Written as null or as nothing, it is the same.
            *(
                (f"model.{key}", model[key] or value, value)
                for key, value in MODEL_SETTINGS.items()
            ),
            ("normalizer", described["normalizer"], None),
            ("pre_tokenizer.type", pre_tokenizer["type"], "ByteLevel"),
            ("pre_tokenizer.use_regex", pre_tokenizer.get("use_regex"), True),
        ],
    )


def _check_same_frame(
    folder: TokenizerFolder,
    as_written: tokenizers.Tokenizer,
    used: tokenizers.Tokenizer,
) -> None:
    if as_written.post_processor is None:
        return
    ids = [frame_ids(tokenizer) for tokenizer in (as_written, used)]
    written, expected = (
        [used.id_to_token(token_id) for token_id in of_pair]
        for of_pair, _ in ids
    )
    if ids[0] != ids[1]:
        check_agreement(
            folder.complete_path,
            folder.class_name or "",
            [("post_processor", (written, ids[0][1]), (expected, ids[1][1]))],
        )


def read_flag(part: Any, name: str) -> bool | None:
    """The value of a flag in a part of a tokenizer; None if it has none."""
    for each in token_roles.parts(token_roles.describe(part)):
        if name in each:
            return each[name]
    return None


def _check_flag(
    folder: TokenizerFolder,
    name: str,
    part: str,
    written: bool | None,
    used: bool | None,
) -> None:
    """Refuses a flag that tokenizer.json and the settings give differently."""
    path, stated = folder.complete_path, folder.settings.get(name)
    if stated is not None and stated != used:
        raise ValueError(
            f"`{name}` in '{folder.settings_path}' is {json.dumps(stated)}, "
            f"and `{part}` in '{path}', which is used as is, has "
            f"{json.dumps(used)}. Make them equal."
        )
    if stated is None and None not in (written, used) and written != used:
        raise ValueError(
            f"'{path}' has {name}={json.dumps(written)}, and {SETTINGS_FILE} "
            f"has no `{name}`, for which Hugging Face uses {json.dumps(used)}. "
            f"Write `{name}` into '{folder.settings_path}'."
        )


def is_followed(
    tokenizer: tokenizers.Tokenizer, special: SpecialTokens
) -> bool:
    """Whether a class that frames texts would read the same from the file."""
    described = json.loads(tokenizer.to_str())
    pre_tokenizer, model = described["pre_tokenizer"] or {}, described["model"]
    return (
        described["normalizer"] is None
        and pre_tokenizer.get("type") == "ByteLevel"
        and pre_tokenizer["use_regex"]
        and all(
            (model[key] or value) == value
            for key, value in MODEL_SETTINGS.items()
        )
        and read_flag(tokenizer.post_processor, "trim_offsets") is not None
        and (special.separators, special.second_segment) == (2, 0)
        and special.unknown_id is not None
    )
