"""A teacher's outputs for masked text, read instead of running it."""

import os
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_distil import data
from keras_distil.losses import AttentionLoss, DistillationLoss, HiddenStateLoss
from keras_distil.losses.layers import LAST
from keras_distil.losses.top_logits import TopLogits
from keras_distil.teachers.masked_lm.settings import (
    CacheManifest,
    CacheSettings,
    CorpusPart,
    MaskingSettings,
    layout_of,
)
from keras_distil.teachers.store.manifest import MASKED_LM
from keras_distil.teachers.store.reading import check_room, make_reader
from keras_distil.teachers.stored import PREFIX, StoredTeacher

Tensor = Any

# Without apostrophes, which TensorFlow escapes in the message of an assertion.
_NOT_COVERED = "The cached teacher has the tails of"
# Tolerates rounding, since schedules compute in float32.
_ROUNDING = 1e-5


class CachedOutputs(NamedTuple):
    """The outputs of a cached teacher in a batch.

    Attributes:
        token_ids: int32, (batch, slots, k), tokens of the largest logits.
        logits: float32, (batch, slots, k), minus the largest.
        tails: float32, (batch, slots, temperatures); see `TopLogits`.
        states: float16, (batch, length, width), or None.
        attention: float16, (batch, length, 3, heads, size), or None.
    """

    token_ids: Tensor
    logits: Tensor
    tails: Tensor
    states: Tensor | None
    attention: Tensor | None = None

    def part(self, start: Tensor, stop: Tensor) -> "CachedOutputs":
        """Returns the outputs for some sequences of the batch."""
        return CachedOutputs(
            *(None if part is None else part[start:stop] for part in self)
        )


