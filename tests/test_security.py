"""What the package's code may not contain."""

import ast
import importlib.metadata
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "keras_distil").rglob("*.py"))
MODULE_NAMES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve"}
BUILTINS = {"eval", "exec", "compile", "__import__"}


def unsafe(tree):
    """Yields a line for each way to run code from data in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in MODULE_NAMES:
                    yield f"{node.lineno}: import {alias.name}"
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").split(".")[0] in MODULE_NAMES:
                yield f"{node.lineno}: from {node.module}"
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {k.arg: ast.unparse(k.value) for k in node.keywords}
            safe = {
                **{name: False for name in BUILTINS},
                "torch.load": False,
                "joblib.load": False,
                "yaml.unsafe_load": False,
                "yaml.full_load": False,
                "yaml.load": given.get("Loader") == "_Loader",
                "np.load": given.get("allow_pickle") == "False",
                "numpy.load": given.get("allow_pickle") == "False",
                "keras.config.enable_unsafe_deserialization": False,
                "keras.saving.load_model": given.get("safe_mode", "True")
                == "True",
            }
            if not safe.get(called, True):
                yield f"{node.lineno}: {called}"
            elif given.get("safe_mode") == "False":
                yield f"{node.lineno}: safe_mode=False"
            elif given.get("allow_pickle") == "True":
                yield f"{node.lineno}: allow_pickle=True"
            elif given.get("shell") == "True":
                yield f"{node.lineno}: shell=True"


def test_modules_are_found():
    assert len(MODULES) > 30


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_nothing_runs_code_from_data(path):
    assert list(unsafe(ast.parse(path.read_text("utf-8")))) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from marshal import loads",
        "def f():\n    import shelve.x",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "torch.load(path)",
        "eval(text)",
        "keras.saving.load_model(path, safe_mode=False)",
        "f(path, safe_mode=False)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_unsafe_code_is_seen(code):
    assert list(unsafe(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "np.load(path, allow_pickle=False)",
        "yaml.load(text, Loader=_Loader)",
        "re.compile(text)",
        "model.compile(x)",
        "keras.saving.load_model(path, safe_mode=True)",
    ],
)
def test_safe_code_is_not(code):
    assert list(unsafe(ast.parse(code))) == []


def test_the_yaml_loader_is_a_safe_one():
    import yaml

    from keras_distil.config import loading

    assert issubclass(loading._Loader, yaml.SafeLoader)


def test_tensorboard_is_left_at_localhost():
    places = [*MODULES, *ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    told = "".join(path.read_text("utf-8") for path in places)
    assert "tensorboard --logdir" in told
    for option in ("--bind_all", "--host"):
        assert f"tensorboard {option}" not in told
        assert option not in told.split("tensorboard --logdir", 1)[1][:200]
    assert "--bind_all" not in told


def minimum_versions():
    text = (ROOT / "tests" / "minimum_versions.txt").read_text("utf-8")
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            requirement, _, reason = line.partition("#")
            yield Requirement(requirement.strip()), reason.strip()


def test_every_minimum_has_a_reason():
    found = list(minimum_versions())
    assert len(found) > 8
    assert all(reason for _, reason in found)


def test_nothing_older_is_installed():
    checked = 0
    for requirement, reason in minimum_versions():
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            continue
        assert requirement.specifier.contains(version), (requirement, reason)
        checked += 1
    assert checked > 6


def test_nothing_older_is_asked_for():
    minimums = {x.name: x.specifier for x, _ in minimum_versions()}
    setup = (ROOT / "setup.py").read_text("utf-8")
    asked = dict(re.findall(r'"([a-z_-]+)>=([\d.]+)[",]', setup))
    both = set(minimums) & set(asked)
    assert {"keras", "numpy", "filelock"} <= both
    for name in both:
        assert minimums[name].contains(asked[name]), name
