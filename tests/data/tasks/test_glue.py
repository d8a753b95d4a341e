"""GLUE's files and TFDS data sets, all made by hand; nothing is downloaded."""

import collections
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_distil.data import GLUETask, glue_task, load_glue
from keras_distil.data.tasks.glue import GLUE_TASKS

# Two lines of each task as GLUE writes them, and what they hold: the header
# line, the lines, the texts, the labels and the ids.
PARSES = "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\t"
PARSES += "sentence2_binary_parse\tsentence1_parse\tsentence2_parse"
FILES = {
    "cola": (
        None,
        ["gj04\t1\t\tThe sailors rode.", "bc01\t0\t*\tHim sailed."],
        [["The sailors rode.", "Him sailed."]],
        [1, 0],
        [0, 1],
    ),
    "sst2": (
        "sentence\tlabel",
        ["a fine film \t1", "dull \t0"],
        [["a fine film ", "dull "]],
        [1, 0],
        [0, 1],
    ),
    "mrpc": (
        "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
        ['1\t70\t71\tHe said "yes.\tHe agreed.', "0\t80\t81\tA.\tB."],
        [['He said "yes.', "A."], ["He agreed.", "B."]],
        [1, 0],
        [0, 1],
    ),
    "qqp": (
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
        ["133\t21\t22\tWhy?\tHow come?\t1", "402\t31\t32\tWho?\tWhen?\t0"],
        [["Why?", "Who?"], ["How come?", "When?"]],
        [1, 0],
        [133, 402],
    ),
    "stsb": (
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\t"
        "sentence1\tsentence2\tscore",
        [
            "0\tnews\tMSR\t2012\t0001\tnone\tnone\tA plane.\tA jet.\t4.750",
            "1\tnews\tMSR\t2012\t0004\tnone\tnone\tA cat.\tA tax.\t0",
        ],
        [["A plane.", "A cat."], ["A jet.", "A tax."]],
        [4.75, 0.0],
        [0, 1],
    ),
    "mnli": (
        f"{PARSES}\tsentence1\tsentence2\tlabel1\tgold_label",
        [
            f"{n}\t31\t31n\tfiction\t( x )\t( y )\tx\ty\tIt {n}.\tSo {n}.\t"
            f"neutral\t{label}"
            for n, label in enumerate(
                ["neutral", "contradiction", "entailment"]
            )
        ],
        [["It 0.", "It 1.", "It 2."], ["So 0.", "So 1.", "So 2."]],
        [1, 2, 0],
        [0, 1, 2],
    ),
    "qnli": (
        "index\tquestion\tsentence\tlabel",
        ["0\tWhen?\tIn May.\tentailment", "1\tWho?\tHm.\tnot_entailment"],
        [["When?", "Who?"], ["In May.", "Hm."]],
        [0, 1],
        [0, 1],
    ),
    "rte": (
        "index\tsentence1\tsentence2\tlabel",
        ["0\tA.\tB.\tnot_entailment", "1\tC.\tD.\tentailment"],
        [["A.", "C."], ["B.", "D."]],
        [1, 0],
        [0, 1],
    ),
    "wnli": (
        "index\tsentence1\tsentence2\tlabel",
        ["0\tA.\tB.\t0", "1\tC.\tD.\t1"],
        [["A.", "C."], ["B.", "D."]],
        [0, 1],
        [0, 1],
    ),
}
# The columns of test sets, and a line.
TESTS = {
    "cola": ("index\tsentence", "0\tHe sailed."),
    "sst2": ("index\tsentence", "0\tfine"),
    "mrpc": ("index\t#1 ID\t#2 ID\t#1 String\t#2 String", "0\t7\t8\tA.\tB."),
    "stsb": (FILES["stsb"][0].rpartition("\t")[0], "\t".join("0234567AB")),
    "qqp": ("id\tquestion1\tquestion2", "0\tA?\tB?"),
    "mnli": (f"{PARSES}\tsentence1\tsentence2", "\t".join("0234567xAB")),
    "qnli": ("index\tquestion\tsentence", "0\tA?\tB."),
    "rte": ("index\tsentence1\tsentence2", "0\tA.\tB."),
    "wnli": ("index\tsentence1\tsentence2", "0\tA.\tB."),
}


