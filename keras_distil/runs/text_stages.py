"""The first step of a run: what learns from a corpus, scored on other text."""

import dataclasses
import gc
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras_hub.models import MaskedLM

from keras_distil import callbacks, config, data, evaluation, teachers
from keras_distil.benchmark import latency, size
from keras_distil.models import adapters, embedded
from keras_distil.models.keras_archive import load_archive
from keras_distil.runs import build, preflight, side_by_side, trainers
from keras_distil.runs.run_folder import (
    CHECKPOINTS,
    LOGS,
    METRICS_FILE,
    STUDENT_FILE,
    TWIN_FILE,
    Run,
    read_text,
)
from keras_distil.utils import disk
from keras_distil.utils.progress import Progress

ADAPTER_FILE = "adapter.safetensors"
TEACHER_FILE = "teacher.keras"

# Some thousand masked words.
_CALIBRATION_BATCHES = 10
# Sequences that TensorBoard shows; a look costs about half an update of 32.
_LOOKED_AT = 16
# Sequences for the report: one look, and of more tokens than states are wide.
_COMPARED = 32


class TeacherInMemory:
    """The teacher, which leaves memory while its outputs are on disk.

    Args:
        load: loads it.
    """

    def __init__(self, load: Callable[[], MaskedLM]) -> None:
        self._load = load
        self._model: MaskedLM | None = load()

    @property
    def model(self) -> MaskedLM:
        """The teacher, loaded again if it was released."""
        if self._model is None:
            self._model = self._load()
        return self._model

    def release(self) -> None:
        """Frees the teacher's memory until it is needed again."""
        self._model = None
        # Keras models are cycles of references.
        gc.collect()

    def in_compute_precision(self, recipe: config.Recipe) -> MaskedLM:
        """The teacher as the steps run it; a copy in float32 is freed."""
        converted = build.frozen_teacher(recipe, self.model)
        if converted is not self._model:
            self.release()
        return converted

    def train(self, run: Run, prepared: data.PreparedCorpus) -> None:
        """Trains the teacher, or finds that done."""
        load = self._load
        self._model = train_teacher(run, self.model, prepared)
        self._load = lambda: train_teacher(run, load(), prepared)


def run_on_text(
    run: Run, teacher: TeacherInMemory, report: dict[str, Any]
) -> None:
    """What learns from a corpus: the teacher, the student and its twin.

    Adds to the report.
    """
    prepared = prepare(run)
    if not len(prepared.held_out):
        raise ValueError(
            "The corpus has no held-out sequence to score on. Add text, or "
            "raise `data.held_out_fraction`."
        )
    if run.recipe.teacher.train is not None:
        teacher.train(run, prepared)
    report["corpus"] = {
        "train_sequences": prepared.train_sequences,
        "held_out_sequences": len(prepared.held_out),
        "fingerprint": prepared.fingerprint,
    }
    if run.recipe.distill is None:
        model = teacher.model
        rows = {"teacher": score(run, "teacher", model, model, prepared)}
    else:
        rows = distill(run, prepared, teacher)
        _add_costs(run, rows)
        report |= _kept(run, rows, prepared)
    report["rows"] = rows
    if run.recipe.distill is None:
        _keep_adapter_scores(run, rows["teacher"])


def prepare(run: Run) -> data.PreparedCorpus:
    """Text to token ids, cached by content, or opened where it was made."""
    with run.progress.bar("Prepare corpus (units)") as bar:
        prepared = build.corpus(
            run.recipe, progress=bar.update_of, warn=run.progress.warn
        )
    run.progress.say(f"Corpus: {prepared.report}")
    return prepared


def make_corpus(
    recipe: config.Recipe,
    progress: Progress,
    *,
    output: Path | None,
    workers: int | None,
) -> data.PreparedCorpus:
    """Makes a recipe's corpus, or verifies the one there is."""
    with progress.bar("Prepare corpus (units)") as bar:
        prepared = build.prepare(
            recipe,
            output=output,
            workers=workers,
            progress=bar.update_of,
            warn=progress.warn,
        )
    progress.say(f"Corpus: {prepared.report}")
    return prepared


def make_corpus_with_beam(
    recipe: config.Recipe,
    progress: Progress,
    *,
    output: str,
    options: Sequence[str],
) -> None:
    """Makes a recipe's corpus as a pipeline of Apache Beam."""
    progress.say("Preparing the corpus on Apache Beam")
    report = build.prepare_with_beam(recipe, output=output, options=options)
    progress.say(f"Corpus: {report}")
    for line in report.warnings():
        progress.warn(line)


