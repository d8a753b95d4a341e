"""Checks that every key of a recipe takes effect in a run.

There is one entry per key: the run to look at and what is seen there, which
must equal the recipe's value or, if the key shows in another way, the value
given here.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from recording import (
    Recording,
    encoder_weights,
    same,
    same_batches,
    weights_of,
)
from runs import (
    DISTILL,
    EMBEDDING_LOSSES,
    OTHER_TASK_LOSSES,
    OTHER_TEXT_LOSSES,
    Runs,
    scheduled,
)
from safetensors.numpy import load_file
from toys import EXAMPLES, UNLABELLED

from keras_distil import callbacks, teachers
from keras_distil.losses import registry
from keras_distil.models.task_model import kind_of

# Stands for the recipe's own value.
ITSELF = object()


@dataclasses.dataclass(frozen=True)
class Check:
    """How a key is checked.

    Attributes:
        run: name of a run.
        see: gets the actual value from all runs and this run.
        wanted: the expected value.
        at: where the recipe has the key, if not at the key's own path.
    """

    run: str
    see: Callable[[Runs, Recording], Any]
    wanted: Any = ITSELF
    at: str | None = None


CHECKS: dict[str, Check] = {}


def seen(key: str, run: str, wanted: Any = ITSELF, at: str | None = None):
    """Registers a function of all runs and this run as a check."""

    def register(see: Callable[[Runs, Recording], Any]) -> Callable:
        assert key not in CHECKS, key
        CHECKS[key] = Check(run, see, wanted, at)
        return see

    return register


def of_fit(prefix: str, run: str, stage: str, **by_key: Any) -> None:
    """Checks what one `fit` was given: by key, a function of the `fit`."""
    for key, see in by_key.items():
        seen(f"{prefix}{key}", run)(
            lambda runs, made, see=see: see(made.fit(stage))
        )


def of_call(prefix: str, run: str, function: str, **by_key: Any) -> None:
    """Checks the arguments of a watched function, by key."""
    for key, see in by_key.items():
        seen(f"{prefix}{key}", run)(
            lambda runs, made, see=see: see(made.calls[function])
        )


def batch_size(fit: Any) -> int:
    (size,) = {len(x["token_ids"]) for x, *_ in fit.batches}
    return size


def dropout_rates(model: Any) -> float:
    """The rate of all dropout layers, which must be the same."""
    layers = [x for x in model._flatten_layers() if hasattr(x, "rate")]
    (rate,) = {x.rate for x in layers}
    return rate


def compiled(fit: Any) -> dict[str, Any]:
    return fit.distiller.get_compile_config()


# === The whole recipe ===


@seen("name", "finished")
def _(runs, made):
    return made.json("report.json")["name"]


@seen("seed", "text", wanted=(False, True))
def _(runs, made):
    """Another seed changes the student and batches, but not the scoring."""
    one, other = made.fit("distill"), runs("seed").fit("distill")
    return (
        same(one.before, other.before)
        or same_batches(one.batches, other.batches),
        same_batches(made.evaluations, runs("seed").evaluations),
    )


@seen("precision", "precision", wanted=("mixed_bfloat16", "bfloat16"))
def _(runs, made):
    fit = made.fit("distill")
    teacher = fit.distiller.teacher.backbone
    return fit.student.backbone.dtype_policy.name, teacher.dtype_policy.name


of_fit(
    "",
    "text",
    "distill",
    checkpoint_steps=lambda fit: (
        fit.callback(callbacks.TrainingState).every_steps
    ),
)

# === The teacher ===


@seen("teacher.source", "text", wanted=True)
def _(runs, made):
    file = runs.home.teacher / "model.safetensors"
    words = load_file(file)["bert.embeddings.word_embeddings.weight"]
    return any(
        np.array_equal(words, found) for found in made.fit("distill").teacher
    )


@seen("teacher.task_source", "given", wanted=(True, ("rte/student/seed_0",)))
def _(runs, made):
    """Its outputs are in the order of the data, and it is not trained."""
    from keras_distil import models

    fit = made.fit("rte/student/seed_0")
    file = models.load_task_model(runs.home.root / "given.keras")
    teacher = fit.distiller.teacher
    return (
        np.array_equal(
            teacher.output_dense.kernel,
            np.array(file.output_dense.kernel)[:, ::-1],
        ),
        tuple(each.stage for each in made.fits),
    )


@seen("teacher.predictions", "predicted", wanted=[0.2, 0.8])
def _(runs, made):
    """The student learns from them, in every example."""
    fit = made.fit("mine/student/seed_0")
    (outputs,) = {
        tuple(map(float, row))
        for x, *_ in fit.batches
        for row in fit.distiller.teacher.take_outputs(x)[1].outputs
    }
    return [math.exp(x) for x in outputs]


@seen("teacher.allow_chance_score", "given", wanted=1)
def _(runs, made):
    """The teacher always says the same, and the student is trained."""
    return len(made.fits)


@seen("teacher.allow_new_head", "head", wanted=1)
def _(runs, made):
    return len(made.fits)


@seen("teacher.license", "finished", wanted=True)
def _(runs, made):
    card = (made.folder / "MODEL_CARD.md").read_text()
    source = runs.values["finished"]["teacher"]["source"]
    return f"Teacher `{source}`: Licence of the teacher." in card


of_fit(
    "teacher.train.",
    "adapter",
    "teacher",
    steps=lambda fit: fit.arguments["steps_per_epoch"],
    batch_size=batch_size,
    # This is the first update after the warm-up.
    learning_rate=lambda fit: fit.rate(4),
    # The first update has a fourth of the peak, so the warm-up lasts four.
    warmup_steps=lambda fit: round(fit.rate(4) / fit.rate(0)),
    weight_decay=lambda fit: fit.optimizer.weight_decay,
    clip_norm=lambda fit: fit.distiller.clip_norm,
)


@seen("teacher.train.method", "all_weights", wanted=(True, False))
def _(runs, made):
    """Whether each method trains the embeddings: only `all_weights` does."""
    return tuple(
        run.fit("teacher").student.backbone.token_embedding.trainable
        and any(
            x.path.endswith("token_embedding/embeddings")
            for x in run.fit("teacher").student.trainable_variables
        )
        for run in (made, runs("adapter"))
    )


def low_rank(fit: Any) -> list[np.ndarray]:
    variables = fit.student.trainable_variables
    return [x.numpy() for x in variables if x.name == "lora_kernel_a"]


@seen("teacher.train.rank", "adapter")
def _(runs, made):
    (rank,) = {x.shape[-1] for x in low_rank(made.fit("teacher"))}
    return rank


@seen("teacher.train.initial_adapter", "initial_adapter", wanted=True)
def _(runs, made):
    pairs = zip(
        low_rank(runs("adapter").fit("teacher")),
        low_rank(made.fit("teacher")),
        strict=True,
    )
    # The file stores only half of the digits.
    return all(np.allclose(a, b, rtol=2e-3, atol=1e-6) for a, b in pairs)


of_fit(
    "teacher.cache.",
    "cache",
    "distill",
    top_k=lambda fit: fit.batches[0][0]["teacher_token_ids"].shape[-1],
    maskings=lambda fit: fit.distiller.teacher.settings.maskings,
)

# === The student ===

of_fit(
    "student.",
    "text",
    "distill",
    num_layers=lambda fit: fit.student.backbone.num_layers,
    hidden_dim=lambda fit: fit.student.backbone.hidden_dim,
    intermediate_dim=lambda fit: fit.student.backbone.intermediate_dim,
    dropout=lambda fit: dropout_rates(fit.student.backbone),
)


of_fit(
    "student.",
    "cosine",
    "distill",
    num_heads=lambda fit: fit.student.backbone.num_heads,
)


@seen("student.layers", "schedules", wanted=True)
def _(runs, made):
    """The student's only layer is the teacher's second."""
    fit = made.fit("distill")
    teacher = fit.distiller.teacher.backbone.transformer_layers[1]
    (student,) = fit.student.backbone.transformer_layers
    return same(*([v.numpy() for v in x.weights] for x in (teacher, student)))


@seen("student.initialization", "balance", wanted=(False, True))
def _(runs, made):
    """Whether the token embeddings are the teacher's: only elsewhere."""
    return tuple(
        any(
            np.array_equal(
                run.fit("distill").student.backbone.token_embedding.embeddings,
                array,
            )
            for array in run.fit("distill").teacher
        )
        for run in (made, runs("schedules"))
    )


