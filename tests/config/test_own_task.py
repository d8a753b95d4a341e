"""Entries of `finetune.tasks` that are mappings."""

import pytest

from keras_distil.config.finetune_section import FineTuneSection
from keras_distil.config.own_task import COLUMNS, METRICS, OwnTask


def entry(**changes):
    return {
        "name": "mine",
        "kind": "classification",
        "train": "train.csv",
        **changes,
    }


def section(*tasks, **settings):
    return {"tasks": list(tasks), "rows": ["teacher"], **settings}


def load(values):
    return FineTuneSection.model_validate(values)


def test_tasks_are_named_alike():
    settings = load(section("rte", entry(), by_task={"mine": {"epochs": 3}}))
    assert settings.task_names == ["rte", "mine"]
    assert settings.own_task("rte") is None
    own = settings.own_task("mine")
    assert own.train == ["train.csv"] and own.metric == "accuracy"
    assert settings.of_task("mine").epochs == 3
    assert settings.of_task("rte").epochs is None
    # As it is written beside a run, and read again.
    assert load(settings.model_dump()) == settings


@pytest.mark.parametrize("kind", METRICS)
def test_every_kind_has_metrics_and_columns(kind):
    for metric in METRICS[kind]:
        made = OwnTask.model_validate(entry(kind=kind, metric=metric))
        assert made.metric == metric
    columns = {key: f"my {key}" for key in COLUMNS[kind]}
    made = OwnTask.model_validate(entry(kind=kind, columns=columns))
    assert made.columns == columns and made.metric == METRICS[kind][0]


BAD = {
    "a known name": (
        section(entry(name="rte")),
        "the name 'rte' is that of a known task; give your own another one",
    ),
    "a name twice": (section(entry(), entry()), "must name each once"),
    "a name with a slash": (section(entry(name="a/b")), "may hold lower-case"),
    "another metric": (
        section(entry(metric="macrof1")),
        "must be one of accuracy, macro.*'macrof1'; the nearest is 'macro_f1'",
    ),
    "a metric of another kind": (
        section(entry(kind="regression", metric="accuracy")),
        "must be one of pearson, spearman, mean_absolute_error for a regress",
    ),
    "columns of another kind": (
        section(entry(columns={"tokens": "a"})),
        "may name the columns text, text_pair, label, id of a classification",
    ),
    "columns that are no mapping": (
        section(entry(columns="text")),
        "must be a mapping such as",
    ),
    "a column that is no name": (
        section(entry(columns={"text": 3})),
        "`text` must be a column's name. Received: 3",
    ),
    "several columns of one class": (
        section(entry(columns={"label": ["a", "b"]})),
        r"`label` must be a column's name. Received: \['a', 'b'\]",
    ),
    "one column of flags": (
        section(entry(kind="multi_label", columns={"label": ["a"]})),
        "or a list of columns of 0 and 1",
    ),
    "labels that YAML reads as truth values": (
        section(entry(labels=["maybe", True])),
        "write them in quotes. Received: True",
    ),
    "labels of numbers": (
        section(entry(kind="regression", labels=["a", "b"])),
        "are for classes, and a regression has none",
    ),
    "a label twice": (section(entry(labels=["a", "a"])), "name each once"),
    "a data set that would run code": (
        section(entry(tfds="huggingface:imdb")),
        "Namespaces are refused: TFDS would download and run code",
    ),
    "another encoding": (
        section(entry(encoding="utf9")),
        "must be the name of an encoding, such as utf-8.*Received: 'utf9'",
    ),
    "an encoding that reads nothing": (
        section(entry(encoding="undefined")),
        "must be the name of an encoding",
    ),
    "an encoding of bytes": (
        section(entry(encoding="hex")),
        "must be the name of an encoding",
    ),
    "weights that are none": (
        section(entry(class_weights={"a": 0.0})),
        "must be balanced, or a mapping from labels to factors above 0",
    ),
    "weights of another kind": (
        section(entry(kind="regression", class_weights="balanced")),
        "are for a classification; leave them out of a regression",
    ),
    "windows of pairs": (
        section(entry(stride=8, columns={"text": "a", "text_pair": "b"})),
        "is for single texts",
    ),
    "windows of nothing": (
        section(entry(stride=30), max_length=32),
        "must be longer than the `stride` of mine, 30, and two tokens more",
    ),
    "an override of an unknown task": (
        section(entry(), by_task={"mien": {"epochs": 1}}),
        "must name tasks. Received: 'mien'; the nearest is 'mine'",
    ),
    "a loss on classes": (
        section(
            entry(kind="multi_label"),
            losses={"label": {}, "reverse_kl": {}},
        ),
        "reverse_kl is for classes, and the task mine has labels that do not",
    ),
    "augmented words": (
        section(entry(kind="token_classification"), augment_copies=1),
        "is not for mine, whose answers are parts of the text",
    ),
    "copies of weighted examples": (
        section(entry(class_weights="balanced"), augment_copies=1),
        "is not for mine, a task of several labels, class weights or windows",
    ),
    "unlabelled text of columns without names": (
        section(
            entry(),
            rows=["teacher", "student"],
            by_task={"mine": {"unlabelled": "more.jsonl"}},
        ),
        r"`mine.unlabelled` is for tasks of whole texts that name their colum",
    ),
    "an epoch chosen on training rows": (
        section(entry(), selection="train"),
        "must be dev with the task mine, whose `dev` chooses the epoch; give",
    ),
    "no files": (section(entry(train=[])), "at least 1 item"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_entries(name):
    values, said = BAD[name]
    with pytest.raises(ValueError, match=said):
        load(values)


def test_whole_numbers_are_labels():
    assert OwnTask.model_validate(entry(labels=[0, 1])).labels == ["0", "1"]
    weights = {0: 2, "1": 0.5}
    made = OwnTask.model_validate(entry(class_weights=weights))
    assert made.class_weights == {"0": 2.0, "1": 0.5}