def load_teacher(run: Run) -> MaskedLM:
    """The teacher as it comes from its source, checked against the data."""
    run.progress.say(f"Teacher: {run.recipe.teacher.source}")
    teacher = build.teacher(run.recipe)
    _check_fit(run.recipe, teacher)
    return teacher


def train_teacher(
    run: Run, teacher: MaskedLM, prepared: data.PreparedCorpus
) -> MaskedLM:
    """The teacher after the training that the recipe asks for.

    A trained teacher is cached by the content of its weights, the corpus and
    the settings, and reused.
    """
    settings = run.recipe.teacher.train
    if settings is None:
        return teacher
    folder = _teacher_cache(run, teacher, prepared)
    adapter = settings.method == "adapter"
    result = folder / (ADAPTER_FILE if adapter else TEACHER_FILE)
    if _is_whole(run, result):
        run.progress.say(f"Teacher training: found done in {folder}")
    else:
        _fit_teacher(run, teacher, prepared, result)
        checksum = result.with_suffix(".sha256")
        disk.write_text(checksum, disk.file_sha256(result))
    if not adapter:
        return load_archive(result, MaskedLM)
    # Merged into fresh weights: what is scored is what the file holds.
    fresh = build.teacher(run.recipe)
    adapters.merge_adapter(
        fresh, result, base_sha256=_base_sha256(run.recipe, fresh)
    )
    if run.writes:
        target = run.folder / ADAPTER_FILE
        partial = target.with_name(f"{ADAPTER_FILE}.partial")
        with disk.replacing(target, partial):
            partial.write_bytes(result.read_bytes())
    return fresh


def _is_whole(run: Run, result: Path) -> bool:
    """Whether a trained teacher is there, as it was written.

    Those of earlier versions have no checksum beside them.
    """
    if not result.is_file():
        return False
    checksum = read_text(result.with_suffix(".sha256"))
    if checksum in ("", disk.file_sha256(result)):
        return True
    run.progress.warn(f"{result} has been altered: the teacher is made again.")
    return False


def _fit_teacher(
    run: Run,
    teacher: MaskedLM,
    prepared: data.PreparedCorpus,
    result: Path,
) -> None:
    settings = run.recipe.teacher.train
    if settings is None:
        return
    base_sha256 = _base_sha256(run.recipe, teacher)
    trainers.prepare_teacher_training(
        teacher, method=settings.method, rank=settings.rank
    )
    if settings.initial_adapter is not None:
        adapters.restore_adapter(
            teacher, settings.initial_adapter, base_sha256=base_sha256
        )
    trainer = trainers.masked_lm_trainer(
        teacher,
        trainers.make_optimizer(
            learning_rate=settings.learning_rate,
            steps=settings.steps,
            warmup_steps=settings.warmup_steps,
            weight_decay=settings.weight_decay,
        ),
        clip_norm=settings.clip_norm,
    )
    batches = build.training_batches(
        run.recipe, prepared, batch_size=settings.batch_size
    )
    _fit(run, "teacher", trainer, batches, settings.steps)
    if settings.method == "adapter":
        adapters.save_adapter(teacher, result, base_sha256=base_sha256)
    else:
        # Every worker keeps a copy: a name of its own each.
        partial = result.with_name(f".{os.getpid()}-{result.name}")
        with disk.replacing(result, partial):
            teacher.save(partial)