@pytest.fixture
def write(tmp_path):
    """Writes a file of a task; returns the root folder."""

    def write(task, content, split="train"):
        path = tmp_path / glue_task(task).folder / f"{split}.tsv"
        path.parent.mkdir(exist_ok=True)
        if isinstance(content, str):
            content = content.encode()
        path.write_bytes(content)
        return tmp_path

    return write


def content(task):
    header, lines = FILES[task][:2]
    return "\n".join([*([] if header is None else [header]), *lines, ""])


def test_tasks():
    assert list(GLUE_TASKS) == (
        "cola sst2 mrpc stsb qqp mnli qnli rte wnli".split()
    )
    assert [task.name for task in GLUE_TASKS.values()] == list(GLUE_TASKS)
    folders = "CoLA SST-2 MRPC STS-B QQP MNLI QNLI RTE WNLI".split()
    assert [task.folder for task in GLUE_TASKS.values()] == folders
    assert [task.title for task in GLUE_TASKS.values()] == folders
    outputs = [task.num_outputs for task in GLUE_TASKS.values()]
    assert outputs == [2, 2, 2, 1, 2, 3, 2, 2, 2]
    regression = [t.name for t in GLUE_TASKS.values() if t.is_regression]
    assert regression == ["stsb"]
    single = [t.name for t in GLUE_TASKS.values() if not t.is_pair]
    assert single == ["cola", "sst2"]


def test_tasks_agree_with_tfds():
    """The numbers of labels and the names of features and columns."""
    from tensorflow_datasets.text.glue import Glue

    configs = {config.name: config for config in Glue.BUILDER_CONFIGS}
    for task in GLUE_TASKS.values():
        config = configs[task.name]
        assert config.label_classes == (task.labels and list(task.labels))
        assert tuple(config.text_features) == task.tfds_texts
        # TFDS makes MRPC from other files.
        if task.name != "mrpc":
            columns = tuple(config.text_features.values())
            assert columns == task.tsv_texts
            assert config.data_dir == task.folder
        # TFDS gives CoLA's column, which has no header, a name.
        if task.name != "cola":
            assert config.label_column == task.label_column


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("SST-2", "sst2"), ("sts_b", "stsb"), ("mnli_matched", "mnli")],
)
def test_unknown_task(name, nearest):
    message = (
        r"^`task` must be one of \['cola', .*'wnli'\]. Received: "
        f"task='{name}'. Nearest name: {nearest}.$"
    )
    with pytest.raises(ValueError, match=message):
        glue_task(name)


def test_task_is_returned_as_it_is():
    task = GLUETask(name="mine", title="Mine", labels=("no", "yes"))
    assert glue_task(task) is task


@pytest.mark.parametrize("task", FILES)
def test_files_for_training(write, task):
    _, _, texts, labels, ids = FILES[task]
    for split in ("train", *glue_task(task).dev):
        root = write(task, content(task), split)
        examples = load_glue(task, split, root=str(root))
        assert len(examples) == len(labels)
        assert examples.first == texts[0]
        assert examples.second == (texts[1] if len(texts) == 2 else None)
        assert examples.labels.tolist() == labels
        dtype = np.float32 if task == "stsb" else np.int32
        assert examples.labels.dtype == dtype
        assert examples.ids == ids


@pytest.mark.parametrize("task", TESTS)
def test_files_of_test_sets(write, task):
    header, line = TESTS[task]
    for split in glue_task(task).test:
        second = line.replace("0", "1", 1)
        root = write(task, f"{header}\n{line}\n{second}\n", split)
        examples = load_glue(task, split, root=root)
        assert examples.labels is None
        assert examples.ids == [0, 1]
        assert len(examples.first) == len(examples) == 2
        if glue_task(task).is_pair:
            assert examples.first[0][0] == "A"
            assert examples.second[0][0] == "B"


def test_labelled_test_set(write):
    root = write("rte", content("rte"), "test")
    assert load_glue("rte", "test", root=root).labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.removesuffix("\n"),
    ],
    ids=["byte order mark", "Windows's line ends", "no last line end"],
)
def test_ways_of_writing_files(write, change):
    # Its first column and its last are both needed.
    root = write("sst2", change(content("sst2")))
    examples = load_glue("sst2", "train", root=root)
    assert examples.labels.tolist() == [1, 0]
    assert examples.first == ["a fine film ", "dull "]


