"""What messages advise, carried out; `test_advice.py` has the table."""

import ast
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
from commands import keras_distil
from toy import make_student, make_teacher

from keras_distil import Distiller, config, data, export, losses, models
from keras_distil.cli.runs import find_workers
from keras_distil.cli.students import check_formats
from keras_distil.export.graph_tokenizer import GraphTokenizer
from keras_distil.export.report import REPORT_FILE
from keras_distil.models import forward
from keras_distil.models.task_model import kind_of, put_output
from keras_distil.planning import devices
from keras_distil.planning.measured import worker as calibration_worker
from keras_distil.runs import benchmarks, run_folder, sections
from keras_distil.runs.checks import check_lengths
from keras_distil.runs.tasks import task_root
from keras_distil.training import distribution, snapshots
from keras_distil.utils.progress import Progress

ROOT = Path(__file__).parents[1]


class ReachedError(RuntimeError):
    """What was asked for began."""


@pytest.fixture
def reached(monkeypatch):
    """Function of a name: what has it raises once it is called."""

    def put(name):
        def stop(*args, **kwargs):
            raise ReachedError(f"reached {name}")

        monkeypatch.setattr(f"keras_distil.{name}", stop)

    return put


@pytest.fixture(scope="module")
def teacher():
    return make_teacher()


def ends(capsys, *arguments):
    """The last line of a command that fails."""
    status, _, err = keras_distil(capsys, *arguments)
    assert status == 1
    return err.strip().splitlines()[-1]


# === Commands ===


def test_a_score_with_its_task(capsys, toy_recipe, reached):
    command = ["export", toy_recipe, "--model", "a.keras", "--score"]
    assert "add --task" in ends(capsys, *command)
    reached("runs.exports.export_file")
    assert "reached" in ends(capsys, *command, "--task", "rte")


def test_a_calibration_alone(capsys, toy_recipe, reached):
    command = ["plan", toy_recipe, "--calibrate"]
    assert "goes without --device" in ends(capsys, *command, "--device", "v100")
    reached("planning.measured.measure")
    assert "reached" in ends(capsys, *command)


def test_a_corpus_is_prepared_without_the_prepared_one(
    capsys, toy_recipe, reached
):
    command = ["prepare", toy_recipe, "--set", "data.prepared=folder"]
    said = ends(capsys, *command)
    [advice] = re.findall(r"use (--set \S+null)", said)
    reached("runs.corpus.make_corpus")
    assert "reached" in ends(capsys, *command, *advice.split())


def test_beam_with_its_output_and_without_workers(
    capsys, toy_recipe, reached, tmp_path
):
    command = ["prepare", toy_recipe, "--beam", "--direct_num_workers=2"]
    assert "needs `--output`" in ends(capsys, *command)
    command += ["--output", tmp_path / "corpus"]
    said = ends(capsys, *command, "--workers", "2")
    assert "--direct_num_workers" in said
    reached("runs.corpus.make_corpus_with_beam")
    assert "reached" in ends(capsys, *command)


def test_fewer_workers_prepare(capsys, toy_recipe, monkeypatch):
    asked = []

    def make(*args, workers, **kwargs):
        asked.append(workers)
        raise ReachedError("reached")

    monkeypatch.setattr("keras_distil.runs.corpus.make_corpus", make)
    assert "reached" in ends(capsys, "prepare", toy_recipe, "--workers", "1")
    assert asked == [1]


def test_workers_with_their_place(toy_recipe, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "")
    recipe = config.load_recipe(toy_recipe)
    for workers, index in (("a:1,b:2", None), (None, 1)):
        with pytest.raises(ValueError, match="need each other"):
            find_workers(recipe, workers, index)
    assert find_workers(recipe, "a:1,b:2", 1) == (1, 2)


def test_formats_are_taken(toy_recipe):
    recipe = config.load_recipe(toy_recipe)
    with pytest.raises(ValueError, match="must be one of") as refused:
        check_formats(recipe, ["onyx"])
    named = str(refused.value).partition("one of ")[2].partition(". Rec")[0]
    for name in named.split(", "):
        assert check_formats(recipe, [name]) == [name]


def test_an_override_of_the_form(toy_recipe):
    with pytest.raises(config.RecipeError, match="form key.path=value"):
        config.load_recipe(toy_recipe, ["seed"])
    assert config.load_recipe(toy_recipe, ["seed=3"]).seed == 3
    with pytest.raises(config.RecipeError) as refused:
        config.load_recipe(toy_recipe, ["teacher.license=a: b: c"])
    [form] = re.findall(r"'(teacher.license=\"...\")'", str(refused.value))
    override = form.replace("...", "a: b: c")
    found = config.load_recipe(toy_recipe, [override])
    assert found.teacher.license == "a: b: c"


