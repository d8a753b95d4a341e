import json
import re

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.backend.event_processing.event_accumulator import (
    EventAccumulator,
)
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.util import tensor_util
from tensorflow.python.summary.summary_iterator import summary_iterator

from keras_distil import callbacks


def fit(distiller, triple, *more, **arguments):
    x, y, sample_weight = triple
    return distiller.fit(
        x,
        y,
        sample_weight=sample_weight,
        batch_size=2,
        verbose=0,
        shuffle=False,
        callbacks=list(more),
        **arguments,
    )


def scalars(folder):
    """{tag: [(step, value), ...]} of a TensorBoard run."""
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return {
        tag: [
            (event.step, float(tensor_util.make_ndarray(event.tensor_proto)))
            for event in events.Tensors(tag)
        ]
        for tag in events.PluginTagToContent("scalars")
    }


def test_tensorboard_has_every_scalar_at_its_step(
    make_distiller, triple, tmp_path
):
    distiller = make_distiller()
    history = fit(
        distiller,
        triple,
        callbacks.TensorBoard(tmp_path),
        epochs=2,
        validation_data=triple,
        validation_batch_size=4,
    ).history
    written = scalars(tmp_path / "train")
    for name in (
        "loss",
        "mlm_loss",
        "soft_target_loss",
        "cosine_loss",
        "mlm_accuracy",
        "teacher_agreement",
        "temperature",
        "mlm_weight",
        "soft_target_weight",
        "cosine_weight",
        "learning_rate",
        "gradient_norm",
        "tokens_per_second",
    ):
        points = written[f"step/{name}"]
        assert [step for step, _ in points] == list(range(1, 9)), name
    epochs = written["whole_epoch/mlm_loss"]
    assert [step for step, _ in epochs] == [4, 8]
    np.testing.assert_allclose(
        [value for _, value in epochs], history["mlm_loss"], rtol=1e-6
    )
    validation = scalars(tmp_path / "validation")["whole_epoch/mlm_loss"]
    assert [step for step, _ in validation] == [4, 8]
    np.testing.assert_allclose(
        [value for _, value in validation], history["val_mlm_loss"], rtol=1e-6
    )


def test_steps_continue_in_a_second_fit(make_distiller, triple, tmp_path):
    distiller = make_distiller()
    for _ in range(2):
        board = callbacks.TensorBoard(tmp_path, every_steps=2)
        fit(distiller, triple, board)
    steps = [step for step, _ in scalars(tmp_path / "train")["step/loss"]]
    assert steps == [2, 4, 6, 8]


def test_every_steps_is_checked():
    with pytest.raises(ValueError, match="`every_steps` must be at least 1"):
        callbacks.TensorBoard("logs", every_steps=0)


def test_the_values_of_steps_average_to_those_of_the_epoch(
    make_distiller, triple, tmp_path
):
    log = callbacks.MetricsLog(tmp_path / "log.jsonl", stage="a")
    history = fit(make_distiller(), triple, log).history
    lines = [json.loads(x) for x in log.filepath.read_text().splitlines()]
    # All four batches have 16 tokens, so the plain mean is exact.
    np.testing.assert_allclose(
        np.mean([line["cosine_loss"] for line in lines]),
        history["cosine_loss"][0],
        rtol=1e-5,
    )


