"""A cached teacher against the live one, and against NumPy."""

from pathlib import Path

import keras
import marks
import numpy as np
import processes
import pytest
import tensorflow as tf
import toy
from losses.test_top_logits import cut, merged_kl
from teachers.conftest import VOCABULARY

from keras_distil import (
    Distiller,
    callbacks,
    data,
    losses,
    schedules,
    teachers,
)
from keras_distil.data.corpus.shards import CorpusError
from keras_distil.losses.layers import Attention
from keras_distil.models import forward
from keras_distil.teachers.masked_lm import settings as cache_settings
from keras_distil.teachers.masked_lm import writing
from keras_distil.teachers.masked_lm.cached import masking_arguments

ROOT = Path(__file__).parents[3]
WEIGHTS = {"mlm_weight": 2.0, "soft_target_weight": 5.0, "cosine_weight": 1.0}


def live_dataset(corpus, tokenizer, **options):
    return data.masked_lm_dataset(
        corpus.train,
        special=data.SpecialTokens.from_tokenizer(tokenizer),
        vocabulary_size=tokenizer.get_vocab_size(),
        **{"batch_size": 4, "seed": 3, "maskings": 2, **options},
    )


def make_distiller(teacher, the_losses, student=None, **options):
    if student is None:
        student = toy.make_student(toy.make_teacher(vocabulary_size=64))
    distiller = Distiller(teacher, student, the_losses)
    # A step of these sizes is faster this way.
    options.setdefault("run_eagerly", True)
    distiller.compile(keras.optimizers.SGD(0.05), **options)
    return distiller


def triple(positions="all", temperature=2.0):
    return losses.triple_loss(
        **WEIGHTS, positions=positions, temperature=temperature
    )


@pytest.fixture(scope="module")
def made():
    """Caches by corpus and arguments."""
    return {}


@pytest.fixture
def cache(cache, make_corpus, made, tmp_path_factory):
    """As in conftest.py, but made only once."""

    def find(corpus=None, **options):
        if corpus is None:
            corpus = make_corpus()
        bucketed = isinstance(corpus.train, list)
        key = repr((bucketed, corpus.fingerprint, sorted(options.items())))
        if key not in made:
            folder = tmp_path_factory.mktemp("cached") / "cache"
            made[key] = cache(corpus, output=folder, **options).folder
        return teachers.CachedTeacher(made[key])

    return find


# === What is in a cache ===


@pytest.mark.parametrize(
    ("bucketed", "positions"),
    [
        (False, "masked"),
        pytest.param(True, "all", marks=pytest.mark.slow),
        pytest.param(False, "all", marks=pytest.mark.slow),
        pytest.param(True, "masked", marks=pytest.mark.slow),
    ],
)
def test_batches_carry_what_the_teacher_says(
    cache, teacher, tokenizer, make_corpus, positions, bucketed
):
    corpus = make_corpus(bucketed=bucketed)
    cached = cache(corpus, positions=positions, temperature=(1.0, 3.0))
    steps = 14 if not bucketed else 24
    batches = cached.dataset(corpus, batch_size=4, steps=steps)
    plain = live_dataset(corpus, tokenizer, steps=steps)
    for (x, y, weight), expected in zip(
        batches.as_numpy_iterator(), plain.as_numpy_iterator(), strict=True
    ):
        for name in ("token_ids", "padding_mask"):
            np.testing.assert_array_equal(x[name], expected[0][name])
        np.testing.assert_array_equal(y, expected[1])
        np.testing.assert_array_equal(weight, expected[2])
        logits = np.array(toy.full_logits(teacher, expected[0]), "float64")
        states = np.array(toy.hidden_states(teacher, expected[0]))
        real = expected[0]["padding_mask"] > 0
        np.testing.assert_allclose(
            x["teacher_states"][real], states[real], rtol=1e-3, atol=1e-4
        )
        for row in range(len(y)):
            wanted = np.flatnonzero(
                weight[row] if positions == "masked" else real[row]
            )
            slots = np.arange(len(wanted)) if positions == "masked" else wanted
            nodes = cached.settings.temperatures
            by_hand = cut(logits[row, wanted], 8, nodes)
            np.testing.assert_array_equal(
                x["teacher_token_ids"][row, slots], by_hand.token_ids
            )
            np.testing.assert_allclose(
                x["teacher_logits"][row, slots],
                by_hand.logits,
                rtol=6e-4,
                atol=1e-5,
            )
            np.testing.assert_allclose(
                x["teacher_tails"][row, slots],
                by_hand.tails,
                rtol=1e-4,
                atol=1e-4,
            )


