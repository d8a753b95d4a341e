"""A run of every stage: who learns what from whom, and what is reported.

The values in its report are recomputed, by other code, from the files in its
folder and the texts that it read.
"""

import csv
import io
import math
import statistics
import zipfile

import h5py
import keras
import numpy as np
import pytest
import toys
from recording import encoder_weights, same, same_batches, watch, weights_of
from runs import DISTILL, FINETUNE, Home, report_of_nothing
from safetensors.numpy import load_file

import keras_distil
from keras_distil import callbacks, export, models
from keras_distil.benchmark import latency

pytestmark = pytest.mark.slow

SEEDS = {"mrpc": (11, 4), "mnli": (11,), "stsb": (4,), "squad": (4,)}
# The rank of each model among heads from bad to good. In all but the baseline,
# the second seed is better.
PLACES = {
    "teacher": {11: 0.8, 4: 1.0},
    "baseline": {11: 0.4, 4: 0.2},
    "student": {11: 0.0, 4: 0.8},
}
BEST = {"mrpc": 4, "mnli": 11, "stsb": 4, "squad": 4}
ROWS = ("teacher", "student", "baseline")


def place(stage):
    _, row, seed = stage.split("/")
    return PLACES[row][int(seed.removeprefix("seed_"))]


def watch_exports(made, patch):
    watch(made, patch, export, "export", report_of_nothing)
    # Ten milliseconds for each layer, as real measurements would vary.
    patch.setattr(
        latency, "masked_lm_encoder_call", lambda model, _: model.backbone
    )
    patch.setattr(
        latency,
        "measure_latency_ms",
        lambda encoders: {
            name: 10.0 * encoder.num_layers
            for name, encoder in encoders.items()
        },
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = Home(tmp_path_factory.mktemp("whole"))
    narrow = home.teacher
    home.teacher = home.root / "wide"
    toys.write_wide_teacher(home.teacher, narrow)
    return home


@pytest.fixture(scope="module")
def run(home):
    """Records the run."""
    values = home.recipe(
        "whole",
        {"seed": 3, "student": {"num_layers": 1}},
        {"evaluate": {"sequences": 24, "batch_size": 16}},
        {"distill": {**DISTILL, "baseline": True, "clip_norm": 0.5}},
        {
            "finetune": {
                **FINETUNE,
                "tasks": list(SEEDS),
                "rows": list(ROWS),
                "batch_size": 5,
                "max_question": 3,
                "stride": 2,
                "by_task": {
                    task: {"seeds": list(seeds)}
                    for task, seeds in SEEDS.items()
                },
            },
            "export": {"formats": ["hugging_face"]},
        },
    )
    return home.start(values, place=place, batches=8, watched=watch_exports)


@pytest.fixture(scope="module")
def report(run):
    return run.json("report.json")


def stages(run, row):
    return [
        run.fit(f"{task}/{row}/seed_{seed}")
        for task, seeds in SEEDS.items()
        for seed in seeds
    ]


# === Who learns from whom ===


def test_every_model_is_trained_once_and_the_teacher_before_its_student(run):
    order = [fit.stage for fit in run.fits]
    assert order[:2] == ["distill", "baseline"]
    assert sorted(order[2:]) == sorted(
        f"{task}/{row}/seed_{seed}"
        for task, seeds in SEEDS.items()
        for seed in seeds
        for row in ROWS
    )
    for stage in order[2:]:
        if "/student/" in stage:
            before = stage.replace("/student/", "/teacher/")
            assert order.index(before) < order.index(stage)


def test_students_learn_from_their_teachers_and_no_other_from_any(run, home):
    source = weights_of(models.load_teacher(str(home.teacher)))
    assert same(run.fit("distill").teacher, source)
    for fit in stages(run, "student"):
        teacher = run.fit(fit.stage.replace("/student/", "/teacher/"))
        assert same(fit.teacher, teacher.after), fit.stage
        names = [x.name for x in fit.distiller.distillation_losses]
        assert names == ["label", "soft_target", "cosine"]
    alone = [*stages(run, "teacher"), *stages(run, "baseline")]
    for fit in alone:
        assert fit.distiller.teacher is None, fit.stage
        names = [x.name for x in fit.distiller.distillation_losses]
        assert names == ["label"]


def test_tasks_start_from_what_came_before(run, home):
    source = encoder_weights(models.load_teacher(str(home.teacher)))
    starts = {
        "teacher": source,
        "student": run.fit("distill").after,
        "baseline": run.fit("baseline").after,
    }
    assert not same(starts["student"], starts["baseline"])
    for row, start in starts.items():
        for fit in stages(run, row):
            # A head for masked words, or for the task, comes after the encoder.
            count = len(encoder_weights(fit.student))
            assert same(fit.before[:count], start[:count]), fit.stage


def test_the_baseline_differs_from_the_student_by_its_teacher_alone(run):
    student, baseline = run.fit("distill"), run.fit("baseline")
    assert baseline.distiller.teacher is None
    assert [x.name for x in baseline.distiller.distillation_losses] == ["mlm"]
    assert same(student.before, baseline.before)
    assert not same(student.before, student.after)
    assert same_batches(student.batches, baseline.batches)
    for key in ("micro_batches", "clip_norm", "jit_compile"):
        compiled = [
            x.distiller.get_compile_config()[key] for x in (student, baseline)
        ]
        assert compiled[0] == compiled[1], key
    configs = [x.optimizer.get_config() for x in (student, baseline)]
    names = {config.pop("name") for config in configs}
    assert len(names) == 2 and configs[0] == configs[1]
    for name in ("steps_per_epoch", "epochs"):
        assert student.arguments[name] == baseline.arguments[name]


def test_the_order_of_examples_is_the_seeds_own(run):
    for task, seeds in SEEDS.items():
        orders = {}
        for seed in seeds:
            fits = [run.fit(f"{task}/{row}/seed_{seed}") for row in ROWS]
            assert same_batches(fits[0].batches, fits[1].batches)
            assert same_batches(fits[0].batches, fits[2].batches)
            orders[seed] = fits[0].batches
        if len(seeds) > 1:
            assert not same_batches(*orders.values()), task


def test_every_epoch_has_all_examples_in_an_order_of_its_own(run):
    batches = run.fit("mrpc/teacher/seed_4").batches

    def texts(epoch):
        """The texts of each batch."""
        return [
            frozenset(tuple(row[row > 0]) for row in x["token_ids"])
            for x, *_ in epoch
        ]

    first, second = texts(batches[:4]), texts(batches[4:])
    assert frozenset.union(*first) == frozenset.union(*second)
    assert len(frozenset.union(*first)) == toys.EXAMPLES
    # Neither the batches nor their order are the same.
    assert set(first) != set(second)


def test_dropout_is_as_the_recipe_says_and_trainings_go_by_steps(run):
    for fit in run.fits[2:]:
        # Three windows for each of eight questions.
        examples = 24 if fit.stage.startswith("squad") else toys.EXAMPLES
        assert fit.arguments["steps_per_epoch"] == math.ceil(examples / 5)
        assert fit.student.output_dropout.rate == 0.1, fit.stage
        assert fit.student.backbone.dropout == 0.1, fit.stage


def test_what_is_exported_is_the_best_seed_s(run):
    exported = run.calls["export"]
    found = [weights_of(call[""][0]) for call in exported]
    assert same(found[0], run.fit("distill").after)
    for weights, (task, seed) in zip(found[1:], BEST.items(), strict=True):
        scores = [
            result(run, task, "student", seed)["dev_scores"][0]
            for seed in SEEDS[task]
        ]
        assert SEEDS[task][int(np.argmax(scores))] == seed
        assert len(set(scores)) == len(scores)
        assert same(weights, run.fit(f"{task}/student/seed_{seed}").after)
    assert {call["format"] for call in exported} == {"hugging_face"}


# === Scores on held-out text ===


def held_out_scores(model, teacher, batches):
    """Computes the scores with Keras's own forward pass, and NumPy."""
    logits, chosen, correct = [], [], []
    for x, y, weight in batches:
        rows = np.nonzero(weight)
        logits.append(own_logits(model, x)[rows].astype("float64"))
        chosen.append(own_logits(teacher, x)[rows].argmax(-1))
        correct.append(y[rows])
    logits, chosen, correct = map(np.concatenate, (logits, chosen, correct))
    probabilities = softmax(logits)
    right = probabilities[np.arange(len(correct)), correct]
    hit = logits.argmax(-1) == correct
    return {
        "mlm_accuracy": hit.mean(),
        "mlm_loss": -np.log(right).mean(),
        "teacher_agreement": (logits.argmax(-1) == chosen).mean(),
        "calibration_error": calibration_error(probabilities.max(-1), hit),
    }


def own_logits(model, x):
    """Logits (batch, length, vocabulary) from the task model itself."""
    shape = x["token_ids"].shape
    inputs = {
        "token_ids": x["token_ids"],
        "padding_mask": x["padding_mask"],
        "mask_positions": np.tile(np.arange(shape[1]), (shape[0], 1)),
        "segment_ids": np.zeros(shape, "int32"),
    }
    return model({name: inputs[name] for name in model.input}).numpy()


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def calibration_error(confidences, right):
    """Calibration error over 15 bins, one after the other."""
    total = 0.0
    for number in range(15):
        low, high = number / 15, (number + 1) / 15
        inside = (confidences > low) & (confidences <= high)
        if inside.any():
            gap = right[inside].mean() - confidences[inside].mean()
            total += inside.sum() * abs(gap)
    return total / len(confidences)


@pytest.fixture(scope="module")
def text_models(run, home):
    """The models of the first table's rows, loaded from their files."""
    load = keras.saving.load_model
    before = load(run.folder / "student.keras", compile=False)
    weights = [x for x in before.weights if "seed_generator" not in x.path]
    for variable, value in zip(weights, run.fit("distill").before, strict=True):
        variable.assign(value)
    return {
        "teacher": models.load_teacher(str(home.teacher)),
        "student before": before,
        "student": load(run.folder / "student.keras", compile=False),
        "baseline": load(run.folder / "baseline.keras", compile=False),
    }


def test_scores_on_held_out_text_are_each_model_s(run, report, text_models):
    assert list(report["rows"]) == list(text_models)
    seen = set()
    for name, model in text_models.items():
        wanted = held_out_scores(
            model, text_models["teacher"], run.evaluations[0]
        )
        for key, value in wanted.items():
            # Both are computed in float32.
            assert report["rows"][name][key] == pytest.approx(
                value, rel=1e-4
            ), (name, key)
        seen.add(round(report["rows"][name]["mlm_loss"], 3))
    # Otherwise one row could pass for another.
    assert len(seen) == len(text_models)
    assert report["rows"]["student"]["mlm_accuracy"] > 0


def test_all_rows_are_scored_on_the_same_masks(run):
    assert len(run.evaluations) == 4
    for batches in run.evaluations[1:]:
        assert same_batches(run.evaluations[0], batches)


# === Costs ===


def stored_parameters(path):
    """Number of parameters in a `.keras` file."""
    with zipfile.ZipFile(path) as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    sizes = []

    def add(name, item):
        if isinstance(item, h5py.Dataset) and "seed" not in name:
            sizes.append(math.prod(item.shape))

    with h5py.File(content) as file:
        file.visititems(add)
    return sum(sizes)


def checkpoint_parameters(folder):
    """Number of parameters in a Hugging Face checkpoint, each counted once."""
    tensors = load_file(folder / "model.safetensors")
    return sum(
        array.size
        for name, array in tensors.items()
        if not name.startswith("cls.predictions.decoder")
    )


def test_costs_are_each_model_s(run, report, home):
    teacher = checkpoint_parameters(home.teacher)
    student = stored_parameters(run.folder / "student.keras")
    assert student < 0.8 * teacher
    rows = report["rows"]
    tasks = {row["name"]: row for row in report["tasks"]["rows"]}
    assert set(tasks) == set(ROWS)
    for row in [*rows.items(), *tasks.items()]:
        name, found = row
        wanted = teacher if name == "teacher" else student
        # KerasHub's classes have BERT's pooler, which checkpoints may lack.
        assert abs(found["parameters"] - wanted) <= 97 * 96, name
        assert found["size_mb"] == round(4e-6 * found["parameters"], 1)
    for row in (rows["student"], tasks["student"], tasks["baseline"]):
        assert row["parameters"] < tasks["teacher"]["parameters"]
        assert row["size_mb"] < tasks["teacher"]["size_mb"]
        # One layer instead of two, by the clock of `watch_exports`.
        assert row["latency_ms"] == 10.0
    assert tasks["teacher"]["latency_ms"] == 20.0
    assert rows["teacher"]["latency_ms"] == 20.0
    for row in tasks.values():
        assert row["latency_ratio"] == pytest.approx(
            row["latency_ms"] / tasks["teacher"]["latency_ms"]
        )


def test_the_card_tells_the_student_s_costs(run, report):
    card = (run.folder / "MODEL_CARD.md").read_text()
    student, teacher = (report["rows"][x] for x in ("student", "teacher"))
    share = student["parameters"] / teacher["parameters"]
    assert f"parameters ({share:.0%} of the teacher's)" in card
    assert f"takes {student['size_mb']:.1f} MB" in card
    assert f"the teacher takes {teacher['latency_ms']:.1f} ms" in card


# === Tasks ===


def folder_of(run, task, row, seed):
    return run.folder / "tasks" / task / row / f"seed_{seed}"


def result(run, task, row, seed):
    where = folder_of(run, task, row, seed).relative_to(run.folder)
    return run.json(f"{where}/result.json")


def lines_of(path):
    """The rows of a table, as dicts by column."""
    return list(csv.DictReader(path.read_text().splitlines(), delimiter="\t"))


def labels_of(home, task):
    """The development labels in GLUE's files."""
    name, column, splits, classes = {
        "mrpc": ("MRPC", "Quality", ("dev",), ("0", "1")),
        "mnli": (
            "MNLI",
            "gold_label",
            ("dev_matched", "dev_mismatched"),
            ("entailment", "neutral", "contradiction"),
        ),
        "stsb": ("STS-B", "score", ("dev",), None),
    }[task]
    found = []
    for split in splits:
        path = home.root / "data" / name / f"{split}.tsv"
        for line in lines_of(path):
            value = line[column]
            found.append(
                classes.index(value) if classes else float(np.float32(value))
            )
    return np.array(found), splits


def f1(labels, predictions):
    both = int(((labels == 1) & (predictions == 1)).sum())
    either = int((labels == 1).sum() + (predictions == 1).sum())
    return 2 * both / either if either else 0.0


def accuracy(labels, predictions):
    return float((labels == predictions).mean())


def pearson(one, other):
    one, other = one - one.mean(), other - other.mean()
    norm = math.sqrt((one**2).sum() * (other**2).sum())
    return float((one * other).sum() / norm) if norm > 1e-9 else 0.0


def ranks(values):
    return np.array(
        [((values < x).sum() + (values <= x).sum() + 1) / 2 for x in values]
    )


def spearman(one, other):
    return pearson(ranks(one), ranks(other))


# The score of a task is the mean of these metrics.
METRICS = {
    "mrpc": (accuracy, f1),
    "mnli": (accuracy,),
    "stsb": (pearson, spearman),
}


def score(run, home, task, row, seed):
    """Score of one training, in percent, computed from its predictions."""
    path = folder_of(run, task, row, seed) / "predictions.safetensors"
    found = load_file(path)
    if task == "squad":
        # The columns are exact match and F1 of each question.
        return 100 * float(found["dev"][:, 1].mean())
    labels, splits = labels_of(home, task)
    said = np.concatenate([found[split] for split in splits])
    kinds = METRICS[task]
    return 100 * statistics.fmean(metric(labels, said) for metric in kinds)


@pytest.mark.parametrize("task", SEEDS)
def test_a_task_s_scores_are_those_of_its_predictions(run, report, home, task):
    rows = {row["name"]: row["tasks"][task] for row in report["tasks"]["rows"]}
    medians = {}
    for row, found in rows.items():
        by_seed = [score(run, home, task, row, seed) for seed in SEEDS[task]]
        medians[row] = statistics.median(by_seed)
        assert found["score"] == pytest.approx(medians[row], abs=1e-4)
        assert found["lowest"] == pytest.approx(min(by_seed), abs=1e-4)
        assert found["highest"] == pytest.approx(max(by_seed), abs=1e-4)
        assert found["seeds"] == len(SEEDS[task])
    if task != "squad":
        # Otherwise one row could pass for another.
        assert len({round(x, 3) for x in medians.values()}) == 3
    for row, found in rows.items():
        if found["retention"] is not None:
            assert found["retention"] == pytest.approx(
                100 * medians[row] / medians["teacher"], abs=1e-3
            )


def test_predictions_are_the_kept_model_s(run, home):
    """Recomputed on the file's texts with Keras's own forward pass."""
    for row in ROWS:
        folder = folder_of(run, "mrpc", row, 4)
        model = keras.saving.load_model(folder / "model.keras", compile=False)
        wanted = task_logits(home, "MRPC", "dev", model).argmax(-1)
        found = load_file(folder / "predictions.safetensors")["dev"]
        np.testing.assert_array_equal(found, wanted)


def task_logits(home, name, split, model):
    """Outputs of a model for pairs of letters, tokenised here."""
    path = home.root / "data" / name / f"{split}.tsv"
    columns = ("#1 String", "#2 String")
    if name == "MNLI":
        columns = ("sentence1", "sentence2")
    found = []
    for line in lines_of(path):
        first, second = (
            [5 + ord(x) - ord("a") for x in line[column].split()]
            for column in columns
        )
        # Ten tokens, seven of which are words: the longer text is cut until
        # both have the same length; the one odd word goes to the longer text.
        if len(first) + len(second) > 7:
            fewest = min(len(first), len(second), 3)
            if len(first) > len(second):
                first, second = first[: 7 - fewest], second[:fewest]
            else:
                first, second = first[:fewest], second[: 7 - fewest]
        tokens = [2, *first, 3, *second, 3]
        segments = [0] * (len(first) + 2) + [1] * (len(second) + 1)
        inputs = {
            "token_ids": np.array([tokens]),
            "segment_ids": np.array([segments]),
            "padding_mask": np.ones((1, len(tokens)), "int32"),
        }
        made = model({key: inputs[key] for key in model.input})
        found.append(made.numpy()[0])
    return np.stack(found)


def test_the_mean_over_tasks_is_that_of_their_scores(report):
    rows = {row["name"]: row for row in report["tasks"]["rows"]}
    for row in rows.values():
        scores = [task["score"] for task in row["tasks"].values()]
        assert list(row["tasks"]) == list(SEEDS)
        assert row["macro"]["score"] == pytest.approx(statistics.fmean(scores))
        if row["macro"]["retention"] is not None:
            assert row["macro"]["retention"] == pytest.approx(
                100 * row["macro"]["score"] / rows["teacher"]["macro"]["score"]
            )


def test_calibration_is_the_best_student_s_and_its_teacher_s(run, report, home):
    assert list(report["calibration"]) == ["mrpc", "mnli"]
    for task, found in report["calibration"].items():
        labels, splits = labels_of(home, task)
        assert list(found) == ["teacher", "student"]
        assert found["teacher"] != found["student"]
        for row, value in found.items():
            path = folder_of(run, task, row, BEST[task]) / "model.keras"
            model = keras.saving.load_model(path, compile=False)
            logits = np.concatenate(
                [task_logits(home, task.upper(), x, model) for x in splits]
            )
            probabilities = softmax(logits.astype("float64"))
            wanted = calibration_error(
                probabilities.max(-1), logits.argmax(-1) == labels
            )
            assert value == pytest.approx(wanted, abs=1e-5), (task, row)


def test_the_kept_model_is_the_trained_one(run):
    for fit in [*stages(run, "teacher"), *stages(run, "student")]:
        task, row, seed = fit.stage.split("/")
        kept = fit.callback(callbacks.BestEpoch).filepath
        assert kept == run.folder / "tasks" / task / row / seed / "model.keras"
        assert same(weights_of(models.load_task_model(kept)), fit.after)


def test_the_distiller_is_the_public_one(run):
    assert all(type(x.distiller) is keras_distil.Distiller for x in run.fits)
