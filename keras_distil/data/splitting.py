"""Where a text can be cut without changing its tokens."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import tokenizers

from keras_distil.data.vocabulary import normalized

Splitter: TypeAlias = Callable[[str], list[str]]

_BERT = (
    ["BertNormalizer", "BertPreTokenizer", "WordPiece"],
    [None, "BertPreTokenizer", "WordPiece"],
)
_BYTE_LEVEL = [None, "ByteLevel", "BPE"]
# A byte-level tokenizer joins one space to the word after it, and nothing to
# the end of a word. Python counts four more control characters as white space
# than the tokenizer does, at which a text is then not cut.
_BETWEEN_WORDS = re.compile(r"(?<=\S)(?= \S)")
# The words of BERT's tokenizers in ASCII; each other character is a word.
_ALONE = re.compile(r"[0-9A-Za-z]+|[^0-9A-Za-z]")


def find_splitter(tokenizer: tokenizers.Tokenizer) -> Splitter | None:
    """Finds how a text can be cut so that its parts have its tokens.

    Args:
        tokenizer: a tokenizer.

    Returns:
        A function from a text to its parts, in order; None if none is known
        for the kind of tokenizer.
    """
    described = json.loads(tokenizer.to_str())
    added = described["added_tokens"]
    if any(
        any(map(str.isspace, text))
        for token in added
        for text in (token["content"], normalized(tokenizer, token["content"]))
    ):
        return None
    kinds = _kinds(described)
    if kinds in _BERT:
        # Characters are changed one by one, and nothing crosses a space.
        return lambda text: text.split(" ")
    if kinds == _BYTE_LEVEL and described["pre_tokenizer"]["use_regex"]:
        return _between_words(added)
    return None


def find_divider(tokenizer: tokenizers.Tokenizer) -> Splitter | None:
    """Finds how what stands between two spaces can be cut further.

    Args:
        tokenizer: a tokenizer.

    Returns:
        A function from such a stretch to parts that have its tokens; None if
        none is known for the kind of tokenizer.
    """
    described = json.loads(tokenizer.to_str())
    if _kinds(described) not in _BERT or not all(
        "[" in token["content"] for token in described["added_tokens"]
    ):
        return None

    def divide(text: str) -> list[str]:
        # With "[", it may spell an added token. Other letters and marks are
        # left to the tokenizer.
        if text.isalnum() or "[" in text or not text.isascii():
            return [text]
        return _ALONE.findall(text) if text.isprintable() else [text]

    return divide


def _between_words(added: list[Mapping[str, Any]]) -> Splitter:
    """Cuts before a single space between words."""
    # These take the white space before or after them, which must be there.
    greedy = [t["content"] for t in added if t["lstrip"] or t["rstrip"]]

    def split(text: str) -> list[str]:
        if any(token in text for token in greedy):
            return [text]
        return _BETWEEN_WORDS.split(text)

    return split


def _kinds(described: Mapping[str, Any]) -> list[str | None]:
    """Returns the kinds of a tokenizer's parts."""
    return [
        (described[part] or {}).get("type")
        for part in ("normalizer", "pre_tokenizer", "model")
    ]
