"""Writes a training's curves for TensorBoard, at the true global step."""

import errno
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tokenizers
from keras_hub.models import MaskedLM
from tensorboard.compat.proto import event_pb2
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import summary as custom_scalar

from keras_distil.callbacks import hparams_table, insights
from keras_distil.callbacks.event_files import writing_events
from keras_distil.callbacks.step_record import StepRecorder
from keras_distil.training.metrics import find_metric
from keras_distil.training.objectives import GradientNorms, live_teachers

# The charts of the custom-scalars page, with the patterns of their scalars.
# Each line has a run of its own, as TensorBoard colours by run.
_CHARTS = {
    "Is it learning?": {
        "loss: the total and its weighted parts": r"^by_loss/contribution$",
        "agreement": r"^step/.*agreement$",
        "accuracy": r"^step/.*accuracy$",
    },
    "What drives it?": {
        "temperature": r"^step/temperature$",
        "loss weights": r"^by_loss/weight$",
        "learning rate": r"^step/learning_rate$",
        "gradient norm": r"^step/gradient_norm",
        "gradient norm of each loss": r"^by_loss/gradient_norm$",
    },
    "How fast is it?": {"tokens per second": r"^step/tokens_per_second$"},
}
# The name of an event file begins with the second it was opened in.
_EVENT_FILE = re.compile(r"events\.out\.tfevents\.(\d+)\.")
_NUMBER_OR_SPACE = re.compile(r"_\d+\b|\s+")
# A file in the training's folder with a hash that identifies the training.
_OWNER = "training.sha256"
# The runs of single losses are below this folder.
_LOSSES = "losses"


