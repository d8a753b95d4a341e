"""Token ids of texts, of which each word is split into tokens only once."""

import functools
import itertools
import json
from collections.abc import Sequence
from typing import Any

# Words that are remembered. With their ids they take about as much memory as a
# table takes on disk.
_MOST = 2**15
_BERT = "BertPreTokenizer"


class KnownWords:
    """Splits texts at spaces, and remembers the token ids of each part.

    Most words of most texts are known ones. BERT's tokenizers split at every
    space, so the ids of a text are those of its parts, one after the other; for
    other tokenizers, whole texts are split.

    Args:
        tokenizer: a `tokenizers.Tokenizer`, which cuts texts at its length.
        most: int, ids of a text; the others are cut off.
    """

    def __init__(self, tokenizer: Any, most: int) -> None:
        self._tokenizer, self._most = tokenizer, most
        self._splits_at_spaces = _splits_at_spaces(tokenizer)
        self._ids_of_word = functools.lru_cache(_MOST)(self._split)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the token ids of texts, without those that frame a text."""
        if not self._splits_at_spaces:
            encode = self._tokenizer.encode_batch_fast
            found = encode(list(texts), add_special_tokens=False)
            return [each.ids for each in found]
        chain, known = itertools.chain.from_iterable, self._ids_of_word
        return [
            list(chain(map(known, text.split(" "))))[: self._most]
            for text in texts
        ]

    def _split(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids


def _splits_at_spaces(tokenizer: Any) -> bool:
    """Whether no token and no rule reaches over a space."""
    settings = json.loads(tokenizer.to_str())
    rules = settings.get("pre_tokenizer") or {}
    normalizer = settings.get("normalizer") or {"type": "BertNormalizer"}
    return (
        rules.get("type") == _BERT
        and normalizer.get("type") == "BertNormalizer"
        and not any(" " in x["content"] for x in settings["added_tokens"])
    )
