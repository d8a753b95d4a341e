"""Lets a masked-LM write text: masks filled in, over and over.

Usage: python benchmarks/write_text.py TEACHER FILE [--lines N] [--lengths A B]

For a teacher that reads what nobody has at hand, such as protein sequences.
Every line begins as masks alone. In each round a random seventh of a line's
tokens is masked and drawn again from the model's own probabilities, all of a
round at once: Gibbs sampling in blocks (Wang and Cho 2019, arXiv:1902.04094).
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_distil import data, models
from keras_distil.models import forward
from keras_distil.utils.progress import Progress

_BATCH = 64
_SHARE = 1 / 7


def write_lines(
    model, tokenizer, count: int, lengths: range, rounds: int, seed: int = 0
) -> list[str]:
    """Returns lines that the model wrote.

    Args:
        model: a masked-LM model.
        tokenizer: its tokenizer.
        count: number of lines.
        lengths: possible numbers of tokens of a line.
        rounds: number of times that a part of a line is drawn again.
        seed: determines the lines.
    """
    special = data.SpecialTokens.from_tokenizer(tokenizer)
    allowed = np.zeros(model.backbone.vocabulary_size, np.float32)
    allowed[list(special.ids)] = -np.inf
    generator = np.random.default_rng(seed)
    lines: list[str] = []

    @tf.function(reduce_retracing=True)
    def draw(token_ids, padding_mask, uniform):
        inputs = {"token_ids": token_ids, "padding_mask": padding_mask}
        logits = forward.logits(model, inputs) + allowed
        # Gumbel noise: the largest sum is a draw from the softmax.
        noise = -tf.math.log(-tf.math.log(uniform))
        return tf.argmax(logits + noise, axis=-1, output_type=tf.int32)

    with Progress().bar("Lines", count) as bar:
        while len(lines) < count:
            sizes = generator.choice(lengths, _BATCH)
            places = np.arange(max(lengths) + 2)
            inside = (places > 0) & (places <= sizes[:, None])
            padding_mask = (places <= sizes[:, None] + 1).astype(np.int32)
            token_ids = np.where(padding_mask, special.sep_id, special.pad_id)
            token_ids[:, 0] = special.cls_id
            token_ids = np.where(inside, special.mask_id, token_ids)
            for number in range(rounds):
                chosen = inside
                if number:
                    chosen = inside & (generator.random(inside.shape) < _SHARE)
                masked = np.where(chosen, special.mask_id, token_ids)
                shape = (*masked.shape, len(allowed))
                uniform = generator.uniform(1e-9, 1.0, shape).astype(np.float32)
                drawn = draw(masked.astype(np.int32), padding_mask, uniform)
                token_ids = np.where(chosen, drawn, token_ids)
            for row, real in zip(token_ids, inside, strict=True):
                lines.append(tokenizer.decode(row[real].tolist()))
            bar.update(min(len(lines), count))
    return lines[:count]


def main() -> int:
    """Parses the command line and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("teacher", help="a Hugging Face folder")
    parser.add_argument("file", type=Path, help="the text to write")
    parser.add_argument("--lines", type=int, default=2000)
    parser.add_argument("--lengths", type=int, nargs=2, default=(117, 117))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.file.exists():
        parser.error(f"{given.file} exists: give another name")
    model = models.load_teacher(given.teacher)
    positions = model.backbone.max_sequence_length - 2
    first, last = given.lengths
    if not 1 <= first <= last <= positions:
        parser.error(f"--lengths must be from 1 to {positions}, in order")
    lines = write_lines(
        model,
        data.load_tokenizer(given.teacher),
        given.lines,
        range(first, last + 1),
        given.rounds,
        given.seed,
    )
    given.file.parent.mkdir(parents=True, exist_ok=True)
    given.file.write_text("\n".join(lines) + "\n", "utf-8")
    print(f"{len(lines)} lines in {given.file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
