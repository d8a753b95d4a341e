"""Costs of one update of a student, in arithmetic, traffic and memory.

These are sums over the shapes of models and batches; nothing is measured.
"""

import dataclasses

from keras_distil.config import Recipe
from keras_distil.losses.chunked import DEFAULT_CHUNK_SIZE
from keras_distil.models.shape import EncoderShape, encoder_shape, student_shape

_FLOAT32_BYTES = 4
# Values read and written between the matrix products of one forward pass. Per
# layer and token, in widths: adding biases and residuals, splitting heads, two
# normalisations; in widths of the feed-forward part: bias, GELU.
_PASSED_WIDTHS, _PASSED_INNER = 50, 13
# Per layer, token and head, in tokens of the sequence: scores, softmax.
_PASSED_SCORES = 5
# Passes over the logits of a chunk, compiled: for the soft targets, and in
# addition for crossentropy and metrics in a chunk with masked rows.
_SOFT_TARGET_PASSES, _MASKED_PASSES = 10, 8
# Bytes that AdamW reads and writes per weight, including the norm of the
# gradient; and those for adding another micro-batch to the gradient.
_UPDATE_BYTES, _SUM_BYTES = 32, 12
# Tables of (chunk, vocabulary) that exist at once, as in `plan`; widths that a
# layer keeps for its gradient.
_CHUNK_TABLES, _KEPT_WIDTHS = 8, 13
# A backward pass costs twice a forward pass.
_TRAINED = 3


