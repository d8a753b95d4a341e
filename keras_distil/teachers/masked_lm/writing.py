"""Writes a teacher's outputs for a corpus into shards on disk."""

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tokenizers
from keras_hub.models import MaskedLM

from keras_distil import data
from keras_distil.losses.layers import LAST, Attention
from keras_distil.losses.top_logits import tail_temperatures
from keras_distil.models import forward
from keras_distil.teachers.identity import identify
from keras_distil.teachers.masked_lm.cached import (
    CachedTeacher,
    masking_arguments,
)
from keras_distil.teachers.masked_lm.settings import (
    CacheManifest,
    CacheSettings,
    CorpusPart,
    MaskingSettings,
    layout_of,
)
from keras_distil.teachers.store import writing
from keras_distil.teachers.store.records import shard_bytes
from keras_distil.utils import disk

Tensor = Any

# Positions whose logits are computed at a time.
_CHUNK = 512
_PROBED = 16
# The name of attention vectors beside the last states.
_VECTORS = "attention"


def cache_teacher(
    teacher: MaskedLM,
    corpus: data.PreparedCorpus,
    tokenizer: tokenizers.Tokenizer,
    *,
    cache_dir: str | os.PathLike | None = None,
    output: str | os.PathLike | None = None,
    top_k: int = 64,
    maskings: int = 4,
    positions: str = "all",
    temperature: float | tuple[float, float] = 2.0,
    hidden_states: bool = True,
    attention: bool = False,
    seed: int = 0,
    rate: float = 0.15,
    rare_token_exponent: float = 0.0,
    batch_size: int = 32,
    say: Callable[[str], None] | None = print,
    progress: Callable[[int, int], None] | None = None,
) -> CachedTeacher:
    """Writes a teacher's outputs for a corpus, unless they exist.

    The teacher sees every training sequence under `maskings` different masks.
    For each position, its `top_k` largest logits are kept in 16 bits, with the
    total weight of all others at the temperatures of the soft targets, and
    the last hidden states in 16 bits; on request, the last layer's queries,
    keys and values, too. Everything that these depend on is part
    of the cache's name or compared with it: weights, precision, corpus, masks
    and options.

    An interrupted pass continues with the shard it was writing.

    Args:
        teacher: a KerasHub masked-LM task model.
        corpus: as returned by `data.prepare_corpus`.
        tokenizer: the tokenizer of the teacher and the corpus.
        cache_dir: folder for caches that are named by their content; created
            if missing.
        output: a folder for this cache alone, instead of `cache_dir`.
        top_k: int, logits kept per position, from 1 to the vocabulary's size.
        maskings: int >= 1, masks per sequence. Epochs cycle through them.
        positions: "all" for the logits of all positions, "masked" for those
            that are to be predicted, at a sixth of the size.
        temperature: float > 0, of the soft targets, or the lowest and the
            highest temperature of a schedule.
        hidden_states: whether to keep the last hidden states; a loss on them
            needs them.
        attention: whether to keep the last layer's queries, keys and values;
            a loss on attention needs them.
        seed: int, determines the masks, as for `data.masked_lm_dataset`.
        rate: float in (0, 1], share of tokens to predict.
        rare_token_exponent: float >= 0, see `data.rare_token_weights`; 0
            treats all tokens alike.
        batch_size: int >= 1, sequences per batch of the teacher.
        say: called with one line that states the size before the work begins.
        progress: called now and then with the number of sequences done and
            in total.

    Returns:
        The `CachedTeacher`.

    Raises:
        CorpusError: if `output` holds another cache.
        OSError: if the disk is too small, full or may not be written.
        ValueError: if an argument is out of range, or the teacher's outputs
            are not finite.

    Example:
        >>> cached = cache_teacher(
        ...     teacher, corpus, tokenizer, cache_dir="caches"
        ... )                                               # doctest: +SKIP
    """
    forward.check_masked_lm(teacher, "teacher")
    settings = cache_settings(
        teacher,
        corpus,
        tokenizer,
        top_k=top_k,
        maskings=maskings,
        positions=positions,
        temperature=temperature,
        hidden_states=hidden_states,
        attention=attention,
        seed=seed,
        rate=rate,
        rare_token_exponent=rare_token_exponent,
    )
    folder = disk.choose_folder(cache_dir, output, settings.digest)
    writing.make_store(
        folder,
        settings,
        CacheManifest,
        lambda: _Job(teacher, corpus, settings, batch_size).plan(),
        say=say,
        progress=progress,
    )
    return CachedTeacher(folder)


