"""Toy models and batches shared by several test modules."""

import contextlib
import functools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from pool import pooled

from keras_distil import (
    Distiller,
    callbacks,
    data,
    evaluation,
    export,
    models,
)
from keras_distil.benchmark import latency
from keras_distil.data import held_out_dataset
from keras_distil.runs.report import svg

VOCABULARY = 50
SIZES = {
    "vocabulary_size": VOCABULARY,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 24,
    "max_sequence_length": 12,
}


# As in `models`, but from the pool.
task_model = pooled(models.task_model)
initialize_student = pooled(models.initialize_student)


def randomize(model, seed, scale=0.3):
    """Gives every weight a value that matters, biases and scales too."""
    generator = np.random.default_rng(seed)
    for variable in model.weights:
        if "seed" in variable.path:
            continue
        offset = 1.0 if variable.path.endswith("gamma") else 0.0
        noise = generator.normal(0.0, scale, variable.shape)
        variable.assign((offset + noise).astype("float32"))
    return model


@pooled
def make_teacher(dropout=0.0, dtype=None, **sizes):
    backbone = models.ExactBertBackbone(
        **{**SIZES, **sizes}, dropout=dropout, dtype=dtype
    )
    return randomize(models.ExactBertMaskedLM(backbone), seed=1)


@pooled
def make_student(teacher, dropout=0.0, dtype=None, **sizes):
    """One layer, near its teacher but not equal to it."""
    student = models.initialize_student(
        teacher, 1, dropout=dropout, dtype=dtype, **sizes
    )
    generator = np.random.default_rng(2)
    for variable in student.trainable_variables:
        value = variable.numpy().astype("float32")
        noise = generator.normal(0.0, 0.1, variable.shape)
        variable.assign(value + noise.astype("float32"))
    return student


def make_batch(lengths=(7, 4, 2, 6), seed=3):
    """A Keras triple of NumPy arrays; row i holds `lengths[i]` tokens."""
    generator = np.random.default_rng(seed)
    shape = len(lengths), max(lengths)
    padding_mask = np.arange(shape[1]) < np.array(lengths)[:, None]
    targets = generator.integers(5, VOCABULARY, shape) * padding_mask
    masked = (generator.random(shape) < 0.4) & padding_mask
    masked[0, 0] = True
    token_ids = np.where(masked, 4, targets)
    x = {
        "token_ids": token_ids.astype("int32"),
        "padding_mask": padding_mask.astype("int32"),
    }
    return x, targets.astype("int32"), masked.astype("float32")


def set_at(array, place, value, dtype=None):
    """A copy of an array with another value at one place."""
    changed = np.array(array, dtype or array.dtype)
    changed[place] = value
    return changed


def dataset(*batches):
    """A tf.data.Dataset of these batches, of any sizes."""
    x, y, sample_weight = batches[0]
    spec = (
        {key: tf.TensorSpec([None, None], tf.int32) for key in x},
        tf.TensorSpec([None, None], tf.int32),
        tf.TensorSpec([None, None], tf.float32),
    )
    made = tf.data.Dataset.from_generator(
        lambda: iter(batches), output_signature=spec
    )
    return made.apply(tf.data.experimental.assert_cardinality(len(batches)))


def weights_of(model):
    """NumPy copies of all weights by path."""
    return {v.path: np.array(v.numpy()) for v in model.weights}


def full_logits(model, x, training=False):
    """The task model's own logits at every position."""
    batch, length = x["token_ids"].shape
    inputs = dict(x)
    inputs["mask_positions"] = np.tile(
        np.arange(length, dtype="int32"), (batch, 1)
    )
    if "segment_ids" in model.backbone.input:
        inputs["segment_ids"] = np.zeros((batch, length), "int32")
    return model(inputs, training=training)


def hidden_states(model, x):
    """The encoder's own last hidden states."""
    inputs = dict(x)
    if "segment_ids" in model.backbone.input:
        inputs["segment_ids"] = np.zeros_like(x["token_ids"])
        return model.backbone(inputs, training=False)["sequence_output"]
    return model.backbone(inputs, training=False)


def convert_litert_here(patch) -> None:
    """Converts in this process, because another takes seconds to start."""
    from keras_distil.export.litert import conversion, converter

    def run(spec, folder):
        wanted = converter.Conversion(**json.loads(spec.read_text()))
        try:
            return converter.convert(wanted)
        except converter.ConversionError as error:
            raise RuntimeError(str(error)) from error

    patch.setattr(conversion, "run_converter", run)