def starts_from(fit: Any, path: Any) -> bool:
    """Whether a task's model has the encoder of a file."""
    from keras_distil import models

    file = encoder_weights(models.load_teacher(str(path)))
    return same(file, fit.before[: len(file)])


@seen("student.source", "tasks", wanted=True)
def _(runs, made):
    return starts_from(made.fit("rte/student/seed_5"), runs.home.student)


@seen("student.baseline_source", "by_task", wanted=True)
def _(runs, made):
    (fit,) = made.fits
    return starts_from(fit, runs.home.baseline)


# === Data ===


def of_source(number: int, key: str, attribute: str, **options: Any) -> None:
    seen(key, "sources", at=f"data.sources.{number}.{key.split('.')[1]}")(
        lambda runs, made: getattr(
            made.calls["prepare_corpus"][0][""][0][number], attribute
        )
    )


of_source(0, "DocumentationSource.packages", "packages")
of_source(1, "FilesSource.pattern", "pattern")
of_source(1, "FilesSource.field", "field")
of_source(1, "FilesSource.encoding", "encoding")
of_source(1, "data.root", "root")
of_source(2, "TfdsSource.name", "name")
of_source(2, "TfdsSource.split", "split")
of_source(2, "TfdsSource.field", "field")
of_source(1, "data.allow_outside_root", "allow_outside_root")
CHECKS["data.allow_outside_root"] = dataclasses.replace(
    CHECKS["data.allow_outside_root"], at=None
)
CHECKS["data.root"] = dataclasses.replace(CHECKS["data.root"], at=None)
for number, kind in enumerate(("Documentation", "Files", "Tfds")):
    names = ("InstalledDocumentation", "TextFiles", "TfdsText")
    seen(
        f"{kind}Source.kind",
        "sources",
        wanted=names[number],
        at=f"data.sources.{number}.kind",
    )(
        lambda runs, made, number=number: (
            type(made.calls["prepare_corpus"][0][""][0][number]).__name__
        )
    )


