"""Unlabelled files: what is read, and what is refused with the way out."""

import json
import shlex
import shutil
import subprocess

import pytest

from keras_distil.data.tasks.unlabelled import (
    TextColumns,
    read_unlabelled,
    read_unlabelled_questions,
)

SINGLE = TextColumns((("sentence",),), labels=("acceptability",))
PAIR = TextColumns((("#1 String", "#2 String"), ("sentence1", "sentence2")))


@pytest.fixture
def write(tmp_path):
    def write(name, *lines):
        path = tmp_path / name
        texts = [x if isinstance(x, str) else json.dumps(x) for x in lines]
        path.write_text("".join(f"{text}\n" for text in texts))
        return path

    return write


def squad(*questions):
    paragraph = {"context": "a b", "qas": list(questions)}
    return {"data": [{"title": "x", "paragraphs": [paragraph]}]}


# === What is read ===


def test_texts_are_lines_of_several_files(write):
    one = write("1.txt", "a film", "", "  ", " b ")
    other = write("2.txt", 'c "quoted"')
    found = read_unlabelled([one, other], SINGLE)
    assert found.first == ["a film", " b ", 'c "quoted"']
    assert found.second is None
    assert (len(found), found.skipped) == (3, 2)


def test_a_table_names_its_columns(write):
    path = write("a.tsv", "index\tsentence", "0\ta film", "1\t", "2\tb")
    found = read_unlabelled([path], SINGLE)
    assert (found.first, found.skipped) == (["a film", "b"], 1)


def test_pairs_are_tables_with_any_of_the_names(write):
    one = write("1.tsv", "sentence2\tid\tsentence1", "b\t7\ta", "\t8\tc")
    other = write("2.tsv", "#1 String\t#2 String", "d\te")
    found = read_unlabelled([one, other], PAIR)
    assert found.first == ["a", "c", "d"]
    assert found.second == ["b", "", "e"]


def test_records_have_the_same_names(write):
    path = write(
        "a.jsonl",
        {"sentence1": "a\tb", "sentence2": "c", "id": 1, "label": None},
        "",
        '{"sentence1": "d",\t"sentence2": ""}',
    )
    found = read_unlabelled([path], PAIR)
    assert found.first == ["a\tb", "d"] and found.second == ["c", ""]
    assert found.skipped == 1


def test_questions_come_from_squads_form_and_from_records(write):
    empty = {"text": [], "answer_start": []}
    one = write(
        "1.json",
        squad({"id": "1", "question": "q"}, {"id": "2", "question": "r"}),
    )
    other = write(
        "2.jsonl",
        {"question": "s", "context": "c d", "id": "x", "answers": empty},
        "",
    )
    found = read_unlabelled_questions([one, other])
    assert [(x.question, x.context) for x in found] == [
        ("q", "a b"),
        ("r", "a b"),
        ("s", "c d"),
    ]
    assert not any(x.answers or x.is_impossible for x in found)


# === What has labels ===


def strip(error, folder):
    """Runs the command at the end of a message; returns the file it makes."""
    command = str(error.value)
    command = command[
        min(x for x in map(command.find, ("cut ", "jq ")) if x > 0) :
    ]
    if not shutil.which(shlex.split(command)[0]):
        pytest.skip("The command is not on this machine.")
    subprocess.run(command, shell=True, check=True, cwd=folder)
    return folder / shlex.split(command)[-1]


@pytest.mark.parametrize(
    "label", ["label", "Score", "gold_label", "acceptability"]
)
def test_a_column_of_labels_is_refused_and_can_be_stripped(
    write, tmp_path, label
):
    path = write("a b.tsv", f"id\t{label}\tsentence", "0\t1\ta film")
    with pytest.raises(
        ValueError, match=f"must not hold labels.*the column '{label}'. Keep"
    ) as error:
        read_unlabelled([path], SINGLE)
    stripped = strip(error, tmp_path)
    assert read_unlabelled([stripped], SINGLE).first == ["a film"]


def test_columns_of_a_pair_are_kept_when_labels_are_stripped(write, tmp_path):
    path = write("a.tsv", "sentence2\tscore\tsentence1", "b\t0.5\ta")
    with pytest.raises(ValueError, match="the column 'score'") as error:
        read_unlabelled([path], PAIR)
    found = read_unlabelled([strip(error, tmp_path)], PAIR)
    assert (found.first, found.second) == (["a"], ["b"])