def test_the_student_is_saved_alone(make_distiller, triple, tmp_path):
    distiller = make_distiller()
    path = tmp_path / "deep" / "student.keras"
    fit(distiller, triple, callbacks.StudentCheckpoint(path))
    loaded = keras.saving.load_model(path)
    assert len(loaded.weights) == len(distiller.student.weights)
    for ours, theirs in zip(
        distiller.student.weights, loaded.weights, strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert [x.name for x in path.parent.iterdir()] == ["student.keras"]


def test_only_an_improved_student_is_saved(make_distiller, tmp_path):
    path = tmp_path / "student.keras"
    checkpoint = callbacks.StudentCheckpoint(path, monitor="val_loss")
    checkpoint.set_model(make_distiller())
    checkpoint.on_epoch_end(0, {"val_loss": 1.0})
    first = path.stat().st_mtime_ns
    checkpoint.on_epoch_end(1, {"val_loss": 2.0})
    assert path.stat().st_mtime_ns == first
    checkpoint.on_epoch_end(2, {"val_loss": 0.5})
    assert path.stat().st_mtime_ns > first
    with pytest.raises(ValueError, match="monitors 'val_loss', which is not"):
        checkpoint.on_epoch_end(3, {"loss": 0.5})


def monitored(distiller, triple, path, monitor, **arguments):
    checkpoint = callbacks.StudentCheckpoint(path, monitor=monitor)
    fit(distiller, triple, checkpoint, **arguments)
    return checkpoint


@pytest.mark.slow
def test_epochs_without_validation_are_waited_for(
    make_distiller, triple, tmp_path
):
    path = tmp_path / "student.keras"
    exists = []
    checkpoint = callbacks.StudentCheckpoint(path, monitor="val_loss")
    look = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: exists.append(path.is_file())
    )
    history = fit(
        make_distiller(),
        triple,
        checkpoint,
        look,
        epochs=3,
        validation_data=triple,
        validation_freq=2,
    ).history
    assert exists == [False, True, True]
    assert [checkpoint.best] == history["val_loss"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("monitor", "options", "message"),
    [
        (
            "val_los",
            {"validation_freq": 1},
            r"'val_los', .*'val_loss'.*epoch 1",
        ),
        ("val_loss", {"validation_data": None}, r"'val_loss', .*not logged"),
        ("lose", {"validation_freq": 2}, r"'lose', .*'loss'"),
    ],
)
def test_a_log_that_never_comes_is_reported_at_once(
    make_distiller, triple, tmp_path, monitor, options, message
):
    path = tmp_path / "student.keras"
    distiller = make_distiller()
    with pytest.raises(ValueError, match=message) as raised:
        monitored(
            distiller,
            triple,
            path,
            monitor,
            **{"epochs": 3, "validation_data": triple, **options},
        )
    assert "\n" not in str(raised.value)
    # After the first epoch, and its student is there.
    assert int(distiller.optimizer.iterations.numpy()) == 4
    kept = keras.saving.load_model(path)
    np.testing.assert_array_equal(kept.weights[0], distiller.student.weights[0])


def test_validation_that_never_comes_is_reported_before_it_starts(
    make_distiller, triple, tmp_path
):
    distiller = make_distiller()
    with pytest.raises(ValueError, match="none of the 3 epochs is validated"):
        monitored(
            distiller,
            triple,
            tmp_path / "student.keras",
            "val_loss",
            epochs=3,
            validation_data=triple,
            validation_freq=[4],
        )
    assert int(distiller.optimizer.iterations.numpy()) == 0


def test_wrong_checkpoints_are_refused():
    with pytest.raises(ValueError, match="must end in `.keras`"):
        callbacks.StudentCheckpoint("student.h5")
    with pytest.raises(ValueError, match="`mode` must be one of"):
        callbacks.StudentCheckpoint("a.keras", monitor="x", mode="best")


def test_a_best_score_must_be_a_number():
    checkpoint = callbacks.StudentCheckpoint("a.keras")
    with pytest.raises(TypeError, match="`best` must be a float. Received: 'x"):
        checkpoint.set_training_state({"best": "x"})


def protos(folder):
    """{tag: (plugin, bytes of the first value)} of a TensorBoard run."""
    found = {}
    for path in sorted(folder.glob("events*")):
        for event in summary_iterator(str(path)):
            for value in event.summary.value:
                plugin = value.metadata.plugin_data.plugin_name
                content = value.metadata.plugin_data.content
                if value.tensor.string_val:
                    content = value.tensor.string_val[0]
                elif plugin == "text":
                    content = tensor_util.make_ndarray(value.tensor).item()
                found.setdefault(value.tag, (plugin, content))
    return found


def test_tensorboard_opens_on_the_right_charts(
    make_distiller, triple, tmp_path
):
    board = callbacks.TensorBoard(
        tmp_path, texts={"recipe": "# A recipe"}, hparams={"seed": np.int64(7)}
    )
    distiller = make_distiller()
    distiller.distillation_losses[0].weight.assign(3.0)
    fit(distiller, triple, board, validation_data=triple)
    callbacks.write_scores(tmp_path, {"mlm_accuracy": 0.5}, step=4)
    found = protos(tmp_path / "train")
    layout = layout_pb2.Layout.FromString(found["custom_scalars__config__"][1])
    charts = {
        chart.title: chart.multiline.tag
        for category in layout.category
        for chart in category.chart
    }
    written = {tag for tag in scalars(tmp_path / "train")}
    written |= set(scalars(tmp_path / "losses" / "mlm"))
    shown = {
        title: {tag for tag in written if re.search(pattern, tag)}
        for title, [pattern] in charts.items()
    }
    # A line each, of one colour.
    assert all(len(tags) == 1 for title, tags in shown.items() if tags)
    assert shown["tokens per second"] == {"step/tokens_per_second"}
    # Without examples there is nothing to measure them on.
    assert not shown.pop("gradient norm of each loss")
    assert all(shown.values())
    assert found["recipe"] == ("text", b"# A recipe")
    for role in ("teacher", "student"):
        plugin, text = found[role]
        assert plugin == "text"
        assert all(line.startswith(b"    ") for line in text.splitlines())
        assert b"Total params" in text
    assert "final/mlm_accuracy" in written
    hparams = plugin_data_pb2.HParamsPluginData.FromString(
        found["_hparams_/session_start_info"][1]
    )
    values = dict(hparams.session_start_info.hparams)
    assert values["seed"].string_value == "7"
    assert values["student_layers"].number_value == 1
    shown_weights = values["loss_weights"].string_value
    assert shown_weights == "mlm 3, soft_target 1, cosine 1"
    assert values["temperature"].number_value == 2.0
    table = plugin_data_pb2.HParamsPluginData.FromString(
        found["_hparams_/experiment"][1]
    ).experiment
    assert [each.name for each in table.hparam_infos if each.differs] == [
        "temperature",
        "loss_weights",
        "student_layers",
        "learning_rate",
        "seed",
    ]
    assert [each.name.tag for each in table.metric_infos] == [
        "final/mlm_accuracy"
    ]