def test_devices_are_known_by_the_names_that_are_told():
    with pytest.raises(ValueError, match="`--device` must be one") as refused:
        devices.find_device("v1000")
    [guess] = re.findall(r"Did you mean '(\w+)'", str(refused.value))
    named = str(refused.value).partition("one of ")[2].partition(".")[0]
    for name in [guess, *named.split(", ")]:
        devices.find_device(name)


def test_files_of_tasks_with_their_folder(toy_recipe, tmp_path):
    wanted = [
        "data.root=null",
        "finetune={tasks: [rte], source: files, rows: [student, teacher]}",
        f"data.sources=[{{kind: files, pattern: '{tmp_path}/text/*.txt'}}]",
    ]
    with pytest.raises(ValueError) as refused:
        task_root(config.load_recipe(toy_recipe, wanted))
    [advice] = re.findall(r"--set (data.root=)FOLDER", str(refused.value))
    found = config.load_recipe(toy_recipe, [*wanted, f"{advice}{tmp_path}"])
    assert task_root(found) == str(tmp_path)


def test_lengths_that_are_advised_pass(toy_recipe):
    for key, value in (
        ("data.sequence_length", "16"),
        ("evaluate.latency_length", "16"),
        ("export", "{formats: [litert_int4], lengths: [16]}"),
        ("export", "{formats: [saved_model], max_length: 16}"),
    ):
        change = [f"{key}={value}"]
        with pytest.raises(ValueError, match="Set it to 12") as refused:
            check_lengths(config.load_recipe(toy_recipe, change), 12, "it")
        [advice] = re.findall(r"--set (\S+)\.$", str(refused.value))
        check_lengths(config.load_recipe(toy_recipe, [*change, advice]), 12, "")


def test_a_slope_of_confidence_without_a_cache(toy_recipe):
    slope = "distill.losses.soft_target.confidence_slope=0.5"
    cache = "teacher.cache={top_k: 4}"
    with pytest.raises(config.RecipeError, match="remove it, or `teacher.cac"):
        config.load_recipe(toy_recipe, [slope, cache])
    config.load_recipe(toy_recipe, [slope])
    config.load_recipe(toy_recipe, [cache])


def test_tensorboard_comes_with_the_package():
    names = [
        re.split(r"[^\w-]", line)[0]
        for line in importlib.metadata.requires("keras-distil") or ()
    ]
    scripts = importlib.metadata.entry_points(group="console_scripts")
    assert "tensorboard" in names
    assert "tensorboard" in {script.name for script in scripts}


