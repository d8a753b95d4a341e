"""Fixtures that more than one folder of tests uses."""

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

GOLDEN = Path(__file__).parent / "models" / "golden"

# By how long they take. Begun last, one of them would be waited for alone.
LONGEST = (
    "test_distribution.py",
    "test_recipe_runs.py",
    "test_cli.py",
    "test_recipe_search.py",
    "test_continuation.py",
    "test_killed_runs.py",
    "test_cache_making.py",
    "test_cached_recipe.py",
    "test_run_in_parts.py",
    "test_hypermodel.py",
    "test_task_stages.py",
    "test_export_stages.py",
    "test_litert.py",
    "test_race.py",
    "test_distiller.py",
    "test_workers.py",
    "test_interrupted.py",
    "test_prepare.py",
    "test_elmo.py",
    "test_training_state.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests of the longest files first, for pytest-xdist."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.fixture(autouse=True)
def signals_as_python_handles_them() -> None:
    """Takes away the handlers of a command that ran in this process.

    A command keeps them till its process ends: nothing may cut its last line.
    A test that waits for KeyboardInterrupt must not meet those of another.
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


@pytest.fixture
def toy_recipe(toy_teacher, tmp_path, monkeypatch) -> Path:
    """See `write_toy_recipe`."""
    monkeypatch.setenv("KERAS_DISTIL_CACHE", str(tmp_path / "cache"))
    recipe = tmp_path / "toy.yaml"
    write_toy_recipe(recipe, toy_teacher)
    return recipe


@pytest.fixture(scope="module")
def shared_toy_recipe(tmp_path_factory) -> Iterator[Path]:
    """A toy recipe that several tests run, with their cache."""
    folder = tmp_path_factory.mktemp("shared")
    write_toy_teacher(folder / "teacher")
    write_toy_recipe(folder / "toy.yaml", folder / "teacher")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_DISTIL_CACHE", str(folder / "cache"))
        yield folder / "toy.yaml"


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


@pytest.fixture(scope="module")
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