class TensorBoard(keras.callbacks.Callback):
    """Writes every loss, metric and schedule for TensorBoard.

    The run `train` holds the values of single updates under `step/` and, of
    several epochs, the means under `whole_epoch/`; the run `validation` holds
    those of validation. Each loss has a run `losses/NAME`, so that charts
    under `by_loss/` have a colour per loss: its weighted part of the total
    (which the run `train` has), its weight and the norm of its gradient. The
    step of every point is the number of updates made so far.
    When training continues from an earlier update, TensorBoard drops the
    points of later ones. With several workers, only the chief writes.

    The page of custom scalars shows losses, schedules and speed together. The
    page of texts has summaries of teacher and student. The page of
    hyperparameters has the student's layers, the initial weights and
    temperature of the losses, and the values of `hparams`.

    Args:
        log_dir: folder for the event files.
        every_steps: int >= 1, number of updates between points.
        texts: more texts by name, in Markdown, such as the recipe.
        hparams: more hyperparameters by name: bool, int, float or str.
        examples: a masked-LM batch as `fit` takes it: inputs, tokens and
            weights. Needs `tokenizer`, and a teacher in memory.
        tokenizer: the `tokenizers.Tokenizer` of the vocabulary.
        examples_every: int >= 1, number of updates between looks at them.
        samples: int >= 0, number of examples with masked words shown as text.
        before: int >= 0, updates of an earlier training of the same student,
            whose curves in `log_dir` this one continues. Its texts and
            hyperparameters stay.

    Raises:
        ValueError: if a number is too small, or only one of `examples` and
            `tokenizer` is given; when the training begins, if the folder holds
            the curves of another training.

    Example:
        >>> board = TensorBoard("logs", every_steps=10)
    """

    def __init__(
        self,
        log_dir: str | os.PathLike,
        *,
        every_steps: int = 1,
        texts: Mapping[str, str] | None = None,
        hparams: Mapping[str, bool | int | float | str] | None = None,
        examples: tuple[dict[str, Any], Any, Any] | None = None,
        tokenizer: tokenizers.Tokenizer | None = None,
        examples_every: int = 200,
        samples: int = insights.SEQUENCES,
        before: int = 0,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("every_steps", every_steps, 1),
            ("examples_every", examples_every, 1),
            ("samples", samples, 0),
            ("before", before, 0),
        ):
            if value < least:
                raise ValueError(
                    f"`{name}` must be at least {least}. Received: "
                    f"{name}={value}."
                )
        if (examples is None) != (tokenizer is None):
            raise ValueError(
                "`examples` and `tokenizer` need each other. Received: one."
            )
        self.log_dir = Path(log_dir)
        self.every_steps = every_steps
        self.before = before
        self._texts = dict(texts or {})
        self._hparams = dict(hparams or {})
        self._triple, self._tokenizer = examples, tokenizer
        self._examples: insights.Examples | None = None
        self._examples_every = examples_every
        self._samples = samples
        self._norms: GradientNorms | None = None
        # The data of the heat maps, in the order of the looks.
        self._seen: dict[str, list] = {"steps": [], "cka": [], "cosine": []}
        # Names of the values of single updates.
        self._step_names: set[str] = set()
        self._writers: dict[str, tf.summary.SummaryWriter] = {}
        # The (run, chart) pairs whose captions have been written.
        self._described: set[tuple[str, str]] = set()

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Opens the training run."""
        self._recorder = StepRecorder(self.model, self.before)
        self._first_step = self._last = self._recorder.step
        if not self._chief:
            return
        if not self.before:
            texts = {**self._model_texts(), **self._texts}
            self._claim_folder(texts)
            with self._writing("train"), self._writer("train").as_default():
                self._write_overview(texts)
        if self._triple is not None and self._tokenizer is not None:
            if not isinstance(self.model.student, MaskedLM):
                raise TypeError(
                    "`examples` of TensorBoard are for masked language "
                    "modelling. Leave `examples` and `tokenizer` out. "
                    f"Received: student={self.model.student.name!r} (of type "
                    f"{type(self.model.student).__name__})."
                )
            teachers = live_teachers(self.model.teacher)
            if teachers:
                self._examples = insights.Examples(
                    teachers,
                    self.model.student,
                    self._triple,
                    self._tokenizer,
                    samples=self._samples,
                )
                # A strategy's weights have no gradient outside of a step.
                if not self.model.is_distributed:
                    self._norms = self.model.gradient_norms(self._triple)
                self._look(self._first_step)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Excludes validation from the tokens per second."""
        self._recorder.restart_clock()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Writes the values of the latest updates."""
        due = []
        for number in self._recorder.new_updates():
            if number - self._last >= self.every_steps:
                self._last = number
                due.append(number)
        if due:
            for number, values in zip(
                due, self._recorder.read(due), strict=True
            ):
                self._step_names |= set(values)
                self._write("train", "step", values, number)
                self._write_parts(values, number)
        step = self._recorder.step
        if self._examples is not None:
            if step - self._seen["steps"][-1] >= self._examples_every:
                self._look(step)
                self._recorder.restart_clock()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Writes the means of the epoch and of its validation."""
        logs = logs or {}
        validation = {
            name.removeprefix("val_"): value
            for name, value in logs.items()
            if name.startswith("val_")
        }
        training = {
            name: value
            for name, value in logs.items()
            if not name.startswith("val_")
        }
        if self.params["epochs"] == 1 and not validation:
            # One point, of values whose every update is shown.
            for name in self._step_names & set(training):
                del training[name]
        step = self._recorder.step
        self._write("train", "whole_epoch", training, step)
        if validation:
            self._write("validation", "whole_epoch", validation, step)
        for run, writer in self._writers.items():
            with self._writing(run):
                writer.flush()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Closes the event files."""
        if self._examples is not None:
            self._look(self._recorder.step)
        for run, writer in self._writers.items():
            with self._writing(run):
                writer.close()
        self._writers.clear()

    def get_training_state(self) -> dict[str, Any]:
        """Returns the data of the heat maps and the last point's update."""
        return {
            "seen": {name: list(v) for name, v in self._seen.items()},
            "last": self._last,
        }

    def set_training_state(self, state: dict[str, Any]) -> None:
        """Restores what `get_training_state` returned."""
        self._seen = {name: list(state["seen"][name]) for name in self._seen}
        self._last = int(state["last"])

    def _look(self, step: int) -> None:
        """Writes a comparison of teacher and student on the examples."""
        if self._examples is None or step in self._seen["steps"][-1:]:
            return
        look = self._examples.look()
        self._seen["steps"].append(step)
        self._seen["cka"].append(look.cka)
        if look.cosine is not None:
            self._seen["cosine"].append(look.cosine)
        maps = {"linear CKA": self._seen["cka"]}
        if self._seen["cosine"]:
            maps["cosine"] = self._seen["cosine"]
        drawn = insights.draw_layers(
            self._seen["steps"], maps, self._examples.pairs
        )
        with self._writing("train"), self._writer("train").as_default():
            tf.summary.image("examples/layers", drawn, step=step)
            for name, values in (
                ("teacher_confidence", look.confidence),
                ("divergence", look.divergence),
            ):
                tf.summary.histogram(f"examples/{name}", values, step=step)
            if look.words:
                words = insights.to_markdown(look.words)
                tf.summary.text("examples/words", words, step=step)
        for name, value in self._weighted_norms().items():
            self._write_of_loss(name, {"gradient_norm": value}, step)

    def _weighted_norms(self) -> dict[str, float]:
        """Norm of each loss's weighted gradient, by name."""
        if self._norms is None:
            return {}
        norms = self._norms.measure()
        return {
            loss.name: float(loss.weight.numpy()) * norms[loss.name]
            for loss in self.model.distillation_losses
        }

    def _write_parts(self, values: Mapping[str, float], step: int) -> None:
        """Writes the total of the losses and what each of them adds."""
        self._write("train", "by_loss", {"contribution": values["loss"]}, step)
        for loss in self.model.distillation_losses:
            weight = values[f"{loss.name}_weight"]
            part = weight * values[f"{loss.name}_loss"]
            shown = {"contribution": part, "weight": weight}
            self._write_of_loss(loss.name, shown, step)

    def _write_of_loss(
        self, name: str, values: dict[str, float], step: int
    ) -> None:
        self._write(f"{_LOSSES}/{name}", "by_loss", values, step)

    @property
    def _chief(self) -> bool:
        return self.model.distribute_strategy.extended.should_checkpoint

    def _model_texts(self) -> dict[str, str]:
        teachers = live_teachers(self.model.teacher)
        texts = {
            f"teacher {number}" if len(teachers) > 1 else "teacher": _summary(x)
            for number, x in enumerate(teachers)
        }
        return {**texts, "student": _summary(self.model.student)}

    def _claim_folder(self, texts: dict[str, str]) -> None:
        """Marks the folder as that of this training.

        Raises:
            ValueError: if it holds the curves of another training.
        """
        described = json.dumps(
            [texts, self._hparams], sort_keys=True, default=str
        )
        # Keras numbers layers across the process, so numbers do not count.
        described = _NUMBER_OR_SPACE.sub("", described)
        ours = hashlib.sha256(described.encode()).hexdigest()
        path = self.log_dir / _OWNER
        with writing_events(self.log_dir):
            if self.log_dir.is_file():
                raise NotADirectoryError(errno.ENOTDIR, "is a file")
            self.log_dir.mkdir(parents=True, exist_ok=True)
            if not path.is_file():
                path.write_text(ours, "utf-8")
        if path.read_text("utf-8", errors="replace") != ours:
            raise ValueError(
                f"{self.log_dir} holds the curves of another training: its "
                "models, texts or hyperparameters were others. Give an empty "
                "folder, or remove this one."
            )

    def _write_overview(self, texts: dict[str, str]) -> None:
        """Writes everything that does not change during a training."""
        summary = custom_scalar.pb(_layout()).SerializeToString()
        tf.summary.experimental.write_raw_pb(summary, step=0)
        for name, text in texts.items():
            tf.summary.text(name, text, step=0)
        hparams_table.write_hparams(self.log_dir, self.model, self._hparams)

    def _write(
        self, run: str, prefix: str, values: dict[str, float], step: int
    ) -> None:
        if not self._chief:
            return
        with self._writing(run), self._writer(run).as_default():
            for name, value in _scalars(values):
                tag = f"{prefix}/{name}"
                caption = None
                # TensorBoard shows only the first caption that it finds.
                if (run, tag) not in self._described:
                    self._described.add((run, tag))
                    losses = self.model.distillation_losses
                    caption = find_metric(name, losses).chart_title
                tf.summary.scalar(tag, value, step=step, description=caption)

    def _writer(self, run: str) -> tf.summary.SummaryWriter:
        if run not in self._writers:
            self._purge_later_points(run)
            self._writers[run] = tf.summary.create_file_writer(
                str(self.log_dir / run)
            )
        return self._writers[run]

    def _writing(self, run: str) -> AbstractContextManager[None]:
        return writing_events(self.log_dir / run)

    def _purge_later_points(self, run: str) -> None:
        """Makes TensorBoard drop an earlier process's points from here on."""
        folder = self.log_dir / run
        if not self._first_step or not folder.is_dir():
            return
        # TensorBoard reads a folder's files in the order of their names: the
        # second, then the host. This one has to sort after the existing files
        # and before the next.
        _wait_for_a_second_after(folder)
        now = time.time()
        event = event_pb2.Event(
            wall_time=now,
            step=self._first_step + 1,
            session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START),
        )
        name = f"events.out.tfevents.{int(now):010d}.-restart"
        with tf.io.TFRecordWriter(str(folder / name)) as writer:
            # TensorBoard takes the first start in a folder for the training's
            # own, and drops points only at the ones after it.
            writer.write(event.SerializeToString())
            writer.write(event.SerializeToString())