def test_each_loss_has_a_line_of_its_own(make_distiller, triple, tmp_path):
    fit(make_distiller(), triple, callbacks.TensorBoard(tmp_path))
    total = scalars(tmp_path / "train")["by_loss/contribution"]
    parts = [
        scalars(folder)["by_loss/contribution"]
        for folder in sorted((tmp_path / "losses").iterdir())
    ]
    assert len(parts) == 3
    np.testing.assert_allclose(
        np.sum(parts, axis=0)[:, 1], np.array(total)[:, 1], rtol=1e-5
    )


def test_a_single_epoch_has_no_chart_of_one_point(
    make_distiller, triple, tmp_path
):
    board = callbacks.TensorBoard(tmp_path)
    fit(make_distiller(), triple, board)
    written = scalars(tmp_path / "train")
    assert "step/mlm_loss" in written
    assert not [tag for tag in written if tag.startswith("whole_epoch/")]


def test_scores_on_a_full_disk(tmp_path):
    (tmp_path / "train").write_text("no folder")
    with pytest.raises(OSError, match="train could not be written"):
        callbacks.write_scores(tmp_path, {"a": 1.0}, step=1)


def test_curves_of_another_training_are_not_mixed(
    make_distiller, triple, tmp_path
):
    folder = tmp_path / "logs"

    def board(**arguments):
        return callbacks.TensorBoard(folder, **arguments)

    fit(make_distiller(), triple, board(hparams={"rate": 1.0}))
    # The same again: by now, layers have other numbers in this process.
    fit(make_distiller(), triple, board(hparams={"rate": 1.0}))
    for arguments in ({"hparams": {"rate": 2.0}}, {"texts": {"recipe": "x"}}):
        with pytest.raises(ValueError, match="curves of another training"):
            fit(make_distiller(), triple, board(**arguments))
    (folder / "training.sha256").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="curves of another training"):
        fit(make_distiller(), triple, board(hparams={"rate": 1.0}))


@pytest.mark.slow
def test_a_second_training_goes_on_with_the_curves_of_the_first(
    make_distiller, triple, tmp_path
):
    """It has a new optimizer, whose updates begin at 0."""
    log = tmp_path / "log.jsonl"

    def train(before):
        fit(
            make_distiller(),
            triple,
            callbacks.TensorBoard(tmp_path, before=before),
            callbacks.MetricsLog(log, stage="a", before=before),
        )

    def points(name):
        # What TensorBoard itself reads with; the other one keeps replaced
        # points.
        events = plugin_event_accumulator.EventAccumulator(
            str(tmp_path / "train"), tensor_size_guidance={"scalars": 0}
        )
        return [
            (event.step, tensor_util.make_ndarray(event.tensor_proto).item())
            for event in events.Reload().Tensors(name)
        ]

    def check(updates):
        for name in ("step/mlm_loss", "step/learning_rate"):
            steps = [step for step, _ in points(name)]
            assert steps == list(range(1, updates + 1))

    train(0)
    train(4)
    check(8)
    # From an earlier state, as after a kill: its points are replaced.
    train(2)
    check(6)
    train(2)
    check(6)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 7))
    np.testing.assert_allclose(
        [line["mlm_loss"] for line in lines],
        [value for _, value in points("step/mlm_loss")],
        rtol=1e-6,
    )
    with pytest.raises(ValueError, match="`before` must be at least 0"):
        callbacks.TensorBoard(tmp_path, before=-1)