@keras.saving.register_keras_serializable(package="keras_distil")
class CachedTeacher(StoredTeacher):
    """Stands in for a teacher whose outputs `cache_teacher` has written.

    A `Distiller` takes it in place of the model, and trains on the batches of
    its `dataset`, which include the teacher's outputs. The teacher itself is
    not needed.

    The soft targets are the teacher's `top_k` largest logits and, as one more
    outcome, all other tokens together, at the temperatures of the cache; see
    `losses.functional.top_soft_target_kl_divergence`.

    Args:
        folder: the folder of a complete cache.

    Raises:
        CorpusError: if the cache is incomplete, damaged or of another
            version.

    Example:
        >>> cached = CachedTeacher("caches/minilm")         # doctest: +SKIP
        >>> distiller = keras_distil.Distiller(
        ...     cached, student, losses.triple_loss()
        ... )                                               # doctest: +SKIP
        >>> distiller.compile(
        ...     keras.optimizers.AdamW(5e-4)
        ... )                                               # doctest: +SKIP
        >>> distiller.fit(
        ...     cached.dataset(corpus, batch_size=32),
        ...     steps_per_epoch=100,
        ... )                                               # doctest: +SKIP
    """

    kind = MASKED_LM
    settings: CacheSettings
    _parts: list[CorpusPart]
    _schema = CacheManifest

    def __init__(self, folder: str | os.PathLike) -> None:
        super().__init__(folder)
        for part in self._parts:
            size = layout_of(self.settings, part.slots).record_bytes(
                part.length
            )
            for shard in part.shards:
                check_room(self.folder, shard, shard.sequences * size)

    def dataset(
        self,
        corpus: data.PreparedCorpus,
        *,
        batch_size: int,
        steps: int | None = None,
        first_step: int = 0,
        shuffle: bool = True,
    ) -> tf.data.Dataset:
        """Returns training batches with the teacher's outputs.

        The batches are those of `data.masked_lm_dataset`, with epochs that
        cycle through the maskings of the cache. `x` also holds the outputs,
        under names that begin with "teacher_".

        Args:
            corpus: the corpus that the cache was made from.
            batch_size: int, sequences per batch.
            steps: int, batches in the stream; endless if None.
            first_step: int, batches to skip at the beginning.
            shuffle: bool, False keeps the order of the corpus.

        Returns:
            A dataset of Keras triples.

        Raises:
            CorpusError: if the cache belongs to another corpus.
            ValueError: as `data.masked_lm_dataset`.
        """
        if corpus.fingerprint != self.settings.corpus:
            raise data.CorpusError(
                f"The teacher's cache in {self.folder} was made of another "
                f"corpus ({self.settings.corpus[:12]}) than the one in "
                f"{corpus.folder} ({corpus.fingerprint[:12]}). Make a cache "
                "of this one."
            )
        return data.masked_lm_dataset(
            corpus.train,
            **masking_arguments(self.settings.masking, corpus),
            batch_size=batch_size,
            steps=steps,
            first_step=first_step,
            shuffle=shuffle,
            maskings=self.settings.maskings,
            more_inputs=[self._reader(part) for part in self._parts],
        )

    def _reader(self, part: CorpusPart) -> Callable:
        """Returns a function that reads outputs by row and masking."""
        read = make_reader(
            self.folder, part.shards, layout_of(self.settings, part.slots)
        )

        def outputs(rows: Tensor, maskings: Tensor) -> dict[str, Tensor]:
            numbers = maskings * part.rows + rows
            lengths = tf.fill(tf.shape(rows), part.length)
            found = read(numbers, lengths, part.length)
            return {f"{PREFIX}{name}": x for name, x in found.items()}

        return outputs

    # === What an objective asks ===

    def take_outputs(
        self, x: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], CachedOutputs]:
        """Splits `x` of a batch into the student's inputs and the outputs.

        Raises:
            ValueError: if outputs are missing.
        """
        names = ["token_ids", "logits", "tails"]
        if self.settings.hidden_states:
            names.append("states")
        if self.settings.attention_heads:
            names.append("attention")
        if not isinstance(x, dict) or not all(
            f"{PREFIX}{name}" in x for name in names
        ):
            received = sorted(x) if isinstance(x, dict) else type(x).__name__
            raise ValueError(
                "With a cached teacher, batches must be those of its "
                "`dataset`, which carry its outputs; score a student on other "
                "text with `evaluation.score_masked_lm`. Received: "
                f"x={received}."
            )
        rest = self.without_outputs(x)
        return rest, CachedOutputs(
            token_ids=tf.cast(x[f"{PREFIX}token_ids"], tf.int32),
            logits=tf.cast(x[f"{PREFIX}logits"], tf.float32),
            tails=x[f"{PREFIX}tails"],
            states=x.get(f"{PREFIX}states"),
            attention=x.get(f"{PREFIX}attention"),
        )

    def top_logits(
        self,
        outputs: CachedOutputs,
        *,
        rows: Tensor,
        masked: Tensor,
        losses: Sequence[DistillationLoss],
    ) -> TopLogits:
        """Returns the teacher's side of the losses on logits.

        Args:
            outputs: outputs for a batch, or a part of one.
            rows: int, (rows,), the tokens that need logits, as indices into
                the batch * length tokens; the masked ones, in order, if only
                they are in the cache.
            masked: float, (batch, length), above 0 at masked positions.
            losses: the losses that will read the logits.
        """
        if self.settings.positions == "masked":
            # The first slots of each sequence are used, one per masked token.
            counts = tf.math.count_nonzero(masked > 0.0, axis=1)
            slots = tf.range(tf.shape(outputs.tails)[1], dtype=tf.int64)
            used = slots[tf.newaxis] < counts[:, tf.newaxis]
            rows = tf.where(tf.reshape(used, [-1]))[:, 0]

        count = tf.size(outputs.token_ids[..., 0])

        def choose(values: Tensor) -> Tensor:
            flat = tf.reshape(values, [count, values.shape[-1]])
            return tf.gather(flat, rows)

        with tf.control_dependencies(self._temperature_checks(losses)):
            tails = tf.identity(outputs.tails)
        return TopLogits(
            outputs.token_ids,
            outputs.logits,
            tails,
            tf.constant(self.settings.temperatures, tf.float32),
        ).of_rows(choose)

    def _temperature_checks(
        self, losses: Sequence[DistillationLoss]
    ) -> list[Any]:
        """Checks the losses' temperatures; returns assertions in a graph."""
        if not self.settings.temperatures:
            return []
        checks = []
        for loss in losses:
            if not hasattr(loss, "temperature"):
                continue
            temperature = tf.convert_to_tensor(loss.temperature)
            covered = self._covers(temperature)
            if not tf.executing_eagerly():
                data = [self._not_covered, temperature]
                checks.append(tf.debugging.Assert(covered, data))
            elif not covered:
                raise ValueError(
                    f"{self._not_covered}. "
                    f"Received: temperature {float(temperature):g}."
                )
        return checks

    def _covers(self, temperature: Tensor) -> Tensor:
        nodes = self.settings.temperatures
        return tf.logical_and(
            temperature >= min(nodes) * (1 - _ROUNDING),
            temperature <= max(nodes) * (1 + _ROUNDING),
        )

    @property
    def _not_covered(self) -> str:
        lowest = min(self.settings.temperatures)
        highest = max(self.settings.temperatures)
        covered = (
            f"temperature {lowest:g} only"
            if lowest == highest
            else f"temperatures from {lowest:g} to {highest:g} only"
        )
        return (
            f"{_NOT_COVERED} {covered}; make one with the range of your "
            "schedule, `temperature=(lowest, highest)`"
        )

    def check_schedule(self, schedule: Callable) -> None:
        """Raises ValueError if a schedule leaves the cache's temperatures.

        Checks steps 0, 1, 2, 4 and so on; every update is checked again.
        """
        if not self.settings.temperatures:
            return
        for step in (0, *(2**power for power in range(31))):
            value = tf.convert_to_tensor(schedule(tf.constant(step)))
            if not bool(self._covers(tf.cast(value, tf.float32))):
                raise ValueError(
                    f"{self._not_covered}. Received: a schedule that is "
                    f"{float(value):g} at step {step}."
                )

    def check_losses(self, losses: Sequence[DistillationLoss]) -> None:
        """Raises ValueError unless the cache has what the losses read."""
        for loss in losses:
            if isinstance(loss, HiddenStateLoss | AttentionLoss):
                self._check_layers(loss)
            elif loss.needs_teacher and not loss.takes_top_logits:
                raise ValueError(
                    f"The loss {loss.name!r} needs all of the teacher's "
                    "logits; a cached teacher has the largest only."
                )
            elif loss.counts == "tokens" and self.settings.positions != "all":
                raise ValueError(
                    f"The loss {loss.name!r} counts all positions, and "
                    f"{self.name} has the masked ones only: give the loss "
                    "`positions='masked'`, or make a cache with "
                    "`positions='all'`."
                )

    def _check_layers(self, loss: HiddenStateLoss | AttentionLoss) -> None:
        """Raises ValueError unless the cache has what a loss reads."""
        if isinstance(loss, AttentionLoss):
            if not self.settings.attention_heads:
                raise ValueError(
                    f"The loss {loss.name!r} needs the teacher's attention, "
                    f"and {self.name} has none: leave the loss out, or make a "
                    "cache with `attention=True`."
                )
        elif not self.settings.hidden_states:
            raise ValueError(
                f"The loss {loss.name!r} needs the teacher's hidden states, "
                f"and {self.name} has none: leave the loss out, or make a "
                "cache with `hidden_states=True`."
            )
        if loss.layers != LAST:
            raise ValueError(
                f"The loss {loss.name!r} needs the teacher's layers "
                f"{loss.layers!r}, and {self.name} has those of the last one "
                "only: give the loss `layers='last'`, or the Distiller the "
                "teacher itself."
            )


def cache_error(error: Exception) -> ValueError | None:
    """Converts TensorFlow's error for an assertion of a cached teacher."""
    found = re.search(rf"({_NOT_COVERED}[^\]]*)\] \[([^\]]*)\]", str(error))
    if found is None:
        return None
    return ValueError(f"{found[1]}. Received: temperature {found[2]}.")


def masking_arguments(
    masking: MaskingSettings, corpus: data.PreparedCorpus
) -> dict[str, Any]:
    """Returns the arguments of `data.masked_lm_dataset` for the masking."""
    weights = None
    if masking.rare_token_exponent:
        weights = data.rare_token_weights(
            corpus.token_counts, exponent=masking.rare_token_exponent
        )
    return {
        "special": data.SpecialTokens(**masking.special),
        "vocabulary_size": masking.vocabulary_size,
        "seed": masking.seed,
        "rate": masking.rate,
        "token_weights": weights,
    }
