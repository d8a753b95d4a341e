"""The README's example of texts with labels, as printed, on toy sizes."""

import csv
import json
import re
import shlex
import sys
from collections import Counter
from pathlib import Path

import pytest
from commands import run_command

from keras_distil.data import docstring_table

README = Path(__file__).parents[1] / "README.md"
# One epoch, without a compiled update.
SMALLER = [
    word
    for change in ("finetune.epochs=1", "finetune.jit_compile=false")
    for word in ("--set", change)
]


def commands():
    (block,) = re.findall(
        r"<!-- tested by tests/test_readme_example.py -->\n```\n(.*?)```",
        README.read_text("utf-8"),
        re.DOTALL,
    )
    return [shlex.split(line) for line in block.splitlines()]


def test_it_is_at_most_four_commands():
    assert len(commands()) <= 4


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Two packages in place of those that are installed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, word in (("one_toy", "ab"), ("other_toy", "xy")):
        paragraphs = [f"{20 * f'{word} '}{n * 'the '}end." for n in range(40)]
        (tmp_path / f"{name}.py").write_text(
            '"""Toy.\n\n' + "\n\n".join(paragraphs) + '\n"""\n'
        )
    monkeypatch.setattr(docstring_table, "PACKAGES", ("one_toy", "other_toy"))
    monkeypatch.setattr(docstring_table, "ROWS", 60)


def test_the_table_has_as_many_rows_of_each_package(packages, capsys, tmp_path):
    docstring_table.main(["docstrings.csv", "--rows", "20"])
    assert capsys.readouterr().out == "docstrings.csv: 20 rows\n"
    with (tmp_path / "docstrings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    counts = Counter(row["package"] for row in rows)
    assert counts == {"one_toy": 10, "other_toy": 10}
    # Every fourth of the 40.
    texts = [row["text"] for row in rows if row["package"] == "one_toy"]
    assert [text.count("the ") for text in texts] == [*range(0, 40, 4)]
    with pytest.raises(SystemExit):
        docstring_table.main(["docstrings.csv", "one_toy"])
    assert "docstrings.csv" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        docstring_table.main(["other.csv", "no_such_toy"])
    assert "'no_such_toy' is not installed" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.essential
def test_it_runs_as_printed(
    packages, toy_teacher, quick_runs, capsys, tmp_path
):
    table, init, run = commands()
    assert table[:2] == ["python", "-m"]
    module = sys.modules[table[2]]
    module.main(table[3:])
    assert run_command(*init[1:], "--teacher", toy_teacher) == 0
    assert run_command(*run[1:], *SMALLER) == 0
    report = json.loads(
        (tmp_path / "saved_models/docstrings/report.json").read_text()
    )
    (made,) = report["export"]
    assert made["path"].endswith("student/seed_0/litert_dynamic_int8")
    assert f"\nExport: {made['path']} (" in capsys.readouterr().out
