"""A tiny data set in the format of TFDS; nothing is downloaded."""

import logging
import sys

import pytest

from keras_distil.data import CorpusReport, TfdsText


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Holds `toy_prose/small`: 3 training examples in 2 files, 1 of test."""
    import tensorflow_datasets as tfds

    root = tmp_path_factory.mktemp("tfds")
    folder = root / "toy_prose" / "small" / "1.0.0"
    folder.mkdir(parents=True)
    identity = tfds.core.dataset_info.DatasetIdentity(
        name="toy_prose",
        config_name="small",
        version=tfds.core.Version("1.0.0"),
        data_dir=str(folder),
        module_name="toy_prose",
    )
    features = tfds.features.FeaturesDict(
        {
            "text": tfds.features.Text(),
            "title": tfds.features.Text(),
            "label": tfds.features.ClassLabel(num_classes=3),
            "words": tfds.features.Sequence(tfds.features.Text()),
        }
    )
    info = tfds.core.DatasetInfo(builder=identity, features=features)
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=2)
    splits = {
        "train": [
            example(
                "A heading\n\n  The sun\tshines over \r\nthe \xe9tang. \r\n"
                "\r\nOne two three four five.\n \nOne two three four.\n\n"
            ),
            example(b"one two three four five \xff"),
            example("The last example has this one line."),
        ],
        "test": [example("The test split has one line too.")],
    }
    writer.initialize_splits(list(splits))
    writer.add_examples(splits)
    writer.close_all()
    return root


def example(text):
    title = "A title of quite a few words"
    return {"text": text, "title": title, "label": 1, "words": ["a"]}


@pytest.fixture
def source(data_dir):
    def make(name="toy_prose/small", **options):
        return TfdsText(name, data_dir=data_dir, **options)

    return make


def test_blank_lines_end_paragraphs(source):
    report = CorpusReport()
    assert list(source().paragraphs(report)) == [
        "The sun shines over the \xe9tang.",
        "One two three four five.",
        "The last example has this one line.",
    ]
    assert report.files == 2
    assert report.skipped == {
        "empty paragraph": 1,
        "paragraph of fewer than 5 words": 2,
        "example not UTF-8": 1,
    }


def test_split_and_field(source):
    test = source(split="test")
    report = CorpusReport()
    assert list(test.paragraphs(report)) == ["The test split has one line too."]
    titles = source(split="train[:2]", field="title")
    assert len(list(titles.paragraphs(CorpusReport()))) == 2


def test_paragraph_too_long(source, monkeypatch):
    monkeypatch.setattr(
        "keras_distil.data.corpus.tfds_text.MAX_LINE_CHARACTERS", 30
    )
    report = CorpusReport()
    assert list(source(split="test").paragraphs(report)) == []
    assert report.skipped == {"paragraph too long": 1}


def test_streamed_one_example_at_a_time(source):
    report = CorpusReport()
    paragraphs = source().paragraphs(report)
    next(paragraphs)
    # The second example, which is not UTF-8, has not been read.
    assert "example not UTF-8" not in report.skipped


@pytest.mark.parametrize("size", [1, 10**6])
@pytest.mark.parametrize("split", ["train", "train[1:]", "train[:1]+test"])
def test_units_hold_every_example_once(source, monkeypatch, size, split):
    monkeypatch.setattr("keras_distil.data.corpus.tfds_text.UNIT_BYTES", size)
    report, parts = CorpusReport(), CorpusReport()
    made = source(split=split)
    whole = []
    for part in split.split("+"):
        whole += source(split=part).paragraphs(report)
    units = made.units()
    assert [p for unit in units for p in unit.paragraphs(parts)] == whole
    assert vars(parts) == vars(report)
    assert len(units) > 1 or size > 1 or split == "train[:1]"


def test_describe(source):
    described = source(split="train[1:]").describe()
    shard = "toy_prose-train.tfrecord"
    assert described.pop("bytes") > 0
    assert described == {
        "type": "tfds_text",
        "name": "toy_prose/small/1.0.0",
        "split": "train[1:]",
        "field": "text",
        "files": [[f"{shard}-00000", 1, 1], [f"{shard}-00001", 0, 1]],
    }
    assert source().describe() != source(split="test").describe()
    assert source().describe() != source(field="title").describe()


@pytest.mark.parametrize("name", ["ag_news_subsets", "ag_news_subsets/x:1.0.0"])
def test_unknown_data_set(source, name):
    message = f"no data set '{name}'.* Nearest name: ag_news_subset.$"
    with pytest.raises(ValueError, match=message):
        source(name).describe()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "glue/colas",
            "BuilderConfig colas not found with version None. "
            "Nearest config: cola.",
        ),
        (
            "glue/cola:9.9.9",
            "Dataset glue cannot be loaded at version 9.9.9, only: ",
        ),
        ("No name!", ""),
    ],
)
def test_unusable_name(source, name, reason):
    with pytest.raises(ValueError, match="^`name` must be the") as raised:
        source(name).describe()
    assert f"Received: name={name!r}. {reason}".strip() in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("split", ["validation", "train[:", ""])
def test_unknown_split(source, split):
    message = r"`split` must be one of \['test', 'train'\] of 'toy_prose/small'"
    with pytest.raises(ValueError, match=message) as raised:
        list(source(split=split).paragraphs(CorpusReport()))
    assert str(raised.value).endswith(f"Received: split={split!r}.")


def test_missing_field(source):
    message = (
        r"one of the features \['label', 'text', 'title', 'words'\] of "
        "'toy_prose/small'. Received: field='body'."
    )
    with pytest.raises(ValueError, match=message):
        source(field="body").describe()


@pytest.mark.parametrize("field", ["label", "words"])
def test_field_without_text(source, field):
    message = f"that holds a single text. Received: field='{field}', which is "
    with pytest.raises(ValueError, match=message):
        source(field=field).describe()


@pytest.mark.parametrize(
    ("failure", "raised", "message"),
    [
        (
            OSError("timed out\ndetails"),
            ConnectionError,
            "could not be downloaded and prepared: timed out. Check the .* "
            "with `tfds build glue/cola` and set its `data_dir`.$",
        ),
        (
            KeyError(),
            ConnectionError,
            "could not be downloaded and prepared: KeyError. Check",
        ),
        (
            ImportError("No module named 'beam'"),
            ImportError,
            "Preparing 'glue/cola' needs a package that is not installed: No "
            "module named 'beam'. Install it",
        ),
    ],
)
def test_failed_download(tmp_path, monkeypatch, failure, raised, message):
    import tensorflow_datasets as tfds

    def fail(self):
        raise failure

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(raised, match=message):
        TfdsText("glue/cola", data_dir=tmp_path).describe()


def test_retries_of_a_download_print_nothing(tmp_path, monkeypatch, caplog):
    import tensorflow_datasets as tfds

    log = logging.getLogger("urllib3.connectionpool")

    def fail(self):
        log.warning("Retrying (Retry(total=9")
        raise OSError("timed out")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(ConnectionError, match="timed out"):
        TfdsText("glue/cola", data_dir=tmp_path).describe()
    assert "Retrying" not in caplog.text
    # Other loggers are as before.
    log.warning("Retrying")
    assert "Retrying" in caplog.text


def test_data_set_whose_code_lacks_a_package(source, monkeypatch):
    def fail(name, data_dir):
        raise ImportError("No module named 'lxml'")

    monkeypatch.setattr("tensorflow_datasets.builder", fail)
    message = "Preparing 'toy_prose/small' needs .* 'lxml'. Install"
    with pytest.raises(ImportError, match=message):
        source().describe()


def test_without_tfds(source, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    message = "needs the package tensorflow-datasets. Install it with: pip"
    with pytest.raises(ImportError, match=message):
        source().describe()