def test_a_wide_vocabulary_has_ids_of_32_bits():
    layout = cache_settings.record_layout(
        slots=2, top_k=2, temperatures=1, vocabulary_size=70_000
    )
    arrays = {
        "token_ids": np.array([[[69_999, 1], [2, 65_536]]], "int32"),
        "logits": np.array([[[0.0, -1.5], [0.0, -2.5]]], "float32"),
        "tails": np.array([[[3.25], [-1.0]]], "float32"),
    }
    assert layout.record_bytes(3) == 2 * 2 * (4 + 2) + 2 * 4
    (record,) = layout.encode(arrays, [3])
    assert len(record) == layout.record_bytes(3)
    found = layout.decode([record], [3], 3)
    assert set(found) == set(arrays)
    for name, values in arrays.items():
        np.testing.assert_array_equal(found[name], values)


@pytest.mark.parametrize(
    ("length", "rate", "expected"),
    [(128, 0.15, 19), (3, 0.15, 1), (102, 0.29, 30), (12, 1.0, 11), (1, 1, 1)],
)
def test_slots_of_masked_positions(length, rate, expected):
    assert writing.sequence_slots(length, rate, "masked") == expected
    assert writing.sequence_slots(length, rate, "all") == length


# === Training from it ===


def logs_of_a_step(distiller, batches):
    history = distiller.fit(batches, steps_per_epoch=1, verbose=0)
    return {name: values[-1] for name, values in history.history.items()}


COMPILED = {"jit_compile": True, "chunk_size": 7, "run_eagerly": False}


@pytest.mark.parametrize(
    ("bucketed", "options", "positions"),
    [
        (False, {}, "all"),
        (False, {}, "masked"),
        (True, {}, "all"),
        (True, {}, "masked"),
        (False, COMPILED, "all"),
        (False, COMPILED, "masked"),
    ],
)
@pytest.mark.slow
def test_all_logits_give_the_step_of_the_live_teacher(
    cache, teacher, tokenizer, make_corpus, bucketed, options, positions
):
    corpus = make_corpus(bucketed=bucketed)
    cached = cache(corpus, top_k=VOCABULARY, positions=positions)
    made = [
        make_distiller(which, triple(positions), **options)
        for which in (teacher, cached)
    ]
    before = toy.weights_of(made[0].student)
    expected = logs_of_a_step(made[0], live_dataset(corpus, tokenizer))
    logs = logs_of_a_step(made[1], cached.dataset(corpus, batch_size=4))
    assert set(logs) == set(expected)
    for name, value in expected.items():
        # Logits and states of 16 bits: 5e-4 of each, of random sign, in a
        # mean over a few masked tokens.
        rel = 1e-3 if name == "gradient_norm" else 3e-4
        assert logs[name] == pytest.approx(value, rel=rel, abs=1e-6), name
    assert 0.0 < logs["teacher_agreement"] < 1.0
    after = toy.weights_of(made[0].student)
    moved = max(np.abs(after[path] - before[path]).max() for path in after)
    assert moved > 1e-2
    for path, value in toy.weights_of(made[1].student).items():
        np.testing.assert_allclose(
            value, after[path], rtol=0, atol=5e-3 * moved, err_msg=path
        )


