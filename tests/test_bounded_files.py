"""Sizes of files, and sizes that they claim, are checked before use."""

import json
import shutil
import zipfile

import keras_hub
import pytest
from keras_hub.src.utils import preset_utils

from keras_distil import config, data, models
from keras_distil.edge import files
from keras_distil.models import hub
from keras_distil.models.shape import encoder_shape
from keras_distil.runs import comparison, run_folder
from keras_distil.runs.corpus import (
    load_corpus,
    load_tokenizer,
    take_held_out,
)
from keras_distil.runs.teacher import _is_whole, find_hub_commits
from keras_distil.utils import disk
from keras_distil.utils.disk import read_json
from keras_distil.utils.progress import Progress

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40


def test_json_of_models_is_bounded(tmp_path, monkeypatch, toy_teacher):
    monkeypatch.setattr(disk, "MODEL_JSON_BYTES", 100)
    monkeypatch.setattr(disk, "VOCABULARY_BYTES", 100)
    monkeypatch.setattr(files, "_MOST_BYTES", 100)
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"a": "x" * 99}))
    message = "has more than the allowed 100 bytes, and is not read"
    with pytest.raises(ValueError, match=message):
        read_json(path)
    monkeypatch.setattr(disk, "MODEL_JSON_BYTES", 10**6)
    with pytest.raises(ValueError, match=f"vocab.txt` {message}"):
        data.load_tokenizer(toy_teacher)
    (toy_teacher / "tokenizer.json").write_text(" " * 101)
    with pytest.raises(ValueError, match=f"tokenizer.json` {message}"):
        data.load_tokenizer(toy_teacher)
    with pytest.raises(ValueError, match=f"x.json {message}"):
        files.read_card(path, {}, (), {})


def test_json_of_data_is_bounded(tmp_path, monkeypatch):
    assert disk.DATA_JSON_BYTES == 2**30
    monkeypatch.setattr(disk, "DATA_JSON_BYTES", 100)
    path = tmp_path / "train-v1.1.json"
    path.write_text(" " * 101)
    with pytest.raises(ValueError, match="the allowed 100 bytes"):
        data.read_squad(path)
    with pytest.raises(ValueError, match="the allowed 100 bytes"):
        run_folder.read_text(path)


def test_a_plan_does_not_unpack_a_bomb(tmp_path):
    path = tmp_path / "student.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b'{"a": "' + b" " * 10**8 + b'"}')
        archive.writestr("model.weights.h5", b"")
    assert path.stat().st_size < 10**6
    with pytest.raises(ValueError, match="bytes would be unpacked to 100000"):
        encoder_shape(path)


def test_a_plan_believes_no_size(tmp_path, toy_teacher):
    student = models.initialize_student(models.load_teacher(toy_teacher), 1)
    student.save(tmp_path / "good.keras")
    path = tmp_path / "student.keras"
    with (
        zipfile.ZipFile(tmp_path / "good.keras") as good,
        zipfile.ZipFile(path, "w") as archive,
    ):
        for name in good.namelist():
            content = good.read(name)
            if name == "config.json":
                values = json.loads(content)
                inner = values["config"]["backbone"]["config"]
                inner["vocabulary_size"] = 10**9
                content = json.dumps(values)
            archive.writestr(name, content)
    with pytest.raises(ValueError, match="vocabulary_size=1000000000, more th"):
        encoder_shape(path)
    assert encoder_shape(tmp_path / "good.keras")[0].num_layers == 1


@pytest.mark.parametrize(
    "source", ["kaggle://keras/bert/keras/x", "hf://someone/preset"]
)
def test_presets_from_afar_are_checked_like_local_ones(
    source, tmp_path, monkeypatch, toy_teacher
):
    folder = tmp_path / "preset"
    models.load_teacher(toy_teacher).backbone.save_to_preset(folder)
    path = folder / "config.json"
    values = json.loads(path.read_text())
    values["config"]["vocabulary_size"] = 10**9
    path.write_text(json.dumps(values))
    monkeypatch.setattr(
        preset_utils, "get_file", lambda preset, name: str(folder / name)
    )
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda *_, **__: str(folder)
    )

    def build(*_, **__):
        raise AssertionError("built before it was checked")

    monkeypatch.setattr(keras_hub.models.MaskedLM, "from_preset", build)
    with pytest.raises(ValueError, match="vocabulary_size=1000000000, more th"):
        models.load_teacher(source)


