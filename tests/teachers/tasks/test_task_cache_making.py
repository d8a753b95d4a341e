"""Writing a task's cache: what it depends on, kills, full disks, damage."""

import json
import shutil
import signal
import time
import types
from pathlib import Path

import numpy as np
import processes
import pytest
import toy
from teachers.tasks.conftest import (
    COUNT,
    make_examples,
    make_task_student,
    make_task_teacher,
)

from keras_distil import data, losses, teachers
from keras_distil.data.corpus.shards import CorpusError
from keras_distil.teachers.store import manifest
from keras_distil.teachers.store import writing as store_writing
from keras_distil.teachers.tasks import settings as task_settings
from keras_distil.teachers.tasks import writing
from keras_distil.utils import disk

ROOT = Path(__file__).parents[3]
DEADLINE_S = 400


def small_shards(monkeypatch, tokens=40):
    """Shards of a few examples, so that there are several."""
    monkeypatch.setattr(writing, "_SHARD_TOKENS", tokens)


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def change_manifest(folder, change):
    path = folder / manifest.MANIFEST
    content = json.loads(path.read_text())
    change(content)
    body = {k: v for k, v in content.items() if k != "sha256"}
    content["sha256"] = disk.sha256(disk.canonical(body))
    path.write_text(json.dumps(content))


# === What a cache depends on ===


def test_a_cache_is_found_again(cache_task, monkeypatch):
    cached = cache_task()
    monkeypatch.setattr(writing, "_Job", None)
    lines = []
    again = cache_task(batch_size=9, say=lines.append)
    assert again.settings == cached.settings
    assert lines == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teacher": 5}, r"teacher.weights=\w{12} \(asked for: \w{12}\). Give"),
        ({"task": "cola"}, r"task='rte' \(asked for: 'cola'\)"),
        ({"tokenizer": 1}, r"tokenizer='' \(asked for: \w{12}\)"),
        ({"examples": 1}, r"examples=\[\w{12}\] \(asked for: \[\w{12}\]\)"),
        ({"hidden_states": [0]}, r"hidden_states=\[\] \(asked for: \[0\]\)"),
        ({"attention": ["last"]}, r"attention=\[\] \(asked for: \['last'\]\)"),
    ],
)
def test_what_it_depends_on_is_refused_by_name(
    cache_task, toy_teacher, options, message
):
    cache_task(task="rte")
    options = {"task": "rte", **options}
    if "teacher" in options:
        options["teacher"] = make_task_teacher(seed=options["teacher"])
    if "tokenizer" in options:
        options["tokenizer"] = data.load_tokenizer(toy_teacher)
    if "examples" in options:
        options["examples"] = make_examples(seed=options["examples"])
    with pytest.raises(CorpusError, match=f"another cache .*{message}"):
        cache_task(**options)


def test_size_and_time_are_said_before(cache_task, monkeypatch):
    monkeypatch.setattr(writing._Job, "_seconds", lambda self, left: 754.0)
    lines = []
    cached = cache_task(task="rte", say=lines.append)
    (line,) = lines
    assert line.startswith(
        f"Teacher cache: 0.1 MB for {COUNT} examples of rte, in "
        f"{cached.folder}; 0.1 MB to write, "
    )
    assert line.endswith(" free; about 13 min here")
    assert cached.size_bytes == 2 * 2**16


