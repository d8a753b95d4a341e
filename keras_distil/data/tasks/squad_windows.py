"""Input of a span model: a question and a window of its context."""

import dataclasses
import os
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
import tokenizers

from keras_distil.data.special_tokens import SpecialTokens
from keras_distil.data.tasks.squad import SquadExample


@dataclasses.dataclass(frozen=True)
class SquadWindows:
    """Questions, each with a stretch of its context, as token ids.

    The windows of an example follow each other, in the order of the context.
    Windows differ in length: nothing is padded.

    Attributes:
        token_ids: for each window `[CLS] question [SEP] context [SEP]`, int32,
            (length,), with as many [SEP] in the middle as the tokenizer has
            there.
        segment_ids: for each window, int32, (length,): 0 up to the context,
            from there on the tokenizer's segment of a second text.
        example: int32, (windows,), index of the example.
        offsets: for each window, int32, (length, 2): where the token starts
            and ends in the characters of the context; -1 outside of it.
        first_token: int32, (windows,), index, within the whole context, of
            the window's first context token.
        start: int32, (windows,), position of the first token of the first
            gold answer that lies wholly in the window; 0, the position of
            [CLS], if none does.
        end: int32, (windows,), position of that answer's last token, or 0.
    """

    token_ids: list[np.ndarray]
    segment_ids: list[np.ndarray]
    example: np.ndarray
    offsets: list[np.ndarray]
    first_token: np.ndarray
    start: np.ndarray
    end: np.ndarray

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.token_ids)


def make_squad_windows(
    examples: Sequence[SquadExample],
    tokenizer: tokenizers.Tokenizer,
    *,
    max_length: int = 384,
    stride: int = 128,
    max_question: int = 64,
) -> SquadWindows:
    """Cuts examples into windows that a span model can read.

    A whole context is tokenized once for all its questions. Where it is
    longer than the space that a question leaves, windows overlap.

    An answer's tokens are those that hold at least one of its characters, so
    the characters from the first token's start to the last token's end
    contain the answer, and little else. Combining marks that the tokenizer
    drops belong to the token before them.

    Args:
        examples: the questions. In a training set, each has one answer.
        tokenizer: as returned by `load_tokenizer`.
        max_length: maximum tokens per window.
        stride: number of context tokens shared by consecutive windows of a
            question.
        max_question: maximum tokens of a question; the rest is cut off.

    Returns:
        At least one window per example, in the order of the examples.

    Raises:
        ValueError: if a window has no space for more context than `stride`,
            or the tokenizer truncates or pads.

    Reference:
        Devlin et al. 2018, arXiv:1810.04805, section 4.2 and its code
        https://github.com/google-research/bert/blob/master/run_squad.py
        Differs: `stride` is the overlap, not the step; answers are found by
        characters, not by words.
    """
    special = SpecialTokens.from_tokenizer(tokenizer)
    _check_sizes(max_length, stride, max_question, special.in_pair)
    if tokenizer.truncation is not None or tokenizer.padding is not None:
        raise ValueError(
            "`tokenizer` must neither truncate nor pad. Received one that "
            "does; load it with `load_tokenizer`."
        )
    contexts = list(dict.fromkeys(example.context for example in examples))
    encoded = _encode(tokenizer, contexts)
    context_of = {
        text: _Context.of(text, encoding)
        for text, encoding in zip(contexts, encoded, strict=True)
    }
    questions = _encode(tokenizer, [example.question for example in examples])
    builder = _Builder(special)
    for i, (example, question) in enumerate(
        zip(examples, questions, strict=True)
    ):
        question_ids = question.ids[:max_question]
        room = max_length - special.in_pair - len(question_ids)
        context = context_of[example.context]
        spans = context.answers(example)
        for first in window_starts(len(context.ids), room, stride):
            builder.add(i, question_ids, context, slice(first, first + room))
            builder.label(first, room, question_ids, spans)
    return builder.windows()


def _check_sizes(
    max_length: int, stride: int, max_question: int, special: int
) -> None:
    if max_question < 1:
        raise ValueError(
            "`max_question` must be at least 1. Received: "
            f"max_question={max_question}."
        )
    least = max_question + special + 1
    if max_length < least:
        raise ValueError(
            f"`max_length` must be at least {least}: `max_question` and "
            f"{special} special tokens, and 1 of the context. Received: "
            f"max_length={max_length}, max_question={max_question}."
        )
    room = max_length - max_question - special
    if not 0 <= stride < room:
        raise ValueError(
            f"`stride` must be from 0 to {room - 1}, less than the context "
            f"tokens in a window. Received: stride={stride}, "
            f"max_length={max_length}, max_question={max_question}."
        )


