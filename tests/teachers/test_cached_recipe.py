"""Recipes with `teacher.cache`: runs, memory, sizes, errors."""

import json
import shutil
import weakref

import pytest

from keras_distil import config, teachers
from keras_distil.cli import app
from keras_distil.planning import caches as planned_caches
from keras_distil.planning import estimate
from keras_distil.runs import distillation, run_folder, stages
from keras_distil.runs import teacher as run_teacher
from keras_distil.utils.progress import Progress

pytestmark = pytest.mark.usefixtures("quick_runs")

CACHE = "teacher.cache={top_k: 8, maskings: 2}"


class Said(Progress):
    """Records the lines that it should print."""

    def __init__(self):
        super().__init__(quiet=True)
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def run(toy_recipe, folder, *overrides):
    recipe = config.load_recipe(toy_recipe, overrides)
    progress = Said()
    made = run_folder.open_run(recipe, folder, progress)
    return stages.run_recipe(made)["rows"], progress.lines


@pytest.fixture
def untrained(monkeypatch):
    """Makes runs write their cache without training from it."""
    monkeypatch.setattr(
        distillation, "fit_on_text", lambda *args, **kwargs: None
    )


def cli_error(capsys, monkeypatch, *arguments):
    """The one line with which the command fails."""
    monkeypatch.setattr("sys.argv", ["keras-distil", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 1
    errors = capsys.readouterr().err.splitlines()
    assert "Traceback" not in "".join(errors)
    return errors[-1]


def caches(tmp_path):
    return sorted((tmp_path / "cache" / "teacher_outputs").glob("[!.]*"))


@pytest.mark.slow
def test_all_logits_train_as_the_live_teacher(toy_recipe, toy_run, tmp_path):
    assert toy_run.overrides == ["distill.baseline=true"]
    report = json.loads((toy_run.folder / "report.json").read_text())
    live = report["rows"]
    rows, lines = run(
        toy_recipe,
        tmp_path / "run",
        "teacher.cache={top_k: 64}",
        "distill.baseline=true",
    )
    assert len([x for x in lines if x.startswith("Teacher cache: ")]) == 1
    for name, row in live.items():
        for key in ("mlm_loss", "mlm_accuracy", "teacher_agreement"):
            assert rows[name][key] == pytest.approx(row[key], rel=1e-4), name
    assert rows["baseline"]["mlm_loss"] == live["baseline"]["mlm_loss"]
    (folder,) = caches(tmp_path)
    # The other settings of a cache follow from the recipe; what training does
    # not reach is not written.
    settings = teachers.CachedTeacher(folder).settings
    assert settings.maskings == 1
    assert settings.hidden_states


@pytest.mark.slow
def test_settings_of_the_cache_are_the_recipe_s(
    toy_recipe, tmp_path, untrained
):
    run(
        toy_recipe,
        tmp_path / "run",
        CACHE,
        "distill.steps=16",
        "distill.batch_size=32",
        "distill.losses.cosine.weight=0",
        "distill.losses.soft_target.positions=masked",
        "distill.schedules.soft_target.temperature="
        "{kind: linear, start: 4, end: 1, steps: 15}",
        "data.masking={rate: 0.3, rare_token_exponent: 0.5}",
        "seed=7",
    )
    (folder,) = caches(tmp_path)
    settings = teachers.CachedTeacher(folder).settings
    assert (settings.top_k, settings.maskings) == (8, 2)
    assert settings.positions == "masked"
    assert not settings.hidden_states
    assert (settings.temperatures[0], settings.temperatures[-1]) == (1.0, 4.0)
    masking = settings.masking
    assert (masking.rate, masking.rare_token_exponent) == (0.3, 0.5)
    assert masking.seed == 7


@pytest.mark.slow
def test_a_loss_on_attention_is_trained_from_the_cache(toy_recipe, tmp_path):
    changes = [
        CACHE,
        "distill.losses={soft_target: {}, attention_relation: "
        "{relation_heads: 4}, attention_transfer: {weight: 0}}",
    ]
    plan = estimate.summarise(config.load_recipe(toy_recipe, changes))
    rows, _ = run(toy_recipe, tmp_path / "run", *changes)
    assert rows["student"]["mlm_loss"] > 0
    (folder,) = caches(tmp_path)
    settings = teachers.CachedTeacher(folder).settings
    assert (settings.attention_heads, settings.hidden_states) == (2, False)
    # 8 logits, one tail, and three vectors of 16 numbers in 16 bits.
    assert plan["teacher_cache"]["attention"] is True
    assert plan["teacher_cache"]["bytes_per_token"] == 4 * 8 + 4 + 3 * 16 * 2


@pytest.mark.slow
def test_the_teacher_leaves_memory_while_the_student_learns(
    toy_recipe, tmp_path, monkeypatch
):
    loaded, alive = [], []
    load, fit = run_teacher.load_teacher, distillation.fit_on_text

    def watched(*args, **kwargs):
        model = load(*args, **kwargs)
        loaded.append(weakref.ref(model))
        return model

    def observed(*args, **kwargs):
        alive.append([ref() is not None for ref in loaded])
        fit(*args, **kwargs)

    monkeypatch.setattr(run_teacher, "load_teacher", watched)
    monkeypatch.setattr(distillation, "fit_on_text", observed)
    run(toy_recipe, tmp_path / "run", CACHE)
    assert alive == [[False]]
    # And it is loaded again to score the student and to compare with it.
    assert len(loaded) >= 2
    assert (tmp_path / "run" / "side_by_side.json").is_file()


@pytest.mark.slow
def test_a_trained_teacher_is_cached_and_found_again(toy_recipe, tmp_path):
    train = (
        "teacher.train={method: all_weights, steps: 2, batch_size: 4, "
        "learning_rate: 1e-2}"
    )
    live, _ = run(toy_recipe, tmp_path / "live", train)
    rows, _ = run(
        toy_recipe, tmp_path / "run", train, "teacher.cache={top_k: 64}"
    )
    for name in ("teacher", "student"):
        assert rows[name]["mlm_loss"] == pytest.approx(
            live[name]["mlm_loss"], rel=1e-4
        )


@pytest.mark.parametrize(
    ("layout", "prepared"),
    [
        ("packed", False),
        pytest.param("bucketed", True, marks=pytest.mark.slow),
        pytest.param("packed", True, marks=pytest.mark.slow),
        pytest.param("bucketed", False, marks=pytest.mark.slow),
    ],
)
def test_the_plan_tells_the_size(
    toy_recipe, tmp_path, capsys, monkeypatch, untrained, prepared, layout
):
    changes = [CACHE, "distill.steps=40", f"data.layout={layout}"]
    live = estimate.summarise(config.load_recipe(toy_recipe, changes[1:]))
    assert "teacher_cache" not in live
    if prepared:
        arguments = ["prepare", toy_recipe, "--output", tmp_path / "corpus"]
        arguments += ["--set", f"data.layout={layout}"]
        monkeypatch.setattr("sys.argv", ["x", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            app.main()
        assert ended.value.code == 0
        changes.append(f"data.prepared={tmp_path / 'corpus'}")
    recipe = config.load_recipe(toy_recipe, changes)
    summary = estimate.summarise(recipe)
    cache = summary["teacher_cache"]
    # 8 logits and ids of 2 bytes, a tail of 4; 16 hidden states of 2 bytes.
    assert cache["bytes_per_token"] == 8 * 4 + 4 + 16 * 2
    assert cache["gb_per_million_tokens_of_text"] == round(2 * 68 / 1e3, 3)
    assert summary["memory_gb_per_device"]["teacher_weights"] == 0
    assert summary["gflop_per_token"]["teacher_forward"] == 0
    for section in ("memory_gb_per_device", "gflop_per_token"):
        assert summary[section]["total"] <= live[section]["total"]
    if not prepared:
        assert cache["total_gb"] == "known once the corpus is prepared"
        return
    monkeypatch.setattr(
        planned_caches, "round", lambda value, digits: value, raising=False
    )
    total_gb = estimate.summarise(recipe)["teacher_cache"]["total_gb"]
    run(toy_recipe, tmp_path / "run", *changes)
    (folder,) = caches(tmp_path)
    made = sum(path.stat().st_size for path in folder.glob("*.array_record"))
    assert total_gb * 1e9 == made


@pytest.mark.slow
def test_top_k_above_the_vocabulary(toy_recipe, capsys, monkeypatch, tmp_path):
    overrides = ["--set", "teacher.cache={top_k: 65}"]
    line = cli_error(
        capsys, monkeypatch, "run", toy_recipe, "--dry-run", *overrides
    )
    assert "`teacher.cache.top_k` must be at most 64" in line
    line = cli_error(
        capsys,
        monkeypatch,
        "run",
        toy_recipe,
        "--output",
        tmp_path / "run",
        *overrides,
    )
    assert "`top_k` must be from 1 to 64. Received: top_k=65." in line


@pytest.mark.slow
def test_a_disk_that_is_too_small(toy_recipe, capsys, monkeypatch, tmp_path):
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    line = cli_error(
        capsys,
        monkeypatch,
        *["run", toy_recipe, "--output", tmp_path / "run", "--set", CACHE],
    )
    assert "MB more, and" in line
    assert "Lower `top_k` or `maskings`" in line


@pytest.mark.slow
def test_a_damaged_cache(toy_recipe, capsys, monkeypatch, tmp_path):
    run(toy_recipe, tmp_path / "run", CACHE)
    (folder,) = caches(tmp_path)
    shard = next(folder.glob("*.array_record"))
    shard.write_bytes(shard.read_bytes()[:100])
    line = cli_error(
        capsys,
        monkeypatch,
        *["run", toy_recipe, "--output", tmp_path / "again", "--set", CACHE],
    )
    assert "has 100 bytes, but its manifest says" in line
    assert line.endswith("Remove the cache's folder and make it again.")


def test_a_cache_that_nothing_reads(toy_recipe, capsys, monkeypatch):
    line = cli_error(
        capsys,
        monkeypatch,
        *["run", toy_recipe, "--set", CACHE, "--set", "distill=null"],
        *["--set", "student=null"],
    )
    assert "required with `teacher.cache`, which it reads" in line
