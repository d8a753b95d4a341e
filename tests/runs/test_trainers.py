import keras
import numpy as np
import pytest
import toy

from keras_distil.models import adapters
from keras_distil.runs import trainers


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5]),
        ("cosine", [0.5, 1.0, 1.0, 0.853553, 0.5]),
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_learning_rate_rises_then_decays(decay, expected):
    optimizer = trainers.make_optimizer(
        learning_rate=1.0, steps=6, warmup_steps=2, decay=decay
    )
    rates = []
    for step in range(5):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


def test_weight_decay_leaves_biases_and_norms_alone():
    optimizer = trainers.make_optimizer(
        learning_rate=0.1, steps=10, weight_decay=0.5, decay="constant"
    )
    variables = {
        name: keras.Variable(np.ones(2, "float32"), name=name)
        for name in ("kernel", "embeddings", "bias", "gamma", "beta")
    }
    optimizer.build(list(variables.values()))
    zeros = [np.zeros(2, "float32")] * 5
    optimizer.apply(zeros, list(variables.values()))
    values = {name: float(v.numpy()[0]) for name, v in variables.items()}
    # 1 - 0.1 * 0.5 where it applies.
    assert values == pytest.approx(
        {"kernel": 0.95, "embeddings": 0.95, "bias": 1, "gamma": 1, "beta": 1}
    )


def test_a_teacher_is_trained_without_dropout_and_pooler():
    teacher = toy.make_teacher(dropout=0.5)
    trainers.prepare_teacher_training(teacher, method="all_weights", rank=None)
    x, *_ = toy.make_batch()
    inputs = {**x, "segment_ids": np.zeros_like(x["token_ids"])}
    once, again = (
        teacher.backbone(inputs, training=True)["sequence_output"]
        for _ in range(2)
    )
    np.testing.assert_array_equal(once, again)
    assert not teacher.backbone.pooled_dense.trainable
    assert teacher.backbone.token_embedding.trainable_variables


def test_an_adapter_has_few_trainable_weights():
    teacher = toy.make_teacher()
    trainers.prepare_teacher_training(teacher, method="adapter", rank=1)
    names = {variable.name for variable in teacher.trainable_variables}
    assert "lora_kernel_a" in names
    kernels = [
        variable.path
        for variable in teacher.trainable_variables
        if variable.name == "kernel"
    ]
    assert [path.split("/")[-2] for path in kernels] == ["intermediate_dense"]
    assert list(adapters._low_rank_layers(teacher))


def test_the_trainer_of_a_baseline_has_one_loss():
    student = toy.make_student(toy.make_teacher())
    optimizer = trainers.make_optimizer(learning_rate=0.1, steps=2)
    trainer = trainers.masked_lm_trainer(
        student, optimizer, clip_norm=1.0, micro_batches=2
    )
    batches = toy.dataset(toy.make_batch(), toy.make_batch(seed=4))
    trainer.fit(batches, steps_per_epoch=2, verbose=0)
    assert int(optimizer.iterations.numpy()) == 2
    assert [loss.name for loss in trainer.distillation_losses] == ["mlm"]


@pytest.mark.parametrize(
    ("examples", "width", "kind", "epochs", "rate"),
    [
        (4_999, 384, "classification", 5, 1e-4),
        (5_000, 512, "regression", 4, 3e-5),
        (20_000, 768, "span", 2, 3e-5),
        # Rare labels are learned last.
        (20_000, 384, "multi_label", 4, 1e-4),
        (600, 384, "multi_label", 10, 1e-4),
    ],
)
def test_defaults_of_tasks(examples, width, kind, epochs, rate):
    assert trainers.task_defaults(examples, width, kind) == (
        trainers.TaskDefaults(epochs, 32, rate, 2)
    )
