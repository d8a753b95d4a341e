"""Recipes with `finetune.teacher_cache`: runs, memory, sizes, errors."""

import json
import shutil
import weakref

import numpy as np
import pytest
import toy
from safetensors.numpy import load_file

from keras_distil import config, data, models, teachers
from keras_distil.planning import estimate
from keras_distil.runs import finetuning, run_folder, stages, task_teacher
from keras_distil.runs import tasks as run_tasks
from keras_distil.teachers.store import writing as store_writing
from keras_distil.utils.progress import Progress

pytestmark = pytest.mark.usefixtures("quick_runs")

CACHE = "finetune.teacher_cache=true"
RTE = "finetune.tasks=[rte]"


class Said(Progress):
    """Records the lines that it should print."""

    def __init__(self):
        super().__init__(quiet=True)
        self.lines = []

    def say(self, text):
        self.lines.append(text)


@pytest.fixture
def recipe_path(toy_teacher, toy_glue, tmp_path):
    student = tmp_path / "student.keras"
    models.initialize_student(models.load_teacher(toy_teacher), 1).save(student)
    path = tmp_path / "tasks.yaml"
    path.write_text(
        f"""
name: tasks
teacher: {{source: {toy_teacher}}}
student: {{source: {student}}}
data: {{root: {toy_glue}}}
finetune:
  tasks: [rte, stsb]
  source: files
  rows: [teacher, student]
  seeds: [3]
  max_length: 12
  epochs: 1
  batch_size: 4
  jit_compile: false
evaluate: {{latency_length: 8}}
"""
    )
    return path


def start(recipe_path, folder, *overrides):
    recipe = config.load_recipe(recipe_path, overrides)
    progress = Said()
    run = run_folder.open_run(recipe, folder, progress)
    return stages.run_recipe(run), progress.lines


def cache_of(folder, task="rte", seed=3):
    return folder / "tasks" / task / "teacher" / f"seed_{seed}" / "cache"


@pytest.mark.slow
def test_a_student_is_what_it_is_with_the_live_teacher(recipe_path, tmp_path):
    live, _ = start(recipe_path, tmp_path / "live", RTE)
    report, lines = start(recipe_path, tmp_path / "cached", RTE, CACHE)
    kept = "tasks/rte/student/seed_3/model.keras"
    one, other = (
        models.load_task_model(tmp_path / name / kept)
        for name in ("live", "cached")
    )
    for mine, theirs in zip(one.weights, other.weights, strict=True):
        # Hidden states of 16 bits; Adam's first updates take their signs.
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=5e-5)
    rows = [x["tasks"]["rows"] for x in (live, report)]
    for before, after in zip(*rows, strict=True):
        assert before["tasks"]["rte"]["score"] == after["tasks"]["rte"]["score"]
    assert set(report) == set(live)
    cached = teachers.CachedTaskTeacher(cache_of(tmp_path / "cached"))
    settings = cached.settings
    recipe = config.load_recipe(recipe_path)
    task = run_tasks.load_task(recipe, "rte")
    assert settings.task == "rte"
    assert settings.examples == [task.train.fingerprint]
    assert settings.labels == list(task.labels)
    assert settings.hidden_states == ["last"]
    assert settings.attention == []
    tokenizer = data.load_tokenizer(recipe.teacher.source)
    assert settings.tokenizer == data.tokenizer_hash(tokenizer)
    (first,) = (x for x in lines if x.startswith("Teacher caches: "))
    assert first.startswith("Teacher caches: 0.1 MB for 1 fine-tuned teacher, ")
    (second,) = (x for x in lines if x.startswith("Teacher cache: "))
    assert "0.1 MB for 8 examples of rte, in " in second
    assert "; about 0 s here" in second
    assert lines.index(first) < lines.index(second)


@pytest.mark.slow
def test_every_task_and_seed_has_its_own(recipe_path, tmp_path):
    start(
        recipe_path,
        tmp_path / "run",
        CACHE,
        "finetune.seeds=[1, 2]",
        "finetune.losses={label: {}, soft_target: {}}",
        "finetune.augment_copies=1",
    )
    found = {}
    for task in ("rte", "stsb"):
        for seed in (1, 2):
            cached = teachers.CachedTaskTeacher(
                cache_of(tmp_path / "run", task, seed)
            )
            assert cached.settings.task == task
            assert cached.settings.hidden_states == []
            # The student's examples: one augmented copy of each.
            assert [part.rows for part in cached._parts] == [8, 8]
            found[task, seed] = cached.settings.teacher.weights
    assert len(set(found.values())) == 4


@pytest.mark.slow
def test_layers_that_losses_read_are_kept(recipe_path, tmp_path):
    changes = [
        RTE,
        CACHE,
        "data.sequence_length=12",
        "finetune.losses={soft_target: {}, cosine: {layers: uniform}, "
        "hidden_mse: {layers: [[embeddings, embeddings], [0, 0]]}, "
        "attention_relation: {relation_heads: 4}}",
    ]
    plan = estimate.summarise(config.load_recipe(recipe_path, changes))
    start(recipe_path, tmp_path / "run", *changes)
    settings = teachers.CachedTaskTeacher(cache_of(tmp_path / "run")).settings
    assert settings.hidden_states == ["embeddings", 0, "last"]
    assert settings.attention == ["last"]
    told = plan["task_teacher_cache"]
    assert told["layers_of_hidden_states"] == 3
    assert told["layers_of_attention"] == 1
    layout = settings.layout
    a_token = layout.record_bytes(2) - layout.record_bytes(1)
    assert told["bytes_per_token"] == a_token == 16 * (3 * 2 + 3 * 2)