def _encode(
    tokenizer: tokenizers.Tokenizer, texts: list[str]
) -> list[tokenizers.Encoding]:
    """Encodes texts with offsets."""
    # If unset, the library warns at every later fork of the process.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    return tokenizer.encode_batch(texts, add_special_tokens=False)


@dataclasses.dataclass(frozen=True)
class _Context:
    """A whole context: ids int32, (tokens,), and offsets, (tokens, 2)."""

    ids: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, text: str, encoding: tokenizers.Encoding) -> "_Context":
        offsets = np.array(encoding.offsets, np.int32).reshape(-1, 2)
        leave_out_spaces(text, offsets)
        if not text.isascii():
            _take_marks(text, offsets)
        return cls(np.array(encoding.ids, np.int32), offsets)

    def answers(self, example: SquadExample) -> list[tuple[int, int]]:
        """Returns first and last token of each answer that has a token."""
        spans = []
        for answer in example.answers:
            # Tokens are in order: find the first one that ends after the
            # answer's start and the last one that starts before its end.
            first = np.searchsorted(self.offsets[:, 1], answer.start, "right")
            last = np.searchsorted(self.offsets[:, 0], answer.end, "left") - 1
            if first <= last:
                spans.append((int(first), int(last)))
        return spans


def leave_out_spaces(text: str, offsets: np.ndarray) -> None:
    """Lets tokens start after the white space that belongs to them, in place.

    Byte-level tokens begin with the space before the word, and not every
    tokenizer leaves it out of the offsets.
    """
    spaces = np.fromiter(map(str.isspace, text), bool, len(text))
    starts, ends = offsets[:, 0], offsets[:, 1]
    while True:
        early = np.flatnonzero(starts < ends)
        early = early[spaces[starts[early]]]
        if not len(early):
            return
        starts[early] += 1


def _take_marks(text: str, offsets: np.ndarray) -> None:
    """Extends tokens over the combining marks after them, in place.

    A tokenizer that strips accents drops the mark of a letter that is stored
    as two characters, and with it the end of the word.
    """
    for i, end in enumerate(offsets[:, 1]):
        limit = offsets[i + 1, 0] if i + 1 < len(offsets) else len(text)
        while end < limit and unicodedata.category(text[end]) == "Mn":
            end += 1
        offsets[i, 1] = end


def window_starts(tokens: int, room: int, stride: int) -> Iterable[int]:
    """Yields where windows start, up to the first that reaches the end."""
    step = room - stride
    return range(0, max(tokens - room, 0) + step, step)


class _Builder:
    """Collects the windows of all examples."""

    def __init__(self, special: SpecialTokens) -> None:
        self._special = special
        self._token_ids: list[np.ndarray] = []
        self._segment_ids: list[np.ndarray] = []
        self._offsets: list[np.ndarray] = []
        self._example: list[int] = []
        self._first: list[int] = []
        self._labels: list[tuple[int, int]] = []

    def add(
        self, example: int, question: list[int], context: _Context, part: slice
    ) -> None:
        ids = context.ids[part]
        before = self._before(question)
        length = before + len(ids) + 1
        token_ids = np.full(length, self._special.sep_id, np.int32)
        token_ids[0] = self._special.cls_id
        token_ids[1 : 1 + len(question)] = question
        token_ids[before:-1] = ids
        segment_ids = np.full(length, self._special.second_segment, np.int32)
        segment_ids[:before] = 0
        offsets = np.full((length, 2), -1, np.int32)
        offsets[before:-1] = context.offsets[part]
        self._token_ids.append(token_ids)
        self._segment_ids.append(segment_ids)
        self._offsets.append(offsets)
        self._example.append(example)
        self._first.append(part.start)

    def label(
        self,
        first: int,
        room: int,
        question: list[int],
        spans: list[tuple[int, int]],
    ) -> None:
        shift = self._before(question) - first
        inside = (
            (start + shift, end + shift)
            for start, end in spans
            if first <= start and end < first + room
        )
        self._labels.append(next(inside, (0, 0)))

    def _before(self, question: list[int]) -> int:
        """Number of tokens before the context."""
        return 1 + len(question) + self._special.separators

    def windows(self) -> SquadWindows:
        labels = np.array(self._labels, np.int32).reshape(-1, 2)
        return SquadWindows(
            self._token_ids,
            self._segment_ids,
            np.array(self._example, np.int32),
            self._offsets,
            np.array(self._first, np.int32),
            labels[:, 0],
            labels[:, 1],
        )
