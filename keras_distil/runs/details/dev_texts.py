"""The texts of a development set, as the models read them."""

from collections.abc import Sequence

import numpy as np
import tokenizers

from keras_distil import data
from keras_distil.data.tasks.words import EncodedWords

# Characters of a text that are kept.
_LENGTH = 300


class DevTexts:
    """Texts of one or more parts of a development set, from their tokens.

    Args:
        parts: the examples of each part, in the order of the labels.
        tokenizer: their tokenizer.
    """

    def __init__(
        self,
        parts: Sequence[data.EncodedExamples],
        tokenizer: tokenizers.Tokenizer,
    ) -> None:
        self._parts = list(parts)
        self._tokenizer = tokenizer
        special = data.SpecialTokens.from_tokenizer(tokenizer)
        self._cls, self._sep = special.cls_id, special.sep_id

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each text, int64, (texts,); those of all its windows."""
        return np.concatenate(
            [
                part.lengths
                if part.owners is None
                else np.bincount(part.owners, part.lengths).astype(np.int64)
                for part in self._parts
            ]
        )

    def texts(self, number: int) -> list[str]:
        """Returns a text, or both of a pair, without what is far behind."""
        ids = self._ids(number)
        ends = np.flatnonzero(ids == self._sep)
        pieces = [self._decode(piece) for piece in np.split(ids, ends)]
        return [shortened(piece) for piece in pieces if piece]

    def _ids(self, number: int) -> np.ndarray:
        """Returns the token ids of a text, or of its first window."""
        for part in self._parts:
            owners = part.owners
            count = len(part) if owners is None else int(owners[-1]) + 1
            if number < count:
                if owners is not None:
                    number = int(np.searchsorted(owners, number))
                begin, end = part.starts[number : number + 2]
                return np.asarray(part.token_ids[begin:end])
            number -= count
        raise IndexError(number)

    def word(self, words: EncodedWords, number: int) -> tuple[str, str, str]:
        """Returns what is before a word, the word, and what is after it.

        Args:
            words: the only part's words.
            number: of the word, counted through all sentences.

        Returns:
            Three texts; all are empty for a word that is not read.
        """
        place = int(np.searchsorted(words.words, number))
        if place == len(words.words) or words.words[place] != number:
            return "", "", ""
        window = int(words.windows[place])
        begin = int(words.positions[place])
        first, last = words.examples.starts[window : window + 2]
        ids = np.asarray(words.examples.token_ids[first:last])
        # The pieces of the word end where the next word begins.
        _, windows, positions = words.places
        later = positions[(windows == window) & (positions > begin)]
        end = int(later.min()) if len(later) else len(ids) - 1
        before, word, after = (
            self._decode(part) for part in np.split(ids, [begin, end])
        )
        return before[-_LENGTH // 2 :], word, after[: _LENGTH // 2]

    def _decode(self, ids: np.ndarray) -> str:
        kept = ids[(ids != self._cls) & (ids != self._sep)].tolist()
        # Unknown tokens are special, and shown.
        text = self._tokenizer.decode(kept, skip_special_tokens=False)
        return " ".join(text.split())


def shortened(text: str) -> str:
    """Returns the beginning of a text of one line."""
    return text if len(text) <= _LENGTH else f"{text[: _LENGTH - 3]}..."