def test_the_time_is_that_of_the_tokens_that_are_left(
    monkeypatch, task_teacher
):
    small_shards(monkeypatch)
    examples = make_examples()
    settings = writing._settings(task_teacher, [examples], [], [], "", None)
    clock = types.SimpleNamespace(perf_counter=iter([10.0, 12.0]).__next__)
    monkeypatch.setattr(writing, "time", clock)
    job = writing._Job(task_teacher, [examples], settings, 4)
    plan = job.plan()
    batch = np.sort(examples.lengths)[
        np.unique(np.linspace(0, COUNT - 1, 4).astype(int))
    ]
    padded = 4 * min(-(-batch.max() // 8) * 8, 12)
    assert job._seconds(plan.shards[1:]) == pytest.approx(
        2.0 / padded * examples.lengths[plan.shards[0].rows :].sum()
    )


@pytest.mark.parametrize("kind", ["classification", "span"])
def test_the_size_is_known_beforehand(cache_task, monkeypatch, kind):
    small_shards(monkeypatch)
    examples = make_examples(kind)
    cached = cache_task(
        examples,
        teacher=make_task_teacher(kind),
        hidden_states=["last"],
        attention=[0],
    )
    layout = task_settings.record_layout(
        kind,
        {"span": 2}.get(kind, 3),
        hidden_dim=16,
        hidden_states=["last"],
        attention=[0],
        # However the width is cut into heads.
        attention_shape=(1, 16),
    )
    a_token = 16 * 2 + 3 * 16 * 2
    expected = {"span": 8 + a_token, "classification": a_token}[kind]
    assert layout.record_bytes(7) - layout.record_bytes(6) == expected
    assert layout.record_bytes(0) == {"span": 0}.get(kind, 12)
    assert layout.record_bytes(5) == cached.settings.layout.record_bytes(5)
    assert len(cached._parts[0].shards) > 3
    planned = writing.planned_bytes(layout, examples.lengths)
    assert planned == cached.size_bytes


def test_shards_are_cut_by_tokens_and_by_bytes(monkeypatch):
    monkeypatch.setattr(writing, "_SHARD_TOKENS", 10)
    monkeypatch.setattr(store_writing, "SHARD_BYTES", 100)
    lengths = np.array([4, 4, 4, 2, 2, 20, 1, 1])
    sizes = np.array([1, 1, 1, 1, 99, 1, 60, 41])
    assert list(writing.cut(sizes, lengths)) == [
        (0, 2),
        (2, 4),
        (4, 5),
        (5, 6),
        (6, 7),
        (7, 8),
    ]


def test_progress_is_reported(cache_task, monkeypatch):
    small_shards(monkeypatch)
    seen = []
    cache_task(progress=lambda done, total: seen.append((done, total)))
    assert [total for _, total in seen] == [COUNT] * len(seen)
    counts = [done for done, _ in seen]
    assert counts == sorted(counts)
    assert counts[-1] == COUNT
    assert len(set(counts)) > 5


def test_encoded_texts_are_taken(cache_task, toy_teacher):
    tokenizer = data.load_tokenizer(toy_teacher)
    examples = data.encode_examples(tokenizer, ["a b", "c"], ["d", "e f g"])
    cached = cache_task(examples, tokenizer=tokenizer)
    assert cached.settings.tokenizer == data.tokenizer_hash(tokenizer)
    # Texts of another segment are other examples.
    examples.first_lengths[0] -= 1
    with pytest.raises(CorpusError, match="made of other examples"):
        cached.reader(examples)


def test_any_examples_are_taken(cache_task):
    """Unlabelled ones, and those of a student with copies."""
    examples = make_examples()
    unlabelled = data.EncodedExamples(
        **{**vars(examples), "labels": None, "max_length": 128}
    )
    cached = cache_task(unlabelled)
    cached.dataset(examples, batch_size=4, seed=0)


# === Interruptions ===


def test_a_pass_continues_at_the_shard(cache_task, monkeypatch, tmp_path):
    small_shards(monkeypatch)
    whole = cache_task(folder=tmp_path / "whole", hidden_states=["last"])
    write, written = store_writing.write_records, []

    def fails(path, records):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path.name)
        return write(path, records)

    monkeypatch.setattr(store_writing, "write_records", fails)
    with pytest.raises(KeyboardInterrupt):
        cache_task(folder=tmp_path / "parts", hidden_states=["last"])
    assert not (tmp_path / "parts").exists()
    (scratch,) = tmp_path.glob(".parts.*.partial")
    # One of the three was damaged since.
    (scratch / written[1]).write_bytes(b"nothing")
    rest = []
    monkeypatch.setattr(
        store_writing,
        "write_records",
        lambda path, records: rest.append(path.name) or write(path, records),
    )
    parts = cache_task(folder=tmp_path / "parts", hidden_states=["last"])
    shards = [x.file for x in parts._parts[0].shards]
    assert rest == [written[1], *shards[3:]]
    assert not scratch.exists()
    assert files_of(parts.folder) == files_of(whole.folder)


_MAKE = """
import sys
sys.path.insert(0, "tests")
from keras_distil import teachers
from keras_distil.teachers.tasks import writing
from teachers.tasks.conftest import make_examples, make_task_teacher

writing._SHARD_TOKENS = 30
teachers.cache_task_teacher(
    make_task_teacher(),
    make_examples(count=200),
    sys.argv[1],
    hidden_states=["last"],
    batch_size=1,
)
"""


@pytest.mark.slow
def test_a_killed_pass_ends_as_an_uninterrupted_one(tmp_path):
    def start(folder):
        return processes.Process(["-c", _MAKE, folder], cwd=ROOT)

    process = start(tmp_path / "whole")
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, errors
    killed = tmp_path / "killed"
    for count in (4, 11):
        process = start(killed)
        deadline = time.monotonic() + DEADLINE_S
        while process.poll() is None and time.monotonic() < deadline:
            if len(list(tmp_path.glob(".killed.*.partial/*.done"))) > count:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
        process.communicate(timeout=DEADLINE_S)
        assert process.returncode == -signal.SIGKILL
        assert not killed.exists()
    process = start(killed)
    output, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, errors
    assert output.startswith("Teacher cache: ")
    assert files_of(killed) == files_of(tmp_path / "whole")


# === Disks ===


def test_a_disk_that_is_too_small(cache_task, monkeypatch, tmp_path):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: usage._replace(free=1000)
    )
    with pytest.raises(
        OSError,
        match=r"needs 0.1 MB more, and .* has 0.0 MB free. Leave out losses on",
    ):
        cache_task()