@seen("data.sources", "sources", wanted=3)
def _(runs, made):
    return len(made.calls["prepare_corpus"][0][""][0])


@seen("data.prepared", "prepared", wanted=(True, 0))
def _(runs, made):
    """The batches match those of a corpus made in the run itself."""
    itself = runs("text").fit("distill")
    return (
        same_batches(made.fit("distill").batches, itself.batches),
        len(made.calls["prepare_corpus"]),
    )


@seen("data.layout", "balance")
def _(runs, made):
    return made.calls["prepare_corpus"][0]["layout"]


@seen("data.sequence_length", "text", wanted=({11}, {11}))
def _(runs, made):
    return tuple(
        {x["token_ids"].shape[1] for x, *_ in batches}
        for batches in (
            made.fit("distill").batches,
            [batch for each in made.evaluations for batch in each],
        )
    )


@seen("data.held_out_fraction", "text")
def _(runs, made):
    return made.calls["prepare_corpus"][0]["held_out_fraction"]


@seen("data.max_skipped_fraction", "text")
def _(runs, made):
    return made.calls["prepare_corpus"][0]["max_skipped_fraction"]


def masked_share(batches: list[Any]) -> float:
    """Share of masked tokens among those other than [CLS] and [SEP]."""
    masked = sum(float(weight.sum()) for _, _, weight in batches)
    return masked / sum(int((y > 4).sum()) for _, y, _ in batches)


@seen("data.masking.rate", "text", wanted=([0.4, 0.15], 0.4))
def _(runs, made):
    """In training and held-out batches, and in those for a cached teacher."""
    return (
        [
            # A sequence has at most nine tokens, so a step is a ninth.
            min((0.15, 0.4), key=lambda rate: abs(rate - masked_share(batches)))
            for batches in (made.fit("distill").batches, made.evaluations[0])
        ],
        runs("cache").fit("distill").distiller.teacher.settings.masking.rate,
    )


@seen("data.masking.rare_token_exponent", "text", wanted=(0.6, 0.6))
def _(runs, made):
    """Computed from the weights of a frequent and a rare token."""
    counts = made.calls["prepare_corpus"][0]["returned"].token_counts
    weights = made.calls["masked_lm_dataset"][0]["token_weights"]
    most = int(np.argmax(counts))
    least = int(np.argmin(np.where(counts > 0, counts, np.inf)))
    cached = runs("cache").fit("distill").distiller.teacher.settings.masking
    return (
        math.log(weights[least] / weights[most])
        / math.log(counts[most] / counts[least]),
        cached.rare_token_exponent,
    )


@seen("data.license", "finished", wanted=True)
def _(runs, made):
    card = (made.folder / "MODEL_CARD.md").read_text()
    return "- Data: Licence of the data." in card


# === Distillation ===

of_fit(
    "distill.",
    "text",
    "distill",
    steps=lambda fit: fit.arguments["steps_per_epoch"],
    batch_size=batch_size,
    micro_batches=lambda fit: fit.distiller.micro_batches,
    jit_compile=lambda fit: bool(compiled(fit)["jit_compile"]),
    learning_rate=lambda fit: fit.rate(10),
    warmup_steps=lambda fit: round(fit.rate(10) / fit.rate(0)),
    weight_decay=lambda fit: fit.optimizer.weight_decay,
    beta_2=lambda fit: fit.optimizer.beta_2,
    clip_norm=lambda fit: compiled(fit)["clip_norm"],
)


@seen("distill.decay", "text", wanted=0.5 + 0.5 * math.cos(math.pi * 12 / 30))
def _(runs, made):
    """After 12 of the 30 updates that follow the warm-up."""
    fit = made.fit("distill")
    return fit.rate(22) / fit.rate(10)


@seen("distill.epochs", "balance")
def _(runs, made):
    """Epochs of the training sequences, without the held-out ones."""
    fit = made.fit("distill")
    corpus = made.calls["prepare_corpus"][0]["returned"]
    count = sum(len(part) for part in corpus.train)
    steps = fit.arguments["steps_per_epoch"]
    wanted = runs.values["balance"]["distill"]["epochs"]
    return wanted if steps == round(wanted * count / batch_size(fit)) else steps