def test_text_is_kept(write):
    # Python's splitlines would split at each but the first two.
    text = ' "a\x08b\rc\x0bd\x0ce\x1cf\x85g\u2028h\u00e9 '
    root = write("sst2", f"sentence\tlabel\n{text}\t0\n{text}\t1\n")
    assert load_glue("sst2", "train", root=root).first == [text, text]


def test_columns_in_another_order(write):
    root = write("rte", "label\tnote\tsentence2\tsentence1\nentailment\t\tB\tA")
    examples = load_glue("rte", "train", root=root)
    assert (examples.first, examples.second) == (["A"], ["B"])
    assert examples.ids == [0]


@pytest.mark.parametrize(
    ("task", "text", "message"),
    [
        ("sst2", "", "train.tsv' is empty. Download"),
        ("sst2", "sentence\tlabel\n", "train.tsv' holds no examples. Down"),
        ("cola", "", "train.tsv' holds no examples. Download"),
        (
            "sst2",
            "text\tlabel\na\t1\n",
            r"line 1: the columns must include \['sentence', 'label'\]. "
            r"Found: \['text', 'label'\].$",
        ),
        (
            "mrpc",
            "#1 String\t#2 String\na\tb\n",
            r"line 1: the columns must include \['#1 String', '#2 String', "
            r"'Quality'\]. Found: ",
        ),
        (
            "sst2",
            "sentence\tlabel\na\t1\nb\tc\t0\n",
            r"line 3: there must be 2 columns, \['sentence', 'label'\]. "
            "Received: 3 columns.$",
        ),
        (
            "sst2",
            "sentence\tlabel\na\t1\n\nb\t0\n",
            "line 3: there must be 2 columns, .* Received: 1 columns.$",
        ),
        (
            "cola",
            "gj04\t1\ta\n",
            r"line 1: there must be 4 columns, \['source', 'label', 'mark', "
            r"'sentence'\]. Received: 3",
        ),
        (
            "cola",
            "gj04\t1\t\ta\ngj04\t2\t\tb\n",
            r"line 2: the label must be one of \['0', '1'\]. Received: '2'.$",
        ),
        (
            "cola",
            "source\tlabel\tmark\tsentence\n",
            r"line 1: the label must be one of .* Received: 'label'.$",
        ),
        (
            "rte",
            "index\tsentence1\tsentence2\tlabel\n0\ta\tb\t1\n",
            r"line 2: the label must be one of \['entailment', "
            r"'not_entailment'\]. Received: '1'.$",
        ),
        (
            "rte",
            "index\tsentence1\tsentence2\tlabel\n-1\ta\tb\tentailment\n",
            "line 2: the example's number must be a whole number. "
            "Received: '-1'.$",
        ),
        *[
            (
                "stsb",
                f"sentence1\tsentence2\tscore\na\tb\t5.0\na\tb\t{score}\n",
                "line 3: the score must be a number from 0 to 5. "
                f"Received: '{score}'.$",
            )
            for score in ("5.001", "-0.1", "nan", "inf", "high", "")
        ],
        (
            "sst2",
            b"sentence\tlabel\ncaf\xe9\t1\n",
            "line 2: the text must be UTF-8. Received: byte 0xe9 at position "
            "3 of the line.$",
        ),
    ],
)
def test_bad_file(write, task, text, message):
    root = write(task, text)
    with pytest.raises(ValueError, match=message) as raised:
        load_glue(task, "train", root=root)
    path = root / glue_task(task).folder / "train.tsv"
    assert str(raised.value).startswith(f"'{path}'")
    assert "\n" not in str(raised.value)


def test_missing_files(tmp_path):
    root = tmp_path / "glue"
    message = (
        "^There is no {} '{}': `root` must be the folder of GLUE's files, "
        f"with 'CoLA/dev.tsv' in it. Received: root='{root}'.$"
    )
    for kind, path in (
        ("folder", root),
        ("folder", root / "CoLA"),
        ("file", root / "CoLA" / "dev.tsv"),
    ):
        with pytest.raises(FileNotFoundError, match=message.format(kind, path)):
            load_glue("cola", "dev", root=root)
        # A folder in the file's place does not help.
        path.mkdir()
    with pytest.raises(FileNotFoundError, match="There is no file"):
        load_glue("cola", "dev", root=root)


def test_home_folder(write, monkeypatch):
    root = write("rte", content("rte"))
    monkeypatch.setenv("HOME", str(root))
    assert len(load_glue("rte", "train", root="~")) == 2


