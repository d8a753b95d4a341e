"""Faults in what Keras promises about `fit` and `evaluate`."""

from faults.fault import Fault

_METHODS = ("tests/training/test_keras_methods.py",)
_METRICS = ("tests/training/test_compiled_metrics.py",)
_EXECUTIONS = ("tests/training/test_executions.py",)
_KEPT = ("tests/callbacks/test_kept_states.py",)
_RECORDING = ("tests/callbacks/test_recording.py",)

FAULTS = (
    Fault(
        "evaluate returns the loss last",
        "RunningMetrics.metrics_names",
        '"loss", *self._objective.metric_terms, *self._compiled_results(),',
        '*self._objective.metric_terms, *self._compiled_results(), "loss",',
        _METHODS,
    ),
    Fault(
        "the gradient norm's mean goes on into the next epoch",
        "RunningMetrics.reset_metrics",
        "self.running_metrics",
        "self.metrics",
        _METHODS,
    ),
    Fault(
        "an epoch is rounded up to whole executions",
        "_executions",
        "(model.steps_per_execution, _left(steps, begin), left)",
        "(model.steps_per_execution,)",
        _EXECUTIONS,
    ),
    Fault(
        "a batch is lost between two executions",
        "_graph_steps.several.body",
        "done < steps",
        "done <= steps",
        _EXECUTIONS,
    ),
    Fault(
        "a line has the values of the update before",
        "UpdateRecord.read",
        "(number - 1) % self.updates",
        "(number - 2) % self.updates",
        ("tests/training/test_executions.py::test_every_update_has_its_line",),
    ),
    Fault(
        "metrics without weights are weighted",
        "_build",
        "given.values()",
        "reversed(given.values())",
        _METRICS,
    ),
    Fault(
        "metrics of tokens count the padding",
        "TaskObjective._show",
        'seen &= batch.inputs["padding_mask"] > 0',
        "pass",
        _METRICS,
    ),
    Fault(
        "ignored labels count as class 0 in metrics",
        "TaskObjective._show",
        "seen = ~batch.ignored",
        "seen = tf.ones_like(batch.ignored)",
        _METRICS,
    ),
    Fault(
        "metrics of masked language modelling see other rows",
        "MaskedLMObjective._show_masked",
        "projection.features[: tf.shape(masked_rows)[0]]",
        "projection.features",
        _METRICS,
    ),
    Fault(
        "the means of compiled metrics are lost on resume",
        "RunningMetrics.running_metrics",
        "*([] if compiled is None else [compiled]),",
        "",
        _METRICS,
    ),
    Fault(
        "Keras's callbacks start anew on resume",
        "KeptStates.put_back",
        "elif keras_too:",
        "elif False:",
        _KEPT,
    ),
    Fault(
        "a training that had ended is trained further",
        "_restore_state",
        'if state["stopped_epoch"]:',
        "if False:",
        _KEPT,
    ),
    Fault(
        "the learning rate decays twice in an interrupted epoch",
        "TrainingState._put_back",
        "_assign(_list_variables(self.model), self._snapshot.tensors)",
        "pass",
        _KEPT,
    ),
    Fault(
        "a state follows the place of its callback",
        "KeptStates.__init__",
        "counts[kind] = counts.get(kind, -1) + 1",
        "counts[kind] = len(self._callbacks)",
        _KEPT,
    ),
    Fault(
        "the student is not kept when its log never comes",
        "StudentCheckpoint.on_epoch_end",
        "self._save()\nraise ValueError(",
        "raise ValueError(",
        _RECORDING,
    ),
)
