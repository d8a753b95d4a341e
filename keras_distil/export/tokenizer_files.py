"""The files of a tokenizer in a Hugging Face folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers

from keras_distil.data import load_tokenizer, vocabulary_hash
from keras_distil.export.student import Student
from keras_distil.export.vocabulary import write_vocabulary

_TOKENIZER_CLASSES = {
    "bert": "BertTokenizer",
    "distilbert": "DistilBertTokenizer",
}
_PARTS = ("normalizer", "pre_tokenizer")
# Texts that tokenizers with other settings split differently.
_SPLIT = (
    "The Caf\u00e9 \u65e5\u672c [MASK][SEP] naI\u0308ve-x " + "l" * 99,
    "",
)


def write_tokenizer(
    student: Student, tokenizer: tokenizers.Tokenizer, folder: Path
) -> None:
    """Writes the vocabulary, the settings and the special tokens."""
    write_vocabulary(tokenizer, folder)
    special = {
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
        "pad_token": "[PAD]",
        "sep_token": "[SEP]",
        "unk_token": "[UNK]",
    }
    inputs = {
        "token_ids": "input_ids",
        "padding_mask": "attention_mask",
        "segment_ids": "token_type_ids",
    }
    described = json.loads(tokenizer.to_str())
    settings = {
        "tokenizer_class": _tokenizer_class(student, described),
        **_normalizer_settings(described),
        **special,
        "added_tokens_decoder": {
            str(token["id"]): {k: v for k, v in token.items() if k != "id"}
            for token in described["added_tokens"]
        },
        "model_max_length": student.max_length,
        "model_input_names": [inputs[name] for name in student.input_names],
        "clean_up_tokenization_spaces": True,
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


def _tokenizer_class(student: Student, described: Mapping[str, Any]) -> str:
    """The Hugging Face class that reads `tokenizer.json` without changes.

    BERT's class follows the settings beside the file and knows only one way
    to split words; the other class follows `tokenizer.json` alone.
    """
    model = described["model"]
    parts = [(described[p] or {}).get("type") for p in _PARTS]
    if (
        parts == ["BertNormalizer", "BertPreTokenizer"]
        and described["normalizer"]["clean_text"]
        and model["continuing_subword_prefix"] == "##"
        and model["max_input_chars_per_word"] == 100
    ):
        return _TOKENIZER_CLASSES[student.architecture]
    return "PreTrainedTokenizerFast"


def _normalizer_settings(described: Mapping[str, Any]) -> Mapping[str, Any]:
    """The normalizer's settings under Hugging Face's names."""
    normalizer = described["normalizer"] or {}
    names = {
        "lowercase": "do_lower_case",
        "strip_accents": "strip_accents",
        "handle_chinese_chars": "tokenize_chinese_chars",
    }
    return {
        theirs: normalizer[ours]
        for ours, theirs in names.items()
        if ours in normalizer
    }


def check_tokenizer(tokenizer: tokenizers.Tokenizer, folder: Path) -> None:
    """Raises ValueError if the written tokenizer reads back differently."""
    back = load_tokenizer(folder)
    for what, ours, theirs in (
        ("vocabulary", *(vocabulary_hash(t) for t in (tokenizer, back))),
        (
            "text",
            *([t.encode(x).ids for x in _SPLIT] for t in (tokenizer, back)),
        ),
    ):
        if ours != theirs:
            raise ValueError(
                f"`tokenizer` has no form in a Hugging Face folder: its {what} "
                "reads back otherwise. Load it with `data.load_tokenizer`."
            )