@pytest.mark.parametrize("value", [0, 1.5, "entailment", False])
def test_a_record_with_a_label_is_refused_and_can_be_stripped(
    write, tmp_path, value
):
    path = write("a.jsonl", {"sentence": "a", "label": value})
    with pytest.raises(
        ValueError, match="line 1: a record must not hold labels.*key 'label'"
    ) as error:
        read_unlabelled([path], SINGLE)
    assert read_unlabelled([strip(error, tmp_path)], SINGLE).first == ["a"]


@pytest.mark.parametrize(
    "question",
    [
        {"answers": [{"text": "a", "answer_start": 0}]},
        {"is_impossible": True},
    ],
)
def test_an_answered_question_is_refused_and_can_be_stripped(
    write, tmp_path, question
):
    path = write("a.json", squad({"id": "7", "question": "q", **question}))
    with pytest.raises(
        ValueError, match="1 answered questions, the first is '7'. Leave"
    ) as error:
        read_unlabelled_questions([path])
    stripped = read_unlabelled_questions([strip(error, tmp_path)])
    assert [x.question for x in stripped] == ["q"]


def test_an_answered_record_is_refused(write):
    answers = {"text": ["a"], "answer_start": [0]}
    record = {"question": "q", "context": "a b", "answers": answers}
    with pytest.raises(ValueError, match="the key 'answers'"):
        read_unlabelled_questions([write("a.jsonl", record)])


def test_a_text_may_be_called_as_labels_are(write):
    columns = TextColumns((("question", "answer"),))
    path = write("a.tsv", "question\tanswer", "q\ta")
    assert read_unlabelled([path], columns).second == ["a"]


# === What has another form ===


@pytest.mark.parametrize(
    ("name", "lines", "columns", "message"),
    [
        ("a.csv", ["a"], SINGLE, "end in .jsonl, .tsv, .txt. Received: '.*csv"),
        ("a.txt", ["a"], PAIR, "end in .jsonl, .tsv. Received"),
        ("a.txt", ["a", "b\tc"], SINGLE, "line 2: a text must have no tab"),
        ("a.txt", ["", " "], SINGLE, "must hold some text. Received: none in"),
        (
            "a.tsv",
            ["a\tb"],
            PAIR,
            r"line 1: it must name the columns, with \['#1 String', "
            r"'#2 String'\] or \['sentence1', 'sentence2'\].*\['a', 'b'\]",
        ),
        ("a.tsv", [], SINGLE, r"must name the columns.*Received: \[\]"),
        (
            "a.tsv",
            ["id\tsentence", "1\ta", "2"],
            SINGLE,
            "line 3: there must be 2 columns.*Received: 1 columns",
        ),
        ("a.jsonl", ["{"], SINGLE, "line 1: there must be a JSON object"),
        ("a.jsonl", ["[1]"], SINGLE, "line 1: there must be a JSON object"),
        (
            "a.jsonl",
            [{"text": "a"}],
            SINGLE,
            r"a record must have texts as \['sentence'\]. Received: \['text'\]",
        ),
        ("a.jsonl", [{"sentence": 1}], SINGLE, "must have texts as"),
        ("a.jsonl", ['{"sentence": "\\ud800"}'], SINGLE, "must have texts as"),
    ],
)
def test_another_form_is_refused(write, name, lines, columns, message):
    with pytest.raises(ValueError, match=message):
        read_unlabelled([write(name, *lines)], columns)


def test_a_file_that_is_not_utf_8_is_refused(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"a\nb\xff\n")
    with pytest.raises(ValueError, match="line 2: the text must be UTF-8"):
        read_unlabelled([path], SINGLE)


def test_questions_of_another_form_are_refused(write):
    for name, line, message in (
        ("a.txt", "q", "end in .json, .jsonl. Received"),
        ("a.json", "[]", "structure of a SQuAD file"),
        ("a.json", {"data": []}, "must hold some text"),
        ("a.jsonl", {"question": "q"}, r"texts as \['question', 'context'\]"),
    ):
        with pytest.raises(ValueError, match=message):
            read_unlabelled_questions([write(name, line)])
