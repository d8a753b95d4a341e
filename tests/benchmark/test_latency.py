import keras
import keras_hub
import numpy as np
import pytest

from keras_distil import benchmark, models
from keras_distil.benchmark import latency

SIZES = {
    "vocabulary_size": 32,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 16,
    "max_sequence_length": 12,
}


@pytest.fixture(scope="module")
def bert():
    return models.ExactBertMaskedLM(
        models.ExactBertBackbone(**SIZES, dropout=0.5)
    )


class FakeMachine:
    """A clock that the fake models advance by given seconds."""

    def __init__(self, durations):
        self.now = 100.0
        self.calls = []
        self.durations = {name: iter(d) for name, d in durations.items()}

    def clock(self):
        return self.now

    def model(self, name):
        def run():
            self.calls.append(name)
            self.now += next(self.durations[name])

        return run

    def measure(self, **options):
        return benchmark.measure_latency_ms(
            {name: self.model(name) for name in self.durations},
            clock=self.clock,
            **options,
        )


def test_medians_without_the_warmup():
    machine = FakeMachine(
        {"a": [9.0, 0.001, 0.5, 0.002], "b": [9.0, 0.004, 0.003, 0.0]}
    )
    found = machine.measure(runs=3, warmup=1)
    assert found == pytest.approx({"a": 2.0, "b": 3.0})
    assert list(found) == ["a", "b"]


def test_rounds_are_interleaved_and_rotate():
    machine = FakeMachine({name: [0.0] * 4 for name in "abc"})
    machine.measure(runs=3, warmup=1)
    assert "".join(machine.calls) == "abcbcacababc"


def test_defaults():
    machine = FakeMachine({"a": [0.001] * 35})
    assert machine.measure() == pytest.approx({"a": 1.0})
    assert len(machine.calls) == 35


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"runs": 0}, ValueError, "`runs` must be at least 1. .*runs=0"),
        ({"warmup": -1}, ValueError, "`warmup` must be at least 0. .*=-1"),
        ({"runs": 1.5}, TypeError, "`runs` must be an integer. .*runs=1.5"),
        ({"warmup": "5"}, TypeError, "`warmup` must be an integer. .*'5'"),
    ],
)
def test_bad_counts(options, error, message):
    with pytest.raises(error, match=message):
        benchmark.measure_latency_ms({"a": lambda: None}, **options)


def test_nothing_to_measure():
    with pytest.raises(ValueError, match="`models` must hold at least one"):
        benchmark.measure_latency_ms({})


def test_encoder_call_gives_the_last_hidden_states(bert):
    found = benchmark.masked_lm_encoder_call(bert, 7)()
    expected = bert.backbone(
        {
            "token_ids": np.arange(7, dtype="int32")[None],
            "segment_ids": np.zeros((1, 7), "int32"),
            "padding_mask": np.ones((1, 7), "int32"),
        },
        training=False,
    )["sequence_output"]
    # Float32 noise: the graph may fuse operations that run singly here.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_encoder_call_traces_once(bert, monkeypatch):
    traces = []
    encode = latency.forward.encode

    def counted(*args, **kwargs):
        traces.append(kwargs)
        return encode(*args, **kwargs)

    monkeypatch.setattr(latency.forward, "encode", counted)
    call = benchmark.masked_lm_encoder_call(bert, 3)
    first, second = call(), call()
    assert traces == [{"training": False}]
    np.testing.assert_array_equal(first, second)


def test_encoder_call_reaches_all_positions():
    backbone = keras_hub.models.DistilBertBackbone(
        **SIZES | {"vocabulary_size": 5}
    )
    student = models.ExactDistilBertMaskedLM(backbone)
    assert benchmark.masked_lm_encoder_call(student, 12)().shape == (1, 12, 8)


@pytest.mark.parametrize(
    ("length", "error", "message"),
    [
        (0, ValueError, "`length` must be at least 1"),
        (13, ValueError, "`length` must be at most 12, the .* length=13"),
        (2.0, TypeError, "`length` must be an integer"),
    ],
)
def test_bad_length(bert, length, error, message):
    with pytest.raises(error, match=message):
        benchmark.masked_lm_encoder_call(bert, length)


def test_encoder_call_of_another_model():
    with pytest.raises(TypeError, match="`model` must be a keras_hub masked"):
        benchmark.masked_lm_encoder_call(keras.Sequential(), 4)


def test_size_counts_shared_weights_once():
    inputs = keras.Input((3,))
    shared = keras.layers.Dense(3)  # 9 + 3
    normalised = keras.layers.BatchNormalization()(shared(shared(inputs)))
    model = keras.Model(inputs, normalised)  # 4 * 3 more, half not trainable
    assert benchmark.parameter_count(model) == 24
    assert benchmark.size_mb(model) == pytest.approx(96e-6)


def test_size_leaves_the_tied_decoder_out(bert):
    # The encoder's 3 embeddings of 32, 12 and 2 rows and their norm; 2 layers
    # of attention, two norms and the feed-forward part; the pooler; the
    # head's dense layer, norm and bias.
    layer = 4 * (64 + 8) + 2 * 16 + (8 * 16 + 16) + (16 * 8 + 8)
    encoder = (32 + 12 + 2) * 8 + 16 + 2 * layer + (64 + 8)
    head = (64 + 8) + 16 + 32
    assert benchmark.parameter_count(bert) == encoder + head