def test_a_plan_without_caches_says_nothing_of_them(recipe_path):
    recipe = config.load_recipe(recipe_path, ["data.sequence_length=12"])
    plan = estimate.summarise(recipe)
    assert "task_teacher_cache" not in plan


@pytest.mark.slow
@pytest.mark.essential
def test_no_teacher_is_in_memory_while_a_student_learns(
    recipe_path, tmp_path, monkeypatch
):
    loaded, alive = [], []
    load, fit = task_teacher.load_task_model, finetuning.fit_steps

    def watched(*args, **kwargs):
        model = load(*args, **kwargs)
        loaded.append(weakref.ref(model))
        return model

    def observed(run, stage, *args, **kwargs):
        if "/student/" in stage:
            alive.append([ref() is not None for ref in loaded])
        fit(run, stage, *args, **kwargs)

    monkeypatch.setattr(task_teacher, "load_task_model", watched)
    monkeypatch.setattr(finetuning, "fit_steps", observed)
    start(recipe_path, tmp_path / "run", RTE, CACHE)
    assert alive == [[False]]


@pytest.mark.slow
def test_a_run_goes_on_with_the_shards_it_has(
    recipe_path, tmp_path, monkeypatch
):
    from keras_distil.teachers.tasks import writing

    monkeypatch.setattr(writing, "_SHARD_TOKENS", 8)
    start(recipe_path, tmp_path / "whole", RTE, CACHE)
    write, written = store_writing.write_records, []

    def fails(path, records):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path.name)
        return write(path, records)

    with monkeypatch.context() as patch:
        patch.setattr(store_writing, "write_records", fails)
        with pytest.raises(KeyboardInterrupt):
            start(recipe_path, tmp_path / "broken", RTE, CACHE)
    assert not cache_of(tmp_path / "broken").exists()

    def counted(path, records):
        written.append(path.name)
        return write(path, records)

    with monkeypatch.context() as patch:
        patch.setattr(store_writing, "write_records", counted)
        start(recipe_path, tmp_path / "broken", RTE, CACHE)
    assert len(set(written)) == len(written) > 3
    one, other = (
        {x.name: x.read_bytes() for x in cache_of(tmp_path / name).iterdir()}
        for name in ("whole", "broken")
    )
    assert one == other
    kept = "tasks/rte/student/seed_3/predictions.safetensors"
    for name, found in load_file(tmp_path / "whole" / kept).items():
        again = load_file(tmp_path / "broken" / kept)[name]
        np.testing.assert_array_equal(again, found)
    # A finished student needs no cache, and none is made.
    shutil.rmtree(cache_of(tmp_path / "broken"))
    (tmp_path / "broken" / "report.json").unlink()
    _, lines = start(recipe_path, tmp_path / "broken", RTE, CACHE)
    assert not cache_of(tmp_path / "broken").exists()
    assert not any("Teacher cache" in line for line in lines)


@pytest.mark.slow
def test_the_cache_of_another_teacher_is_refused(recipe_path, tmp_path):
    folder = tmp_path / "run"
    start(recipe_path, folder, RTE, CACHE)
    shutil.rmtree(folder / "tasks" / "rte" / "student")
    (folder / "report.json").unlink()
    path = cache_of(folder).parent / "model.keras"
    model = toy.randomize(models.load_task_model(path), seed=1)
    model.save(path)
    with pytest.raises(
        data.CorpusError, match="another cache of a teacher: teacher.weights="
    ):
        start(recipe_path, folder, RTE, CACHE)


def test_a_disk_that_is_too_small_is_said_first(
    recipe_path, tmp_path, monkeypatch
):
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(task_teacher.shutil, "disk_usage", lambda path: usage)

    def trained(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(finetuning, "train_rows", trained)
    recipe = config.load_recipe(recipe_path, [CACHE])
    progress = Said()
    run = run_folder.open_run(recipe, tmp_path / "run", progress)
    with pytest.raises(KeyboardInterrupt):
        stages.run_recipe(run)
    assert "Teacher caches: 0.3 MB for 2 fine-tuned teachers, in " in "".join(
        progress.lines
    )
    assert progress.lines[-1].startswith(
        "Warning: the disk is too small for all of these caches: free some"
    )


def test_a_cache_that_no_student_reads(recipe_path):
    with pytest.raises(
        config.RecipeError,
        match="finetune.teacher_cache: needs the row student, which reads it; "
        "add it to `rows`, or remove `teacher_cache`. Received: true.",
    ):
        config.load_recipe(recipe_path, [CACHE, "finetune.rows=[teacher]"])


@pytest.mark.slow
def test_answers_in_texts_are_learned_from_a_cache(
    recipe_path, toy_squad, tmp_path
):
    changes = [
        *["finetune.tasks=[squad]", "finetune.max_question=4"],
        *["finetune.stride=2", f"data.root={toy_squad}", CACHE],
    ]
    report, _ = start(recipe_path, tmp_path / "run", *changes)
    cached = teachers.CachedTaskTeacher(cache_of(tmp_path / "run", "squad"))
    assert (cached.kind, cached.settings.num_outputs) == ("span", 2)
    names = [row["name"] for row in report["tasks"]["rows"]]
    assert names == ["teacher", "student"]
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert any("teacher_agreement" in x for x in found)
