"""Training on a task from a cache, compared with the live teacher."""

from pathlib import Path

import keras
import numpy as np
import processes
import pytest
import tensorflow as tf
import toy
from teachers.tasks.conftest import (
    KINDS,
    OUTPUTS,
    make_examples,
    make_mixture,
    make_task_student,
    make_task_teacher,
)

from keras_distil import (
    Distiller,
    callbacks,
    data,
    losses,
    models,
    schedules,
    teachers,
)
from keras_distil.data.corpus.shards import CorpusError
from keras_distil.losses.layers import Attention
from keras_distil.models import forward

ROOT = Path(__file__).parents[3]
BATCH = {"batch_size": 5, "seed": 3}


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def make_distiller(teacher, student, the_losses, **options):
    distiller = Distiller(teacher, student, the_losses)
    # A step of these sizes is faster this way.
    options.setdefault("run_eagerly", True)
    distiller.compile(keras.optimizers.SGD(0.05), **options)
    return distiller


def output_losses(kind):
    """Every loss on a teacher's outputs, and on labels."""
    both = losses.task_loss(kind, cosine_weight=0.0)[:2]
    more = [losses.SoftTargetSquaredError(weight=0.3, name="output_mse")]
    if kind != "regression":
        both[1].temperature.assign(3.0)
        more += [
            losses.SoftTargetReverseKLDivergence(weight=0.4),
            losses.SoftTargetJensenShannonDivergence(weight=0.2),
        ]
    return [*both, *more]


def fit(distiller, batches, steps=1):
    history = distiller.fit(batches, steps_per_epoch=steps, verbose=0)
    return {name: values[-1] for name, values in history.history.items()}


def weighted(kind, batches):
    """Tokens have weights of their own, which examples do not tell."""
    if kind == "token_classification":
        return batches.map(lambda x, y, weight: (x, y))
    return batches


# === Equal to the live teacher ===


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("classification", {}),
        ("span", {}),
        slow("regression", {}),
        slow("token_classification", {}),
        slow("classification", {"run_eagerly": False, "jit_compile": True}),
        slow("span", {"run_eagerly": False}),
    ],
)
def test_losses_on_outputs_are_those_of_the_live_teacher(
    cache_task, kind, options
):
    examples, teacher = make_examples(kind), make_task_teacher(kind)
    cached = cache_task(examples, teacher=teacher)
    assert cached.kind == kind
    made = [
        make_distiller(
            which, make_task_student(kind), output_losses(kind), **options
        )
        for which in (teacher, cached)
    ]
    before = toy.weights_of(made[0].student)
    expected, logs = (
        fit(distiller, weighted(kind, batches))
        for distiller, batches in zip(
            made,
            [
                data.task_dataset(examples, **BATCH),
                cached.dataset(examples, **BATCH),
            ],
            strict=True,
        )
    )
    assert set(logs) == set(expected)
    for name, value in expected.items():
        # Float32: the teacher ran in batches of other sizes.
        assert logs[name] == pytest.approx(value, rel=1e-6, abs=1e-7), name
    after = toy.weights_of(made[0].student)
    moved = max(np.abs(after[path] - before[path]).max() for path in after)
    assert moved > 1e-2
    for path, value in toy.weights_of(made[1].student).items():
        np.testing.assert_allclose(
            value, after[path], rtol=1e-5, atol=1e-6 * moved, err_msg=path
        )


@pytest.mark.essential
@pytest.mark.parametrize("kind", ["classification", slow("span")])
def test_losses_on_layers_are_those_of_the_live_teacher(cache_task, kind):
    examples, teacher = make_examples(kind), make_task_teacher(kind)
    on_layers = [
        losses.HiddenStateCosineDistance(),
        losses.HiddenStateMeanSquaredError(
            layers=[("embeddings", "embeddings"), (0, 0)]
        ),
        losses.AttentionRelationKLDivergence(relation_heads=4),
        losses.AttentionTransfer(layers=[(0, 0)]),
    ]
    cached = cache_task(
        examples,
        teacher=teacher,
        hidden_states=["last", 0, "embeddings"],
        attention=[0, 1],
    )
    assert cached.settings.hidden_states == ["embeddings", 0, "last"]
    assert cached.settings.attention == [0, "last"]
    made = [
        make_distiller(
            which,
            make_task_student(kind),
            [*losses.task_loss(kind)[:1], *on_layers],
        )
        for which in (teacher, cached)
    ]
    expected = fit(made[0], data.task_dataset(examples, **BATCH))
    logs = fit(made[1], cached.dataset(examples, **BATCH))
    for loss in on_layers:
        name = f"{loss.name}_loss"
        # States and vectors of 16 bits.
        assert logs[name] == pytest.approx(expected[name], rel=1e-3), name
        assert expected[name] > 1e-3