@seen("distill.minutes", "minutes", wanted=7)
def _(runs, made):
    return made.fit("distill").arguments["steps_per_epoch"]


@seen("minutes", "whole_minutes", wanted=9)
def _(runs, made):
    return made.fit("distill").arguments["steps_per_epoch"]


of_fit(
    "distill.losses.",
    "text",
    "distill",
    **{
        "mlm.weight": lambda fit: float(fit.loss("mlm").weight),
        "cosine.weight": lambda fit: float(fit.loss("cosine").weight),
        "cosine.layers": lambda fit: fit.loss("cosine").get_config()["layers"],
    },
)
of_fit(
    "distill.losses.soft_target.",
    "text",
    "distill",
    weight=lambda fit: float(fit.loss("soft_target").weight),
    temperature=lambda fit: float(fit.loss("soft_target").temperature),
    confidence_slope=lambda fit: fit.loss("soft_target").confidence_slope,
    positions=lambda fit: fit.loss("soft_target").positions,
)


def of_others(
    prefix: str, run: str, stage: str, names: Any, kinds: Any
) -> None:
    """Checks the settings of losses that are not named above."""
    rows = registry.rows_for(kinds)
    for name in names:
        for key in rows[name].settings.model_fields:
            seen(f"{prefix}{name}.{key}", run)(
                lambda runs, made, name=name, key=key: (
                    made.fit(stage).loss(name).get_config()[key]
                )
            )


of_others(
    "distill.losses.",
    "text",
    "distill",
    OTHER_TEXT_LOSSES,
    [registry.MASKED_LM],
)


def curve(made: Recording, name: str, *steps: int) -> list[float]:
    """Values of a schedule at some updates."""
    if name.endswith("temperature"):
        loss = name.rpartition(".")[0] or "soft_target"
        fit = made.fit("distill")
        (found,) = (
            x
            for x in fit.arguments["callbacks"]
            if isinstance(x, callbacks.TemperatureScheduler) and x.loss == loss
        )
    else:
        (found,) = (
            x
            for x in made.fit("distill").arguments["callbacks"]
            if isinstance(x, callbacks.LossWeightScheduler) and x.loss == name
        )
    return [float(found.schedule(step)) for step in steps]


def of_curve(keys: str, run: str, at: str, name: str, curves: Any) -> None:
    """Checks several keys of one schedule by the same values."""
    for key in keys.split():
        place = f"distill.schedules.{at}"
        seen(key, run, wanted=list(curves.values()), at=f"{place}")(
            lambda runs, made: curve(made, name, *curves)
        )


LINEAR = {0: 5.0, 4: 4.0, 8: 3.0, 20: 3.0}
COSINE = {2: 3 + 2 * (1 + math.cos(math.pi / 4)) / 2, 4: 4.0, 8: 3.0}
EXPONENTIAL = {0: 8.0, 2: 4.0, 4: 2.0, 9: 2.0}
PIECEWISE = {2: 0.5, 3: 0.25, 6: 0.25, 7: 0.75}
of_curve(
    "distill.schedules.soft_target.temperature RampSchedule.start "
    "RampSchedule.end RampSchedule.steps",
    "schedules",
    "soft_target.temperature",
    "temperature",
    LINEAR,
)
of_curve(
    "RampSchedule.kind",
    "cosine",
    "soft_target.temperature",
    "temperature",
    COSINE,
)
of_curve(
    "distill.schedules.mlm.weight ExponentialSchedule.kind "
    "ExponentialSchedule.start ExponentialSchedule.end "
    "ExponentialSchedule.steps",
    "schedules",
    "mlm.weight",
    "mlm",
    EXPONENTIAL,
)
of_curve(
    "distill.schedules.soft_target.weight PiecewiseSchedule.kind "
    "PiecewiseSchedule.boundaries PiecewiseSchedule.values",
    "schedules",
    "soft_target.weight",
    "soft_target",
    PIECEWISE,
)
of_curve(
    "distill.schedules.cosine.weight ConstantSchedule.kind "
    "ConstantSchedule.value",
    "schedules",
    "cosine.weight",
    "cosine",
    {0: 0.375, 50: 0.375},
)
for other in OTHER_TEXT_LOSSES:
    for setting in scheduled(other):
        of_curve(
            f"distill.schedules.{other}.{setting}",
            "schedules",
            f"{other}.{setting}",
            other if setting == "weight" else f"{other}.{setting}",
            {0: 0.375, 50: 0.375},
        )

