"""Sentences, pairs and questions from prose, which only a teacher labels."""

import json
import random
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_distil import models
from keras_distil.data.corpus.sample import Sample
from keras_distil.data.corpus.sentences import split_sentences
from keras_distil.data.corpus.text_files import CorpusReport, TextFiles
from keras_distil.evaluation.neighbours import nearest_others
from keras_distil.runs.cloze import ask
from keras_distil.utils import disk
from keras_distil.utils.progress import Progress, duration

SENTENCES_FILE = "sentences.txt"
PAIRS_FILE = "pairs.tsv"
QUESTIONS_FILE = "questions.jsonl"
FILES = (SENTENCES_FILE, PAIRS_FILE, QUESTIONS_FILE)
# Words of a sentence of a pair.
SHORTEST, LONGEST = 6, 30
# Words of a paragraph that is asked about.
CONTEXT_SHORTEST, CONTEXT_LONGEST = 50, 250
_NEIGHBOURS = 20
# Share of the pairs that are of the nearest neighbour, of those of neighbours.
_NEAREST = 0.6
_OF_NEIGHBOURS = 0.6
# Sentences between two reports of progress.
_AT_ONCE = 1024


def write_prose(
    texts: Path,
    output: Path,
    *,
    sentences: int,
    pairs: int,
    questions: int,
    seed: int = 0,
    progress: Progress,
) -> None:
    """Writes text for `unlabelled`: of tasks of one text, of two, and of spans.

    `sentences.txt` has different sentences of the prose. `pairs.tsv` has pairs
    of them that resemble each other: three fifths are sentences with near
    neighbours by the embedded sentence embedder, the others sentences with
    copies of themselves in which a few words were left out, replaced or moved,
    because tasks such as MRPC ask for small differences. `questions.jsonl` has
    questions, each with the paragraph that it is about. A file of which none
    are wanted is not written.

    Args:
        texts: a folder of `*.txt`, one paragraph per line.
        output: the folder to write to.
        sentences: int >= 0.
        pairs: int >= 0, at most the sentences of 6 to 30 words.
        questions: int >= 0, at most the paragraphs of 50 to 250 words that
            something can be asked about.
        seed: int, makes the choices.
        progress: where to report to.

    Raises:
        FileNotFoundError: if there is no such text.
        ValueError: if there is too little of it.
        OSError: if a file exists or cannot be written.
    """
    wanted = dict(zip(FILES, (sentences, pairs, questions), strict=True))
    names = [name for name, count in wanted.items() if count]
    if not names:
        raise ValueError(
            "One of --sentences, --pairs and --questions must be above 0."
        )
    for name in names:
        if (output / name).exists():
            raise FileExistsError(
                f"{output / name} exists, and nothing is overwritten. Remove "
                "it, or give another folder."
            )
    if not any(texts.glob("*.txt")):
        raise FileNotFoundError(
            f"`{texts}` has no *.txt. Give a folder of such files, with one "
            "paragraph per line."
        )
    found = Sample(sentences, seed=seed)
    contexts = Sample(questions, seed=seed)
    read_prose(texts, found, contexts, seed, progress)
    if len(found) < sentences:
        raise ValueError(
            f"`{texts}` has {len(found):,} different sentences in its *.txt, "
            f"fewer than --sentences {sentences}: add text, or lower it."
        )
    chosen = found.texts()
    whole = [x for x in chosen if SHORTEST <= len(x.split()) <= LONGEST]
    if pairs and len(whole) < max(pairs, 2):
        raise ValueError(
            f"{len(whole):,} of the sentences have {SHORTEST} to {LONGEST} "
            f"words, too few for --pairs {pairs}: lower it, or raise "
            "--sentences."
        )
    if len(contexts) < questions:
        raise ValueError(
            f"`{texts}` has {len(contexts):,} paragraphs of {CONTEXT_SHORTEST} "
            f"to {CONTEXT_LONGEST} words that something can be asked about, "
            f"fewer than --questions {questions}: add text, or lower it; 0 "
            "makes none."
        )
    with disk.writing(output):
        # Before the minutes of work that it is for.
        output.mkdir(parents=True, exist_ok=True)
    made = make_pairs(whole, pairs, seed, progress) if pairs else []
    contents = {
        SENTENCES_FILE: chosen,
        PAIRS_FILE: ["sentence1\tsentence2", *map("\t".join, made)],
        QUESTIONS_FILE: [
            json.dumps(
                {"question": _ask(x, seed), "context": x}, ensure_ascii=False
            )
            for x in contexts.texts()
        ],
    }
    for name in names:
        disk.write_text(output / name, "\n".join(contents[name]) + "\n")


