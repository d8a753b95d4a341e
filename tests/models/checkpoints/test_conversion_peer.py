"""The printed commands for other formats of weights are run."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from keras_distil import models

pytestmark = pytest.mark.peer

MODELS = Path(__file__).parents[2] / "models" / "golden"
TASKS = Path(__file__).parents[2] / "export" / "golden"
FOLDERS = [
    MODELS / "bert",
    MODELS / "distil_bert",
    *sorted(path for path in TASKS.iterdir() if path.is_dir()),
]


def run_advice(message, folder):
    """Runs the Python command at the end of a message."""
    [command] = re.findall(r"python -c .*$", message)
    assert str(folder) in command
    command = command.replace("python", sys.executable, 1)
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def load(folder):
    read = json.loads((folder / "config.json").read_text())["architectures"]
    if read[0].endswith("MaskedLM"):
        return models.load_teacher(folder)
    return models.load_task_model(folder)


def refused(folder):
    with pytest.raises(ValueError, match="python -c") as error:
        load(folder)
    return str(error.value)


def pickled(golden, folder, *, shards=1):
    """A copy of a golden folder with `.bin` files for its safetensors."""
    torch = pytest.importorskip("torch")
    shutil.copytree(golden, folder)
    (folder / "tokenizer.json").write_text("{}")
    stored = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    tensors = {name: torch.tensor(value) for name, value in stored.items()}
    if shards == 1:
        torch.save(tensors, folder / "pytorch_model.bin")
        return stored
    names, weight_map = sorted(tensors), {}
    for shard in range(shards):
        file = f"pytorch_model-{shard + 1:05d}-of-{shards:05d}.bin"
        part = {name: tensors[name] for name in names[shard::shards]}
        torch.save(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    return stored


def contents(folder):
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.name != "model.safetensors"
    }


@pytest.mark.parametrize("golden", FOLDERS, ids=lambda path: path.name)
@pytest.mark.parametrize("shards", [1, 2])
def test_pickles_become_the_same_tensors(golden, shards, tmp_path):
    # A space, as folders have them.
    folder = tmp_path / "my model"
    stored = pickled(golden, folder, shards=shards)
    before = contents(folder)
    run_advice(refused(folder), folder)
    made = load_file(folder / "model.safetensors")
    assert set(made) == set(stored)
    for name, value in stored.items():
        np.testing.assert_array_equal(made[name], value)
    assert contents(folder) == before
    ours = load(folder)
    assert type(ours) is type(load(golden))
    for old, new in zip(load(golden).weights, ours.weights, strict=True):
        if "seed" not in old.path:
            np.testing.assert_array_equal(old.numpy(), new.numpy())


def test_a_tied_matrix_and_a_whole_pre_training_head(golden_bert, tmp_path):
    torch = pytest.importorskip("torch")
    folder = tmp_path / "model"
    stored = pickled(golden_bert, folder)
    tensors = {name: torch.tensor(value) for name, value in stored.items()}
    words = tensors["bert.embeddings.word_embeddings.weight"]
    more = {
        # One piece of memory under two names.
        "cls.predictions.decoder.weight": words,
        "cls.seq_relationship.weight": torch.ones(2, 16),
        "cls.seq_relationship.bias": torch.ones(2),
        "bert.embeddings.position_ids": torch.arange(12)[None],
        "bert.pooler.dense.weight": torch.eye(16).T,
        "bert.pooler.dense.bias": torch.zeros(16),
    }
    torch.save(tensors | more, folder / "pytorch_model.bin")
    run_advice(refused(folder), folder)
    assert load(folder).backbone.num_layers == 2


def test_transformers_reads_what_the_command_wrote(tmp_path):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "model"
    stored = pickled(TASKS / "BertForSequenceClassification", folder)
    run_advice(refused(folder), folder)
    (folder / "pytorch_model.bin").unlink()
    model = transformers.BertForSequenceClassification.from_pretrained(folder)
    np.testing.assert_array_equal(
        model.classifier.weight.detach().numpy(), stored["classifier.weight"]
    )


def test_a_name_on_the_hub_is_led_to_its_weights(
    golden_bert, tmp_path, monkeypatch
):
    """The Hub has only `.bin`: download, convert, load."""
    cached = tmp_path / "cache"
    cached.mkdir()
    shutil.copy(golden_bert / "config.json", cached)
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda repository, allow_patterns: str(cached),
    )
    with pytest.raises(ValueError, match="hf download") as error:
        models.load_teacher("hf://someone/tiny-bert")
    [repository, name] = re.findall(
        r"`hf download (\S+) --local-dir (\S+)`", str(error.value)
    )[0]
    assert repository == "someone/tiny-bert"
    # The files that a download would bring.
    folder = tmp_path / name
    pickled(golden_bert, folder)
    run_advice(refused(folder), folder)
    assert load(folder).backbone.num_layers == 2


@pytest.mark.parametrize("golden", FOLDERS, ids=lambda path: path.name)
@pytest.mark.parametrize("option", ["tf", "flax"])
def test_tensorflows_and_flaxs_files(golden, option, tmp_path):
    """Needs the last `transformers` that reads them, as the message says."""
    transformers = pytest.importorskip("transformers")
    needed = {"tf": "tf_keras", "flax": "flax"}[option]
    if int(transformers.__version__.partition(".")[0]) >= 5 or not (
        importlib.util.find_spec(needed)
    ):
        pytest.skip(f"transformers<5 with {needed} is not installed")
    folder = tmp_path / "my model"
    shutil.copytree(golden, folder)
    write_other(golden, folder, option)
    (folder / "model.safetensors").unlink()
    before = contents(folder)
    run_advice(refused(folder), folder)
    assert contents(folder) == before
    for old, new in zip(
        load(golden).weights, load(folder).weights, strict=True
    ):
        # A masked-LM model does not use the pooler.
        if "seed" not in old.path and "pooled_dense" not in old.path:
            np.testing.assert_allclose(old.numpy(), new.numpy(), rtol=1e-6)


def write_other(golden, folder, option):
    """The golden weights in a file of another library."""
    code = (
        "import sys, json, transformers as t\n"
        "golden, folder, prefix = sys.argv[1:]\n"
        "name = json.load(open(golden + '/config.json'))['architectures'][0]\n"
        "model = getattr(t, prefix + name).from_pretrained(golden, "
        "from_pt=True)\n"
        "model.save_pretrained(folder + '/other')\n"
    )
    prefix = {"tf": "TF", "flax": "Flax"}[option]
    subprocess.run(
        [sys.executable, "-c", code, str(golden), str(folder), prefix],
        check=True,
        capture_output=True,
    )
    for name in ("tf_model.h5", "flax_model.msgpack"):
        if (folder / "other" / name).is_file():
            shutil.move(folder / "other" / name, folder / name)
    shutil.rmtree(folder / "other")
