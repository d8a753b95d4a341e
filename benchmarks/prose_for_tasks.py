"""Sentences and pairs of sentences from prose, for students of GLUE's tasks.

Writes two files without labels, which only a teacher can learn to label, for
`finetune.by_task.TASK.unlabelled`: `sentences.txt` for tasks of one sentence,
and `pairs.tsv` for tasks of two. Three fifths of the pairs are sentences with
near neighbours by the embedded sentence embedder, the others sentences with
copies of themselves in which words were left out, moved or replaced by a
neighbour's, because a task such as MRPC asks for small differences.

    python benchmarks/prose_for_tasks.py TEXTS OUTPUT
"""

import argparse
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from keras_distil import models
from keras_distil.evaluation.neighbours import nearest_others

# Where a sentence ends and another one begins.
_ENDS = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"])")
# Words of a sentence of a pair.
SHORTEST, LONGEST = 6, 30
NEIGHBOURS = 20
# Share of the pairs that are of the nearest neighbour, of those of neighbours.
_NEAREST = 0.6
_OF_NEIGHBOURS = 0.6


def read_sentences(folder: Path) -> Iterator[str]:
    """Yields the sentences of a folder's `*.txt`, one paragraph per line."""
    for path in sorted(folder.glob("*.txt")):
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                whole = line.strip().replace("\t", " ")
                yield from filter(None, _ENDS.split(whole))


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


def make_pairs(
    sentences: Sequence[str], count: int, seed: int
) -> list[tuple[str, str]]:
    """Makes pairs of sentences that resemble each other.

    Args:
        sentences: different sentences.
        count: pairs to make, at most one for each sentence.
        seed: makes the choices.
    """
    embedder = models.load_embedding_model("embedded")
    vectors = np.asarray(embedder.encode_text(list(sentences)), np.float32)
    neighbours = nearest_others(vectors, NEIGHBOURS).documents
    generator = random.Random(seed)
    firsts = generator.sample(range(len(sentences)), count)
    pairs = []
    for number, first in enumerate(firsts):
        rank = 0
        if generator.random() >= _NEAREST:
            rank = generator.randrange(1, neighbours.shape[1])
        one, other = sentences[first], sentences[neighbours[first, rank]]
        if number >= _OF_NEIGHBOURS * count:
            other = changed(one, other, generator)
        pairs.append(generator.choice([(one, other), (other, one)]))
    generator.shuffle(pairs)
    return pairs


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("texts", type=Path, help="folder of *.txt")
    parser.add_argument("output", type=Path, help="folder to write to")
    parser.add_argument("--sentences", type=int, default=40_000)
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    found = sorted(set(read_sentences(arguments.texts)))
    if len(found) < arguments.sentences:
        parser.error(
            f"{arguments.texts} has {len(found)} different sentences in its "
            f"*.txt, fewer than --sentences {arguments.sentences}: add text, "
            "or lower it"
        )
    taken = random.Random(arguments.seed).sample(found, arguments.sentences)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "sentences.txt").write_text("\n".join(taken) + "\n")
    whole = [x for x in taken if SHORTEST <= len(x.split()) <= LONGEST]
    if len(whole) < arguments.pairs:
        parser.error(
            f"{len(whole)} of the sentences have {SHORTEST} to {LONGEST} "
            f"words, fewer than --pairs {arguments.pairs}: lower it, or raise "
            "--sentences"
        )
    pairs = make_pairs(whole, arguments.pairs, arguments.seed)
    lines = ["sentence1\tsentence2", *("\t".join(pair) for pair in pairs)]
    (arguments.output / "pairs.tsv").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