def test_a_full_disk(cache_task, monkeypatch):
    def fails(target, records):
        raise disk.unwritten(target, "No space left on device")

    monkeypatch.setattr(store_writing, "write_records", fails)
    with pytest.raises(OSError, match="array_record could not be written: No "):
        cache_task()


# === Damage ===


def test_a_damaged_shard_is_named(cache_task, tmp_path):
    examples = make_examples()
    cached = cache_task(examples)
    shard = cached.folder / cached._parts[0].shards[0].file
    content = bytearray(shard.read_bytes())
    (batch,) = cached.dataset(
        examples, batch_size=5, seed=3, steps=1
    ).as_numpy_iterator()
    record = batch[0][f"{cached.prefix}outputs"][0].tobytes()
    content[content.index(record) + 1] ^= 0xFF
    shard.write_bytes(bytes(content))
    # Sizes are compared at once, checksums as records are read.
    cached = teachers.CachedTaskTeacher(cached.folder)
    from keras_distil import Distiller

    distiller = Distiller(
        cached, make_task_student(), losses.task_loss("classification")[:2]
    )
    distiller.compile("sgd", run_eagerly=True)
    with pytest.raises(
        CorpusError,
        match=f"{shard.name} cannot be read: it has vanished or is damaged .*"
        "again.$",
    ):
        distiller.fit(
            cached.dataset(examples, batch_size=5, seed=3),
            steps_per_epoch=5,
            verbose=0,
        )
    shard.write_bytes(bytes(content[:70_000]))
    with pytest.raises(
        CorpusError, match=f"{shard.name} has 70,000 bytes, but its manifest s"
    ):
        teachers.CachedTaskTeacher(cached.folder)
    shard.unlink()
    with pytest.raises(CorpusError, match=f"{shard.name} is missing. Remove"):
        teachers.CachedTaskTeacher(cached.folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format_version=2), "has format version 2; this"),
        (lambda m: m.update(more=1), "damaged .more: Extra inputs"),
        (lambda m: m["parts"].append(m["parts"][0]), "must be one part for"),
        (lambda m: m["parts"][0].update(rows=22), "shards are missing"),
        (
            lambda m: m["settings"].update(kind="regression"),
            "`num_outputs` does not fit the kind",
        ),
        (lambda m: m["settings"].update(labels=["a"]), "do not name the outp"),
        (
            lambda m: m["settings"].update(hidden_states=["last", "last"]),
            "a layer is listed twice",
        ),
        (
            lambda m: m["settings"].update(hidden_states=["first"]),
            "damaged .settings.hidden_states",
        ),
        (lambda m: m["settings"].update(attention=[0]), "do not fit `atten"),
        (
            lambda m: m["settings"].update(attention=[0], attention_heads=3),
            "do not divide the width",
        ),
        (
            lambda m: (
                m["settings"].update(hidden_states=[0]),
                m["settings"]["teacher"].update(hidden_dim=10**9),
            ),
            "is too small for its 23 records. Remove the cache's folder",
        ),
    ],
)
def test_a_damaged_manifest(cache_task, change, message):
    folder = cache_task().folder
    change_manifest(folder, change)
    with pytest.raises(CorpusError, match=message):
        teachers.CachedTaskTeacher(folder)