@pytest.mark.parametrize(
    ("source", "repository", "revision"),
    [
        ("hf://a/b", "a/b", None),
        ("hf://a/b@main", "a/b", "main"),
        ("hf://a/b@refs/pr/1", "a/b", "refs/pr/1"),
        (f"hf://a/b@{COMMIT}", "a/b", COMMIT),
    ],
)
def test_revisions_are_read(source, repository, revision):
    assert hub.parse_source(source) == (repository, revision)


@pytest.mark.parametrize("source", ["hf://a/b@", "hf://a/b@../x", "hf://a@b/c"])
def test_revisions_of_another_form_are_refused(source):
    with pytest.raises(ValueError, match="must have the form"):
        hub.parse_source(source)


@pytest.fixture
def downloaded(tmp_path, monkeypatch, toy_teacher):
    """A function that makes `hf://a/b` be at a commit."""
    import huggingface_hub

    asked = []

    def at(commit):
        folder = tmp_path / "snapshots" / commit
        if not folder.exists():
            shutil.copytree(toy_teacher, folder)

        def download(repository, *, allow_patterns, revision=None):
            asked.append((repository, revision))
            found = revision if revision in (COMMIT, OTHER) else commit
            return str(tmp_path / "snapshots" / found)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
        return asked

    return at


def test_a_run_keeps_to_the_commit_it_began_with(
    toy_recipe, tmp_path, downloaded
):
    recipe = config.load_recipe(toy_recipe, ["teacher.source=hf://a/b"])
    folder = tmp_path / "run"

    def begin(recipe):
        run = run_folder.open_run(recipe, folder, Progress(quiet=True))
        run_folder.keep_commits(run, find_hub_commits(recipe))

    downloaded(COMMIT)
    begin(recipe)
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["sources"] == {"hf://a/b": COMMIT}
    begin(recipe)
    asked = downloaded(OTHER)
    with pytest.raises(
        ValueError,
        match=f"hf://a/b is now at commit {OTHER}.*hf://a/b@{COMMIT}",
    ):
        begin(recipe)
    # Following the advice: the same recipe, pinned.
    pinned = f"teacher.source=hf://a/b@{COMMIT}"
    begin(config.load_recipe(toy_recipe, [pinned]))
    assert asked[-1] == ("a/b", COMMIT)
    other = f"teacher.source=hf://a/b@{OTHER}"
    with pytest.raises(ValueError, match="run of another recipe: teacher.sour"):
        begin(config.load_recipe(toy_recipe, [other]))


def test_an_altered_teacher_in_the_cache_is_made_again(
    toy_recipe, tmp_path, capsys
):
    recipe = config.load_recipe(toy_recipe)
    run = run_folder.Run(recipe, tmp_path, Progress())
    result = tmp_path / "teacher.keras"
    assert not _is_whole(run, result)
    result.write_bytes(b"weights")
    # Made by an earlier version.
    assert _is_whole(run, result)
    checksum = tmp_path / "teacher.sha256"
    checksum.write_text(disk.file_sha256(result))
    assert _is_whole(run, result)
    result.write_bytes(b"others")
    assert not _is_whole(run, result)
    assert "has been altered: the teacher is made again" in (
        capsys.readouterr().err.replace("\n", " ")
    )


def test_no_samples_are_written(toy_recipe, toy_teacher):
    recipe = config.load_recipe(toy_recipe, ["evaluate.samples=0"])
    teacher = models.load_teacher(toy_teacher)
    student = models.initialize_student(teacher, 1)
    triple = take_held_out(recipe, load_corpus(recipe), 4)
    arguments = teacher, student, triple, load_tokenizer(recipe)
    none = comparison.compare(*arguments, samples=0)
    assert none.guesses == [] and len(none.similarity) == 3
    some = comparison.compare(*arguments, samples=2)
    assert 0 < len(some.guesses) <= 6
