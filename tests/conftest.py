"""Fixtures that several folders of tests use."""

import contextlib
import dataclasses
import gc
import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pool
import pytest
from safetensors.numpy import load_file, save_file

GOLDEN = Path(__file__).parent / "models" / "golden"


def spare_garbage_collector() -> None:
    """Excludes all current objects from garbage collection.

    Models make many collections necessary, and each would go through the
    million objects that importing TensorFlow and Keras leaves, and through
    what they keep of earlier models: half of the time of all tests. What is
    garbage by now stays until the process ends, in a gigabyte or two: finding
    it would take longer than the tests that left it.
    """
    gc.freeze()


def pytest_collection_finish() -> None:
    """Excludes the objects left by importing the tests."""
    spare_garbage_collector()
    # Tracing allocates a lot and frees little, so this saves a tenth of it.
    gc.set_threshold(20_000, 20, 100)


def pytest_configure(config: pytest.Config) -> None:
    # Hooks of this file are not asked about fixtures of the whole session.
    config.pluginmanager.register(pool)


@pytest.fixture(autouse=True, scope="module")
def _spare_garbage_collector() -> Iterator[None]:
    yield
    spare_garbage_collector()


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory) -> Iterator[None]:
    """Keeps the tests and the user's cache out of each other."""
    with pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.mktemp("cache")
        patch.setenv("KERAS_DISTIL_CACHE", str(cache))
        yield


@pytest.fixture(autouse=True, scope="module")
def _own_randomness() -> Iterator[None]:
    """Leaves neither deterministic operations nor a seed to other modules.

    A run in this process turns both on. If another test then forgets the seed,
    everything that draws without one fails, depending on the order of tests.
    """
    yield
    if "tensorflow" in sys.modules:
        import tensorflow as tf
        from tensorflow.python.framework import config

        config.disable_op_determinism()  # There is no public name for it.
        tf.random.set_seed(None)


@pytest.fixture(autouse=True)
def signals_as_python_handles_them() -> None:
    """Removes the signal handlers of a command that ran in this process.

    A command keeps them until its process ends, so nothing cuts off its last
    line. A test that waits for KeyboardInterrupt must not meet another's.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture
def golden_bert() -> Path:
    """A Hugging Face directory: BERT of 2 layers, width 16, 64 words."""
    return GOLDEN / "bert"


@pytest.fixture
def golden_distil_bert() -> Path:
    """A Hugging Face directory: DistilBERT of the same sizes."""
    return GOLDEN / "distil_bert"


@pytest.fixture
def edit_checkpoint(tmp_path) -> Callable[..., Path]:
    """Copies a Hugging Face directory, with other tensors or settings.

    `tensors` is a function from the dict of tensors to a new one, `config`
    holds settings to replace; None removes a setting.
    """

    def edit(source, *, tensors=None, config=None):
        target = tmp_path / "checkpoint"
        shutil.copytree(source, target)
        if tensors is not None:
            file = target / "model.safetensors"
            save_file(tensors(load_file(file)), file)
        settings = json.loads((target / "config.json").read_text())
        settings.update(config or {})
        settings = {k: v for k, v in settings.items() if v is not None}
        (target / "config.json").write_text(json.dumps(settings))
        return target

    return edit


def write_toy_teacher(folder: Path) -> None:
    """The golden BERT with a vocabulary of letters, 12 positions."""
    shutil.copytree(GOLDEN / "bert", folder)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    words += [f"##{letter}" for letter in letters] + list(".,;:!?-")
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")


def write_toy_recipe(path: Path, teacher: Path) -> None:
    """A recipe that distils the toy teacher in a few seconds, and its text."""
    text = path.parent / "text"
    text.mkdir()
    lines = [f"line {number} tells of number {number}." for number in range(80)]
    (text / "lines.txt").write_text("\n".join(lines) + "\n")
    # Corpora are identified by names, sizes and times.
    os.utime(text / "lines.txt", (1_000_000_000, 1_000_000_000))
    path.write_text(
        f"""
name: toy
teacher:
  source: {teacher}
student:
  num_layers: 1
  dropout: 0.0
data:
  root: {text}
  sources:
    - kind: files
      pattern: "*.txt"
  sequence_length: 12
  held_out_fraction: 0.2
distill:
  steps: 3
  batch_size: 4
  learning_rate: 1e-3
  # XLA would take most of the time; the chunked losses test it.
  jit_compile: false
evaluate:
  sequences: 8
  batch_size: 4
  latency_length: 8
