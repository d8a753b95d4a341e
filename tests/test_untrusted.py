"""Recipes, folders, ports and environments that are not trusted."""

import shlex
import socket
from pathlib import Path

import filelock
import pytest
from commands import keras_distil

from keras_distil import config
from keras_distil.data import TextFiles, TfdsText
from keras_distil.runs import corpus, run_folder
from keras_distil.training import distribution
from keras_distil.utils import machine
from keras_distil.utils.progress import Progress


@pytest.mark.parametrize(
    "name",
    [
        *("kubric:movi_a", "huggingface:squad", "robotics:x/y:1.0.0"),
        *("https://a.b/c", "../x", "a/b/c", "squad/x=1", "", "a:b", "a\nb"),
    ],
)
def test_names_that_make_tfds_run_code_are_refused(name, toy_recipe):
    with pytest.raises(ValueError, match="TFDS would download and run code"):
        TfdsText(name)
    source = f"data.sources=[{{kind: tfds, name: {name!r}}}]"
    with pytest.raises(config.RecipeError, match="data.sources.0.name: "):
        config.load_recipe(toy_recipe, [source])


@pytest.mark.parametrize(
    "name",
    [
        *("wikipedia/20230601.en", "pg19", "glue/cola:2.0.0", "c4/en.noclean"),
        *("squad:1.*.*", "mt_eng/iwslt2015-vi-en", "glue:*.*.*"),
    ],
)
def test_plain_names_of_tfds_are_taken(name):
    assert TfdsText(name).name == name


@pytest.fixture
def outside(tmp_path):
    """A root, and a file next to it."""
    (tmp_path / "root").mkdir()
    (tmp_path / "private.txt").write_text("a diary\n")
    (tmp_path / "root" / "good.txt").write_text("text\n")
    return tmp_path


@pytest.mark.parametrize("pattern", ["../private.txt", "*/../../*.txt"])
def test_patterns_that_leave_the_root_are_refused(outside, pattern):
    root = outside / "root"
    with pytest.raises(ValueError, match="leaves the root .*allow_outside_r"):
        TextFiles(pattern, root=root, allow_outside_root=False).files()


def test_absolute_patterns_are_refused(outside):
    pattern = str(outside / "*.txt")
    with pytest.raises(ValueError, match="leaves the root"):
        TextFiles(pattern, root="/x", allow_outside_root=False).files()
    assert TextFiles(pattern).files() == [outside / "private.txt"]


def test_links_out_of_the_root_are_refused(outside):
    root = outside / "root"
    (root / "link.txt").symlink_to(outside / "private.txt")
    with pytest.raises(ValueError, match="link.txt' is a link out of the roo"):
        TextFiles("*.txt", root=root, allow_outside_root=False).files()
    (root / "link.txt").unlink()
    (root / "folder").symlink_to(outside)
    with pytest.raises(ValueError, match="is a link out of the root"):
        TextFiles("folder/*.txt", root=root, allow_outside_root=False).files()
    assert len(TextFiles("folder/*.txt", root=root).files()) == 1
    # A link that stays inside is allowed.
    (root / "folder").unlink()
    (root / "inside.txt").symlink_to(root / "good.txt")
    files = TextFiles("*.txt", root=root, allow_outside_root=False).files()
    assert [path.name for path in files] == ["good.txt", "inside.txt"]


def test_recipes_may_not_leave_the_root_by_themselves(toy_recipe):
    pattern = "data.sources.0.pattern=../teacher/vocab.txt"
    recipe = config.load_recipe(toy_recipe, [pattern])
    (source,) = corpus.make_sources(recipe)
    with pytest.raises(ValueError, match="leaves the root"):
        source.files()
    recipe = config.load_recipe(
        toy_recipe, [pattern, "data.allow_outside_root=true"]
    )
    (source,) = corpus.make_sources(recipe)
    assert [path.name for path in source.files()] == ["vocab.txt"]


def test_a_second_run_on_a_folder_ends_at_once(capsys, toy_recipe, tmp_path):
    folder = tmp_path / "run"
    with run_folder.locked(folder):
        for command in ("run", "distill"):
            status, _, err = keras_distil(
                capsys, command, toy_recipe, "--output", folder
            )
            assert status == 1
            assert err == (
                f"keras-distil: Another process runs in {folder}. Wait for "
                "it, or give another folder with --output.\n"
            )
        assert not folder.exists()
    with run_folder.locked(folder):
        pass
    # Workers that do not write do not wait for the one that does.
    with run_folder.locked(folder), run_folder.locked(folder, writes=False):
        pass


