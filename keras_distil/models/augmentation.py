"""More examples of a task, with words replaced by a masked-LM model."""

import dataclasses
import textwrap
from collections.abc import Callable, Iterator

import numpy as np
import tokenizers
from keras_hub.models import MaskedLM

from keras_distil.data import EncodedExamples, SpecialTokens
from keras_distil.models import forward
from keras_distil.models.replaceable_words import WordFinder, Words
from keras_distil.models.word_candidates import WordCandidates, count_places

# Examples whose copies are made together. Part of what determines the copies.
PART_EXAMPLES = 1024


class Augmenter:
    """Makes copies of examples with some of their words replaced.

    Each word of letters is masked by itself, and the model's most likely words
    there are its candidates. A copy replaces each such word by one of its
    candidates with `probability`; all candidates are equally likely. Copies
    keep the labels, numbers, signs and special tokens.

    The examples are taken in parts of equal size, and the random choices in a
    part depend on nothing but the seed and its number. So parts can be made at
    different times, and memory does not grow with the task or the copies.

    Args:
        model: a masked-LM model over the vocabulary of the examples.
        tokenizer: the tokenizer of the examples.
        copies: int >= 1, copies of each example.
        probability: float in (0, 1], probability of replacing a word.
        candidates: int >= 1, number of candidates for each word.
        seed: int >= 0, determines the choices.

    Raises:
        TypeError: if `model` is not a masked-LM model.
        ValueError: if a value is out of range.

    Reference:
        Jiao et al. 2020, arXiv:1909.10351, section 4 and algorithm 1, with
        its values of `probability` and `candidates`; and for whole words in
        the place of masks Wu et al. 2018, arXiv:1812.06705, section 3.
        Differs: a word of several tokens is masked by one mask and replaced
        by a word of one token, where Jiao et al. take neighbours of its word
        vector; each word is masked in the original text and alone, where Wu
        et al. mask several; the model does not see the label, as theirs does,
        because the teacher labels the copies; candidates are drawn evenly
        and not by their probabilities.
    """

    def __init__(
        self,
        model: MaskedLM,
        tokenizer: tokenizers.Tokenizer,
        *,
        copies: int,
        probability: float = 0.4,
        candidates: int = 15,
        seed: int = 0,
    ) -> None:
        _check_values(copies, probability, candidates)
        forward.check_masked_lm(model, "model")
        self.copies = copies
        self._probability = probability
        self._candidates = candidates
        self._seed = seed
        self._finder = WordFinder(tokenizer)
        known = int(self._finder.whole.sum())
        if candidates > known:
            raise ValueError(
                f"`candidates` must be at most {known}, the words of the "
                f"vocabulary. Received: candidates={candidates}."
            )
        self._model = WordCandidates(
            model,
            self._finder.whole,
            mask_id=SpecialTokens.from_tokenizer(tokenizer).mask_id,
            count=candidates,
        )

    def count_words(self, examples: EncodedExamples) -> list[int]:
        """Returns the number of replaceable words in each part."""
        return [
            len(self._finder.find(_part(examples, number)))
            for number in range(count_parts(examples))
        ]

    def estimate_seconds(self, examples: EncodedExamples, words: int) -> float:
        """Estimates how long the model takes for the words of some parts.

        It times one pass on words of the first part that has any.

        Args:
            examples: all examples.
            words: int, number of words to predict.
        """
        for number in range(count_parts(examples)):
            part = _part(examples, number)
            found = self._finder.find(part)
            if len(found):
                places = count_places(part, found.example) / len(found)
                each = self._model.seconds_per_place(part, found)
                return words * places * each
        return 0.0

    def copies_of(
        self,
        examples: EncodedExamples,
        number: int,
        progress: Callable[[int], None] = lambda words: None,
    ) -> Iterator[EncodedExamples]:
        """Yields the first copies of a part's examples, the second, and so on.

        Args:
            examples: all examples of a classification or a regression.
            number: int, number of the part, below `count_parts`.
            progress: called with the number of the part's words that are done.

        Raises:
            ValueError: if the labels are not one array with one label per
                example.
        """
        check_labels(examples)
        part = _part(examples, number)
        words = self._finder.find(part)
        candidates = self._model.predict(part, words, progress)
        generator = np.random.default_rng([self._seed, number])
        for _ in range(self.copies):
            chosen = generator.random(len(words)) < self._probability
            which = generator.integers(0, self._candidates, len(words))
            new = candidates[np.arange(len(words)), which]
            yield _replace(part, words, chosen, new)