"""
    )


@pytest.fixture
def toy_teacher(tmp_path) -> Path:
    """See `write_toy_teacher`."""
    folder = tmp_path / "teacher"
    write_toy_teacher(folder)
    return folder


@pytest.fixture(scope="session")
def toy_corpora(tmp_path_factory) -> Path:
    """Corpora of toy recipes, each prepared once per process."""
    return tmp_path_factory.mktemp("corpora")


@pytest.fixture
def toy_recipe(toy_teacher, tmp_path, monkeypatch, toy_corpora) -> Path:
    """A separate recipe in `tmp_path`, see `write_toy_recipe`.

    It also has a separate cache, except for prepared corpora.
    """
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "corpora").symlink_to(toy_corpora)
    monkeypatch.setenv("KERAS_DISTIL_CACHE", str(tmp_path / "cache"))
    recipe = tmp_path / "toy.yaml"
    write_toy_recipe(recipe, toy_teacher)
    return recipe


@pytest.fixture
def eager_steps() -> Iterator[None]:
    """Makes models train without a graph in a test, see `toy.eager_steps`."""
    import toy  # imports TensorFlow, which not every test needs

    with toy.eager_steps():
        yield


@pytest.fixture
def quick_runs() -> Iterator[None]:
    """Makes toy runs take half as long in a test, see `toy.quick_runs`.

    For tests that check what a run writes, says or resumes from, but not its
    graph or its pictures.
    """
    import toy

    with toy.quick_runs():
        yield


@pytest.fixture(scope="session")
def _shared_toy_folder(tmp_path_factory, toy_corpora) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    (folder / "cache").mkdir()
    (folder / "cache" / "corpora").symlink_to(toy_corpora)
    write_toy_teacher(folder / "teacher")
    write_toy_recipe(folder / "toy.yaml", folder / "teacher")
    return folder


@pytest.fixture(scope="module")
def shared_toy_recipe(_shared_toy_folder) -> Iterator[Path]:
    """A toy recipe that all tests of this process share, with their cache.

    Its corpus is prepared once. Never change the files next to it.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_DISTIL_CACHE", str(_shared_toy_folder / "cache"))
        yield _shared_toy_folder / "toy.yaml"


@dataclasses.dataclass(frozen=True)
class ToyRun:
    """A finished run; see the fixture `toy_run`.

    Attributes:
        recipe_path: the recipe's file.
        overrides: dotlist of the command's changes to it.
        command: the words after `keras-distil`.
        folder: the run's folder. Never change it.
        printed: what the command wrote to standard output.
    """

    recipe_path: Path
    overrides: list[str]
    command: list[str]
    folder: Path
    printed: str

    def copy(self, folder: Path) -> Path:
        """Copies the run's folder to `folder`, for a test that changes it."""
        return shutil.copytree(self.folder, folder)


@pytest.fixture(scope="session")
def toy_run(_shared_toy_folder) -> ToyRun:
    """A finished `keras-distil run` of the toy recipe, with a baseline.

    Made once per process. Use it instead of a separate run wherever a test
    only reads the folder, or changes a copy of it.
    """
    import commands
    import toy

    folder = _shared_toy_folder / "run"
    # A space in the name, which commands must quote.
    recipe = shutil.copy(
        _shared_toy_folder / "toy.yaml", _shared_toy_folder / "my toy.yaml"
    )
    overrides = ["distill.baseline=true"]
    command = ["run", str(recipe), "--output", str(folder)]
    command += ["--set", *overrides]
    printed = io.StringIO()
    with (
        toy.eager_steps(),
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(printed),
    ):
        patch.setenv("KERAS_DISTIL_CACHE", str(_shared_toy_folder / "cache"))
        status = commands.run_command(*command)
    assert status == 0
    return ToyRun(recipe, overrides, command, folder, printed.getvalue())


def write_toy_glue(folder: Path) -> None:
    """GLUE's files of RTE, STS-B and CoLA, with 8 examples of letters each."""
    for split in ("train", "dev"):
        pairs = [("a b c", "a b"), ("d e", "f g h i"), ("k", "k"), ("l", "m n")]
        rte = ["index\tsentence1\tsentence2\tlabel"]
        stsb = [
            "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\t"
            "sentence1\tsentence2\tscore"
        ]
        cola = []
        for number, (one, other) in enumerate(pairs * 2):
            word = ("entailment", "not_entailment")[number % 2]
            rte.append(f"{number}\t{one}\t{other}\t{word}")
            score = (number * 1.7) % 5
            stsb.append(
                f"{number}\tx\tx\tx\t{number}\tx\tx\t{one}\t{other}\t"
                f"{score:.2f}"
            )
            cola.append(f"x\t{number % 2}\t*\t{one} {other}")
        for name, lines in (("RTE", rte), ("STS-B", stsb), ("CoLA", cola)):
            path = folder / name / f"{split}.tsv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def toy_glue(tmp_path) -> Path:
    """See `write_toy_glue`."""
    folder = tmp_path / "glue"
    write_toy_glue(folder)
    return folder


@pytest.fixture(scope="session")
def shared_toy_glue(tmp_path_factory) -> Path:
    """See `write_toy_glue`; several tests read it."""
    folder = tmp_path_factory.mktemp("glue")
    write_toy_glue(folder)
    return folder


@pytest.fixture
def toy_squad(tmp_path) -> Path:
    """SQuAD files, version 1.1, with 8 questions of letters each."""
    folder = tmp_path / "squad"
    folder.mkdir()
    for split in ("train", "dev"):
        questions = [
            {
                "id": f"{split}{number}",
                "question": letter,
                "answers": [{"text": letter, "answer_start": 2 * number}],
            }
            for number, letter in enumerate("abcdefgh")
        ]
        paragraph = {"context": "a b c d e f g h", "qas": questions}
        article = {"title": "x", "paragraphs": [paragraph]}
        content = {"version": "1.1", "data": [article]}
        path = folder / f"{split}-v1.1.json"
        path.write_text(json.dumps(content))
    return folder