of_fit(
    "distill.balance.",
    "balance",
    "distill",
    **{
        name: lambda fit, name=name: fit.callback(
            callbacks.GradientBalancer
        ).ratios[name]
        for name in (*registry.TEXT_DEFAULTS, *OTHER_TEXT_LOSSES)
    },
    every_steps=lambda fit: (
        fit.callback(callbacks.GradientBalancer).every_steps
    ),
)


# === Sentence embeddings ===

of_fit(
    "student.",
    "embedding",
    "distill",
    pooling_mode=lambda fit: fit.student.pooling_mode,
    normalize=lambda fit: fit.student.normalize,
    dimension=lambda fit: fit.student.dimension,
)
of_fit(
    "teacher.",
    "embedding",
    "distill",
    dimension=lambda fit: fit.batches[0][1].shape[1],
)
of_others(
    "distill.losses.",
    "embedding",
    "distill",
    EMBEDDING_LOSSES,
    [registry.EMBEDDING],
)
of_fit(
    "distill.balance.",
    "static",
    "distill",
    **{
        name: lambda fit, name=name: fit.callback(
            callbacks.GradientBalancer
        ).ratios[name]
        for name in EMBEDDING_LOSSES
    },
)
for other in EMBEDDING_LOSSES:
    for setting in scheduled(other):
        of_curve(
            f"distill.schedules.{other}.{setting}",
            "embedding",
            f"{other}.{setting}",
            other if setting == "weight" else f"{other}.{setting}",
            {0: 0.375, 50: 0.375},
        )


@seen("distill.task", "embedding", wanted=teachers.CachedEmbeddingTeacher)
def _(runs, made):
    return type(made.fit("distill").distiller.teacher)


@seen("student.kind", "static", wanted="StaticBackbone")
def _(runs, made):
    return type(made.fit("distill").student.backbone).__name__


@seen("student.vocabulary", "static")
def _(runs, made):
    """The toy vocabulary of 64 has all words of the texts already."""
    (call,) = made.calls["static_embedding_model"]
    return 64 + call["added_words"]


@seen("data.max_texts", "embedding")
def _(runs, made):
    return len(made.fit("distill").distiller.teacher)


@seen("data.texts", "embedding")
def _(runs, made):
    (call,) = made.calls["prepare_texts"]
    return call["kind"]


for measure, evaluator in (
    ("sts", "STSEvaluator"),
    ("retrieval", "RetrievalEvaluator"),
):

    @seen(f"evaluate.{measure}", "embedding")
    def _(runs, made, evaluator=evaluator):
        (call,) = made.calls[evaluator]
        return call[""][0].name


@seen("evaluate.beside", "embedding")
def _(runs, made):
    (row,) = made.calls["open_beside"][-1]["returned"]
    return {row: made.calls["_open"][-1][""][0]}


@seen("distill.baseline", "finished", wanted=["distill", "baseline"])
def _(runs, made):
    return [fit.stage for fit in made.fits]


@seen("distill.strategy", "balance", wanted=True)
def _(runs, made):
    strategy = made.fit("distill").distiller.distribute_strategy
    return isinstance(strategy, tf.distribute.MirroredStrategy)


# === Tasks ===


@seen("finetune.tasks", "squad", wanted=["squad/teacher/seed_0"])
def _(runs, made):
    return [fit.stage for fit in made.fits]


@seen("finetune.source", "tasks", wanted=EXAMPLES)
def _(runs, made):
    """The examples are those of the files."""
    fit = made.fit("rte/teacher/seed_5")
    found = {
        tuple(row[row > 0]) for x, *_ in fit.batches for row in x["token_ids"]
    }
    return len(found)


@seen("finetune.rows", "tasks", wanted=["teacher", "teacher", "student"])
def _(runs, made):
    return [fit.stage.split("/")[1] for fit in made.fits]


@seen("finetune.teacher_seeds", "tasks", wanted=["seed_5", "seed_8"])
def _(runs, made):
    """A student has the teachers of both seeds, that of its own first."""
    student = made.fit("rte/student/seed_5")
    return [each.folder.parent.name for each in student.distiller.teacher]


@seen("finetune.seeds", "tasks", wanted={"seed_5", "seed_8"})
def _(runs, made):
    return {fit.stage.split("/")[2] for fit in made.fits}


@seen("finetune.by_task", "by_task", wanted=["rte/baseline/seed_9"])
def _(runs, made):
    return [fit.stage for fit in made.fits]


seen(
    "TaskOverrides.seeds",
    "by_task",
    wanted=["rte/baseline/seed_9"],
    at="finetune.by_task.rte.seeds",
)(lambda runs, made: [fit.stage for fit in made.fits])
for key, see in {
    "epochs": lambda fit: fit.arguments["epochs"],
    "batch_size": batch_size,
    # A tenth of the updates are warm-up.
    "learning_rate": lambda fit: max(fit.rate(step) for step in range(10)),
}.items():
    seen(f"TaskOverrides.{key}", "by_task", at=f"finetune.by_task.rte.{key}")(
        lambda runs, made, see=see: see(made.fits[0])
    )