def distill(
    run: Run, prepared: data.PreparedCorpus, teacher: TeacherInMemory
) -> dict[str, dict[str, float]]:
    """Distils the student, and its twin; returns the scores of all models."""
    recipe = run.recipe
    settings = build.distill_section(recipe)
    steps = build.distill_steps(recipe, prepared)
    # Each stage has seeds of its own: they do not depend on whether an
    # earlier stage was found done.
    keras.utils.set_random_seed(recipe.seed)
    student = build.student(recipe, teacher.model)
    rows = {
        name: score(run, name, model, teacher.model, prepared)
        for name, model in (
            ("teacher", teacher.model),
            ("student before", student),
        )
    }
    cached = cache_teacher(run, teacher, prepared, steps)
    maskings = None if cached is None else cached.settings.maskings
    batches = build.training_batches(
        recipe, prepared, batch_size=settings.batch_size, maskings=maskings
    )
    _fit(
        run,
        "distill",
        build.distiller(
            recipe,
            cached or teacher.in_compute_precision(recipe),
            student,
            steps=steps,
        ),
        batches
        if cached is None
        else cached.dataset(prepared, batch_size=settings.batch_size),
        steps,
        [
            *build.schedule_callbacks(recipe),
            *build.balancer(recipe, batches),
            callbacks.StudentCheckpoint(run.folder / STUDENT_FILE),
        ],
        # With a cached teacher, there is none to look at them.
        examples=_first_held_out(run, prepared, _LOOKED_AT)
        if cached is None
        else None,
    )
    rows["student"] = score(run, "student", student, teacher.model, prepared)
    _keep_side_by_side(run, teacher.model, student, prepared)
    _tell_board(run, "distill", rows["student"], steps)
    if settings.twin:
        keras.utils.set_random_seed(recipe.seed)
        twin = build.student(recipe, teacher.model)
        trainer = trainers.masked_lm_trainer(
            twin,
            build.student_optimizer(recipe, steps),
            clip_norm=settings.clip_norm,
            micro_batches=settings.micro_batches,
            jit_compile=settings.jit_compile,
        )
        # The same batches: the stream depends on the recipe's seed alone.
        _fit(
            run,
            "twin",
            trainer,
            batches,
            steps,
            [callbacks.StudentCheckpoint(run.folder / TWIN_FILE)],
        )
        rows["twin"] = score(run, "twin", twin, teacher.model, prepared)
        _tell_board(run, "twin", rows["twin"], steps)
    return rows


def _tell_board(
    run: Run, stage: str, row: dict[str, float], steps: int
) -> None:
    if run.writes:
        callbacks.write_scores(run.folder / LOGS / stage, row, steps)


def cache_teacher(
    run: Run,
    teacher: TeacherInMemory,
    prepared: data.PreparedCorpus,
    steps: int,
) -> teachers.CachedTeacher | None:
    """The teacher's outputs on disk, where the recipe wants them there.

    The teacher has then left memory.
    """
    if run.recipe.teacher.cache is None:
        return None
    with run.progress.bar("Cache teacher (sequences)") as bar:
        cached = build.cached_teacher(
            run.recipe,
            teacher.model,
            prepared,
            steps=steps,
            say=run.progress.say,
            progress=bar.update_of,
        )
    teacher.release()
    return cached


def score(
    run: Run,
    name: str,
    model: MaskedLM,
    teacher: MaskedLM,
    prepared: data.PreparedCorpus,
) -> dict[str, float]:
    """Held-out scores of one model, one row of the table."""
    run.progress.say(f"Score on held-out text: {name}")
    batches = build.held_out_batches(run.recipe, prepared)
    scores = evaluation.score_masked_lm(model, teacher, batches)
    return {
        **dataclasses.asdict(scores),
        "calibration_error": evaluation.masked_lm_calibration(
            model, batches.take(_CALIBRATION_BATCHES)
        ),
    }


def _kept(
    run: Run,
    rows: dict[str, dict[str, float]],
    prepared: data.PreparedCorpus,
) -> dict[str, float]:
    """What the most frequent token scores, and the share that was kept.

    There is no share if the teacher is no better than that token.
    """
    chance = evaluation.most_frequent_share(
        build.held_out_batches(run.recipe, prepared)
    )
    kept = evaluation.kept_percent(
        rows["student"]["mlm_accuracy"], rows["teacher"]["mlm_accuracy"], chance
    )
    found = {"most_frequent_token_accuracy": chance}
    return found if kept is None else {**found, "kept_percent": kept}


def _fit(
    run: Run,
    stage: str,
    distiller: Any,
    batches: Any,
    steps: int,
    more: list[keras.callbacks.Callback] | None = None,
    examples: Any = None,
) -> None:
    """Trains with the callbacks that every stage has."""
    state = callbacks.TrainingState(
        run.folder / CHECKPOINTS / stage,
        every_steps=run.recipe.checkpoint_steps,
    )
    with run.progress.bar(f"Train {stage} (steps)", steps) as bar:
        trainers.fit_steps(
            distiller,
            batches,
            steps=steps,
            callbacks=[
                *(more or []),
                state,
                callbacks.TensorBoard(
                    run.folder / LOGS / stage,
                    texts={"recipe": callbacks.code_block(run.trained_recipe)},
                    hparams=_hparams(run.recipe, stage),
                    examples=examples,
                    tokenizer=None
                    if examples is None
                    else build.tokenizer(run.recipe),
                    samples=run.recipe.evaluate.samples,
                ),
                callbacks.MetricsLog(run.folder / METRICS_FILE, stage=stage),
                callbacks.ProgressBar(bar, state),
            ],
        )


