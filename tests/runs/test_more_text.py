"""What students read besides the training set, in runs of toy models."""

import json

import numpy as np
import pytest
from test_finetuning import write_recipe

from keras_distil import callbacks, config, data, models
from keras_distil.runs import more_text, preflight, run_folder, stages, tasks
from keras_distil.utils.progress import Progress

pytestmark = pytest.mark.usefixtures("quick_runs")

BASELINE = "student.baseline_source={}"


class Said(Progress):
    """Progress that keeps its lines."""

    def __init__(self):
        super().__init__(quiet=True)
        self.lines = []

    def say(self, text):
        self.lines.append(text)


@pytest.fixture
def recipe_path(toy_teacher, toy_glue, tmp_path):
    (toy_glue / "more.tsv").write_text(
        "sentence1\tsentence2\nx y\tz\nq\t\n\t\nr s\tt u\n"
    )
    return write_recipe(tmp_path / "tasks.yaml", toy_teacher, toy_glue)


UNLABELLED = "finetune.by_task={rte: {unlabelled: more.tsv}}"


def make_run(recipe_path, folder, *overrides):
    recipe = config.load_recipe(
        recipe_path, ["finetune.tasks=[rte]", *overrides]
    )
    return run_folder.open_run(recipe, folder, Said())


def read(run, name="rte"):
    return more_text.add_unlabelled(run, tasks.load_task(run.recipe, name))


# === Unlabelled text ===


def test_unlabelled_text_is_encoded_as_the_training_set_is(
    recipe_path, tmp_path
):
    run = make_run(recipe_path, tmp_path / "run", UNLABELLED)
    task = read(run)
    tokenizer = more_text.load_tokenizer(run.recipe)
    rows = np.split(
        task.unlabelled.token_ids, task.unlabelled.starts[1:-1].tolist()
    )
    texts = [[tokenizer.id_to_token(int(i)) for i in row] for row in rows]
    assert [" ".join(text) for text in texts] == [
        "[CLS] x y [SEP] z [SEP]",
        "[CLS] q [SEP] [SEP]",
        "[CLS] r s [SEP] t u [SEP]",
    ]
    assert task.unlabelled.labels is None
    assert run.progress.lines == [
        "rte: 3 unlabelled examples, 1 more without any text"
    ]


def test_a_task_without_any_stays_as_it_is(recipe_path, tmp_path):
    run = make_run(recipe_path, tmp_path / "run")
    task = read(run)
    assert task.unlabelled is None and not run.progress.lines
    assert more_text.student_examples(run, task, {}) is task.train


def test_questions_are_cut_into_windows_without_labels(
    recipe_path, toy_squad, tmp_path
):
    record = {"question": "c", "context": "a b c d e f g h i j k l"}
    (toy_squad / "more.jsonl").write_text(json.dumps(record) + "\n")
    run = make_run(
        recipe_path,
        tmp_path / "run",
        *["finetune.tasks=[squad]", "finetune.max_question=4"],
        *["finetune.stride=2", f"data.root={toy_squad}"],
        "finetune.by_task={squad: {unlabelled: '*.jsonl'}}",
    )
    task = read(run, "squad")
    # Eight tokens of the context in each, two of which are shared.
    assert task.unlabelled.lengths.tolist() == [12, 10]
    assert task.unlabelled.labels is None
    mixed = more_text.student_examples(run, task, {})
    assert isinstance(mixed, data.Mixture) and mixed.augmented is None


def test_what_is_half_unknown_is_refused(recipe_path, toy_glue, tmp_path):
    (toy_glue / "more.tsv").write_text("sentence1\tsentence2\n1 2\t3 a\n")
    run = make_run(recipe_path, tmp_path / "run", UNLABELLED)
    with pytest.raises(ValueError, match="of the unlabelled text of rte"):
        read(run)


def test_wrong_files_are_refused_before_anything_is_done(
    recipe_path, toy_glue, tmp_path
):
    recipe = config.load_recipe(
        recipe_path, ["finetune.tasks=[rte]", UNLABELLED]
    )
    assert preflight.open_inputs(recipe) == []
    train = (toy_glue / "RTE" / "train.tsv").read_text()
    (toy_glue / "more.tsv").write_text(train)
    with pytest.raises(ValueError, match="must not hold labels.*'label'.*cut"):
        preflight.open_inputs(recipe)
    (toy_glue / "more.tsv").unlink()
    missing = "`finetune.by_task.rte.unlabelled`: No file matches .*'more"
    with pytest.raises(FileNotFoundError, match=missing):
        preflight.open_inputs(recipe)
    with pytest.raises(FileNotFoundError, match=missing):
        stages.run_recipe(make_run(recipe_path, tmp_path / "run", UNLABELLED))


def test_a_text_outside_of_the_root_needs_permission(recipe_path, tmp_path):
    (tmp_path / "more.tsv").write_text("sentence1\tsentence2\na\tb\n")
    outside = "finetune.by_task={rte: {unlabelled: ../more.tsv}}"
    with pytest.raises(ValueError, match=r"rte.unlabelled`: The pat.* leaves"):
        read(make_run(recipe_path, tmp_path / "1", outside))
    allowed = "data.allow_outside_root=true"
    task = read(make_run(recipe_path, tmp_path / "2", outside, allowed))
    assert len(task.unlabelled) == 1


# === Augmented text ===