# === Tasks from files ===


def of_own(key: str, wanted: Any = ITSELF, number: int = 0) -> Callable:
    """A check of one of the two tasks from files, from what was read."""
    at = f"finetune.tasks.{number}.{key}"

    def register(see: Callable[[Any], Any]) -> Callable:
        seen(f"OwnTask.{key}", "own", wanted=wanted, at=at)(
            lambda runs, made: see(
                made.calls["load_own_task"][number]["returned"]
            )
        )
        return see

    return register


seen(
    "OwnTask.name",
    "own",
    wanted=["mine/teacher/seed_0", "several/teacher/seed_0"],
    at="finetune.tasks.0.name",
)(lambda runs, made: [fit.stage for fit in made.fits])
seen(
    "OwnTask.kind",
    "own",
    wanted=["classification", "multi_label"],
    at="finetune.tasks.0.kind",
)(lambda runs, made: [kind_of(fit.student) for fit in made.fits])
seen(
    "OwnTask.tfds",
    "own",
    wanted=("toy_labels", "part"),
    at="finetune.tasks.1.tfds",
)(lambda runs, made: made.calls["open_tfds"][0][""])
# A list of a path and a pattern.
of_own("train", wanted=20)(lambda own: len(set(own.train.owners)))
of_own("dev", wanted=10)(lambda own: len(own.evaluator.labels["dev"]))
of_own("test", wanted=5)(lambda own: len(own.evaluator.splits["test"].labels))
of_own("columns", wanted=["no", "yes", "yes"])(
    lambda own: [own.labels[i] for i in own.evaluator.labels["dev"][:3]]
)
of_own("labels", wanted=("no", "yes"))(lambda own: own.labels)
of_own("metric")(lambda own: own.evaluator.metric)
# Every text ends in the same letter of another encoding.
of_own("encoding", wanted=1)(
    lambda own: len(
        {
            int(own.train.token_ids[own.train.starts[i + 1] - 2])
            for i in np.flatnonzero(np.diff(own.train.owners, append=-1))
        }
    )
)
of_own("class_weights", wanted={(0, 3.0), (1, 1.0)})(
    lambda own: {
        (int(label), round(float(weight), 6))
        for label, weight in zip(
            own.train.labels[np.unique(own.train.owners, return_index=True)[1]],
            np.bincount(own.train.owners, own.train.weights),
            strict=True,
        )
    }
)
# Windows of six tokens share two.
of_own("stride", wanted=True)(
    lambda own: (
        all(
            list(one[-3:-1]) == list(other[1:3])
            for one, other, same_text in zip(
                np.split(own.train.token_ids, own.train.starts[1:-1])[:-1],
                np.split(own.train.token_ids, own.train.starts[1:-1])[1:],
                np.diff(own.train.owners) == 0,
                strict=True,
            )
            if same_text
        )
        and len(own.train) > 20
    )
)
of_own("dev_fraction", wanted=(6, 4), number=1)(
    lambda own: (len(own.train), len(own.evaluator.labels["dev"]))
)
of_own("separator", wanted=("a", "b", "c"), number=1)(lambda own: own.labels)


@seen("finetune.max_length", "tasks", wanted=(10, 10))
def _(runs, made):
    """The longest sequence in training, and in the development set."""
    fit = made.fit("rte/teacher/seed_5")
    inputs = development_inputs(fit)
    return (
        max(x["token_ids"].shape[1] for x, *_ in fit.batches),
        max(x["token_ids"].shape[1] for x in inputs),
    )


def development_inputs(fit: Any) -> list[dict[str, np.ndarray]]:
    """Inputs on which a model of the task is scored."""
    evaluator = fit.callback(callbacks.BestEpoch).score.__self__
    return list(evaluator.inputs())


@seen("finetune.selection", "stages", wanted=[(18, 2, 0)] * 4 + [1])
def _(runs, made):
    """Examples to train on, those that choose the epoch, and common ones.

    They are alike in all trainings, of which the last stages choose.
    """
    found = []
    for fit in made.fits[:6]:
        if not any(
            isinstance(x, callbacks.BestEpoch)
            for x in fit.arguments["callbacks"]
        ):
            continue
        batches = ([x for x, *_ in fit.batches], development_inputs(fit))
        found.append(
            tuple(
                frozenset(
                    tuple(row[row > 0]) for x in each for row in x["token_ids"]
                )
                for each in batches
            )
        )
    counts = [(len(a), len(b), len(a & b)) for a, b in found]
    return [*counts, len(set(found))]


def stages_of(made: Recording, task: str) -> list[Any]:
    """The trainings of the first seed's student, in order."""
    return [fit for fit in made.fits if fit.stage == f"{task}/student/seed_3"]


@seen("finetune.stages", "stages", wanted=2)
def _(runs, made):
    return len(stages_of(made, "rte"))


