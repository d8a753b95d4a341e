"""A distillation step written out, with full logits and no package code.

Forward passes are those of the KerasHub task models themselves; losses and
their gradients for logits and hidden states are NumPy float64.
"""

import numpy as np
import tensorflow as tf
import toy
from losses import reference

WEIGHTS = {"mlm": 2.0, "soft_target": 5.0, "cosine": 1.0}
TEMPERATURE = 2.0


def reference_step(teacher, student, batch, positions="all", project=None):
    """Returns the logs by name and the gradients by variable path.

    `project` maps the student's hidden states to the teacher's width.
    """
    x, token_ids, masked = batch
    real = x["padding_mask"].astype("float32")
    soft_weight = masked if positions == "masked" else real
    teacher_logits = toy.full_logits(teacher, x).numpy()
    teacher_states = toy.hidden_states(teacher, x).numpy()
    with tf.GradientTape() as tape:
        logits = toy.full_logits(student, x)
        states = toy.hidden_states(student, x)
        if project is not None:
            states = project(states)
    mlm, mlm_gradient = reference.crossentropy(
        token_ids, logits.numpy(), masked
    )
    soft, soft_gradient = reference.kl_divergence(
        teacher_logits, logits.numpy(), TEMPERATURE, soft_weight
    )
    cosine, cosine_gradient = reference.cosine_distance(
        teacher_states, states.numpy(), real
    )
    variables = list(student.trainable_variables)
    if project is not None:
        variables += project.trainable_variables
    gradients = tape.gradient(
        [logits, states],
        variables,
        output_gradients=[
            tf.cast(
                WEIGHTS["mlm"] * mlm_gradient
                + WEIGHTS["soft_target"] * soft_gradient,
                tf.float32,
            ),
            tf.cast(WEIGHTS["cosine"] * cosine_gradient, tf.float32),
        ],
    )
    best = logits.numpy().argmax(axis=-1)
    agreeing = best == teacher_logits.argmax(axis=-1)
    logs = {
        "loss": WEIGHTS["mlm"] * mlm
        + WEIGHTS["soft_target"] * soft
        + WEIGHTS["cosine"] * cosine,
        "mlm_loss": mlm,
        "soft_target_loss": soft,
        "cosine_loss": cosine,
        "mlm_accuracy": ((best == token_ids) * masked).sum() / masked.sum(),
        "teacher_agreement": (agreeing * masked).sum() / masked.sum(),
    }
    return logs, {
        variable.path: tf.convert_to_tensor(gradient).numpy()
        for variable, gradient in zip(variables, gradients, strict=True)
        if gradient is not None
    }


def assert_gradients_close(actual, expected, rtol=1e-5):
    """Compares relative to the largest entry of a variable's gradient.

    Both are float32 sums in another order, so an entry near zero carries the
    rounding of its terms.
    """
    assert set(actual) == set(expected)
    largest = max(np.abs(value).max() for value in expected.values())
    for path, value in expected.items():
        np.testing.assert_allclose(
            actual[path], value, rtol=rtol, atol=rtol * largest, err_msg=path
        )