def test_an_empty_text_is_refused_before_anything_is_done(
    recipe_path, toy_glue, tmp_path
):
    path = toy_glue / "RTE" / "train.tsv"
    path.write_text(path.read_text() + "8\t\t\tentailment\n")
    copies = "finetune.augment_copies=1"
    with pytest.raises(
        ValueError,
        match="The task rte: Examples must have text to augment. Received: 1 "
        'of 9 without any, the first comes after "l m n"',
    ):
        read(make_run(recipe_path, tmp_path / "1", copies))
    # As the message says.
    assert read(make_run(recipe_path, tmp_path / "2")).unlabelled is None
    # Without a student, nothing is augmented.
    rows = "finetune.rows=[teacher]"
    read(make_run(recipe_path, tmp_path / "3", copies, rows))


def test_copies_are_made_once_for_all_runs(
    recipe_path, toy_teacher, tmp_path, monkeypatch
):
    monkeypatch.setenv("KERAS_DISTIL_CACHE", str(tmp_path / "cache"))
    teacher = models.load_teacher(toy_teacher)
    lines, made = [], []
    for name in ("1", "2"):
        run = make_run(
            recipe_path,
            tmp_path / name,
            *["finetune.augment_copies=3", "finetune.augmented_share=0.5"],
        )
        mixed = more_text.student_examples(run, read(run), {"teacher": teacher})
        lines += run.progress.lines
        made.append(mixed)
    assert len(made[0].augmented) == 24 and made[0].augmented_share == 0.5
    assert [line.split(":")[0] for line in lines] == [
        "Augment rte",
        "Augmented rte",
    ]
    np.testing.assert_array_equal(
        made[0].augmented.token_ids, made[1].augmented.token_ids
    )
    assert len(list((tmp_path / "cache" / "augmented").glob("[!.]*"))) == 1


# === How many updates ===


@pytest.mark.parametrize(
    ("overrides", "student"),
    [
        ([], 2),
        (["finetune.augment_copies=2"], 6),
        (["finetune.augment_copies=2", "finetune.augmented_share=0.5"], 4),
        # Of 8 labelled and 3 unlabelled examples.
        ([UNLABELLED], 3),
        ([UNLABELLED, "finetune.unlabelled_share=0.75"], 8),
        (
            [
                UNLABELLED,
                *[
                    "finetune.augment_copies=20",
                    "finetune.unlabelled_share=0.5",
                ],
            ],
            84,
        ),
    ],
)
def test_student_and_baseline_have_as_many_updates(
    recipe_path, tmp_path, overrides, student
):
    run = make_run(
        recipe_path,
        tmp_path / "run",
        "finetune.rows=[teacher, student, baseline]",
        BASELINE.format(tmp_path / "student.keras"),
        *overrides,
    )
    task = read(run)
    counts = {
        row: more_text.count_epoch_steps(run.recipe, task, row, 4)
        for row in ("teacher", "student", "baseline")
    }
    assert counts == {"teacher": 2, "student": student, "baseline": student}
    alone = make_run(
        recipe_path,
        tmp_path / "alone",
        *["finetune.rows=[baseline]", "finetune.augment_copies=2"],
        BASELINE.format(tmp_path / "student.keras"),
        "student.source=null",
    )
    assert more_text.count_epoch_steps(alone.recipe, task, "baseline", 4) == 2


MIXED = (
    UNLABELLED,
    *("finetune.augment_copies=5", "finetune.augmented_share=0.25"),
    *("finetune.unlabelled_share=0.25", "finetune.epochs=2"),
    "checkpoint_steps=1",
)


@pytest.fixture
def finished(recipe_path, tmp_path, monkeypatch):
    """A finished run, and its report."""
    monkeypatch.setenv("KERAS_DISTIL_CACHE", str(tmp_path / "cache"))
    run = make_run(recipe_path, tmp_path / "run", *MIXED)
    return run, stages.run_recipe(run)


@pytest.mark.slow
@pytest.mark.essential
def test_a_whole_run_learns_from_all_of_it(finished):
    run, report = finished
    assert [row["name"] for row in report["tasks"]["rows"]] == [
        "teacher",
        "student",
    ]
    lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    logs = [json.loads(line) for line in lines]
    student = [x for x in logs if x["stage"] == "rte/student/seed_3"]
    # Half of each batch of 4 is labelled.
    assert len(student) == 2 * 4
    assert all(np.isfinite(x["soft_target_loss"]) for x in student)
    card = (run.folder / "MODEL_CARD.md").read_text()
    assert "learned from 5 copies of every example" in card
    assert "rte also learned from the text without labels in `more.tsv`" in card


@pytest.mark.slow
def test_a_student_goes_on_within_an_epoch(
    finished, recipe_path, tmp_path, monkeypatch
):
    """It ends with the weights of a training that was not interrupted."""
    end = callbacks.MetricsLog.on_train_batch_end

    def stop(self, batch, logs=None):
        end(self, batch, logs)
        # The second update of the second epoch of four.
        if "student" in self.stage and self.model.optimizer.iterations == 6:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(callbacks.MetricsLog, "on_train_batch_end", stop)
        with pytest.raises(KeyboardInterrupt):
            stages.run_recipe(make_run(recipe_path, tmp_path / "2", *MIXED))
    kept = "tasks/rte/student/seed_3"
    assert not (tmp_path / "2" / kept / "result.json").is_file()
    stages.run_recipe(make_run(recipe_path, tmp_path / "2", *MIXED))
    whole, again = (
        models.load_task_model(folder / kept / "model.keras").get_weights()
        for folder in (finished[0].folder, tmp_path / "2")
    )
    for one, other in zip(whole, again, strict=True):
        np.testing.assert_array_equal(one, other)
    steps = [
        line["step"]
        for line in map(
            json.loads,
            (tmp_path / "2" / "metrics.jsonl").read_text().splitlines(),
        )
        if line["stage"] == "rte/student/seed_3"
    ]
    assert steps[-1] == 8
