import json

import pytest

from keras_distil import callbacks, losses, schedules
from keras_distil.training.distiller import Distiller


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


def test_temperature_and_weight_follow_the_step(
    make_distiller, triple, tmp_path
):
    distiller = make_distiller(run_eagerly=False)
    log = callbacks.MetricsLog(tmp_path / "log.jsonl", stage="test")
    fit(
        distiller,
        triple,
        callbacks.TemperatureScheduler(schedules.Linear(4.0, 1.0, steps=3)),
        callbacks.LossWeightScheduler(
            "mlm", schedules.Piecewise([2], [1.0, 0.0])
        ),
        log,
    )
    lines = [json.loads(x) for x in log.filepath.read_text().splitlines()]
    temperatures = [x["temperature"] for x in lines]
    assert temperatures == pytest.approx([4.0, 3.0, 2.0, 1.0])
    assert [x["mlm_weight"] for x in lines] == [1.0, 1.0, 0.0, 0.0]


@pytest.mark.slow
def test_a_schedule_ends_with_its_fit(make_distiller, triple):
    distiller = make_distiller(run_eagerly=False)
    fit(
        distiller,
        triple,
        callbacks.TemperatureScheduler(schedules.Constant(3.0)),
    )
    temperature = distiller.get_loss("soft_target").temperature
    assert float(temperature) == 3.0
    temperature.assign(1.5)
    fit(distiller, triple)
    assert float(temperature) == 1.5


@pytest.mark.slow
def test_the_second_execution_of_several_steps_is_exact(make_distiller, triple):
    distiller = make_distiller(run_eagerly=False, steps_per_execution=4)
    history = fit(
        distiller,
        triple,
        callbacks.TemperatureScheduler(schedules.Linear(9.0, 1.0, steps=8)),
        epochs=2,
    )
    # The last of the 8 updates saw step 7.
    assert history.history["temperature"] == pytest.approx([6.0, 2.0])


def test_wrong_use_is_refused(make_distiller, triple):
    with pytest.raises(TypeError, match="`schedule` must be callable"):
        callbacks.TemperatureScheduler(2.0)
    with pytest.raises(ValueError, match="no loss named 'nothing'"):
        fit(
            make_distiller(),
            triple,
            callbacks.LossWeightScheduler("nothing", schedules.Constant(1.0)),
        )
    student = make_distiller().student
    alone = Distiller(None, student, [losses.MaskedLMCrossentropy()])
    alone.compile("sgd")
    with pytest.raises(ValueError, match="needs a loss with a temperature"):
        fit(
            alone,
            triple,
            callbacks.TemperatureScheduler(schedules.Constant(1.0)),
        )
    with pytest.raises(TypeError, match="works with a Distiller only"):
        callbacks.TemperatureScheduler(schedules.Constant(1.0)).set_model(
            student
        )