def _wait_for_a_second_after(folder: Path) -> None:
    """Returns once a new event file would have a later second in its name."""
    seconds = [
        int(found[1])
        for path in folder.iterdir()
        if (found := _EVENT_FILE.match(path.name))
    ]
    last = max(seconds, default=0)
    now = time.time()
    # A clock that was set back is not waited for.
    if int(now) == last:
        time.sleep(last + 1 - now)


def _scalars(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yields numbers by name; metrics with several numbers are indexed."""
    for name, value in values.items():
        if np.ndim(value) == 0:
            yield name, value
        else:
            for index, part in enumerate(np.ravel(value)):
                yield f"{name}_{index}", float(part)


def _layout() -> layout_pb2.Layout:
    return layout_pb2.Layout(
        category=[
            layout_pb2.Category(
                title=title,
                chart=[
                    layout_pb2.Chart(
                        title=name,
                        multiline=layout_pb2.MultilineChartContent(tag=[tag]),
                    )
                    for name, tag in charts.items()
                ],
            )
            for title, charts in _CHARTS.items()
        ]
    )


def _summary(model: keras.Model) -> str:
    """Returns Keras's summary of a model, in Markdown."""
    lines: list[str] = []
    model.summary(print_fn=lines.append, line_length=100)
    return code_block("\n".join(lines))


def code_block(text: str) -> str:
    """Returns text as a Markdown code block."""
    return "\n".join(f"    {line}" for line in text.splitlines())
