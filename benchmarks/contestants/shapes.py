"""Sizes of models and batches, the batches, and the work in them."""

import dataclasses
import json

import numpy as np

BATCHES = 8  # distinct batches, in a cycle
MASK_RATE = 0.15
MASK_ID = 103
FIRST_WORD_ID = 1000


@dataclasses.dataclass(frozen=True)
class Sizes:
    """A teacher and its student, which have the same width."""

    layers: int
    student_layers: int
    width: int
    wide: int
    heads: int
    vocabulary: int = 30522
    positions: int = 512


MODELS = {
    "bert_base": Sizes(12, 6, 768, 3072, 12),
    "minilm": Sizes(6, 3, 384, 1536, 12),
    # To check that everything runs.
    "toy": Sizes(2, 1, 16, 32, 2, vocabulary=1200),
}


@dataclasses.dataclass(frozen=True)
class Variant:
    """Options of keras_distil's step on the same batches.

    Args:
        chunk_size: int, tokens per chunk of logits.
        micro_batches: int, micro-batches per batch.
        top_k: int, logits kept of a cached teacher; 0 for a live one.
        jit_compile: what XLA compiles, as `Distiller.compile` takes it.
        added_loss: "none", or a loss on the last layers' attention beside the
            others, "attention_relation" or "attention_transfer".
    """

    chunk_size: int = 256
    micro_batches: int = 1
    top_k: int = 0
    jit_compile: bool | str = "auto"
    added_loss: str = "none"


@dataclasses.dataclass(frozen=True)
class Shape:
    """The models and batches of a comparison.

    Args:
        sizes: sizes of the models.
        batch: int, sequences per batch.
        length: int, positions per sequence.
        positions: "all" or "masked", where the soft targets count.
        padding: float in [0, 0.5), share of the positions. The sequences'
            lengths are then uniform between `1 - 2 * padding` and 1 times
            `length`.
        variant: options of keras_distil; not used by others.
    """

    sizes: Sizes
    batch: int
    length: int
    positions: str = "all"
    padding: float = 0.0
    variant: Variant = Variant()

    def to_json(self) -> str:
        """Returns everything as one line of JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Shape":
        """Reads the shape that `to_json` wrote."""
        fields = json.loads(text)
        sizes = Sizes(**fields.pop("sizes"))
        return cls(sizes, variant=Variant(**fields.pop("variant")), **fields)


@dataclasses.dataclass(frozen=True)
class Data:
    """`BATCHES` masked batches, (batches, batch, length) each.

    Attributes:
        token_ids: int32, masked.
        padding_mask: int32, 1 at real tokens.
        targets: int32, the original tokens.
        masked: bool, the positions to predict.
    """

    token_ids: np.ndarray
    padding_mask: np.ndarray
    targets: np.ndarray
    masked: np.ndarray


def make_data(shape: Shape) -> Data:
    """Makes equal data for all: random words, as many per batch."""
    generator = np.random.default_rng(0)
    size = (BATCHES, shape.batch, shape.length)
    lengths = np.stack([_lengths(shape, generator) for _ in range(BATCHES)])
    real = np.arange(shape.length) < lengths[..., None]
    words = generator.integers(FIRST_WORD_ID, shape.sizes.vocabulary, size)
    targets = words * real
    # A random order of the real tokens of a row, and the first of them.
    order = np.where(real, generator.random(size), 2.0).argsort(-1).argsort(-1)
    counts = np.maximum(np.rint(MASK_RATE * lengths), 1)
    masked = order < counts[..., None]
    return Data(
        token_ids=np.where(masked, MASK_ID, targets).astype("int32"),
        padding_mask=real.astype("int32"),
        targets=targets.astype("int32"),
        masked=masked,
    )


def _lengths(shape: Shape, generator: np.random.Generator) -> np.ndarray:
    """Draws lengths whose sum gives exactly the required padding."""
    low = max(1, round((1 - 2 * shape.padding) * shape.length))
    lengths = generator.integers(low, shape.length + 1, shape.batch)
    total = round((1 - shape.padding) * shape.length * shape.batch)
    while (missing := total - lengths.sum()) != 0:
        row = generator.integers(shape.batch)
        moved = lengths[row] + np.sign(missing)
        lengths[row] = np.clip(moved, 1, shape.length)
    return lengths


def real_tokens(data: Data) -> float:
    """Returns the average number of real tokens in a batch."""
    return data.padding_mask.sum() / BATCHES


def useful_flops(shape: Shape, data: Data) -> float:
    """Returns the average floating-point operations that a batch needs.

    They are the teacher's forward pass, the student's forward and backward
    pass and both heads, only at real tokens and where logits count.
    """
    sizes = shape.sizes
    tokens = data.padding_mask.sum()
    squares = (data.padding_mask.sum(-1).astype("int64") ** 2).sum()
    layer = tokens * 2 * (4 * sizes.width**2 + 2 * sizes.width * sizes.wide)
    layer += 4 * squares * sizes.width
    rows = tokens if shape.positions == "all" else data.masked.sum()
    head = rows * 2 * (sizes.width**2 + sizes.width * sizes.vocabulary)
    passes = sizes.layers + 3 * sizes.student_layers
    return float(passes * layer + (1 + 3) * head) / BATCHES