@contextlib.contextmanager
def eager_steps() -> Iterator[None]:
    """Makes Distillers compiled in this context run without a graph.

    Tracing a step takes as long as 15 eager steps of a toy model.
    """
    compile_ = Distiller.compile

    def eagerly(self, *args, **arguments):
        return compile_(self, *args, **{**arguments, "run_eagerly": True})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Distiller, "compile", eagerly)
        yield


def a_millisecond(calls: dict, **options) -> dict[str, float]:
    """Replaces the measurement of latencies."""
    return dict.fromkeys(calls, 1.0)


def no_error(model, batches) -> float:
    """Replaces the measurement of calibration."""
    return 0.0


@functools.cache
def _held_out(rows: bytes, shape, dtype, **settings):
    sequences = np.frombuffer(rows, dtype).reshape(shape)
    return held_out_dataset(sequences, **settings)


def same_held_out(sequences, **settings) -> tf.data.Dataset:
    """The same dataset for the same text: making it traces its masks."""
    if not isinstance(sequences, np.ndarray):
        return held_out_dataset(sequences, **settings)
    array = sequences.tobytes(), sequences.shape, sequences.dtype
    return _held_out(*array, **settings)


def look_away(board: callbacks.TensorBoard, step: int) -> None:
    """Replaces the evaluation of examples."""
    board._seen["steps"].append(step)


@contextlib.contextmanager
def quick_runs() -> Iterator[None]:
    """Runs with eager steps and without most of their pictures.

    TensorBoard shows no examples, the page's charts are empty, each model takes
    a millisecond, and none is badly calibrated.
    """
    with eager_steps(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks.TensorBoard, "_look", look_away)
        patch.setattr(latency, "measure_latency_ms", a_millisecond)
        patch.setattr(evaluation, "masked_lm_calibration", no_error)
        patch.setattr(data, "held_out_dataset", same_held_out)
        patch.setattr(svg, "inline", lambda figure, **labels: "<svg></svg>")
        yield


def byte_level_tokenizer(folder, **settings):
    """A byte-level BPE tokenizer of 701 tokens, as RoBERTa's."""
    source = Path(__file__).parent / "data" / "golden" / "byte_level_bpe"
    shutil.copytree(source, folder, dirs_exist_ok=True)
    mask = {
        "__type": "AddedToken",
        "content": "<mask>",
        "lstrip": True,
        "normalized": False,
    }
    settings = {
        "tokenizer_class": "RobertaTokenizer",
        "mask_token": mask,
        **settings,
    }
    text = json.dumps(settings)
    (folder / "tokenizer_config.json").write_text(text)
    return data.load_tokenizer(folder)


def roberta_folder(folder):
    """A Hugging Face folder of a RoBERTa of 2 layers, with its tokenizer."""
    sizes = {**SIZES, "vocabulary_size": 701, "max_sequence_length": 16}
    model = randomize(
        models.ExactRobertaMaskedLM(models.ExactRobertaBackbone(**sizes)),
        seed=3,
    )
    tokenizer = byte_level_tokenizer(folder.with_name("tokenizer"))
    export.export_hugging_face(model, folder, tokenizer)
    return folder


@pooled
def make_embedders(student_width=16, teacher_dimension=None, **settings):
    """A teacher of sentence embeddings, and a student of one layer."""
    encoder = make_teacher()
    teacher = models.embedding_model(
        encoder, dimension=teacher_dimension, **settings
    )
    if teacher_dimension is not None:
        randomize(teacher.sentence_embedding, seed=4)
    student = make_student(
        encoder, hidden_dim=student_width, intermediate_dim=24
    )
    return teacher, models.embedding_model(student, **settings)


def make_texts(lengths=(7, 4, 2, 6), seed=3):
    """Inputs of texts; row i holds `lengths[i]` tokens."""
    x, targets, _ = make_batch(lengths, seed)
    return {**x, "token_ids": targets}


def squad_file(path, paragraphs):
    """A SQuAD file; each paragraph with the ids of its questions."""
    path.write_text(
        json.dumps(
            {
                "version": "1.1",
                "data": [
                    {
                        "title": "t",
                        "paragraphs": [
                            {
                                "context": context,
                                "qas": [
                                    {
                                        "id": key,
                                        "question": f"what is {key}?",
                                        "answers": [
                                            {
                                                "text": context[:3],
                                                "answer_start": 0,
                                            }
                                        ],
                                    }
                                    for key in keys
                                ],
                            }
                            for context, keys in paragraphs
                        ],
                    }
                ],
            }
        )
    )
    return path
