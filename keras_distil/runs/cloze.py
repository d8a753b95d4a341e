"""Questions without answers, made of the sentences of a paragraph."""

import random
import re
from collections.abc import Iterator

from keras_distil.data.corpus.sentences import split_sentences

# Words of a sentence that is asked about.
SHORTEST, LONGEST = 6, 40
# Words of a question besides its question word.
_WORDS = 6, 14
# Share of the questions that begin with the question word, as most do.
_FIRST = 0.75
# Share of the other words that are left out.
_LEFT_OUT = 0.1
_WORD = re.compile(r"\S+")
_EDGES = re.compile(r"^\W+|\W+$")
_YEAR = re.compile(r"1\d\d\d|20\d\d")
# Words that join parts of a name.
_JOINING = frozenset("of the de la van von".split())
_PLACES = frozenset("in at near from to".split())
_BEFORE = frozenset("a an the his her its their some of by for with".split())
# Words that end an answer which begins after one of `_BEFORE`.
_AFTER = frozenset(
    "a an the of by for with in on at to from and or but that which who whom "
    "whose when where while as than is are was were be been being has have had "
    "do does did will would can could may might must should not it he she they "
    "this these those his her its their into over after before under between "
    "because if so such".split()
)
_LONGEST_ANSWER = 3


def ask(paragraph: str, generator: random.Random) -> str | None:
    """Asks about a part of a paragraph; None if nothing can be asked.

    Takes a sentence, leaves out a number, a name or another part of it, puts a
    question word there or at the front, and drops a few more words: the noisy
    cloze questions of Lewis et al. 2019 (arXiv:1906.04980), without a parser.
    It is made for English.

    Args:
        paragraph: a text of several sentences.
        generator: makes the choices.

    Example:
        >>> ask("The abbey was built by the monks in 1842.", random.Random(5))
        'in what year The abbey was built by the monks?'
    """
    sentences = [
        words
        for sentence in split_sentences(paragraph)
        if SHORTEST <= len(words := _WORD.findall(sentence)) <= LONGEST
    ]
    generator.shuffle(sentences)
    for words in sentences:
        answers = list(_answers(words))
        if answers:
            return _question(words, *generator.choice(answers), generator)
    return None


def _answers(words: list[str]) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """Yields parts that can be asked for: begin, end, question words.

    Args:
        words: those of a sentence.
    """
    bare = [_EDGES.sub("", word) for word in words]
    at = 0
    while at < len(words):
        before = bare[at - 1].lower() if at else ""
        end = at
        asking: tuple[str, ...] = ("what", "which")
        if _YEAR.fullmatch(bare[at]):
            end, asking = at + 1, ("when", "what year", "in what year")
        elif bare[at][:1].isdigit():
            end, asking = at + 1, ("how many", "how much", "what")
        elif at and bare[at][:1].isupper():
            end = _name_end(words, bare, at)
            asking = ("where" if before in _PLACES else "who", *asking)
        elif before in _BEFORE:
            end = _phrase_end(words, bare, at)
        if end > at:
            yield at, end, asking
        at = max(end, at + 1)


def _name_end(words: list[str], bare: list[str], at: int) -> int:
    """Returns where a name ends, which begins with the word `at`."""
    end = at + 1
    while end < len(words) and words[end - 1][-1:].isalnum():
        following = end
        while following < len(words) and bare[following] in _JOINING:
            following += 1
        if not any(x[:1].isupper() for x in bare[following : following + 1]):
            break
        end = following + 1
    return end


def _phrase_end(words: list[str], bare: list[str], at: int) -> int:
    """Returns where a phrase ends; `at` if none begins there."""
    end = at
    while (
        end < min(len(words), at + _LONGEST_ANSWER)
        and bare[end].isalpha()
        and bare[end].lower() not in _AFTER
    ):
        end += 1
        if not words[end - 1][-1:].isalnum():
            break
    return end


def _question(
    words: list[str],
    begin: int,
    end: int,
    asking: tuple[str, ...],
    generator: random.Random,
) -> str:
    """Returns a question for a part of a sentence.

    Args:
        words: those of the sentence.
        begin: where the answer begins.
        end: where it ends.
        asking: question words, of which one is taken.
        generator: makes the choices.
    """
    count = generator.randint(*_WORDS)
    # As much on both sides of the answer, or all that there is on one.
    left = min(begin, max(count // 2, count - (len(words) - end)))
    before = words[begin - left : begin]
    after = words[end : end + count - left]
    asked = generator.choice(asking)
    parts = (
        [asked, *_thinned(before + after, generator)]
        if generator.random() < _FIRST
        else [*_thinned(before, generator), asked, *_thinned(after, generator)]
    )
    return " ".join(parts).rstrip(" .,;:!?") + "?"


def _thinned(words: list[str], generator: random.Random) -> list[str]:
    return [x for x in words if generator.random() >= _LEFT_OUT]