def test_batches_carry_what_the_teacher_says(cache_task, task_teacher):
    examples = make_examples()
    cached = cache_task(examples, hidden_states=[0], attention=["last"])
    batches = cached.dataset(examples, steps=12, **BATCH)
    plain = data.task_dataset(examples, steps=12, **BATCH)
    for batch, (x, y, weight) in zip(
        batches.as_numpy_iterator(), plain.as_numpy_iterator(), strict=True
    ):
        inputs, outputs = cached.take_outputs(batch[0])
        tf.nest.map_structure(
            np.testing.assert_array_equal, (inputs, *batch[1:]), (x, y, weight)
        )
        logits = task_teacher(x, training=False)
        assert outputs.outputs.dtype == np.float32
        np.testing.assert_allclose(
            outputs.outputs, logits, rtol=1e-5, atol=1e-6
        )
        states = forward.hidden_states(
            task_teacher, x, [0, Attention("last")], training=False
        )
        real = x["padding_mask"] > 0
        for layer, kept in cached.by_layer(outputs).items():
            assert kept.dtype == np.float16
            np.testing.assert_allclose(
                kept[real], states[layer][real], rtol=1e-3, atol=1e-4
            )
            assert not kept[~real].any()


@pytest.mark.slow
@pytest.mark.essential
def test_a_mixture_is_learned_from(cache_task, task_teacher):
    mixture = make_mixture()
    cached = cache_task(mixture, hidden_states=["last"])
    assert [part.rows for part in cached._parts] == [23, 11, 9]
    made = [
        make_distiller(
            which, make_task_student(), output_losses("classification")
        )
        for which in (task_teacher, cached)
    ]
    expected = fit(made[0], data.task_dataset(mixture, **BATCH), steps=2)
    logs = fit(made[1], cached.dataset(mixture, **BATCH), steps=2)
    for name, value in expected.items():
        # Each update carries on the rounding of those before.
        assert logs[name] == pytest.approx(value, rel=5e-6, abs=1e-7), name
    found = set()
    for x, _, _ in cached.dataset(
        mixture, steps=9, **BATCH
    ).as_numpy_iterator():
        inputs, outputs = cached.take_outputs(x)
        found |= set(inputs.pop("label_weight"))
        np.testing.assert_allclose(
            outputs.outputs, task_teacher(inputs), rtol=1e-5, atol=1e-6
        )
    assert found == {0.0, 1.0}
    with pytest.raises(CorpusError, match=r"examples \(\w+, \w+, \w+\) than"):
        cached.reader(mixture.labelled)


@pytest.mark.slow
def test_temperatures_are_free(cache_task, task_teacher):
    examples = make_examples()
    cached = cache_task(examples)
    found = []
    for teacher in (task_teacher, cached):
        distiller = make_distiller(
            teacher, make_task_student(), output_losses("classification")
        )
        # Updates would carry on the roundings of those before.
        distiller.optimizer.learning_rate = 0.0
        scheduler = callbacks.TemperatureScheduler(
            schedules.Linear(9.0, 0.5, steps=3)
        )
        batches = data.task_dataset(examples, **BATCH)
        if teacher is cached:
            batches = cached.dataset(examples, **BATCH)
        history = distiller.fit(
            batches,
            steps_per_epoch=1,
            epochs=4,
            verbose=0,
            callbacks=[scheduler],
        )
        found.append(history.history["soft_target_loss"])
    # Low temperatures widen the roundings of logits.
    np.testing.assert_allclose(found[1], found[0], rtol=3e-6)
    assert len(set(found[0])) == 4


def test_no_teacher_runs_or_is_loaded(cache_task, monkeypatch):
    examples = make_examples()
    folder = cache_task(examples).folder

    def load(*args, **kwargs):
        raise AssertionError("a teacher was loaded")

    monkeypatch.setattr(models, "load_task_model", load)
    monkeypatch.setattr(keras.saving, "load_model", load)
    hidden_states, calls = forward.hidden_states, []

    def counted(model, inputs, layers=(), *, training):
        calls.append(model)
        return hidden_states(model, inputs, layers, training=training)

    monkeypatch.setattr(forward, "hidden_states", counted)
    cached = teachers.CachedTaskTeacher(folder)
    distiller = make_distiller(
        cached, make_task_student(), output_losses("classification")
    )
    fit(distiller, cached.dataset(examples, **BATCH), steps=5)
    assert calls == [distiller.student] * 5
    # No variable of a teacher is held: the student, the losses, counters.
    ours = {id(v) for v in distiller.student.variables}
    rest = [v.path for v in distiller.variables if id(v) not in ours]
    assert not any("backbone" in path for path in rest)