def test_the_lock_is_one_of_the_system(tmp_path):
    with run_folder.locked(tmp_path / "run"):
        other = filelock.FileLock(tmp_path / ".run.lock")
        with pytest.raises(filelock.Timeout):
            other.acquire(timeout=0)


def test_the_current_folder_can_be_a_run(toy_recipe, tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    recipe = config.load_recipe(toy_recipe)
    with run_folder.locked(Path(".")):
        run = run_folder.open_run(recipe, ".", Progress(quiet=True))
    assert run.folder == folder
    assert (folder / "recipe.yaml").is_file()
    run_folder.open_run(recipe, ".", Progress(quiet=True), fresh=True)
    assert (tmp_path / "here.old1" / "recipe.yaml").is_file()


def test_the_cache_is_for_its_owner(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", None):
        if value is None:
            monkeypatch.delenv("KERAS_DISTIL_CACHE")
        else:
            monkeypatch.setenv("KERAS_DISTIL_CACHE", value)
        folder = machine.cache_folder()
        assert folder == tmp_path / ".cache" / "keras_distil"
        assert folder.stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("KERAS_DISTIL_CACHE", "~/mine")
    assert machine.cache_folder() == tmp_path / "mine"
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o700


def test_advice_to_paste_is_quoted(
    capsys, shared_toy_recipe, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "$(touch owned) 'x"
    status, out, err = keras_distil(
        capsys, "prepare", shared_toy_recipe, "--output", folder
    )
    assert status == 0, err
    (line,) = [x for x in out.splitlines() if x.startswith("Next: ")]
    words = shlex.split(line.removeprefix("Next: "))
    assert words[-1] == f"data.prepared={folder}"
    assert "$(" not in line or f"'data.prepared={tmp_path}" in line
    assert not (tmp_path / "owned").exists()


def test_the_addresses_that_are_bound_are_told(monkeypatch):
    before = set(distribution.listening_addresses())
    with socket.socket() as one, socket.socket(socket.AF_INET6) as six:
        one.bind(("127.0.0.1", 0))
        one.listen()
        six.bind(("::", 0))
        six.listen()
        found = set(distribution.listening_addresses()) - before
        ports = [each.getsockname()[1] for each in (one, six)]
        assert found == {f"127.0.0.1:{ports[0]}", f"[::]:{ports[1]}"}
    assert distribution.describe_open_ports() is None
    distribution_line = '{"cluster": {"worker": ["a:1", "b:2"]}, "task": '
    distribution_line += '{"type": "worker", "index": 1}}'
    monkeypatch.setenv("TF_CONFIG", distribution_line)
    monkeypatch.setattr(distribution, "listening_addresses", lambda: ["[::]:2"])
    told = distribution.describe_open_ports()
    assert told.startswith("Worker 1 listens at [::]:2 without authenticat")
    assert "SECURITY.md" in told


def test_jobs_of_slurm_have_ports_of_their_own(monkeypatch):
    ports = set()
    for job, step in ((7, 0), (8, 0), (7, 4)):
        monkeypatch.setenv("SLURM_JOB_ID", str(job))
        monkeypatch.setenv("SLURM_STEP_ID", str(step))
        ports.add(distribution._slurm_port())
    assert len(ports) == 3
    for job in (1, 1999, 2000, 10**9 + 7):
        monkeypatch.setenv("SLURM_JOB_ID", str(job))
        # Below the ports that systems use for connections.
        assert 1024 < distribution._slurm_port() < 32768 - 100


@pytest.mark.parametrize("name", ["../../x", "/etc", "a/b", "", "a\n", "é"])
def test_trials_with_strange_names_are_refused(name):
    from keras_distil.search import recipe_search

    class Tuner:
        def get_trial_dir(self, trial_id):
            return f"trials/trial_{trial_id}"

    tuner = Tuner()
    recipe_search.refuse_strange_trials(tuner)
    with pytest.raises(ValueError, match="is refused: it is not a plain name"):
        tuner.get_trial_dir(name)
    assert tuner.get_trial_dir("07") == "trials/trial_07"