@dataclasses.dataclass(frozen=True)
class Step:
    """The sizes and settings that the costs of an update depend on.

    Attributes:
        teacher: the teacher's shape.
        student: the student's shape.
        sequences: int >= 1, sequences in a micro-batch on one device.
        micro_batches: int >= 1, micro-batches per update.
        length: int, tokens per sequence.
        masking_rate: share of the tokens that are masked.
        everywhere: whether the soft targets count at all positions.
        live_teacher: whether the teacher runs, or is read from a file.
        precision: "float32" or "mixed_bfloat16".
        compiled: whether XLA compiles losses and optimizer.
    """

    teacher: EncoderShape
    student: EncoderShape
    sequences: int
    micro_batches: int
    length: int
    masking_rate: float
    everywhere: bool
    live_teacher: bool
    precision: str
    compiled: bool

    @property
    def tokens(self) -> int:
        """Tokens in a micro-batch."""
        return self.sequences * self.length

    @property
    def compute_bytes(self) -> int:
        """Bytes of a value between the layers."""
        return _FLOAT32_BYTES if self.precision == "float32" else 2

    @property
    def masked_rows(self) -> int:
        """Masked tokens in a micro-batch."""
        each = max(1, round(self.masking_rate * self.length))
        return self.sequences * each

    @property
    def logit_rows(self) -> int:
        """Tokens in a micro-batch whose logits are computed."""
        return self.tokens if self.everywhere else self.masked_rows

    @property
    def filled_rows(self) -> tuple[int, int]:
        """Rows of logits read by the losses: all, and in masked chunks.

        Rows go through the vocabulary in chunks, the masked ones first. The
        compiled part has a fixed size, so the last chunk is padded. A masked
        chunk is one with at least one masked row.
        """
        rows = self.logit_rows
        chunks = -(-rows // DEFAULT_CHUNK_SIZE)
        size = DEFAULT_CHUNK_SIZE if self.compiled else -(-rows // chunks)
        masked_chunks = -(-self.masked_rows // size)
        return chunks * size, min(chunks, masked_chunks) * size


def step_of(recipe: Recipe) -> Step:
    """Returns the update of a recipe, on one device.

    Args:
        recipe: a recipe with a `distill` section.

    Raises:
        ValueError: if the recipe distils nothing, or the student does not fit
            the teacher.
        ConnectionError: if a shape cannot be downloaded.
    """
    settings, student_section = recipe.distill, recipe.student
    if settings is None or student_section is None:
        raise ValueError(
            f"The recipe {recipe.name!r} distils nothing, so there is no "
            "update to measure."
        )
    teacher, _ = encoder_shape(recipe.teacher.encoder_source)
    return Step(
        teacher=teacher,
        student=student_shape(teacher, **student_section.shape()),
        sequences=settings.batch_size // settings.micro_batches,
        micro_batches=settings.micro_batches,
        length=recipe.data.sequence_length,
        masking_rate=recipe.data.masking.rate,
        everywhere=settings.positions == "all",
        live_teacher=recipe.teacher.cache is None,
        precision=recipe.precision,
        compiled=settings.jit_compile,
    )


def arithmetic(step: Step) -> dict[str, float]:
    """Returns the FLOP of an update's matrix products, by part.

    Formula:
        teacher = tokens * teacher.flops_per_token(length)
        student = 3 * tokens * student.flops_per_token(length)
        vocabulary = logit_rows * (teacher.head_flops_per_token
                                   + 3 * student.head_flops_per_token)
        each times micro_batches
    """
    tokens = step.tokens
    heads = _TRAINED * step.student.head_flops_per_token
    if step.live_teacher:
        heads += step.teacher.head_flops_per_token
    parts = {
        "teacher_forward": step.live_teacher
        * tokens
        * step.teacher.flops_per_token(step.length),
        "student_forward_and_backward": _TRAINED
        * tokens
        * step.student.flops_per_token(step.length),
        "vocabulary_heads": step.logit_rows * heads,
        "optimizer": 0.0,
    }
    return {name: step.micro_batches * x for name, x in parts.items()}


def traffic(step: Step) -> dict[str, float]:
    """Returns the bytes that an update moves outside of products, by part.

    Formula:
        layer = 50 * hidden_dim + 13 * intermediate_dim
                + 5 * num_heads * length             # values per token
        teacher = c * tokens * teacher_layers * layer, c = 4 or 2 bytes
        student = 3 * c * tokens * student_layers * layer
        vocabulary = 4 * vocabulary * (10 * filled_rows
                                       + 8 * filled_rows in masked chunks)
        optimizer = 32 * student_parameters
                    + (micro_batches - 1) * 12 * student_parameters
    """
    values = step.compute_bytes * step.tokens
    rows, masked = step.filled_rows
    vocabulary = _FLOAT32_BYTES * step.student.vocabulary_size
    parts = {
        "teacher_forward": step.live_teacher
        * values
        * _passed(step.teacher, step.length),
        "student_forward_and_backward": _TRAINED
        * values
        * _passed(step.student, step.length),
        "vocabulary_heads": vocabulary
        * (_SOFT_TARGET_PASSES * rows + _MASKED_PASSES * masked),
    }
    total = {name: step.micro_batches * x for name, x in parts.items()}
    weights = _UPDATE_BYTES + _SUM_BYTES * (step.micro_batches - 1)
    return {**total, "optimizer": weights * step.student.parameters}


def _passed(shape: EncoderShape, length: int) -> float:
    """Returns the values per token that a forward pass reads and writes."""
    layer = (
        _PASSED_WIDTHS * shape.hidden_dim
        + _PASSED_INNER * shape.intermediate_dim
        + _PASSED_SCORES * shape.num_heads * length
    )
    return shape.num_layers * layer


def memory(step: Step) -> dict[str, float]:
    """Returns the bytes that an update needs besides the program, by part.

    Formula:
        teacher_weights = c * teacher_parameters, c = 4 or 2 bytes
        student_weights = 4 * student_parameters
        student_gradients = 4 * student_parameters   # twice if micro-batched
        adamw_moments = 8 * student_parameters
        activations = c * tokens * (student_layers * layer(student) + at_hand)
            layer = 13 * hidden_dim + 2 * intermediate_dim
                    + num_heads * length
            at_hand = the larger layer of student and teacher
        vocabulary_chunk = 4 * vocabulary * (8 * chunk + 2 * student_width)

    A layer keeps what its gradient reads; see `models.encoder_pass`. Besides
    all layers of the student, one layer of either model is being computed.
    """
    weights = _FLOAT32_BYTES * step.student.parameters
    layers = [_kept(step.student, step.length)]
    kept = step.student.num_layers * layers[0]
    if step.live_teacher:
        layers.append(_kept(step.teacher, step.length))
    chunk = min(DEFAULT_CHUNK_SIZE, step.filled_rows[0])
    return {
        "teacher_weights": step.live_teacher
        * step.compute_bytes
        * step.teacher.parameters,
        "student_weights": weights,
        "student_gradients": weights * (2 if step.micro_batches > 1 else 1),
        "adamw_moments": 2 * weights,
        "activations": step.compute_bytes * step.tokens * (kept + max(layers)),
        "vocabulary_chunk": _FLOAT32_BYTES
        * step.student.vocabulary_size
        * (_CHUNK_TABLES * chunk + 2 * step.student.hidden_dim),
    }


def _kept(shape: EncoderShape, length: int) -> float:
    """Returns the values per token that a layer keeps for its gradient.

    Queries, keys and values as one product, separate and scaled (7 widths),
    the context twice, two normalisations with their inputs (4 widths), GELU
    and its input; the softmax.
    """
    dense = _KEPT_WIDTHS * shape.hidden_dim + 2 * shape.intermediate_dim
    return dense + shape.num_heads * length