def test_the_loss_is_that_of_the_merged_outcomes(
    cache, teacher, tokenizer, make_corpus
):
    corpus = make_corpus()
    cached = cache(corpus, top_k=5, temperature=1.5)
    distiller = make_distiller(cached, triple(temperature=1.5))
    (batch,) = live_dataset(corpus, tokenizer, steps=1).as_numpy_iterator()
    theirs, ours = (
        np.array(toy.full_logits(model, batch[0]), "float64")
        for model in (teacher, distiller.student)
    )
    expected, _ = merged_kl(
        theirs.reshape(-1, VOCABULARY), ours.reshape(-1, VOCABULARY), 5, 1.5
    )
    logs = logs_of_a_step(distiller, cached.dataset(corpus, batch_size=4))
    assert logs["soft_target_loss"] == pytest.approx(expected.mean(), rel=1e-4)
    masked = batch[2] > 0
    agreeing = theirs.argmax(-1) == ours.argmax(-1)
    assert logs["teacher_agreement"] == pytest.approx(agreeing[masked].mean())


def test_no_teacher_runs(cache, make_corpus, monkeypatch):
    corpus = make_corpus()
    cached = cache(corpus)
    distiller = make_distiller(cached, triple())
    hidden_states, calls = forward.hidden_states, []

    def counted(model, inputs, layers=(), *, training):
        calls.append(model)
        return hidden_states(model, inputs, layers, training=training)

    monkeypatch.setattr(forward, "hidden_states", counted)
    logs_of_a_step(distiller, cached.dataset(corpus, batch_size=4))
    assert calls == [distiller.student]
    assert not any("teacher" in v.path for v in distiller.variables)


def test_a_narrower_student_has_a_projection(cache, make_corpus):
    corpus = make_corpus()
    cached = cache(corpus)
    student = toy.make_student(
        toy.make_teacher(vocabulary_size=VOCABULARY), hidden_dim=8
    )
    distiller = make_distiller(cached, triple(), student)
    assert distiller.projection.kernel.shape == (8, 16)
    logs_of_a_step(distiller, cached.dataset(corpus, batch_size=4))


@pytest.mark.parametrize(
    "positions", ["all", pytest.param("masked", marks=pytest.mark.slow)]
)
@pytest.mark.slow
def test_micro_batches_give_the_update_of_the_whole(
    cache, make_corpus, positions
):
    corpus = make_corpus(bucketed=True)
    cached = cache(corpus, positions=positions)
    weights = []
    for micro_batches in (1, 3):
        distiller = make_distiller(
            cached,
            triple(positions),
            micro_batches=micro_batches,
            run_eagerly=micro_batches == 1,
        )
        distiller.fit(
            cached.dataset(corpus, batch_size=4), steps_per_epoch=3, verbose=0
        )
        weights.append(toy.weights_of(distiller.student))
    for path, value in weights[0].items():
        np.testing.assert_allclose(
            weights[1][path], value, rtol=1e-5, atol=1e-6, err_msg=path
        )


def test_a_stream_is_entered_at_a_step_and_read_in_shares(cache, make_corpus):
    corpus = make_corpus()
    cached = cache(corpus)
    whole = list(
        cached.dataset(corpus, batch_size=5, steps=12).as_numpy_iterator()
    )
    late = cached.dataset(corpus, batch_size=5, steps=12, first_step=9)
    for one, other in zip(whole[9:], late.as_numpy_iterator(), strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, one, other)
    stream = data.stream_of(late)
    shares = [
        list(
            stream.dataset(
                9, replicas=[replica], replica_count=2
            ).as_numpy_iterator()
        )
        for replica in (0, 1)
    ]
    for step, expected in enumerate(whole[9:]):
        joined = tf.nest.map_structure(
            lambda *parts: np.concatenate(parts), *(s[step] for s in shares)
        )
        tf.nest.map_structure(np.testing.assert_array_equal, joined, expected)