def test_what_is_installed_brings_what_is_needed():
    tree = ast.parse((ROOT / "setup.py").read_text())
    [extras] = [
        ast.literal_eval(keyword.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "extras_require"
    ]
    named = set()
    for path in (ROOT / "keras_distil").rglob("*.py"):
        named |= set(re.findall(r"keras-distil\[(\w+)\]", path.read_text()))
    assert {"beam", "onnx"} <= named <= set(extras)
    packages = {
        extra: {re.split(r"[^\w-]", line)[0] for line in lines}
        for extra, lines in extras.items()
    }
    assert packages["onnx"] == {"onnx", "onnxruntime"}
    assert packages["beam"] == {"apache-beam"}
    # `pip install tensorflow-datasets`, and its command `tfds build`.
    assert importlib.metadata.version("tensorflow-datasets")
    scripts = importlib.metadata.entry_points(group="console_scripts")
    assert {"tfds", "hf"} <= {script.name for script in scripts}


def test_the_hub_s_command_and_variable(tmp_path):
    def run(*arguments, **variables):
        return subprocess.run(
            [sys.executable, *arguments],
            env=os.environ | variables,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    said = run("-m", "huggingface_hub.cli.hf", "download", "--help")
    assert "--local-dir" in said and "--revision" in said
    code = "import huggingface_hub.constants as c; print(c.HF_HUB_CACHE)"
    assert run("-c", code, HF_HOME=str(tmp_path)).startswith(str(tmp_path))


# === Folders ===


def open_run(recipe, folder, **options):
    return run_folder.open_run(recipe, folder, Progress(quiet=True), **options)


def test_a_run_started_anew_has_no_training_state(toy_recipe, tmp_path):
    recipe = config.load_recipe(toy_recipe)
    run = open_run(recipe, tmp_path / "run")
    states = run.folder / "checkpoints"
    (states / "step-000000001").mkdir(parents=True)
    with pytest.raises(ValueError, match="Remove the folder, or start again"):
        snapshots.newest_snapshot(states, say=print)
    open_run(recipe, tmp_path / "run", fresh=True)
    assert snapshots.newest_snapshot(states, say=print) is None
    # The other half of the advice.
    (states / "step-000000001").mkdir(parents=True)
    (states / "step-000000001").rmdir()
    assert snapshots.newest_snapshot(states, say=print) is None


def test_another_folder_takes_another_recipe(toy_recipe, tmp_path):
    open_run(config.load_recipe(toy_recipe), tmp_path / "run")
    other = config.load_recipe(toy_recipe, ["distill.steps=9"])
    with pytest.raises(ValueError, match="another folder with --output, or "):
        open_run(other, tmp_path / "run")
    open_run(other, tmp_path / "second")
    with run_folder.locked(tmp_path / "run"):
        with run_folder.locked(tmp_path / "second"):
            pass
    open_run(other, tmp_path / "run", fresh=True)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a").touch()
    with pytest.raises(ValueError, match="Give another folder with --output"):
        open_run(other, tmp_path / "files")


def test_a_run_goes_on_with_the_commit_that_is_named(toy_recipe, tmp_path):
    source, began, later = "hf://someone/tiny", 40 * "a", 40 * "b"

    def open_with(name):
        recipe = config.load_recipe(toy_recipe, [f"teacher.source='{name}'"])
        return open_run(recipe, tmp_path / "run")

    run_folder.keep_commits(open_with(source), {source: began})
    with pytest.raises(ValueError, match="began with") as refused:
        run_folder.keep_commits(open_with(source), {source: later})
    [named] = re.findall(r"naming it as (\S+) in the", str(refused.value))
    run_folder.keep_commits(open_with(named), {named: began})


@pytest.fixture
def small_tokenizer(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    return data.load_tokenizer(tmp_path)


def test_an_export_with_a_damaged_report_is_written_again(
    golden_distil_bert, small_tokenizer, tmp_path
):
    model = models.load_teacher(golden_distil_bert)
    folder = tmp_path / "hugging_face"

    def write(**options):
        export.export_hugging_face(model, folder, small_tokenizer, **options)

    write()
    (folder / REPORT_FILE).write_text("{")
    with pytest.raises(ValueError, match="Export it again with --overwrite"):
        benchmarks._report(folder)
    with pytest.raises(FileExistsError, match="overwrite=True .--overwrite"):
        write()
    write(overwrite=True)
    assert benchmarks._report(folder)["precision"] == "float32"


def test_a_damaged_corpus_is_made_again(small_tokenizer, tmp_path):
    text = tmp_path / "text"
    text.mkdir()
    lines = [f"a b c d e f g h {'i j ' * (n % 5)}" for n in range(80)]
    (text / "a.txt").write_text("\n".join(lines))
    settings = {"sequence_length": 12, "held_out_fraction": 0.2}

    def prepare(**options):
        sources = [data.TextFiles("*.txt", root=text)]
        return data.prepare_corpus(
            sources,
            small_tokenizer,
            output=tmp_path / "corpus",
            **settings,
            **options,
        )

    made = prepare()
    shard = next((tmp_path / "corpus").glob("train*"))
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(data.CorpusError, match="remove the folder and prepare"):
        data.open_corpus(tmp_path / "corpus")
    shutil.rmtree(tmp_path / "corpus")
    again = prepare()
    assert again.train_sequences == made.train_sequences
    data.open_corpus(tmp_path / "corpus")
    with pytest.raises(ValueError, match="Give the folder that `keras-dist"):
        data.open_corpus(text)


# === Several workers ===


def test_slurm_s_variables_unset_or_replaced(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    for name in ("SLURM_PROCID", "SLURM_STEP_NODELIST", "SLURM_NODEID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="--workers and --worker-index, or"):
        distribution.find_workers()
    distribution.name_workers("a:1,b:2", 0)
    assert distribution.worker_index() == (0, 2)
    monkeypatch.setenv("TF_CONFIG", "")
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS")
    distribution.find_workers()
    assert distribution.worker_index() == (0, 1)


def test_the_variable_as_it_is_shown(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{}")
    with pytest.raises(ValueError, match="must look like") as refused:
        distribution.worker_index()
    example = str(refused.value).partition("look like ")[2].rstrip(".")
    json.loads(example)
    monkeypatch.setenv("TF_CONFIG", example)
    assert distribution.worker_index() == (0, 2)


# === Names to call ===


def test_a_hidden_gpu_is_calibrated_past(monkeypatch, toy_recipe):
    recipe = config.load_recipe(toy_recipe)
    found = ["GPU:0"]
    monkeypatch.setattr(
        "tensorflow.config.list_physical_devices", lambda kind: found
    )

    def function(recipe):
        return next(calibration_worker.updates(recipe))

    with pytest.raises(ValueError, match="instead of --calibrate, or hide"):
        function(recipe)
    found.clear()
    # What comes next.
    monkeypatch.setattr(
        sections, "distill_section", lambda recipe: pytest.fail("reached")
    )
    with pytest.raises(pytest.fail.Exception, match="reached"):
        function(recipe)
    # The other advice.
    devices.find_device("v100")


def test_losses_by_the_functions_that_are_named(teacher):
    student = make_student(teacher)
    with pytest.raises(ValueError, match="such as `losses.triple_loss.."):
        Distiller(teacher, student, [])
    Distiller(teacher, student, losses.triple_loss())
    for kind in losses.TASK_KINDS:
        outputs = 1 if kind == "regression" else 2
        model = models.task_model(teacher, kind, outputs)
        with pytest.raises((TypeError, ValueError)):
            Distiller(None, model, losses.triple_loss())
        Distiller(model, make_task_copy(model), losses.task_loss(kind))


def make_task_copy(model):
    """As the message about shared weights advises."""
    kind, outputs = kind_of(model), getattr(model, "num_classes", 1)
    shared = put_output(model.backbone, kind, outputs, dropout=0.0)
    with pytest.raises(ValueError, match="as `models.initialize_student` do"):
        Distiller(shared, model, losses.task_loss(kind))
    return models.initialize_student(model, 1)


def test_models_by_the_functions_that_are_named(teacher, golden_bert):
    with pytest.raises(TypeError, match="such as `models.load_teacher` and"):
        forward.check_masked_lm(teacher.backbone, "model")
    loaded = models.load_teacher(golden_bert)
    forward.check_masked_lm(loaded, "model")
    forward.check_masked_lm(models.initialize_student(loaded, 1), "model")


def test_an_optimizer_without_averages(teacher):
    import keras

    distiller = Distiller(teacher, make_student(teacher), losses.triple_loss())
    with pytest.raises(ValueError, match="Use use_ema=False") as refused:
        distiller.compile(keras.optimizers.Adam(use_ema=True))
    assert "\n" not in str(refused.value)
    distiller.compile(keras.optimizers.Adam(use_ema=False))
    for option, advice in (
        ({"clipnorm": 1.0}, {"clip_norm": 1.0}),
        ({"gradient_accumulation_steps": 2}, {"micro_batches": 2}),
    ):
        with pytest.raises(ValueError, match=rf"compile\({next(iter(advice))}"):
            distiller.compile(keras.optimizers.Adam(**option))
        distiller.compile(keras.optimizers.Adam(), **advice)


def test_precisions_that_are_advised(teacher):
    with pytest.raises(ValueError, match="Use 'mixed_bfloat16' or 'float32'"):
        Distiller(
            teacher,
            make_student(teacher, dtype="mixed_float16"),
            losses.triple_loss(),
        )
    for dtype in ("mixed_bfloat16", "float32"):
        student = make_student(teacher, dtype=dtype)
        Distiller(teacher, student, losses.triple_loss())


def test_layers_as_they_are_advised(teacher):
    with pytest.raises(ValueError, match='Use "alternate" or a list'):
        models.student_layer_indices(4, 2, "paper_code")
    assert models.student_layer_indices(4, 2, "alternate") == [0, 2]
    assert models.student_layer_indices(4, 2, [0, 3]) == [0, 3]
    with pytest.raises(ValueError) as refused:
        models.student_layer_indices(4, 2, "frist")
    [guess] = re.findall(r"Did you mean '(\w+)'", str(refused.value))
    assert models.student_layer_indices(4, 2, guess) == [0, 1]


@pytest.mark.slow
def test_a_tokenizer_that_keeps_accents(small_tokenizer):
    described = json.loads(small_tokenizer.to_str())
    vocabulary = described["model"]["vocab"]
    vocabulary["##\u302e"] = len(vocabulary)
    other = tokenizers.Tokenizer.from_str(json.dumps(described))
    with pytest.raises(ValueError, match="strip_accents=False"):
        GraphTokenizer(other)
    described["normalizer"]["strip_accents"] = False
    GraphTokenizer(tokenizers.Tokenizer.from_str(json.dumps(described)))


def test_a_tokenizer_by_the_function_that_is_named(small_tokenizer, teacher):
    from keras_distil.export.student import make_student as exported
    from keras_distil.export.vocabulary import check_vocabulary

    student = exported(teacher)
    with pytest.raises(TypeError, match="as `data.load_tokenizer` returns"):
        check_vocabulary(student, "vocab.txt")
    check_vocabulary(student, small_tokenizer)


def test_a_quantised_model_is_exported_as_it_was(teacher):
    from keras_distil.models.weights import copy_weights

    model = make_teacher()
    model.masked_lm_head._intermediate_dense.quantize("int8")
    with pytest.raises(ValueError, match="`export.export_litert` quantises"):
        copy_weights(model, make_teacher())
    copy_weights(teacher, make_teacher())
    assert {"dynamic_int8", "full_int8", "int4"} <= set(export.PRECISIONS)