def test_records_of_another_size(cache_task):
    examples = make_examples()
    folder = cache_task(examples).folder
    change_manifest(
        folder, lambda m: m["settings"].update(hidden_states=["last"])
    )
    cached = teachers.CachedTaskTeacher(folder)
    with pytest.raises(
        Exception,
        match="part0_row000000000.array_record cannot be .*12 bytes inst",
    ):
        list(cached.dataset(examples, batch_size=5, seed=3, steps=1))


def test_fewer_records_than_examples(cache_task):
    examples, fewer = make_examples(), make_examples(count=20)
    folder = cache_task(examples).folder
    change_manifest(
        folder, lambda m: m["settings"].update(examples=[fewer.fingerprint])
    )
    with pytest.raises(CorpusError, match="it has 23 records of 20 examples"):
        teachers.CachedTaskTeacher(folder).reader(fewer)


def test_caches_of_another_purpose(cache_task, tmp_path):
    folder = cache_task().folder
    with pytest.raises(
        CorpusError,
        match="another purpose, 'classification': `teachers.CachedTeacher` op",
    ):
        teachers.CachedTeacher(folder)
    change_manifest(folder, lambda m: m["settings"].pop("kind"))
    with pytest.raises(CorpusError, match="purpose, 'masked_lm': "):
        teachers.CachedTaskTeacher(folder)
    with pytest.raises(CorpusError, match="`teachers.cache_task_teacher` make"):
        teachers.CachedTaskTeacher(tmp_path / "nothing")


# === Arguments ===


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "`batch_size` must be at least 1"),
        (
            {"hidden_states": [2]},
            ValueError,
            r"`hidden_states` must be a list of the teacher's layers, out of "
            r"\['embeddings', 0, 1, 'last'\]. Received: hidden_states=\[2\]",
        ),
        ({"hidden_states": "last"}, ValueError, "Received: hidden_states='las"),
        ({"hidden_states": [True]}, ValueError, r"hidden_states=\[True\]"),
        (
            {"attention": ["embeddings"]},
            ValueError,
            r"`attention` must be .* out of \[0, 1, 'last'\]. Received",
        ),
    ],
)
def test_arguments_out_of_range(cache_task, options, error, message):
    with pytest.raises(error, match=message):
        cache_task(**options)


def test_teachers_and_examples_that_do_not_fit(cache_task):
    with pytest.raises(TypeError, match="`teacher` must be a model for a task"):
        cache_task(teacher=toy.make_teacher())
    with pytest.raises(TypeError, match="`examples` must be those that `data"):
        cache_task(["a text"])
    long = make_task_teacher(max_sequence_length=9)
    with pytest.raises(ValueError, match="at most 9 tokens each, the posit"):
        cache_task(teacher=long)
    examples = make_examples()
    examples.token_ids[3] = 64
    with pytest.raises(ValueError, match="token ids below 64, .*Received: 64."):
        cache_task(examples)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_teacher_whose_outputs_are_not_finite(cache_task, value):
    wrong = make_task_teacher()
    wrong.output_dense.bias.assign(np.array([0.0, value, 0.0], "float32"))
    with pytest.raises(ValueError, match="outputs .outputs. are not finite"):
        cache_task(teacher=wrong)