def read_prose(
    texts: Path,
    sentences: Sample,
    contexts: Sample,
    seed: int,
    progress: Progress,
) -> None:
    """Reads the paragraphs of a folder's `*.txt` once, however many they are.

    Args:
        texts: the folder.
        sentences: the sentences are added here; those without a letter or
            digit are left out, as from a corpus.
        contexts: the paragraphs of 50 to 250 words that something can be asked
            about are added here.
        seed: int, makes the questions.
        progress: where to report to, and what could not be read.
    """
    report = CorpusReport()
    units = TextFiles("*.txt", root=texts).units()
    with progress.bar("Read texts (units)", len(units)) as bar:
        for number, unit in enumerate(units, 1):
            for line in unit.paragraphs(report):
                # A tab would end a sentence in a table.
                paragraph = " ".join(line.split())
                for sentence in split_sentences(paragraph):
                    if any(map(str.isalnum, sentence)):
                        sentences.add(sentence)
                if contexts.wants(paragraph) and _can_ask(paragraph, seed):
                    contexts.add(paragraph)
            bar.update(number)
    for line in report.lost.warnings():
        progress.warn(line)


def _can_ask(paragraph: str, seed: int) -> bool:
    words = len(paragraph.split())
    return (
        CONTEXT_SHORTEST <= words <= CONTEXT_LONGEST
        and _ask(paragraph, seed) is not None
    )


def _ask(paragraph: str, seed: int) -> str | None:
    """Asks about a paragraph, always the same."""
    return ask(paragraph, random.Random(f"{seed} {paragraph}"))


def make_pairs(
    sentences: Sequence[str], count: int, seed: int, progress: Progress
) -> list[tuple[str, str]]:
    """Makes pairs of sentences that resemble each other.

    Args:
        sentences: different sentences, at least two.
        count: int, pairs, at most one for each sentence.
        seed: int, makes the choices.
        progress: where to report to.
    """
    neighbours = nearest_others(
        _embed(sentences, progress), _NEIGHBOURS
    ).documents
    generator = random.Random(seed)
    firsts = generator.sample(range(len(sentences)), count)
    pairs = []
    for number, first in enumerate(firsts):
        rank = 0
        if generator.random() >= _NEAREST and neighbours.shape[1] > 1:
            rank = generator.randrange(1, neighbours.shape[1])
        one, other = sentences[first], sentences[neighbours[first, rank]]
        if number >= _OF_NEIGHBOURS * count:
            other = changed(one, other, generator)
        pairs.append(generator.choice([(one, other), (other, one)]))
    generator.shuffle(pairs)
    return pairs


def _embed(sentences: Sequence[str], progress: Progress) -> np.ndarray:
    """Returns the embedded embedder's vectors, float32, (sentences, 384)."""
    embedder = models.load_embedding_model("embedded")
    # Those of similar length together, and the longest first, so that the
    # first part compiles for all and the time left is not underestimated.
    order = sorted(range(len(sentences)), key=lambda x: -len(sentences[x]))
    parts = []
    begun = time.monotonic()
    with progress.bar("Embedding sentences", len(sentences)) as bar:
        for start in range(0, len(order), _AT_ONCE):
            part = [sentences[x] for x in order[start : start + _AT_ONCE]]
            parts.append(np.asarray(embedder.encode_text(part), np.float32))
            if not start:
                took = time.monotonic() - begun
                whole = took * len(sentences) / len(part)
                progress.say(
                    f"Embedding {len(sentences):,} sentences for their "
                    f"neighbours takes at most {duration(whole)}."
                )
            bar.update(start + len(part))
    vectors = np.concatenate(parts)
    return vectors[np.argsort(order)]


def changed(sentence: str, other: str, generator: random.Random) -> str:
    """Returns a sentence with a few words left out, replaced or moved.

    Args:
        sentence: some words.
        other: where other words come from.
        generator: makes the choices.
    """
    words, others = sentence.split(), other.split()
    for _ in range(generator.choice((1, 1, 2, 3))):
        kind, place = generator.random(), generator.randrange(len(words))
        if kind < 0.35 and len(words) > SHORTEST:
            most = min(5, len(words) - SHORTEST + 1)
            del words[place : place + generator.randint(1, most)]
        elif kind < 0.7:
            words[place] = generator.choice(others)
        elif kind < 0.85:
            words.insert(place, generator.choice(others))
        else:
            word = words.pop(place)
            words.insert(generator.randrange(len(words) + 1), word)
    return " ".join(words)