def cache_settings(
    teacher: MaskedLM,
    corpus: data.PreparedCorpus,
    tokenizer: tokenizers.Tokenizer,
    *,
    top_k: int,
    maskings: int,
    positions: str,
    temperature: float | tuple[float, float],
    hidden_states: bool,
    attention: bool,
    seed: int,
    rate: float,
    rare_token_exponent: float,
) -> CacheSettings:
    """Returns checked settings that the outputs depend on."""
    vocabulary_size = teacher.backbone.vocabulary_size
    _check_range("top_k", top_k, vocabulary_size)
    _check_range("maskings", maskings, 2**31 - 1)
    if positions not in ("all", "masked"):
        raise ValueError(
            "`positions` must be 'all' or 'masked'. "
            f"Received: positions={positions!r}."
        )
    temperatures = _temperatures(temperature)
    if top_k == vocabulary_size:
        temperatures = []
    # Not validated here: the masking code has better errors.
    masking = MaskingSettings.model_construct(
        seed=seed,
        rate=float(rate),
        rare_token_exponent=float(rare_token_exponent),
        special=data.SpecialTokens.from_tokenizer(tokenizer).by_role(),
        vocabulary_size=data.vocabulary_size(tokenizer),
        first_masks="",
    )
    masking = masking.model_copy(
        update={"first_masks": _first_masks(masking, corpus)}
    )
    return CacheSettings(
        teacher=identify(teacher),
        corpus=corpus.fingerprint,
        masking=masking,
        maskings=maskings,
        top_k=top_k,
        positions="all" if positions == "all" else "masked",
        temperatures=temperatures,
        hidden_states=hidden_states,
        attention_heads=(
            forward.attention_shape(teacher, LAST)[0] if attention else 0
        ),
    )


def sequence_slots(length: int, rate: float, positions: str) -> int:
    """Returns the number of positions per sequence with logits in a cache."""
    if positions == "all":
        return length
    # As many as `mask_tokens` may choose, computed in 32 bits as there; [CLS]
    # and [SEP] are never chosen.
    return max(min(int(rate * (length - 2) + 1 + 1e-4), length), 1)


