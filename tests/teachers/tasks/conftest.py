"""Toy tasks of every kind: teachers, students and encoded examples."""

import dataclasses

import numpy as np
import pytest
import toy
from pool import pooled

from keras_distil import data, teachers

VOCABULARY, COUNT = 64, 23
KINDS = ("classification", "regression", "token_classification", "span")
OUTPUTS = {"classification": 3, "token_classification": 4}


def make_examples(kind="classification", count=COUNT, seed=0):
    """Texts of 3 to 11 tokens; all of 8 if each token has a label."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(3, 12, count)
    if kind == "token_classification":
        lengths[:] = 8
    ids = generator.integers(5, VOCABULARY, lengths.sum())
    starts = np.cumsum([0, *lengths])
    ids[starts[:-1]], ids[starts[1:] - 1] = 2, 3
    labels = {
        "classification": generator.integers(0, 3, count),
        "regression": generator.normal(size=count).astype("float32"),
        "token_classification": generator.integers(0, 4, (count, 8)),
        "span": {"start": lengths // 3, "end": lengths - 1},
    }
    return data.EncodedExamples(
        token_ids=ids.astype("int32"),
        starts=starts.astype("int64"),
        first_lengths=generator.integers(2, lengths).astype("int32"),
        labels=labels[kind],
        pad_id=0,
        max_length=12,
    )


def make_mixture():
    """Examples with copies, and some without labels."""
    return data.Mixture(
        make_examples(),
        make_examples(count=11, seed=1),
        dataclasses.replace(make_examples(count=9, seed=2), labels=None),
        unlabelled_share=0.3,
    )


@pooled
def make_task_teacher(kind="classification", seed=4, labels=None, **sizes):
    encoder = toy.make_teacher(vocabulary_size=VOCABULARY, **sizes)
    model = toy.task_model(
        encoder, kind, OUTPUTS.get(kind, 1), dropout=0.1, labels=labels
    )
    return toy.randomize(model, seed)


@pooled
def make_task_student(kind="classification", *, dropout=0.0, **sizes):
    encoder = toy.make_student(
        toy.make_teacher(vocabulary_size=VOCABULARY), **sizes
    )
    model = toy.task_model(encoder, kind, OUTPUTS.get(kind, 1), dropout=dropout)
    return toy.randomize(model, seed=9)


@pytest.fixture(scope="session")
def task_teacher():
    """A teacher of a classification."""
    return make_task_teacher()


@pytest.fixture
def cache_task(tmp_path, task_teacher):
    """Returns `cache_task_teacher` with toy arguments."""

    def cache(examples=None, folder=None, **replaced):
        arguments = {"batch_size": 4, "say": None, **replaced}
        return teachers.cache_task_teacher(
            arguments.pop("teacher", task_teacher),
            make_examples() if examples is None else examples,
            tmp_path / "cache" if folder is None else folder,
            **arguments,
        )

    return cache
