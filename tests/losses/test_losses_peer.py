"""The three losses and their gradients against torch."""

import numpy as np
import pytest
import tensorflow as tf

from keras_distil import losses

pytestmark = pytest.mark.peer

TOKENS, SIZE = 6, 23


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def arrays():
    generator = np.random.default_rng(7)
    teacher, student = generator.normal(0.0, 2.0, (2, TOKENS, SIZE))
    token_ids = generator.integers(0, SIZE, TOKENS)
    return token_ids, teacher.astype("float32"), student.astype("float32")


def compare(loss, target, student, torch, their_loss):
    """`their_loss` is a function of the student's torch tensor."""
    ours = tf.convert_to_tensor(student)
    with tf.GradientTape() as tape:
        tape.watch(ours)
        value = loss(target, ours)
    theirs = torch.tensor(student, requires_grad=True)
    their_value = their_loss(theirs)
    their_value.backward()
    # Two float32 computations; a gradient has entries near zero.
    np.testing.assert_allclose(value, their_value.item(), rtol=1e-5)
    np.testing.assert_allclose(
        tape.gradient(value, ours), theirs.grad, rtol=1e-5, atol=1e-7
    )


def test_crossentropy(torch, arrays):
    token_ids, _, student = arrays
    compare(
        losses.MaskedLMCrossentropy(),
        token_ids,
        student,
        torch,
        lambda x: torch.nn.functional.cross_entropy(x, torch.tensor(token_ids)),
    )


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 8.0])
def test_kl_divergence(torch, arrays, temperature):
    functional = torch.nn.functional
    _, teacher, student = arrays

    def their_loss(x):
        divergence = functional.kl_div(
            functional.log_softmax(x / temperature, dim=-1),
            functional.softmax(torch.tensor(teacher) / temperature, dim=-1),
            reduction="batchmean",
        )
        return divergence * temperature**2

    loss = losses.SoftTargetKLDivergence(temperature=temperature)
    compare(loss, teacher, student, torch, their_loss)


def test_cosine_distance(torch, arrays):
    _, teacher, student = arrays
    peer = torch.nn.CosineEmbeddingLoss()
    compare(
        losses.HiddenStateCosineDistance(),
        teacher,
        student,
        torch,
        lambda x: peer(x, torch.tensor(teacher), torch.ones(TOKENS)),
    )