def _check_range(name: str, value: int, highest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(
            f"`{name}` must be an integer. Received: {name}={value!r}."
        )
    if not 1 <= value <= highest:
        raise ValueError(
            f"`{name}` must be from 1 to {highest:,}. Received: {name}={value}."
        )


def _temperatures(temperature: float | tuple[float, float]) -> list[float]:
    """Returns the temperatures for which tails are kept."""
    ends = temperature
    if not isinstance(ends, Sequence):
        ends = (ends, ends)
    lowest, highest = ends
    if not 0 < lowest <= highest < float("inf"):
        raise ValueError(
            "`temperature` must be positive, or the lowest and the highest "
            f"of a range. Received: temperature={temperature}."
        )
    return tail_temperatures(lowest, highest).tolist()


def _first_masks(masking: MaskingSettings, corpus: data.PreparedCorpus) -> str:
    """Returns a hash of the masks of the first few sequences."""
    parts = _parts(corpus)
    number = next(i for i, part in enumerate(parts) if len(part))
    rows = data.masked_rows_dataset(
        parts,
        part=number,
        masking=0,
        start=0,
        stop=min(_PROBED, len(parts[number])),
        batch_size=_PROBED,
        **masking_arguments(masking, corpus),
    )
    ((x, _, weight),) = rows.as_numpy_iterator()
    masks = [x["token_ids"].tolist(), weight.tolist()]
    return disk.sha256(disk.canonical(masks))


def _parts(corpus: data.PreparedCorpus) -> list:
    train = corpus.train
    return train if isinstance(train, list) else [train]


class _Job:
    """What is written into one cache."""

    def __init__(
        self,
        teacher: MaskedLM,
        corpus: data.PreparedCorpus,
        settings: CacheSettings,
        batch_size: int,
    ) -> None:
        self._corpus = corpus
        self._settings = settings
        self._batch_size = batch_size
        self._pass = _TeacherPass(teacher, settings)
        self._parts = [
            CorpusPart(
                length=part.shape[1],
                rows=len(part),
                slots=sequence_slots(
                    part.shape[1], settings.masking.rate, settings.positions
                ),
                shards=[],
            )
            for part in _parts(corpus)
        ]

    def plan(self) -> writing.Plan:
        """Returns the shards: some rows of a part under one masking."""
        return writing.Plan(
            parts=self._parts,
            shards=list(self._shards()),
            describe=self._describe,
            remedy=(
                "Lower `top_k` or `maskings`, keep only the masked positions, "
                "leave out losses on hidden states and attention, or use "
                "another disk."
            ),
        )

    def _shards(self) -> Iterator[writing.ShardPlan]:
        for number, part in enumerate(self._parts):
            layout = layout_of(self._settings, part.slots)
            size = layout.record_bytes(part.length)
            per_shard = max(writing.SHARD_BYTES // size, 1)
            for masking in range(self._settings.maskings):
                for start in range(0, part.rows, per_shard):
                    stop = min(start + per_shard, part.rows)
                    rows = stop - start
                    yield writing.ShardPlan(
                        f"part{number}_masking{masking}_row{start:09d}",
                        number,
                        rows,
                        shard_bytes(rows, rows * size),
                        functools.partial(
                            self._records, number, masking, start, stop
                        ),
                    )

    def _describe(self, size: int) -> str:
        rows = sum(part.rows for part in self._parts)
        tokens = sum(part.rows * part.length for part in self._parts)
        tokens *= self._settings.maskings
        return (
            f"{rows:,} sequences x {self._settings.maskings} maskings, "
            f"{size / tokens:.0f} bytes per token"
        )

    def _records(
        self,
        number: int,
        masking: int,
        start: int,
        stop: int,
        count: Callable[[int], None],
    ) -> list[bytes]:
        """Runs the teacher on some rows of a part; returns their records."""
        part = self._parts[number]
        layout = layout_of(self._settings, part.slots)
        rows = data.masked_rows_dataset(
            _parts(self._corpus),
            part=number,
            masking=masking,
            start=start,
            stop=stop,
            batch_size=self._batch_size,
            **masking_arguments(self._settings.masking, self._corpus),
        )
        records: list[bytes] = []
        for x, _, weight in rows:
            arrays = self._pass(x, weight, part.slots)
            records += layout.encode(arrays, [part.length] * len(weight))
            count(len(records))
        return records


class _TeacherPass:
    """Computes a teacher's outputs for a batch, in the form of a cache."""

    def __init__(self, teacher: MaskedLM, settings: CacheSettings) -> None:
        self._teacher = teacher
        self._settings = settings
        matrix = tf.TensorSpec([None, None], tf.int32)
        width = teacher.backbone.hidden_dim
        dtype = teacher.backbone.compute_dtype
        self._encode = tf.function(
            self._states, input_signature=[matrix, matrix], autograph=False
        )
        self._top = tf.function(
            self._top_logits,
            input_signature=[tf.TensorSpec([None, width], dtype)],
            autograph=False,
        )

    def __call__(
        self, x: dict[str, Tensor], masked: Tensor, slots: int
    ) -> dict[str, np.ndarray]:
        """Returns the arrays of a record's layout for one batch."""
        by_layer = self._encode(x["token_ids"], x["padding_mask"])
        states = by_layer[LAST]
        batch, length = states.shape[:2]
        needed = x["padding_mask"] > 0
        if self._settings.positions == "masked":
            needed = masked > 0.0
        sequences, places = np.nonzero(needed.numpy())
        rows = forward.gather_rows(states, sequences * length + places)
        if self._settings.positions == "masked":
            firsts = np.searchsorted(sequences, np.arange(batch))
            places = np.arange(len(sequences)) - firsts[sequences]
        chunks = [
            [part.numpy() for part in self._top(rows[i : i + _CHUNK])]
            for i in range(0, len(rows), _CHUNK)
        ]
        arrays = {}
        for name, values in zip(
            ("token_ids", "logits", "tails"),
            zip(*chunks, strict=True),
            strict=True,
        ):
            joined = np.concatenate(values)
            filled = np.zeros((batch, slots, joined.shape[1]), joined.dtype)
            filled[sequences, places] = joined
            arrays[name] = filled
        # Values at padding are meaningless; 0 is finite.
        real = x["padding_mask"].numpy()[..., None] > 0
        if self._settings.hidden_states:
            arrays["states"] = np.where(real, states.numpy(), 0)
        if self._settings.attention_heads:
            vectors = by_layer[_VECTORS].numpy()
            arrays["attention"] = np.where(real[..., None, None], vectors, 0)
        return arrays

    def _states(
        self, token_ids: Tensor, padding_mask: Tensor
    ) -> dict[str, Tensor]:
        """Returns the last states and, if they are kept, its vectors."""
        inputs = {"token_ids": token_ids, "padding_mask": padding_mask}
        vectors = [Attention(LAST)] if self._settings.attention_heads else []
        found = forward.hidden_states(
            self._teacher, inputs, vectors, training=False
        )
        return {
            _VECTORS if isinstance(layer, Attention) else LAST: values
            for layer, values in found.items()
        }

    def _top_logits(self, hidden_rows: Tensor) -> tuple[Tensor, ...]:
        """Returns ids, logits and tails of some positions."""
        projection = forward.project(self._teacher, hidden_rows)
        logits = tf.cast(projection.products(), tf.float32) + projection.bias
        values, ids = tf.math.top_k(logits, k=self._settings.top_k)
        largest = values[:, :1]
        row = tf.range(tf.shape(ids)[0])[:, tf.newaxis] + tf.zeros_like(ids)
        others = tf.tensor_scatter_nd_update(
            logits - largest,
            tf.stack([row, ids], axis=-1),
            tf.fill(tf.shape(ids), -np.inf),
        )
        tails = [
            tf.reduce_logsumexp(others / temperature, axis=-1)
            for temperature in self._settings.temperatures
        ]
        all_tails = tf.zeros([tf.shape(ids)[0], 0])
        if tails:
            all_tails = tf.stack(tails, axis=-1)
        return ids, values - largest, all_tails
