"""The parts that a tokenizer's tokens play, read off the tokenizer alone.

Code that takes a `tokenizers.Tokenizer` must know which of its tokens pads and
which masks. The post-processor states which ones frame a text, and the model
which one is unknown, but nothing states the others. They are found by their
conventional names, unless the post-processor's table of special tokens has an
entry named after the role: the library keeps such an entry, writes it into
tokenizer.json, and never uses it.
"""

import json
from collections.abc import Iterator
from typing import Any

_NAMES = {
    "pad_token": ("[PAD]", "<pad>"),
    "mask_token": ("[MASK]", "<mask>"),
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
}


def find_role(tokenizer: Any, role: str) -> str | None:
    """Finds the token that plays a role.

    Args:
        tokenizer: a `tokenizers.Tokenizer`.
        role: the role under Hugging Face's name, such as "mask_token".

    Returns:
        The token; None if the tokenizer has none for the role.
    """
    names = list(_NAMES[role])
    for template in templates(describe(tokenizer.post_processor)):
        if role in template["special_tokens"]:
            names[:0] = template["special_tokens"][role]["tokens"]
    for name in names:
        if tokenizer.token_to_id(name) is not None:
            return name
    return None


def describe(part: Any) -> dict[str, Any] | None:
    """Describes a part of a tokenizer as tokenizer.json does.

    Unlike `Tokenizer.to_str`, this does not write the vocabulary.
    """
    return None if part is None else json.loads(part.__getstate__())


def templates(post_processor: Any) -> Iterator[dict[str, Any]]:
    """Yields the templates in a tokenizer's described post-processor."""
    for part in parts(post_processor):
        if part["type"] == "TemplateProcessing":
            yield part


def parts(post_processor: Any) -> Iterator[dict[str, Any]]:
    """Yields the parts of a post-processor, or of a pre-tokenizer."""
    if post_processor is None:
        return
    if post_processor["type"] != "Sequence":
        yield post_processor
        return
    for key in ("processors", "pretokenizers", "normalizers"):
        for part in post_processor.get(key, ()):
            yield from parts(part)


def spell(tokenizer: Any, token_id: int) -> str | None:
    """Spells a token as a reader expects it.

    The tokens of byte-level tokenizers are decoded, so that a space and an
    accent look like themselves. Other tokens are given as they are, because a
    piece of a word should look like one: `##ing`.

    Args:
        tokenizer: a `tokenizers.Tokenizer`.
        token_id: int, the token's id.

    Returns:
        The text; None if no token has the id.
    """
    token = tokenizer.id_to_token(token_id)
    if token is None or not is_byte_level(tokenizer):
        return token
    return tokenizer.decode([token_id], skip_special_tokens=False)


def is_byte_level(tokenizer: Any) -> bool:
    """Checks whether tokens spell bytes, and a space belongs to its word."""
    return type(tokenizer.decoder).__name__ == "ByteLevel"