def count_parts(examples: EncodedExamples) -> int:
    """Returns the number of parts that examples are taken in."""
    return -(-len(examples) // PART_EXAMPLES)


def check_text(
    examples: EncodedExamples, tokenizer: tokenizers.Tokenizer
) -> None:
    """Raises ValueError unless examples have text to augment.

    Args:
        examples: the examples.
        tokenizer: their tokenizer.

    Raises:
        ValueError: if an example has no token besides those that frame it, or
            none of them has a word to replace.
    """
    special = SpecialTokens.from_tokenizer(tokenizer)
    frame = np.isin(examples.token_ids, [special.cls_id, special.sep_id])
    empty = np.flatnonzero(np.logical_and.reduceat(frame, examples.starts[:-1]))
    remedy = "Remove them from the training set, or set `augment_copies` to 0."
    if len(empty):
        raise ValueError(
            "Examples must have text to augment. Received: "
            f"{len(empty):,} of {len(examples):,} without any, the first comes "
            f"{_describe_place(examples, empty[0], tokenizer)}. {remedy}"
        )
    finder = WordFinder(tokenizer)
    parts = range(count_parts(examples))
    if not any(len(finder.find(_part(examples, number))) for number in parts):
        raise ValueError(
            "Examples must have words of letters to replace. Received: "
            f"{len(examples):,} without any. {remedy}"
        )


def check_labels(examples: EncodedExamples) -> None:
    """Raises ValueError unless there is one array with a label for each."""
    labels = examples.labels
    if isinstance(labels, dict) or np.shape(labels)[:1] != (len(examples),):
        raise ValueError(
            "`examples` must have one label each. Received: "
            f"{type(labels).__name__} of shape {np.shape(labels)}."
        )


def _describe_place(
    examples: EncodedExamples, number: int, tokenizer: tokenizers.Tokenizer
) -> str:
    """Says after which text an example comes.

    Its number would not do: rows of its file may be held out before it.
    """
    if not number:
        return "before all others"
    before = examples.part(number - 1, number).token_ids
    text = tokenizer.decode(before.tolist(), skip_special_tokens=True)
    return f'after "{textwrap.shorten(text, 60, placeholder="...")}"'


def _check_values(copies: int, probability: float, candidates: int) -> None:
    for name, value in (("copies", copies), ("candidates", candidates)):
        if value < 1:
            raise ValueError(
                f"`{name}` must be at least 1. Received: {name}={value}."
            )
    if not 0 < probability <= 1:
        raise ValueError(
            "`probability` must be above 0 and at most 1. "
            f"Received: probability={probability}."
        )


def _part(examples: EncodedExamples, number: int) -> EncodedExamples:
    begin = number * PART_EXAMPLES
    return examples.part(begin, min(begin + PART_EXAMPLES, len(examples)))


def _replace(
    examples: EncodedExamples, words: Words, chosen: np.ndarray, new: np.ndarray
) -> EncodedExamples:
    """Replaces words by other words of one token.

    Args:
        examples: the examples.
        words: words in them.
        chosen: bool, (words,), the words to replace.
        new: int, (words,), the word that would replace each.
    """
    token_ids = examples.token_ids.copy()
    first, more = words.first[chosen], words.sizes[chosen] - 1
    token_ids[first] = new[chosen]
    # The other tokens of a replaced word are left out.
    number = np.arange(more.sum()) - np.repeat(np.cumsum(more) - more, more)
    kept = np.ones(len(token_ids), bool)
    kept[np.repeat(first, more) + 1 + number] = False
    before = np.concatenate([[0], np.cumsum(kept)])
    starts = before[examples.starts]
    second = before[examples.starts[:-1] + examples.first_lengths]
    return dataclasses.replace(
        examples,
        token_ids=token_ids[kept],
        starts=starts,
        first_lengths=(second - starts[:-1]).astype(np.int32),
    )
