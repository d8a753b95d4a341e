"""Writes a sentence embedder's vectors of texts into shards on disk."""

import dataclasses
import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import tokenizers
from keras_hub.models import TextEmbedder

from keras_distil import data
from keras_distil.models.embedding_model import check_embedder, vector_width
from keras_distil.teachers.embeddings.cached import CachedEmbeddingTeacher
from keras_distil.teachers.embeddings.settings import (
    VECTOR,
    EmbeddingCacheSettings,
    EmbeddingManifest,
)
from keras_distil.teachers.identity import identify
from keras_distil.teachers.store import writing
from keras_distil.teachers.store.manifest import Part
from keras_distil.teachers.store.records import shard_bytes
from keras_distil.utils import disk
from keras_distil.utils.checks import check_count

# Texts of a shard: an interrupted pass repeats the teacher's work on one, at
# most a minute or so.
_SHARD_TEXTS = 2**13
# Texts that are timed, to say how long the pass takes: enough batches for
# their lengths to be as even as in the pass itself.
_TIMED = 512


def cache_embedding_teacher(
    teacher: TextEmbedder,
    examples: data.EncodedExamples,
    folder: str | os.PathLike,
    *,
    tokenizer: tokenizers.Tokenizer | None = None,
    batch_size: int = 64,
    say: Callable[[str], None] | None = print,
    progress: Callable[[int, int], None] | None = None,
) -> CachedEmbeddingTeacher:
    """Runs a teacher on all texts and writes its vectors in 16 bits.

    A finished cache is opened and an interrupted one continued. The size is
    told before the work begins.

    Args:
        teacher: an embedding model.
        examples: the texts, as from `data.encode_examples`.
        folder: the cache's folder.
        tokenizer: the tokenizer of the examples, kept as a hash.
        batch_size: int >= 1, texts per forward pass.
        say: called with a line that states the size; None for silence.
        progress: called with the number of texts done and their total.

    Returns:
        The cached teacher.

    Raises:
        CorpusError: if the folder holds another cache.
        OSError: if the disk is too small, full or may not be written.
        TypeError: if an argument has the wrong type.
        ValueError: if the examples do not fit the teacher, or its vectors are
            not finite.

    Example:
        >>> cached = cache_embedding_teacher(
        ...     teacher, examples, "caches/minilm"
        ... )                                               # doctest: +SKIP
    """
    batch_size = check_count("batch_size", batch_size)
    check_embedder(teacher, "teacher")
    if not isinstance(examples, data.EncodedExamples):
        raise TypeError(
            "`examples` must be those that `data.encode_examples` returns. "
            f"Received: {type(examples).__name__}."
        )
    _check_fit(teacher, examples)
    settings = EmbeddingCacheSettings(
        teacher=identify(teacher),
        kind="embedding",
        tokenizer="" if tokenizer is None else data.tokenizer_hash(tokenizer),
        examples=examples.fingerprint,
        pooling_mode=teacher.pooling_mode,
        normalize=teacher.normalize,
        dimension=vector_width(teacher),
    )
    path = disk.named(Path(folder).expanduser())
    writing.make_store(
        path,
        settings,
        EmbeddingManifest,
        lambda: _plan(teacher, examples, settings, batch_size),
        say=say,
        progress=progress,
    )
    return CachedEmbeddingTeacher(path)


def _check_fit(teacher: TextEmbedder, examples: data.EncodedExamples) -> None:
    backbone = teacher.backbone
    longest = int(examples.lengths.max(initial=0))
    positions = getattr(backbone, "max_sequence_length", None)
    if positions is not None and longest > positions:
        raise ValueError(
            f"`examples` must have at most {positions} tokens each, the "
            f"positions of the teacher. Received: {longest} tokens. Encode "
            "them with a lower `max_length`."
        )
    highest = int(examples.token_ids.max(initial=0))
    if highest >= backbone.vocabulary_size:
        raise ValueError(
            "`examples` must have token ids below "
            f"{backbone.vocabulary_size:,}, the teacher's vocabulary. "
            f"Received: {highest:,}. Encode them with the teacher's tokenizer."
        )


def _cut(texts: int) -> Iterator[tuple[int, int]]:
    """Yields the first and the last but one text of each shard."""
    for start in range(0, texts, _SHARD_TEXTS):
        yield start, min(start + _SHARD_TEXTS, texts)


def _plan(
    teacher: TextEmbedder,
    examples: data.EncodedExamples,
    settings: EmbeddingCacheSettings,
    batch_size: int,
) -> writing.Plan:
    # Batches are padded to the teacher's positions at most.
    positions = getattr(teacher.backbone, "max_sequence_length", None)
    if positions is not None:
        longest = min(examples.max_length, positions)
        examples = dataclasses.replace(examples, max_length=longest)
    record_bytes = settings.layout.record_bytes(1)

    def records(
        start: int, stop: int, count: Callable[[int], None]
    ) -> list[bytes]:
        vectors = teacher.encode_tokens(
            examples.part(start, stop), batch_size=batch_size
        )
        count(stop - start)
        ones = [1] * len(vectors)
        return settings.layout.encode({VECTOR: vectors}, ones)

    def seconds(left: Sequence[writing.ShardPlan]) -> float:
        """Estimates the duration from the time of some texts."""
        count = min(_TIMED, len(examples))
        some = examples.part(0, count)
        # The first call traces the graph.
        teacher.encode_tokens(some, batch_size=batch_size)
        began = time.perf_counter()
        teacher.encode_tokens(some, batch_size=batch_size)
        passed = time.perf_counter() - began
        tokens = len(examples.token_ids) / len(examples)
        texts = sum(shard.rows for shard in left)
        return passed * texts * tokens / len(some.token_ids)

    return writing.Plan(
        parts=[Part(rows=len(examples), shards=[])],
        shards=[
            writing.ShardPlan(
                f"text{start:09d}",
                0,
                stop - start,
                shard_bytes(stop - start, (stop - start) * record_bytes),
                functools.partial(records, start, stop),
            )
            for start, stop in _cut(len(examples))
        ],
        describe=lambda size: f"the vectors of {len(examples):,} texts",
        remedy="Lower the number of texts, or use another disk.",
        seconds=seconds,
    )