seen(
    "TaskOverrides.stages",
    "stages",
    wanted=[4],
    at="finetune.by_task.mrpc.stages",
)(
    lambda runs, made: [
        fit.arguments["epochs"] for fit in stages_of(made, "mrpc")
    ]
)


@seen(
    "TaskOverrides.cut_student",
    "stages",
    wanted={"mrpc": True, "rte": False},
    at="finetune.by_task.mrpc.cut_student",
)
def _(runs, made):
    """Whether a student has its words from its task's fine-tuned teacher."""
    from keras_distil import models

    found = {}
    for task in ("mrpc", "rte"):
        file = made.folder / "tasks" / task / "teacher/seed_3/model.keras"
        teacher = models.load_task_model(file)
        words = teacher.backbone.token_embedding.embeddings
        start = stages_of(made, task)[0].before
        found[task] = any(np.array_equal(words, each) for each in start)
    return found


def of_stage(key: str, see: Callable[[Any], Any]) -> None:
    """Checks a key of the first stage."""
    seen(f"FineTuneStage.{key}", "stages", at=f"finetune.stages.0.{key}")(
        lambda runs, made: see(stages_of(made, "rte")[0])
    )


of_stage("epochs", lambda fit: fit.arguments["epochs"])
# Two epochs of three batches.
of_stage("learning_rate", lambda fit: max(fit.rate(step) for step in range(6)))
for name, row in registry.rows_for(registry.TASK_KINDS).items():
    for key in row.settings.model_fields:
        of_stage(
            f"losses.{name}.{key}",
            lambda fit, name=name, key=key: fit.loss(name).get_config()[key],
        )


def windows(rows: np.ndarray) -> list[str]:
    """The parts of SQuAD's context in each window, as letters."""
    found = []
    for row in rows:
        context = row[np.flatnonzero(row == 3)[0] + 1 :]
        letters = [int(i) for i in context if i > 4]
        found.append("".join(chr(ord("a") + i - 5) for i in letters))
    return found


# Ten tokens minus [CLS], two [SEP] and two of the question leave five; windows
# share two of them.
WINDOWS = {"abcde", "defgh"}


@seen("finetune.stride", "squad", wanted=(WINDOWS, WINDOWS))
def _(runs, made):
    (fit,) = made.fits
    batches = [x["token_ids"] for x, *_ in fit.batches]
    inputs = [x["token_ids"] for x in development_inputs(fit)]
    return tuple(
        {window for rows in each for window in windows(rows)}
        for each in (batches, inputs)
    )


@seen("finetune.max_question", "squad", wanted=({2}, {2}))
def _(runs, made):
    (fit,) = made.fits
    batches = [x["token_ids"] for x, *_ in fit.batches]
    inputs = [x["token_ids"] for x in development_inputs(fit)]
    return tuple(
        {int(np.flatnonzero(row == 3)[0]) - 1 for rows in each for row in rows}
        for each in (batches, inputs)
    )


of_fit(
    "finetune.",
    "tasks",
    "rte/student/seed_5",
    epochs=lambda fit: fit.arguments["epochs"],
    patience=lambda fit: fit.callback(callbacks.BestEpoch).patience,
    batch_size=batch_size,
    learning_rate=lambda fit: max(fit.rate(step) for step in range(20)),
    # Three epochs of ten batches, which hold the examples and two copies of
    # each.
    warmup_fraction=lambda fit: {8: 0.25}[
        round(fit.rate(12) / fit.rate(0) * 30 / 26)
    ],
    weight_decay=lambda fit: fit.optimizer.weight_decay,
    clip_norm=lambda fit: compiled(fit)["clip_norm"],
    dropout=lambda fit: dropout_rates(fit.student),
    jit_compile=lambda fit: compiled(fit)["jit_compile"],
)
of_fit(
    "finetune.losses.",
    "tasks",
    "rte/student/seed_5",
    **{
        "label.weight": lambda fit: float(fit.loss("label").weight),
        "cosine.weight": lambda fit: float(fit.loss("cosine").weight),
        "cosine.layers": lambda fit: fit.loss("cosine").get_config()["layers"],
        "cosine.teacher": lambda fit: fit.loss("cosine").teacher,
    },
)
of_others(
    "finetune.losses.",
    "tasks",
    "rte/student/seed_5",
    OTHER_TASK_LOSSES,
    registry.TASK_KINDS,
)
of_fit(
    "finetune.losses.soft_target.",
    "tasks",
    "rte/student/seed_5",
    weight=lambda fit: float(fit.loss("soft_target").weight),
    temperature=lambda fit: float(fit.loss("soft_target").temperature),
    confidence_slope=lambda fit: fit.loss("soft_target").confidence_slope,
)


