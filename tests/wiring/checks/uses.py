"""Checks of what is done with a student: scores, exports, times."""

from recording import same, weights_of

from checks.table import of_call, seen
from keras_distil import callbacks


@seen("evaluate.sequences", "text", wanted={6})
def _(runs, made):
    return {
        sum(len(x["token_ids"]) for x, *_ in batches)
        for batches in made.evaluations
    }


@seen("evaluate.samples", "finished", wanted=(1, True))
def _(runs, made):
    """Sequences in TensorBoard; in the report, at most three words of one."""
    board = made.fit("distill").callback(callbacks.TensorBoard)
    guesses = made.json("side_by_side.json")["guesses"]
    return board._samples, 0 < len(guesses) <= 3


@seen("evaluate.batch_size", "text", wanted={3})
def _(runs, made):
    return {
        len(x["token_ids"]) for batches in made.evaluations for x, *_ in batches
    }


@seen("evaluate.latency_length", "finished", wanted={9})
def _(runs, made):
    return {call[""][1] for call in made.calls["masked_lm_encoder_call"]}


@seen("export.formats", "export", wanted=["litert", "saved_model"])
def _(runs, made):
    return sorted(call["format"] for call in made.calls["export"])


@seen("export.calibrate", "export", wanted=True)
def _(runs, made):
    """The weights are those of the file, whatever its temperature."""
    from keras_distil import models

    exported, *_ = made.calls["export"][0][""]
    kept = models.load_teacher(str(runs.home.student))
    return same(weights_of(exported), weights_of(kept))


def _of_format(calls, name):
    (found,) = (call for call in calls if call["format"] == name)
    return found


of_call(
    "export.",
    "export",
    "export",
    max_length=lambda calls: _of_format(calls, "saved_model")["max_length"],
    lengths=lambda calls: _of_format(calls, "litert")["lengths"],
)
of_call(
    "benchmark.",
    "benchmark",
    "run_race",
    lengths=lambda calls: calls[0]["lengths"],
    threads=lambda calls: [call["num_threads"] for call in calls],
    throughput_length=lambda calls: calls[0]["throughput_length"],
    rounds=lambda calls: calls[0]["rounds"],
)
