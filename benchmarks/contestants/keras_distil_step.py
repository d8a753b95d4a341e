"""keras_distil's step, as in its recipes."""

import tempfile
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

import contestants
from contestants import keras_turns
from contestants.shapes import Data, Shape, make_data
from contestants.turns import Turns
from keras_distil import Distiller, data, losses, models, teachers


def make_models(shape: Shape, precision: str) -> tuple[Any, Any]:
    """Makes a random teacher, in the compute precision, and its student."""
    sizes = shape.sizes
    keras.utils.set_random_seed(0)
    teacher = models.ExactBertMaskedLM(
        models.ExactBertBackbone(
            vocabulary_size=sizes.vocabulary,
            num_layers=sizes.layers,
            num_heads=sizes.heads,
            hidden_dim=sizes.width,
            intermediate_dim=sizes.wide,
            max_sequence_length=sizes.positions,
            dtype=precision,
        )
    )
    student = models.initialize_student(
        teacher, sizes.student_layers, dropout=0.0, dtype=precision
    )
    compute_dtype = keras.dtype_policies.get(precision).compute_dtype
    return models.with_dtype(teacher, compute_dtype), student


def make_distiller(teacher: Any, student: Any, shape: Shape) -> Distiller:
    """Makes and compiles their Distiller."""
    triple_loss = losses.triple_loss(
        contestants.MLM_WEIGHT,
        contestants.SOFT_TARGET_WEIGHT,
        contestants.COSINE_WEIGHT,
        temperature=contestants.TEMPERATURE,
        positions=shape.positions,
    )
    added = {
        "none": [],
        "attention_relation": [
            losses.AttentionRelationKLDivergence(
                relation_heads=shape.sizes.heads
            )
        ],
        "attention_transfer": [losses.AttentionTransfer()],
    }[shape.variant.added_loss]
    distiller = Distiller(teacher, student, [*triple_loss, *added])
    distiller.compile(
        keras.optimizers.AdamW(contestants.LEARNING_RATE),
        micro_batches=shape.variant.micro_batches,
        clip_norm=contestants.CLIP_NORM,
        jit_compile=shape.variant.jit_compile,
        chunk_size=shape.variant.chunk_size,
    )
    return distiller


def cache_teacher(
    teacher: Any, shape: Shape, found: Data, folder: Path
) -> tuple[teachers.CachedTeacher, tf.data.Dataset]:
    """Caches the outputs for the batches' words, and makes their batches.

    The masks differ: they are drawn as in every training.
    """
    tokenizer = data.load_tokenizer(models.checkpoint_directory("embedded"))
    rows = found.targets.reshape(-1, shape.length).astype("uint16")
    special = data.SpecialTokens.from_tokenizer(tokenizer)
    rows[:, 0], rows[:, -1] = special.cls_id, special.sep_id
    corpus = data.PreparedCorpus(
        *([rows], rows[:0]),
        token_counts=None,
        fingerprint="0" * 64,
        report=data.CorpusReport(),
        folder=folder,
    )
    cached = teachers.cache_teacher(
        *(teacher, corpus, tokenizer),
        output=folder / "outputs",
        top_k=shape.variant.top_k,
        maskings=1,
        positions=shape.positions,
        temperature=contestants.TEMPERATURE,
        say=None,
    )
    return cached, cached.dataset(corpus, batch_size=shape.batch)


def make_batches(words: Data) -> tf.data.Dataset:
    """Returns the batches as a dataset, once each."""
    return tf.data.Dataset.from_tensor_slices(
        (
            {
                "token_ids": words.token_ids,
                "padding_mask": words.padding_mask,
            },
            words.targets,
            words.masked.astype("float32"),
        )
    )


def run(shape: Shape, precision: str, turns: Turns) -> None:
    """Trains in turns."""
    teacher, student = make_models(shape, precision)
    words = make_data(shape)
    batches = make_batches(words)
    with tempfile.TemporaryDirectory() as folder:
        if shape.variant.top_k:
            teacher, batches = cache_teacher(
                *(teacher, shape, words), Path(folder)
            )
        distiller = make_distiller(teacher, student, shape)
        keras_turns.fit(distiller, batches, turns)