@pytest.mark.parametrize(
    ("task", "split", "allowed"),
    [
        ("mnli", "dev", "'train', 'dev_matched', 'dev_mismatched', 'test_mat"),
        ("cola", "validation", "'train', 'dev', 'test'"),
    ],
)
def test_unknown_split(tmp_path, task, split, allowed):
    message = rf"`split` must be one of \[{allowed}.* Received: split='{split}'"
    with pytest.raises(ValueError, match=message):
        load_glue(task, split, root=tmp_path)


def test_two_folders(tmp_path):
    message = "`data_dir` is the folder of TFDS and must be None if `root`"
    with pytest.raises(ValueError, match=message):
        load_glue("cola", "train", root=tmp_path, data_dir=tmp_path)


@pytest.fixture
def prepare(tmp_path):
    """Writes a data set `glue/<task>` of TFDS; returns its `data_dir`."""

    def prepare(task, splits, features):
        import tensorflow_datasets as tfds

        version = tfds.core.Version("2.0.0")
        folder = tmp_path / "glue" / task / str(version)
        folder.mkdir(parents=True)
        identity = tfds.core.dataset_info.DatasetIdentity(
            name="glue",
            config_name=task,
            version=version,
            data_dir=str(folder),
            module_name="tensorflow_datasets.text.glue",
        )
        info = tfds.core.DatasetInfo(
            builder=identity, features=tfds.features.FeaturesDict(features)
        )
        writer = tfds.core.SequentialWriter(info, max_examples_per_shard=2)
        writer.initialize_splits(list(splits))
        writer.add_examples(splits)
        writer.close_all()
        return tmp_path

    return prepare


def tfds_features(task):
    import tensorflow_datasets as tfds

    task = glue_task(task)
    features = {name: tfds.features.Text() for name in task.tfds_texts}
    features["idx"] = np.int32
    features["label"] = (
        np.float32
        if task.is_regression
        else tfds.features.ClassLabel(names=list(task.labels))
    )
    return features


def row(task, idx, label, *texts):
    names = glue_task(task).tfds_texts
    return dict(zip(names, texts, strict=True), idx=idx, label=label)


def test_single_texts_of_tfds(prepare):
    data_dir = prepare(
        "cola",
        # In a different order, in two files.
        {
            "train": [
                row("cola", 7, 0, "Him saile\xe9d."),
                row("cola", 0, 1, b" \x08He sailed. "),
                row("cola", 3, 1, "She did."),
            ],
            "validation": [row("cola", 0, 0, "Dev.")],
            "test": [row("cola", 1, -1, "B."), row("cola", 0, -1, "A.")],
        },
        tfds_features("cola"),
    )
    train = load_glue("cola", "train", data_dir=data_dir)
    assert train.first == [" \x08He sailed. ", "She did.", "Him saile\xe9d."]
    assert train.second is None
    assert train.labels.tolist() == [1, 1, 0]
    assert train.labels.dtype == np.int32
    assert train.ids == [0, 3, 7]
    dev = load_glue("cola", "dev", data_dir=data_dir)
    assert dev.first == ["Dev."]
    test = load_glue("cola", "test", data_dir=data_dir)
    assert (test.first, test.labels, test.ids) == (["A.", "B."], None, [0, 1])


def test_pairs_of_tfds(prepare):
    """MNLI has two development sets, and different names for the texts."""
    splits = ("matched", "mismatched")
    data_dir = prepare(
        "mnli",
        {
            **{
                f"validation_{name}": [row("mnli", 0, 2, f"{name} 1", "2")]
                for name in splits
            },
            **{f"test_{n}": [row("mnli", 0, -1, n, "2")] for n in splits},
        },
        tfds_features("mnli"),
    )
    for name in splits:
        dev = load_glue("mnli", f"dev_{name}", data_dir=data_dir)
        assert (dev.first, dev.second) == ([f"{name} 1"], ["2"])
        assert dev.labels.tolist() == [2]
        test = load_glue("mnli", f"test_{name}", data_dir=data_dir)
        assert (test.first, test.labels) == ([name], None)
    with pytest.raises(ValueError, match="`split` must be .*split='train'"):
        load_glue("mnli", "train", data_dir=data_dir)


