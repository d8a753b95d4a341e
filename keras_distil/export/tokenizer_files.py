"""The files of a tokenizer in a Hugging Face folder."""

import json
from pathlib import Path

import tokenizers

from keras_distil.data import (
    SpecialTokens,
    load_tokenizer,
    unknown_token,
    vocabulary_hash,
)
from keras_distil.data.tokenizer_folder import kind_of
from keras_distil.export.student import Student
from keras_distil.export.vocabulary import write_vocabulary

# Texts that tokenizers with other settings split differently.
_SPLIT = (
    "The Caf\u00e9 \u65e5\u672c [MASK][SEP] naI\u0308ve-x " + "l" * 99,
    " it's  two <mask> 12 ",
    "",
)


def write_tokenizer(
    student: Student, tokenizer: tokenizers.Tokenizer, folder: Path
) -> None:
    """Writes the vocabulary, the settings and the special tokens.

    Raises:
        ValueError: if the tokenizer is of an unsupported kind.
    """
    kind = kind_of(tokenizer)
    write_vocabulary(tokenizer, folder)
    special = _special_tokens(tokenizer)
    inputs = {
        "token_ids": "input_ids",
        "padding_mask": "attention_mask",
        "segment_ids": "token_type_ids",
    }
    described = json.loads(tokenizer.to_str())
    settings = {
        **kind.hugging_face_settings(tokenizer, student.family.tokenizer_class),
        **special,
        "added_tokens_decoder": {
            str(token["id"]): {k: v for k, v in token.items() if k != "id"}
            for token in described["added_tokens"]
        },
        "model_max_length": student.max_length,
        "model_input_names": [inputs[name] for name in student.input_names],
        "clean_up_tokenization_spaces": kind.HAS_SPACES_TO_CLEAN,
    }
    more = [
        token["content"]
        for token in described["added_tokens"]
        if token["special"] and token["content"] not in special.values()
    ]
    if more:
        settings["additional_special_tokens"] = more
    for name, content in (
        ("special_tokens_map.json", special),
        ("tokenizer_config.json", settings),
    ):
        text = json.dumps(content, indent=2) + "\n"
        (folder / name).write_text(text, "utf-8")


def _special_tokens(tokenizer: tokenizers.Tokenizer) -> dict[str, str]:
    """The special tokens by role, under Hugging Face's names."""
    special = SpecialTokens.from_tokenizer(tokenizer)
    tokens = {
        "cls_token": tokenizer.id_to_token(special.cls_id),
        "mask_token": tokenizer.id_to_token(special.mask_id),
        "pad_token": tokenizer.id_to_token(special.pad_id),
        "sep_token": tokenizer.id_to_token(special.sep_id),
        "unk_token": unknown_token(tokenizer),
    }
    return {role: token for role, token in tokens.items() if token is not None}


def check_tokenizer(tokenizer: tokenizers.Tokenizer, folder: Path) -> None:
    """Raises ValueError if the written tokenizer reads back differently."""
    back = load_tokenizer(folder)
    for what, ours, theirs in (
        ("vocabulary", *(vocabulary_hash(t) for t in (tokenizer, back))),
        (
            "text",
            *([t.encode(x).ids for x in _SPLIT] for t in (tokenizer, back)),
        ),
        (
            "set of special tokens",
            *(SpecialTokens.from_tokenizer(t) for t in (tokenizer, back)),
        ),
    ):
        if ours != theirs:
            raise ValueError(
                f"`tokenizer` has no form in a Hugging Face folder: its {what} "
                "reads back otherwise. Load it with `data.load_tokenizer`."
            )