def _first_held_out(run: Run, prepared: data.PreparedCorpus, count: int) -> Any:
    """The first masked sequences, or as many as a batch has."""
    batches = build.held_out_batches(run.recipe, prepared)
    return build.first_examples(batches, count)


def _keep_side_by_side(
    run: Run,
    teacher: MaskedLM,
    student: MaskedLM,
    prepared: data.PreparedCorpus,
) -> None:
    """What teacher and student make of some sequences, for the report."""
    if not run.writes:
        return
    run.progress.say("Compare the layers of teacher and student")
    found = side_by_side.compare(
        teacher,
        student,
        _first_held_out(run, prepared, _COMPARED),
        build.tokenizer(run.recipe),
        samples=run.recipe.evaluate.samples,
    )
    run.write_json(
        run.folder / side_by_side.SIDE_BY_SIDE_FILE, found.model_dump()
    )


def _hparams(recipe: config.Recipe, stage: str) -> dict[str, Any]:
    """What TensorBoard's table of hyperparameters tells of a stage."""
    settings = recipe.teacher.train if stage == "teacher" else recipe.distill
    found: dict[str, Any] = {"stage": stage, "seed": recipe.seed}
    if settings is not None:
        found["learning_rate"] = settings.learning_rate
        found["batch_size"] = settings.batch_size
    return found


def _add_costs(run: Run, rows: dict[str, dict[str, float]]) -> None:
    """Adds parameters, size and CPU latency; speed is that of float32."""
    run.progress.say("Measure latency")
    teacher = build.teacher(run.recipe, dtype="float32")
    student = build.student(run.recipe, teacher, dtype="float32")
    length = run.recipe.evaluate.latency_length
    milliseconds = latency.measure_latency_ms(
        {
            "teacher": latency.masked_lm_encoder_call(teacher, length),
            "student": latency.masked_lm_encoder_call(student, length),
        }
    )
    for name, row in rows.items():
        role = "teacher" if name == "teacher" else "student"
        model = teacher if role == "teacher" else student
        row["parameters"] = size.parameter_count(model)
        row["size_mb"] = round(size.size_mb(model), 1)
        row["latency_ms"] = round(milliseconds[role], 2)


def _check_fit(recipe: config.Recipe, teacher: MaskedLM) -> None:
    """Raises ValueError if the data would not fit the teacher."""
    preflight.check_lengths(recipe, teacher.backbone.max_sequence_length)
    words = data.vocabulary_size(build.tokenizer(recipe))
    if words > teacher.backbone.vocabulary_size:
        raise ValueError(
            f"The tokenizer of {recipe.teacher.source!r} has {words} entries, "
            f"but the teacher's vocabulary {teacher.backbone.vocabulary_size}."
            " They do not belong together."
        )


def _keep_adapter_scores(run: Run, scores: dict[str, float]) -> None:
    """Writes the scores of a trained adapter into its metadata."""
    path = run.folder / ADAPTER_FILE
    if run.writes and path.is_file():
        adapters.annotate_adapter(path, {"held_out": scores})


def _teacher_cache(
    run: Run, teacher: MaskedLM, prepared: data.PreparedCorpus
) -> Path:
    """Folder of a trained teacher, by weights, corpus and settings."""
    settings = run.recipe.teacher.train
    key = {
        "weights": _weights_sha256(teacher),
        "corpus": prepared.fingerprint,
        "settings": settings.model_dump() if settings else None,
        "initial_adapter": (
            disk.file_sha256(Path(settings.initial_adapter))
            if settings and settings.initial_adapter
            else None
        ),
        "masking": run.recipe.data.masking.model_dump(),
        "precision": run.recipe.precision,
        "seed": run.recipe.seed,
    }
    text = json.dumps(key, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return build.cache_folder() / "teachers" / digest[:32]


def _base_sha256(recipe: config.Recipe, teacher: MaskedLM) -> str:
    """Hash that ties an adapter to the weights it belongs to."""
    if recipe.teacher.source == embedded.EMBEDDED_BASE:
        return embedded.EMBEDDED_SHA256
    return _weights_sha256(teacher)


def _weights_sha256(model: MaskedLM) -> str:
    digest = hashlib.sha256()
    for variable in sorted(model.weights, key=lambda v: v.path):
        digest.update(variable.path.encode())
        digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return digest.hexdigest()