@pytest.mark.slow
@pytest.mark.essential
def test_an_interrupted_training_continues_exactly(
    cache, make_corpus, tmp_path
):
    corpus = make_corpus()
    cached = cache(corpus)

    def fit(folder, steps_seen=None):
        student = toy.make_student(
            toy.make_teacher(vocabulary_size=VOCABULARY), dropout=0.2
        )
        keras.utils.set_random_seed(1)
        distiller = make_distiller(cached, triple(), student)

        def stop(step, logs):
            if step + 1 == steps_seen:
                raise KeyboardInterrupt

        try:
            distiller.fit(
                cached.dataset(corpus, batch_size=5),
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

    whole = fit(tmp_path / "whole")
    stopped = fit(tmp_path / "parts", steps_seen=5)
    resumed = fit(tmp_path / "parts")
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
from keras_distil import Distiller, data, losses, teachers
from keras_distil.data.corpus.text_files import CorpusReport

folder, rows = sys.argv[1:]
train = np.load(rows)
corpus = data.PreparedCorpus(
    train, train[:0], np.ones(64), "f" * 64, CorpusReport(), folder
)
cached = teachers.CachedTeacher(folder)

def train():
    student = toy.make_student(toy.make_teacher(vocabulary_size=64))
    distiller = Distiller(cached, student, losses.triple_loss(2.0, 5.0, 1.0))
    distiller.compile(keras.optimizers.SGD(0.1), clip_norm=1.0)
    distiller.fit(
        cached.dataset(corpus, batch_size=5), steps_per_epoch=3, verbose=0
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
def test_two_replicas_give_the_weights_of_one(cache, make_corpus, tmp_path):
    corpus = make_corpus()
    np.save(tmp_path / "rows.npy", corpus.train)
    done = processes.run(
        ["-c", _TWO_REPLICAS, cache(corpus).folder, tmp_path / "rows.npy"],
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_saved_distiller_opens_its_cache_again(cache, make_corpus, tmp_path):
    corpus = make_corpus()
    cached = cache(corpus)
    distiller = make_distiller(cached, triple())
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    assert loaded.teacher.settings == cached.settings
    logs = [
        logs_of_a_step(made, cached.dataset(corpus, batch_size=4))
        for made in (distiller, loaded)
    ]
    assert logs[0]["loss"] == pytest.approx(logs[1]["loss"], rel=1e-6)


# === Temperatures ===


@pytest.mark.slow
def test_a_schedule_within_the_range(cache, teacher, tokenizer, make_corpus):
    corpus = make_corpus()
    cached = cache(corpus, top_k=8, temperature=(1.0, 4.0))
    schedule = schedules.Linear(4.0, 1.0, steps=5)
    found = []
    for temperature in (4.0, 2.5, 1.0):
        fixed = cache(corpus, top_k=8, temperature=temperature)
        logs = [
            logs_of_a_step(
                make_distiller(which, triple(temperature=temperature)),
                which.dataset(corpus, batch_size=4),
            )["soft_target_loss"]
            for which in (cached, fixed)
        ]
        assert logs[0] == pytest.approx(logs[1], rel=1e-3)
        found.append(logs[0])
    assert len(set(found)) == 3
    distiller = make_distiller(cached, triple())
    distiller.fit(
        cached.dataset(corpus, batch_size=4),
        steps_per_epoch=7,
        verbose=0,
        callbacks=[callbacks.TemperatureScheduler(schedule)],
    )
    assert float(distiller.get_loss("soft_target").temperature) == 1.0


@pytest.mark.parametrize("micro_batches", [1, 3])
@pytest.mark.slow
def test_another_temperature_ends_before_an_update(
    cache, make_corpus, micro_batches
):
    corpus = make_corpus()
    cached = cache(corpus, temperature=2.0)
    distiller = make_distiller(
        cached,
        triple(temperature=3.0),
        micro_batches=micro_batches,
        run_eagerly=micro_batches == 1,
    )
    before = toy.weights_of(distiller.student)
    message = (
        "tails of temperature 2 only; make one with the range of your "
        r"schedule, `temperature=\(lowest, highest\)`. Received: temp"
        "erature 3.$"
    )
    batches = cached.dataset(corpus, batch_size=4, steps=2)
    with pytest.raises(ValueError, match=message):
        distiller.fit(batches, verbose=0)
    with pytest.raises(ValueError, match=message):
        distiller.evaluate(batches, verbose=0)
    for path, value in toy.weights_of(distiller.student).items():
        np.testing.assert_array_equal(value, before[path])


def test_a_schedule_beyond_the_range_is_refused(cache, make_corpus):
    corpus = make_corpus()
    cached = cache(corpus, temperature=(2.0, 4.0))
    distiller = make_distiller(cached, triple())
    scheduler = callbacks.TemperatureScheduler(
        schedules.Linear(4.0, 1.0, steps=1000)
    )
    with pytest.raises(
        ValueError,
        match="from 2 to 4 only; .* Received: a schedule that is 1 at step 1",
    ):
        distiller.fit(
            cached.dataset(corpus, batch_size=4),
            steps_per_epoch=1,
            verbose=0,
            callbacks=[scheduler],
        )
    # Other variables are free, and a cache of all logits has no tails.
    weight = distiller.get_loss("soft_target").weight
    distiller.schedule(weight, schedules.Constant(9.0))
    exact = cache(corpus, top_k=VOCABULARY, temperature=2.0)
    exact.check_schedule(schedules.Constant(50.0))


# === What does not fit ===


class _FullLogitsLoss(losses.LogitsLoss):
    pass


def test_losses_that_the_cache_cannot_serve(cache, make_corpus):
    corpus = make_corpus()
    cached = cache(corpus, positions="masked", hidden_states=False)
    with pytest.raises(ValueError, match="'cosine' needs the teacher's hidd"):
        make_distiller(cached, triple("masked"))
    with pytest.raises(ValueError, match="'soft_target' counts all positions"):
        make_distiller(cached, triple()[:2])
    own = _FullLogitsLoss(weight=1.0, name="own")
    with pytest.raises(ValueError, match="'own' needs all of the teacher's l"):
        make_distiller(cached, [own])
    make_distiller(cached, triple("masked")[:2])


def test_layers_that_the_cache_does_not_have(cache):
    cached = cache()
    for layers in ("uniform", [(0, 0)]):
        loss = losses.HiddenStateCosineDistance(layers=layers)
        with pytest.raises(
            ValueError,
            match=r"The loss 'cosine' needs the teacher's layers .*, and the "
            r"cache in .* has those of the last one only: give the loss "
            r"`layers='last'`, or",
        ):
            make_distiller(cached, [*triple()[:2], loss])


def test_models_that_the_cache_cannot_serve(cache):
    cached = cache()
    with pytest.raises(ValueError, match="teacher vocabulary 64, student voc"):
        make_distiller(cached, triple(), toy.make_student(toy.make_teacher()))
    task = toy.task_model(
        toy.make_teacher(vocabulary_size=VOCABULARY), "classification", 2
    )
    with pytest.raises(TypeError, match="A `CachedTeacher` is for masked la"):
        Distiller(cached, task, losses.task_loss("classification"))


def test_batches_without_outputs(cache, tokenizer, make_corpus):
    distiller = make_distiller(cache(), triple())
    with pytest.raises(ValueError, match="batches must be those of its `datas"):
        distiller.evaluate(
            live_dataset(make_corpus(), tokenizer, steps=1), verbose=0
        )


def test_another_corpus(cache, make_corpus):
    cached = cache()
    other = make_corpus(fingerprint="e" * 64)
    with pytest.raises(
        CorpusError, match="another corpus .f{12}. than .* .e{12}.. Make a"
    ):
        cached.dataset(other, batch_size=4)


@pytest.mark.parametrize("unknown", [1, None])
def test_masking_is_stored_by_role(make_corpus, unknown):
    special = data.SpecialTokens(0, unknown, 2, 3, 4, 2, 0)
    stored = cache_settings.MaskingSettings(
        seed=0,
        rate=0.15,
        rare_token_exponent=0.0,
        special=special.by_role(),
        vocabulary_size=64,
        first_masks="",
    )
    # Frames have no part in masking: caches of earlier versions state none.
    assert set(stored.special) == (
        {"pad_id", "unknown_id", "cls_id", "sep_id", "mask_id"}
    )
    read = cache_settings.MaskingSettings.model_validate_json(
        stored.model_dump_json()
    )
    arguments = masking_arguments(read, make_corpus())
    assert arguments["special"] == data.SpecialTokens(0, unknown, 2, 3, 4)


# === Attention ===


def test_the_last_layers_attention_is_kept(
    cache, teacher, tokenizer, make_corpus
):
    corpus = make_corpus()
    cached = cache(corpus, attention=True, hidden_states=False)
    assert cached.attention_shape == (2, 8)
    (batch,) = cached.dataset(corpus, batch_size=4, steps=1)
    x, _, _ = batch
    assert x["teacher_attention"].dtype == tf.float16
    found = np.array(x["teacher_attention"], "float64")
    (plain,) = live_dataset(corpus, tokenizer, steps=1).as_numpy_iterator()
    vectors = forward.hidden_states(
        teacher, plain[0], [Attention("last")], training=False
    )[Attention("last")]
    np.testing.assert_allclose(found, vectors, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("bucketed", marks.slow_except([False, True], False))
def test_losses_on_attention_are_those_of_the_live_teacher(
    cache, teacher, tokenizer, make_corpus, bucketed
):
    corpus = make_corpus(bucketed=bucketed)
    cached = cache(corpus, attention=True)
    both = [
        losses.AttentionRelationKLDivergence(relation_heads=4),
        losses.AttentionTransfer(),
    ]
    made = [
        make_distiller(which, [*triple()[:1], *both])
        for which in (teacher, cached)
    ]
    expected = logs_of_a_step(made[0], live_dataset(corpus, tokenizer))
    logs = logs_of_a_step(made[1], cached.dataset(corpus, batch_size=4))
    for name in ("attention_relation_loss", "attention_transfer_loss"):
        # Vectors of 16 bits.
        assert logs[name] == pytest.approx(expected[name], rel=1e-3), name
        assert expected[name] > 1e-3


def test_attention_that_the_cache_does_not_have(cache):
    loss = losses.AttentionRelationKLDivergence(relation_heads=4)
    with pytest.raises(
        ValueError,
        match="The loss 'attention_relation' needs the teacher's attention, "
        "and the cache in .* has none: leave the loss out, or make a cache "
        "with `attention=True`",
    ):
        make_distiller(cache(), [*triple()[:1], loss])
    cached = cache(attention=True)
    loss = losses.AttentionTransfer(layers=[(0, 0)])
    with pytest.raises(
        ValueError,
        match=r"'attention_transfer' needs the teacher's layers .* has those "
        "of the last one only: give",
    ):
        make_distiller(cached, [*triple()[:1], loss])
    loss = losses.AttentionRelationKLDivergence(relation_heads=3)
    with pytest.raises(ValueError, match="must divide the widths .* 16 and 16"):
        make_distiller(cached, [*triple()[:1], loss])


def test_a_cache_without_attention_has_the_name_it_had_before(cache):
    settings = cache().settings
    assert settings.attention_heads == 0
    assert "attention_heads" not in settings.model_dump()
    kept = settings.model_copy(update={"attention_heads": 2})
    assert kept.model_dump()["attention_heads"] == 2
    assert kept.digest != settings.digest
