"""Every recipe trains two steps on toy sizes."""

from pathlib import Path

import marks
import pytest
from toy import convert_litert_here, roberta_folder

from keras_distil import config, models
from keras_distil.runs import run_folder, stages
from keras_distil.utils.progress import Progress

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))

DATA = [
    "data.sources=[{kind: files, pattern: '*.txt'}]",
    "data.sequence_length=12",
    "evaluate={sequences: 4, batch_size: 4, latency_length: 8}",
]
TEACHER = [
    "teacher.train.steps=2",
    "teacher.train.batch_size=4",
    "teacher.train.warmup_steps=1",
    "teacher.train.initial_adapter=null",
    "teacher.train.rank=2",
]
DISTILL = [
    "student.num_layers=1",
    "student.layers=alternate",
    "distill.steps=2",
    "distill.batch_size=4",
    "distill.warmup_steps=1",
    "distill.micro_batches=2",
    # The step is what is tested here, not XLA's compilation.
    "distill.jit_compile=false",
]


TASKS = [
    "finetune.source=files",
    # A toy's training set has no tenth to give away.
    "finetune.selection=dev",
    "finetune.rows=[teacher, student]",
    "finetune.seeds=[0]",
    "finetune.stride=2",
    "finetune.max_question=2",
    "finetune.max_length=12",
    "finetune.batch_size=4",
    "finetune.epochs=1",
    "finetune.jit_compile=false",
    "evaluate={latency_length: 8}",
]


def test_there_are_recipes():
    assert len(RECIPES) >= 3


# Those of embeddings are trained by tests/runs/embeddings.
WITH_WORDS = [x for x in RECIPES if not x.stem.startswith("embeddings")]
# Those of text are like the quickstart, which the wheel's test runs.
OF_TASKS = [x for x in WITH_WORDS if x.stem in ("glue", "own_task")]


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    marks.essential(WITH_WORDS, *OF_TASKS),
    ids=lambda path: path.stem,
)
def test_it_trains_two_steps(
    path,
    toy_teacher,
    toy_recipe,
    toy_glue,
    toy_squad,
    tmp_path,
    monkeypatch,
    request,
):
    # A graph takes most of the time, and is the same for all.
    if path.stem != "quickstart":
        request.getfixturevalue("quick_runs")
    convert_litert_here(monkeypatch)
    given = config.load_recipe(path)
    if given.finetune is not None:
        squad = given.finetune.tasks == ["squad"]
        task, root = ("squad", toy_squad) if squad else ("rte", toy_glue)
        run_task(path, toy_teacher, task, root, tmp_path)
        return
    if "roberta" in path.stem:
        toy_teacher = roberta_folder(tmp_path / "roberta")
    overrides = [
        f"teacher.source={toy_teacher}",
        f"data.root={tmp_path / 'text'}",
        *DATA,
    ]
    if given.teacher.train is not None:
        overrides += TEACHER
    if given.distill is not None:
        overrides += DISTILL
    recipe = config.load_recipe(path, overrides)
    run = run_folder.open_run(recipe, tmp_path / "run", Progress(quiet=True))
    report = stages.run_recipe(run)
    assert run.report_path.is_file()
    trained = "student" if given.distill is not None else "teacher"
    assert report["rows"][trained]["mlm_loss"] > 0
    made = "student.keras" if given.distill is not None else "adapter"
    assert list(run.folder.glob(f"{made}*"))


def run_task(path, toy_teacher, task, root, tmp_path):
    given = config.load_recipe(path).student
    student = ["student.num_layers=1"]
    if given is not None and given.source is not None:
        file = tmp_path / "student.keras"
        teacher = models.load_teacher(toy_teacher)
        models.initialize_student(teacher, 1).save(file)
        student = [f"student.source={file}", f"student.baseline_source={file}"]
    recipe = config.load_recipe(
        path,
        [
            f"teacher.source={toy_teacher}",
            *student,
            f"data.root={root}",
            f"finetune.tasks=[{task}]",
            f"finetune.by_task={{{task}: {{epochs: 1}}}}",
            "finetune.unlabelled_share=null",
            *TASKS,
        ],
    )
    run = run_folder.open_run(recipe, tmp_path / "run", Progress(quiet=True))
    report = stages.run_recipe(run)
    assert [row["name"] for row in report["tasks"]["rows"]] == [
        "teacher",
        "student",
    ]
    lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    steps = [line for line in lines if f'"{task}/student/seed_0"' in line]
    # Of 4 examples each.
    assert len(steps) == 2
