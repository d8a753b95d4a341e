"""A toy recipe of sentence embeddings, and a run of it."""

import json
from pathlib import Path

import pytest
import toy
from commands import run_command

from keras_distil import models

LETTERS = "abcdefghijklmnopqrst"


def write_scored(folder: Path) -> None:
    """Writes pairs with a similarity, and a set for retrieval."""
    pairs = [
        f"line {one}\tline {other}\t{abs(ord(one) - ord(other))}"
        for one, other in zip("abcdef", "bdfaec", strict=True)
    ]
    lines = ["sentence1\tsentence2\tscore", *pairs]
    (folder / "sts.tsv").write_text("\n".join(lines) + "\n")
    found = folder / "found"
    found.mkdir()
    for name, texts in (("corpus", "abcdef"), ("queries", "abc")):
        entries = [json.dumps({"_id": x, "text": f"is {x}"}) for x in texts]
        (found / f"{name}.jsonl").write_text("\n".join(entries))
    qrels = "".join(f"{x}\t{x}\t1\n" for x in "abc")
    (found / "qrels.tsv").write_text(qrels)


def write_recipe(folder: Path, teacher: Path) -> Path:
    """Writes a recipe, its teacher, its text and what models are scored on."""
    encoder = models.load_teacher(teacher)
    models.embedding_model(encoder).save(folder / "embedder.keras")
    text = [
        f"line {one} tells of {other}. So {other} is {one}."
        for one in LETTERS[:8]
        for other in LETTERS[8:]
    ]
    (folder / "text.txt").write_text("\n".join(text) + "\n")
    write_scored(folder)
    path = folder / "embed.yaml"
    path.write_text(
        f"""
name: embed
teacher:
  source: {folder / "embedder.keras"}
student:
  num_layers: 1
  dropout: 0.0
data:
  root: {folder}
  sources:
    - kind: files
      pattern: "*.txt"
  sequence_length: 12
  held_out_fraction: 0.3
distill:
  task: embedding
  steps: 4
  batch_size: 8
  learning_rate: 1e-2
  jit_compile: false
evaluate:
  sts: sts.tsv
  retrieval: found
  samples: 2
"""
    )
    return path


@pytest.fixture(scope="session")
def _embedding_folder(tmp_path_factory, _shared_toy_folder):
    folder = tmp_path_factory.mktemp("embeddings")
    write_recipe(folder, _shared_toy_folder / "teacher")
    return folder


@pytest.fixture
def embed_recipe(_embedding_folder, monkeypatch) -> Path:
    """A recipe that all tests of this process share, with their cache."""
    cache = _embedding_folder / "cache"
    monkeypatch.setenv("KERAS_DISTIL_CACHE", str(cache))
    return _embedding_folder / "embed.yaml"


@pytest.fixture(scope="session")
def embed_run(_embedding_folder) -> Path:
    """The folder of a finished run. Never change it."""
    folder = _embedding_folder / "run"
    with toy.quick_runs(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_DISTIL_CACHE", str(_embedding_folder / "cache"))
        status = run_command(
            *["run", _embedding_folder / "embed.yaml"],
            *["--output", folder, "--quiet"],
        )
    assert status == 0
    return folder