@seen("finetune.augment_copies", "tasks", wanted=(4, 10, EXAMPLES))
def _(runs, made):
    """Batches of six from 20 examples, and from the student's 60."""
    assert EXAMPLES == 20
    fits = [made.fit(f"rte/{row}/seed_5") for row in ("teacher", "student")]
    texts = {tuple(ids) for x, *_ in fits[0].batches for ids in texts_of(x)}
    return *(fit.arguments["steps_per_epoch"] for fit in fits), len(texts)


def texts_of(x: dict[str, np.ndarray]) -> list[list[int]]:
    """The token ids of each example, without padding."""
    return [[int(i) for i in row if i] for row in x["token_ids"]]


@seen("finetune.unlabelled_share", "more_text")
def _(runs, made):
    batches = made.fit("rte/student/seed_0").batches
    (share,) = {float(1 - x["label_weight"].mean()) for x, *_ in batches}
    return share


@seen("finetune.augmented_share", "more_text")
def _(runs, made):
    """What is left by the unlabelled half, and by the labelled quarter.

    An epoch of it holds each labelled example once.
    """
    fit = made.fit("rte/student/seed_0")
    in_batch = EXAMPLES / fit.arguments["steps_per_epoch"]
    return 0.5 - in_batch / batch_size(fit)


@seen(
    "TaskOverrides.unlabelled",
    "more_text",
    wanted=UNLABELLED,
    at="finetune.by_task.rte.unlabelled",
)
def _(runs, made):
    """The unlabelled texts of the first batches, read back."""
    found = set()
    for x, *_ in made.fit("rte/student/seed_0").batches:
        for ids, weight in zip(texts_of(x), x["label_weight"], strict=True):
            if not weight:
                letters = "".join(
                    chr(ord("a") + i - 5) if i > 4 else "|" for i in ids
                )
                _, first, second, _ = letters.split("|")
                found.add((" ".join(first), " ".join(second)))
    return found


@seen("finetune.teacher_cache", "tasks")
def _(runs, made):
    """The teachers are their outputs for all examples of the student."""
    return all(
        isinstance(teacher, teachers.CachedTaskTeacher)
        and teacher.settings.task == "rte"
        and [part.rows for part in teacher._parts[:2]]
        == [EXAMPLES, 2 * EXAMPLES]
        for teacher in made.fit("rte/student/seed_5").distiller.teacher
    )


# === Uses of a student ===


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


@seen("search.tuner", "search", wanted=(False, True))
def _(runs, made):
    """Whether values are tried in order, as the tuner `grid` of `slow` does."""
    values = [
        [
            row["values"]["distill.losses.soft_target.temperature"]
            for row in run.json("search.json")["trials"][1:]
        ]
        for run in (made, runs("slow"))
    ]
    return values[0] == sorted(values[0]), values[1] == [1.5, 4.5]


@seen("search.trials", "search", wanted=2)
def _(runs, made):
    return len(made.json("search.json")["trials"]) - 1


@seen("search.objective", "search", wanted=("mlm_loss", "min", True))
def _(runs, made):
    found = made.json("search.json")
    own, *trials = found["trials"]
    best = min(trials, key=lambda row: row["score"])
    return (
        found["objective"],
        found["direction"],
        trials.index(best) + 1 == found["best"],
    )


@seen("search.max_latency_ms", "slow", wanted=[None, None, None])
def _(runs, made):
    return [row["score"] for row in made.json("search.json")["trials"]]


@seen("search.evaluations", "search", wanted=({4}, {DISTILL["steps"] // 4}))
def _(runs, made):
    return tuple(
        {fit.arguments[name] for fit in made.fits}
        for name in ("epochs", "steps_per_epoch")
    )


def dimension(made: Recording, key: str) -> dict[str, Any]:
    """One key of the space as the tuner has it."""
    space = made.json("trials/oracle.json")["hyperparameters"]["space"]
    (found,) = (x["config"] for x in space if x["config"]["name"] == key)
    return found


@seen("search.space", "search", wanted=True)
def _(runs, made):
    """Every trial is built with its own values."""
    trials = made.json("search.json")["trials"][1:]
    return all(
        math.isclose(float(fit.loss("soft_target").temperature), temperature)
        and math.isclose(fit.rate(0), rate, rel_tol=1e-5)
        for fit, temperature, rate in (
            (
                fit,
                row["values"]["distill.losses.soft_target.temperature"],
                row["values"]["distill.learning_rate"],
            )
            for fit, row in zip(made.fits[1:], trials, strict=True)
        )
    )


for key, name, place in (
    ("min", "min_value", "distill.learning_rate"),
    ("max", "max_value", "distill.learning_rate"),
    ("scale", "sampling", "distill.learning_rate"),
    ("choices", "values", "distill.losses.soft_target.temperature"),
):
    seen(f"Dimension.{key}", "search", at=("search", "space", place, key))(
        lambda runs, made, name=name, place=place: dimension(made, place)[name]
    )