# === Streams ===


def test_a_stream_is_entered_at_a_step_and_read_in_shares(cache_task):
    examples = make_examples()
    cached = cache_task(examples, hidden_states=["last"])
    dataset = cached.dataset(examples, steps=12, **BATCH)
    whole = list(dataset.as_numpy_iterator())
    stream = data.stream_of(dataset)
    for one, other in zip(
        whole[9:], stream.dataset(9).as_numpy_iterator(), strict=True
    ):
        tf.nest.map_structure(np.testing.assert_array_equal, one, other)
    shares = [
        list(
            stream.dataset(
                9, replicas=[replica], replica_count=2
            ).as_numpy_iterator()
        )
        for replica in (0, 1)
    ]
    name = f"{cached.prefix}outputs"
    for step, expected in enumerate(whole[9:]):
        joined = np.concatenate([share[step][0][name] for share in shares])
        np.testing.assert_array_equal(joined, expected[0][name])


def test_every_epoch_reads_every_example(cache_task):
    examples = make_examples(count=20)
    cached = cache_task(examples)
    by_example = {}
    name = f"{cached.prefix}outputs"
    for step, (x, _, _) in enumerate(
        cached.dataset(examples, steps=12, **BATCH).as_numpy_iterator()
    ):
        for ids, mask, outputs in zip(
            x["token_ids"], x["padding_mask"], x[name], strict=True
        ):
            text = tuple(ids[mask > 0])
            by_example.setdefault(text, []).append((step // 4, outputs))
    assert len(by_example) == 20
    for found in by_example.values():
        assert [epoch for epoch, _ in found] == [0, 1, 2]
        assert len({outputs.tobytes() for _, outputs in found}) == 1


@pytest.mark.parametrize("kind", [slow("classification"), "span"])
def test_micro_batches_give_the_update_of_the_whole(cache_task, kind):
    examples = make_examples(kind)
    cached = cache_task(
        examples, teacher=make_task_teacher(kind), hidden_states=["last"]
    )
    weights = []
    for micro_batches in (1, 3):
        distiller = make_distiller(
            cached,
            make_task_student(kind),
            [*output_losses(kind), losses.HiddenStateCosineDistance()],
            micro_batches=micro_batches,
        )
        fit(distiller, cached.dataset(examples, **BATCH))
        weights.append(toy.weights_of(distiller.student))
    for path, value in weights[0].items():
        # Sums in another order.
        np.testing.assert_allclose(
            weights[1][path], value, rtol=1e-5, atol=1e-6, err_msg=path
        )


@pytest.mark.slow
def test_an_interrupted_training_continues_exactly(cache_task, tmp_path):
    examples = make_examples()
    cached = cache_task(examples, hidden_states=["last"])

    def train(folder, steps_seen=None):
        keras.utils.set_random_seed(1)
        distiller = make_distiller(
            cached,
            make_task_student(dropout=0.2),
            losses.task_loss("classification"),
        )

        def stop(step, logs):
            if step + 1 == steps_seen:
                raise KeyboardInterrupt

        try:
            distiller.fit(
                cached.dataset(examples, **BATCH),
                steps_per_epoch=6,
                epochs=2,
                verbose=0,
                callbacks=[
                    callbacks.TrainingState(folder, every_steps=2),
                    keras.callbacks.LambdaCallback(on_train_batch_end=stop),
                ],
            )
        except KeyboardInterrupt:
            assert steps_seen is not None
        return toy.weights_of(distiller.student)

    whole = train(tmp_path / "whole")
    stopped = train(tmp_path / "parts", steps_seen=5)
    resumed = train(tmp_path / "parts")
    assert any((stopped[path] != value).any() for path, value in whole.items())
    for path, value in whole.items():
        np.testing.assert_array_equal(resumed[path], value, err_msg=path)


_TWO_REPLICAS = """
import sys
sys.path.insert(0, "tests")
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2
)
import toy
from teachers.tasks.conftest import make_examples, make_task_student
from keras_distil import Distiller, losses, teachers

examples = make_examples()
cached = teachers.CachedTaskTeacher(sys.argv[1])

def train():
    student = make_task_student()
    distiller = Distiller(cached, student, losses.task_loss("classification"))
    distiller.compile(keras.optimizers.SGD(0.1), clip_norm=1.0)
    distiller.fit(
        cached.dataset(examples, batch_size=5, seed=3),
        steps_per_epoch=3,
        verbose=0,
    )
    return toy.weights_of(student)

one = train()
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    two = train()
for (path, value), other in zip(one.items(), two.values(), strict=True):
    np.testing.assert_allclose(
        other, value, rtol=1e-5, atol=1e-6, err_msg=path
    )
"""


@pytest.mark.slow
def test_two_replicas_give_the_weights_of_one(cache_task):
    cached = cache_task(hidden_states=["last"])
    done = processes.run(["-c", _TWO_REPLICAS, cached.folder], cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]


# === One object, one teacher ===


def test_a_batch_carries_the_outputs_of_several_teachers(cache_task, tmp_path):
    examples = make_examples()
    models_ = [make_task_teacher(seed=seed) for seed in (4, 5)]
    made = [
        cache_task(examples, tmp_path / str(number), teacher=model)
        for number, model in enumerate(models_)
    ]
    assert made[0].prefix != made[1].prefix
    batches = data.task_dataset(
        examples,
        steps=1,
        more_inputs=[cached.reader(examples) for cached in made],
        **BATCH,
    )
    ((x, _, _),) = batches.as_numpy_iterator()
    for cached, model in zip(made, models_, strict=True):
        inputs, outputs = cached.take_outputs(x)
        assert set(inputs) == {"token_ids", "padding_mask", "segment_ids"}
        np.testing.assert_allclose(
            outputs.outputs, model(inputs), rtol=1e-5, atol=1e-6
        )


@pytest.mark.slow
def test_several_caches_teach_as_several_teachers(cache_task, tmp_path):
    examples = make_examples()
    live = [make_task_teacher(seed=seed) for seed in (4, 5)]
    cached = [
        cache_task(examples, tmp_path / str(number), teacher=model)
        for number, model in enumerate(live)
    ]
    batches = data.task_dataset(
        examples,
        more_inputs=[each.reader(examples) for each in cached],
        **BATCH,
    )
    expected = None
    for teachers_, given in (
        (live, data.task_dataset(examples, **BATCH)),
        (cached, batches),
        ([live[0], cached[1]], batches),
    ):
        distiller = make_distiller(
            teachers_, make_task_student(), output_losses("classification")
        )
        if teachers_[0] is live[0] and teachers_[1] is not live[1]:
            given = data.task_dataset(
                examples, more_inputs=[cached[1].reader(examples)], **BATCH
            )
        logs = fit(distiller, given)
        expected = expected or logs
        for name, value in expected.items():
            assert logs[name] == pytest.approx(value, rel=2e-6, abs=1e-7), name


def test_names_of_classes_come_from_the_cache(cache_task):
    names = ("no", "maybe", "yes")
    cached = cache_task(teacher=make_task_teacher(labels=names))
    student = make_task_student()
    Distiller(cached, student, losses.task_loss("classification")[:2])
    assert student.labels == names
    other = make_task_student()
    other.labels = names[::-1]
    with pytest.raises(ValueError, match="same labels in the same order"):
        Distiller(cached, other, losses.task_loss("classification")[:2])


@pytest.mark.slow
def test_a_saved_distiller_opens_its_cache_again(cache_task, tmp_path):
    examples = make_examples()
    cached = cache_task(examples)
    distiller = make_distiller(
        cached, make_task_student(), output_losses("classification")
    )
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    assert loaded.teacher.settings == cached.settings
    logs = [
        fit(which, cached.dataset(examples, **BATCH))
        for which in (distiller, loaded)
    ]
    assert logs[0]["loss"] == pytest.approx(logs[1]["loss"], rel=1e-6)


def test_a_distiller_predicts_and_scores_on_its_batches(cache_task):
    examples = make_examples()
    cached = cache_task(examples)
    student = make_task_student()
    distiller = make_distiller(cached, student, output_losses("classification"))
    batches = cached.dataset(examples, steps=2, **BATCH)
    plain = data.task_dataset(examples, steps=2, **BATCH)
    found = distiller.predict(batches, verbose=0)
    np.testing.assert_allclose(
        found, student.predict(plain, verbose=0), rtol=1e-5, atol=1e-6
    )
    scores = distiller.evaluate(batches, verbose=0, return_dict=True)
    assert 0.0 <= scores["teacher_agreement"] <= 1.0


# === What does not fit ===


def test_layers_that_the_cache_does_not_have(cache_task):
    label = losses.task_loss("classification")[:1]
    bare = cache_task()
    some = cache_task(
        folder=bare.folder.with_name("some"), hidden_states=["last"]
    )
    cases = [
        (
            bare,
            losses.HiddenStateCosineDistance(),
            "'cosine' needs the hidden states of the teacher's layer 'last', "
            r"and the cache in .*cache has none: leave the loss out, or make "
            r"a cache with `hidden_states=\['last'\]`",
        ),
        (
            some,
            losses.HiddenStateCosineDistance(layers=[(0, 0)]),
            r"layer 0, and .* has those of \['last'\]: .*hidden_states=\[0\]",
        ),
        (
            some,
            losses.AttentionRelationKLDivergence(relation_heads=4),
            r"needs the attention of .* has none: .*`attention=\['last'\]`",
        ),
        (
            some,
            losses.HiddenStateCosineDistance(layers=[(2, 0)]),
            "The teacher has 2 layers, 0 to 1. Received: layer 2",
        ),
    ]
    for cached, loss, message in cases:
        with pytest.raises(ValueError, match=message):
            make_distiller(cached, make_task_student(), [*label, loss])


def test_heads_that_do_not_fit(cache_task):
    cached = cache_task(attention=["last"])
    with pytest.raises(ValueError, match="must divide the widths .* 16 and 16"):
        make_distiller(
            cached,
            make_task_student(),
            [
                *losses.task_loss("classification")[:1],
                losses.AttentionRelationKLDivergence(relation_heads=3),
            ],
        )


def test_a_narrower_student_has_a_projection(cache_task):
    examples = make_examples()
    cached = cache_task(examples, hidden_states=["last"])
    distiller = make_distiller(
        cached,
        make_task_student(hidden_dim=8),
        losses.task_loss("classification"),
    )
    assert distiller.projection.kernel.shape == (8, 16)
    fit(distiller, cached.dataset(examples, **BATCH), steps=1)


def test_students_that_the_cache_cannot_serve(cache_task):
    cached = cache_task()
    label = losses.task_loss("classification")[:2]
    with pytest.raises(
        TypeError,
        match="same kind of task. Received: the cache in .* for classificat"
        "ion, a student for span",
    ):
        Distiller(cached, make_task_student("span"), label)
    with pytest.raises(ValueError, match="same classes. Received: 3 and 2"):
        Distiller(
            cached,
            toy.task_model(
                toy.make_teacher(vocabulary_size=64), "classification", 2
            ),
            label,
        )
    with pytest.raises(ValueError, match="teacher vocabulary 64, student voc"):
        Distiller(
            cached,
            toy.task_model(
                toy.make_teacher(vocabulary_size=50), "classification", 3
            ),
            label,
        )
    text = toy.make_teacher(vocabulary_size=64)
    with pytest.raises(TypeError, match="`CachedTaskTeacher` is for models of"):
        Distiller(cached, text, losses.triple_loss())
    dense = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3)])
    with pytest.raises(TypeError, match="any other model needs a live"):
        Distiller(cached, dense, label)


