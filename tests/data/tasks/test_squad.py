"""Small files in the format of SQuAD; nothing is downloaded."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from keras_distil.data import SquadAnswer, SquadExample, load_squad, read_squad

# The ring stands for one character, the face for one outside of the basic
# plane: answers are counted in code points.
CONTEXT = "\U0001f600 \xc5sa sings in Oslo."


def question(id_, *answers, **others):
    made = [{"text": t, "answer_start": s} for t, s in answers]
    return {"id": id_, "question": f"Who {id_}?", "answers": made, **others}


def content(*questions, **others):
    paragraph = {"context": CONTEXT, "qas": list(questions)}
    empty = {"title": "None", "paragraphs": []}
    article = {"title": "Song", "paragraphs": [paragraph]}
    return {"version": "1.1", "data": [empty, article], **others}


@pytest.fixture
def write(tmp_path):
    def write(data, name="squad.json"):
        path = tmp_path / name
        text = data if isinstance(data, str) else json.dumps(data)
        path.write_text(text, encoding="utf-8")
        return path

    return write


ASA = question("1", ("\xc5sa", 2), ("\xc5sa sings", 2))
IMPOSSIBLE = question(
    "2",
    is_impossible=True,
    plausible_answers=[{"text": "Oslo", "answer_start": 15}],
)
EXAMPLES = [
    SquadExample(
        "1",
        "Song",
        "Who 1?",
        CONTEXT,
        (SquadAnswer("\xc5sa", 2), SquadAnswer("\xc5sa sings", 2)),
        False,
    ),
    SquadExample("2", "Song", "Who 2?", CONTEXT, (), True),
]


def test_read(write):
    examples = read_squad(write(content(ASA, IMPOSSIBLE)), require_answers=True)
    assert examples == EXAMPLES
    answer = examples[0].answers[1]
    assert CONTEXT[answer.start : answer.end] == "\xc5sa sings"


def test_answers_may_be_kept_secret(write):
    entry = {"id": "3", "question": "?"}
    data = {"data": [{"paragraphs": [{"context": "", "qas": [entry]}]}]}
    assert read_squad(write(data)) == [
        SquadExample("3", "", "?", "", (), False)
    ]


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no SQuAD file '.*x'"):
        read_squad(tmp_path / "x")


@pytest.mark.parametrize("text", ["", "{", "[" * 10**5])
def test_no_json(write, text):
    with pytest.raises(ValueError, match="' is not JSON .* Download it again"):
        read_squad(write(text))


def test_no_text(tmp_path):
    path = tmp_path / "squad.json"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="must be utf-8. Received: byte 0xff"):
        read_squad(path)


def test_a_compressed_file_of_another_encoding(tmp_path):
    path = tmp_path / "squad.json.gz"
    text = json.dumps(content(ASA, question("4", ("Oslo", 15))))
    path.write_bytes(gzip.compress(text.encode("utf-16")))
    found = read_squad(path, encoding="utf-16")
    assert found[-1].answers == (SquadAnswer("Oslo", 15),)


def changed(value, *place):
    data = content(ASA, question("4", ("Oslo", 15)))
    node = data
    for key in place[:-1]:
        node = node[key]
    if value is None:
        del node[place[-1]]
    else:
        node[place[-1]] = value
    return data


QUESTION = ("data", 1, "paragraphs", 0, "qas", 1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "the file: must be an object. Received: []."),
        ({}, "data: required key is missing."),
        (
            changed({}, *QUESTION, "answers"),
            "data.1.paragraphs.0.qas.1.answers: must be a valid list. "
            "Received: {}.",
        ),
        (
            changed("x", *QUESTION),
            "data.1.paragraphs.0.qas.1: must be an object. Received: 'x'.",
        ),
        (
            changed(None, *QUESTION, "id"),
            "data.1.paragraphs.0.qas.1.id: required key is missing.",
        ),
        (
            changed(7, *QUESTION, "id"),
            "data.1.paragraphs.0.qas.1.id: must be a valid string. "
            "Received: 7.",
        ),
        (
            changed("2", *QUESTION, "answers", 0, "answer_start"),
            "data.1.paragraphs.0.qas.1.answers.0.answer_start: must be a "
            "valid integer. Received: '2'.",
        ),
        (
            changed(-1, *QUESTION, "answers", 0, "answer_start"),
            "data.1.paragraphs.0.qas.1.answers.0.answer_start: must be "
            "greater than or equal to 0. Received: -1.",
        ),
        (
            changed("", *QUESTION, "answers", 0, "text"),
            "data.1.paragraphs.0.qas.1.answers.0.text: must have at least 1 "
            "character. Received: ''.",
        ),
        (
            changed("\ud83d", *QUESTION, "question"),
            "data.1.paragraphs.0.qas.1.question: must hold whole "
            r"characters, not half a surrogate pair. Received: '\ud83d'.",
        ),
    ],
)
def test_wrong_structure(write, data, message):
    with pytest.raises(ValueError) as raised:
        read_squad(write(data))
    text = str(raised.value)
    assert text.endswith(
        f"does not have the structure of a SQuAD file. {message}"
    )
    assert "\n" not in text


def test_answers_elsewhere(write):
    wrong = question("5", ("Oslo", 15), ("Oslo", 16))
    data = content(ASA, wrong, question("6", ("Oslo", 10**12)))
    message = (
        "^2 answers in '.*' are not in the context at their `answer_start`. "
        "The first is of question '5': 'Oslo' at 16, where 'slo.' stands.$"
    )
    with pytest.raises(ValueError, match=message):
        read_squad(write(data))


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        ([ASA, ASA], "ids are repeated .1, the first is '1'."),
        (
            [question("7", ("Oslo", 15), is_impossible=True), IMPOSSIBLE],
            "questions are marked impossible but have answers .1, the first "
            "is '7'.",
        ),
    ],
)
def test_contradictions(write, questions, message):
    with pytest.raises(ValueError, match=f"^'.*': {message}"):
        read_squad(write(content(*questions)))


def test_training_set_without_answers(write, tmp_path):
    write(content(ASA, question("8"), question("9")), "train.json")
    message = (
        "questions have no answer and are not marked impossible .2, the "
        "first is '8'."
    )
    with pytest.raises(ValueError, match=message):
        load_squad("train", root=tmp_path)
    os.rename(tmp_path / "train.json", tmp_path / "dev.json")
    assert len(load_squad("dev", root=tmp_path)) == 3


@pytest.mark.parametrize("split", ["train", "dev"])
def test_load_from_a_folder(write, tmp_path, split):
    write(content(ASA), f"{split}.json")
    assert load_squad(split, root=str(tmp_path)) == EXAMPLES[:1]
    # The official name takes precedence over the short one.
    write(content(ASA, IMPOSSIBLE), f"{split}-v2.0.json")
    assert load_squad(split, root=tmp_path) == EXAMPLES[:1]
    assert load_squad(split, root=tmp_path, version="2.0") == EXAMPLES
    write(content(), f"{split}-v1.1.json")
    assert load_squad(split, root=tmp_path) == []


def test_impossible_question_in_the_first_version(write, tmp_path):
    write(content(ASA, IMPOSSIBLE), "dev.json")
    message = "which version='1.1' does not allow; use version='2.0' .1, the"
    with pytest.raises(ValueError, match=message):
        load_squad("dev", root=tmp_path)


def test_folder_without_the_file(tmp_path):
    message = "`root` must hold dev-v2.0.json or dev.json. Received: root='"
    with pytest.raises(FileNotFoundError, match=message):
        load_squad("dev", root=tmp_path, version="2.0")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"split": "test"},
            r"`split` must be one of \['train', 'dev'\]. Received: "
            "split='test'.",
        ),
        (
            {"split": "dev", "version": "v2.0"},
            r"`version` must be one of \['1.1', '2.0'\]. Received: "
            "version='v2.0'.",
        ),
        (
            {"split": "dev", "root": "x", "data_dir": "y"},
            "give one of them. Received: root='x', data_dir='y'.",
        ),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_squad(**arguments)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Both versions, prepared by TFDS itself from local files."""
    import tensorflow_datasets as tfds

    files = tmp_path_factory.mktemp("files")
    root = tmp_path_factory.mktemp("tfds")
    splits = {
        "v1.1": {"train": [ASA], "dev": [question("8", ("Oslo", 15))]},
        "v2.0": {
            "train": [
                {**ASA, "is_impossible": False},
                question("8", is_impossible=False),
            ],
            "dev": [{**ASA, "is_impossible": False}, IMPOSSIBLE],
        },
    }
    for version, parts in splits.items():
        paths = {}
        for part, questions in parts.items():
            paths[part] = files / f"{part}-{version}.json"
            paths[part].write_text(json.dumps(content(*questions)))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                tfds.download.DownloadManager,
                "download_and_extract",
                lambda self, urls, paths=paths: paths,
            )
            builder = tfds.builder(f"squad/{version}", data_dir=root)
            builder.download_and_prepare()
    return root