def test_scores_of_tfds(prepare):
    data_dir = prepare(
        "stsb",
        {
            "train": [
                row("stsb", 1, 4.75, "A", "B"),
                row("stsb", 0, 0.0, "C", "D"),
            ],
            "validation": [row("stsb", 8, -1.0, "A", "B")],
            "test": [row("stsb", 0, -1.0, "A", "B")],
        },
        tfds_features("stsb"),
    )
    train = load_glue("stsb", "train", data_dir=data_dir)
    assert train.labels.tolist() == [0.0, 4.75]
    assert train.labels.dtype == np.float32
    assert load_glue("stsb", "test", data_dir=data_dir).labels is None
    message = (
        "^'glue/stsb', split 'validation', example 8: the score must be a "
        "number from 0 to 5. Received: -1.0.$"
    )
    with pytest.raises(ValueError, match=message):
        load_glue("stsb", "dev", data_dir=data_dir)


def test_many_batches_of_tfds(prepare, monkeypatch):
    monkeypatch.setattr("keras_distil.data.tasks.glue._BATCH_SIZE", 2)
    rows = [row("rte", n, n % 2, f"a{n}", f"b{n}") for n in range(5)]
    data_dir = prepare("rte", {"train": rows[::-1]}, tfds_features("rte"))
    train = load_glue("rte", "train", data_dir=data_dir)
    assert train.first == ["a0", "a1", "a2", "a3", "a4"]
    assert train.second == ["b0", "b1", "b2", "b3", "b4"]
    assert train.labels.tolist() == [0, 1, 0, 1, 0]


def test_bad_examples_of_tfds(prepare):
    data_dir = prepare(
        "sst2",
        {
            "train": [row("sst2", 0, 1, "a"), row("sst2", 5, -1, "b")],
            "validation": [row("sst2", 4, 1, b"caf\xe9")],
            "test": [row("sst2", 0, 1, "a"), row("sst2", 1, -1, "b")],
        },
        tfds_features("sst2"),
    )
    for split, message in (
        ("train", "example 5: the label must be 0 to 1. Received: -1.$"),
        ("dev", "'validation', example 4: the text must be UTF-8.$"),
        ("test", "example 1: the label must be 0 to 1. Received: -1.$"),
    ):
        with pytest.raises(ValueError, match=f"^'glue/sst2', .*{message}"):
            load_glue("sst2", split, data_dir=data_dir)


def test_empty_split_of_tfds(prepare):
    rows = [row("sst2", 0, 1, "a")]
    features = tfds_features("sst2")
    data_dir = prepare("sst2", {"train": rows, "validation": []}, features)
    message = "^Split 'validation' of 'glue/sst2' holds no examples.$"
    with pytest.raises(ValueError, match=message):
        load_glue("sst2", "dev", data_dir=data_dir)


def test_failed_download(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    def fail(self):
        raise OSError("timed out")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    message = "'glue/cola' is not in data_dir=.* could not be downloaded"
    with pytest.raises(ConnectionError, match=message):
        load_glue("cola", "train", data_dir=tmp_path)


def test_files_need_no_tensorflow(write):
    root = write("rte", content("rte"))
    code = (
        "import sys; from keras_distil.data import load_glue;"
        f"load_glue('rte', 'train', root={str(root)!r});"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# Examples, and how many have class 1 (for STS-B: the mean score), as
# published with GLUE's tasks.
PUBLISHED = {
    "cola": {"train": (8551, 6023), "dev": (1043, 721)},
    "sst2": {"train": (67349, 37569), "dev": (872, 444)},
    "mrpc": {"train": (3668, 2474), "dev": (408, 279)},
    "stsb": {"train": (5749, 2.701), "dev": (1500, 2.364)},
    "rte": {"train": (2490, 1241), "dev": (277, 131)},
    "wnli": {"train": (635, 312), "dev": (71, 31)},
}


@pytest.mark.parametrize("task", PUBLISHED)
def test_real_files(task):
    folder = os.environ.get("KERAS_DISTIL_TEST_DATA")
    if folder is None:
        pytest.skip("needs KERAS_DISTIL_TEST_DATA, a folder with glue/")
    for split, (rows, ones) in PUBLISHED[task].items():
        examples = load_glue(task, split, root=Path(folder) / "glue")
        assert len(examples) == rows
        if task == "stsb":
            assert examples.labels.mean(dtype=float).round(3) == ones
        else:
            assert collections.Counter(examples.labels.tolist())[1] == ones
