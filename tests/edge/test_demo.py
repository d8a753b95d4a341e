"""`python -m keras_distil.edge`: an answer, or one clear line."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from keras_distil import edge
from keras_distil.edge.__main__ import main

ENTITIES = ["O", "B-CAT", "I-CAT", "B-DOG", "I-DOG"]
CLASSES = ["bad", "good", "neither"]


@pytest.fixture
def printed(capsys):
    """Function of arguments to what the demo prints, by lines."""

    def run(*arguments):
        assert main([str(each) for each in arguments]) == 0
        found = capsys.readouterr()
        assert found.err == ""
        return found.out.splitlines()

    return run


def test_classes(exported, printed):
    folder, _ = exported("classification", 3, CLASSES)
    lines = printed(folder, "the cat", "a dog")
    answers = edge.Student(folder)("the cat", "a dog")
    assert lines == [f"{100 * x.score:5.1f}%  {x.text}" for x in answers]
    assert len(printed(folder / "student.tflite", "the cat")) == 3
    assert printed(folder, "cat " * 20)[-1] == (
        "(The text was cut: the student reads 16 tokens.)"
    )


def test_several_labels_and_a_number(exported, printed):
    folder, _ = exported("multi_label", 3, CLASSES)
    lines = printed(folder, "the cat")
    assert sorted(line.split()[1] for line in lines) == sorted(CLASSES)
    folder, _ = exported("regression", 1)
    [line] = printed(folder, "the dogs")
    assert float(line) == pytest.approx(
        edge.Student(folder)("the dogs"), rel=1e-3
    )


def test_entities(exported, printed):
    folder, _ = exported("token_classification", 5, ENTITIES)
    text = "the dogs sat on cat. who dog sat"
    lines = printed(folder, text)
    for line, answer in zip(
        lines, edge.Student(folder).entities(text), strict=True
    ):
        part = text[answer.start : answer.end]
        place = f"characters {answer.start} to {answer.end}"
        assert line.endswith(f'%  {answer.text}  "{part}", {place}')
    folder, _ = exported("token_classification", 2, ["O", "B-NONE"])
    student = edge.Student(folder)
    words = ["the", "cat", "sat", "on", "mat", "dog", "who", "."]
    without = [word for word in words if not student.entities(word)]
    assert printed(folder, without[0]) == ["No entities."]


def test_parts_of_a_context(exported, printed):
    folder, _ = exported("span", 2)
    lines = printed(folder, "who", "The cat sat on the mat.")
    assert len(lines) == 3
    best = edge.Student(folder)("who", "The cat sat on the mat.")[0]
    assert f'"{best.text}", characters {best.start} to {best.end}' in lines[0]


def test_masked_words(exported, printed):
    folder, _ = exported("masked_lm")
    assert len(printed(folder, "the [MASK] sat")) == 5
    lines = printed(folder, "the [MASK] sat on [MASK].")
    assert lines[0] == "At character 4:" and lines[6] == "At character 18:"
    [first, _] = edge.Student(folder)("the [MASK] sat on [MASK].")
    assert lines[1].split()[1] == first[0].text


def test_vectors(exported, printed):
    folder, _ = exported("sentence_embedding")
    [line] = printed(folder, "the cat")
    vector = edge.Student(folder).embed("the cat")[0]
    shown = re.findall(r"-?\d\.\d{4}", line)
    np.testing.assert_allclose([float(x) for x in shown], vector, atol=1e-4)
    assert line.startswith("8 numbers: ")


@pytest.mark.parametrize(
    ("kind", "outputs", "texts", "message"),
    [
        ("span", 2, ["who"], "two texts: a question and its context. Received"),
        (
            "classification",
            3,
            ["a", "b", "c"],
            "or two if .* Received: 3 texts",
        ),
        (
            "masked_lm",
            0,
            ["a", "b"],
            "A masked lm model reads one text, in quo",
        ),
        ("masked_lm", 0, ["the cat"], r"must have \[MASK\] where a word"),
        ("classification", 3, ["  "], "A text must have a character that is"),
        (
            "classification",
            3,
            ["a", ""],
            "not white space. Received: '' as tex",
        ),
        ("classification", 3, [], "required: TEXT. See python -m keras_distil"),
        ("classification", 3, ["--top"], "unrecognized arguments|required: TE"),
        ("span", 2, ["cat " * 13, "the mat"], "question to 12"),
    ],
)
def test_bad_texts(exported, capsys, kind, outputs, texts, message):
    labels = CLASSES if kind == "classification" else None
    folder, _ = exported(kind, outputs, labels)
    check_refused(capsys, [str(folder), *texts], message)


def check_refused(capsys, arguments, message):
    assert main(arguments) == 1
    found = capsys.readouterr()
    assert found.out == ""
    assert re.search(message, found.err), found.err
    assert found.err.startswith("python -m keras_distil.edge: ")
    assert found.err.count("\n") == 1


def test_bad_folders(exported, capsys, tmp_path):
    check_refused(
        capsys, [str(tmp_path / "no"), "a"], "There is no folder .*no"
    )
    check_refused(capsys, [str(tmp_path), "a"], "student.json is missing: `exp")
    folder, _ = exported("classification", 3, CLASSES)
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "student.json").write_text('{"format_version": 1, "kind": "tree"}')
    check_refused(capsys, [str(copy), "a"], "damaged: kind cannot be 'tree'")


def test_what_is_not_installed_is_named(exported, capsys, monkeypatch):
    folder, _ = exported("classification", 3, CLASSES)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    check_refused(
        capsys,
        [str(folder), "a"],
        "ai_edge_litert is not installed. Install it with: pip install ai-edge",
    )


def test_as_a_program(exported):
    folder, _ = exported("classification", 3, CLASSES)
    done = subprocess.run(
        [sys.executable, "-m", "keras_distil.edge", str(folder), "the cat"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 3


def test_the_help_says_what_to_give(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "FOLDER TEXT" in capsys.readouterr().out