def test_load_from_tfds(data_dir):
    assert load_squad("train", data_dir=data_dir) == EXAMPLES[:1]
    (example,) = load_squad("dev", data_dir=data_dir)
    assert (example.id, example.answers) == ("8", (SquadAnswer("Oslo", 15),))


def test_second_version_from_tfds(data_dir):
    examples = load_squad("dev", data_dir=data_dir, version="2.0")
    assert sorted(examples, key=lambda example: example.id) == EXAMPLES


def test_tfds_is_checked_as_files_are(data_dir):
    message = "^squad/v2.0 of TFDS: questions have no answer .* first is '8'"
    with pytest.raises(ValueError, match=message):
        load_squad("train", data_dir=data_dir, version="2.0")


def test_tfds_that_is_not_there(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    def fail(self):
        raise OSError("timed out")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    message = "'squad/v1.1' is not in data_dir=.* prepared: timed out."
    with pytest.raises(ConnectionError, match=message):
        load_squad("train", data_dir=tmp_path)


def test_reading_imports_no_tensorflow():
    code = (
        "import sys, keras_distil.data.tasks.squad_windows as _;"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_real_questions():
    root = os.environ.get("KERAS_DISTIL_TEST_DATA")
    if root is None:
        pytest.skip("KERAS_DISTIL_TEST_DATA is not set")
    examples = load_squad("train", root=Path(root) / "squad")
    assert len(examples) > 1000
    assert all(example.answers for example in examples)