def test_another_task_is_refused(cache_task):
    cached = cache_task(task="rte")
    with pytest.raises(
        CorpusError,
        match=r"made of other examples of rte \(\w{12}\) than these "
        r"\(\w{12}\): another task, another tokenizer, or other texts. Make",
    ):
        cached.dataset(make_examples(seed=1), **BATCH)


def test_labels_are_no_part_of_the_examples(cache_task):
    cached = cache_task(make_examples("regression"))
    # The same texts: the generator draws the labels after them.
    cached.dataset(make_examples("classification"), **BATCH)


def test_batches_without_outputs(cache_task):
    examples = make_examples()
    distiller = make_distiller(
        cache_task(), make_task_student(), output_losses("classification")
    )
    with pytest.raises(ValueError, match="batches must be those of its `datas"):
        distiller.evaluate(
            data.task_dataset(examples, steps=1, **BATCH), verbose=0
        )


@pytest.mark.slow
def test_shapes_are_known_when_a_step_is_traced(cache_task, tmp_path):
    for kind in KINDS:
        examples = make_examples(kind)
        teacher = make_task_teacher(kind)
        cached = cache_task(
            examples,
            tmp_path / kind,
            teacher=teacher,
            hidden_states=["last"],
        )
        spec = cached.dataset(examples, **BATCH).element_spec[0]
        outputs = spec[f"{cached.prefix}outputs"].shape.as_list()
        count = {"span": 2}.get(kind, OUTPUTS.get(kind, 1))
        per_token = kind in ("span", "token_classification")
        assert outputs == [5, *[None] * per_token, count]
        states = spec[f"{cached.prefix}states_last"].shape.as_list()
        assert states == [5, None, 16]
