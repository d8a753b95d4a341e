"""Writing a cache: what it depends on, kills, full disks, damage."""

import collections
import contextlib
import json
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import processes
import pytest
import toy
from teachers.conftest import LENGTH, ROWS, VOCABULARY

from keras_distil import teachers
from keras_distil.data.corpus.shards import CorpusError
from keras_distil.teachers import identity
from keras_distil.teachers.masked_lm import settings as cache_settings
from keras_distil.teachers.masked_lm import writing
from keras_distil.teachers.store import manifest
from keras_distil.teachers.store import writing as store_writing
from keras_distil.utils import disk

ROOT = Path(__file__).parents[3]
DEADLINE_S = 400


def small_shards(monkeypatch, records=5):
    """Shards of a few records, so that there are several."""
    monkeypatch.setattr(store_writing, "SHARD_BYTES", records * 1000)


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def change_manifest(folder, change, *, seal=True):
    path = folder / manifest.MANIFEST
    content = json.loads(path.read_text())
    change(content)
    if seal:
        body = {k: v for k, v in content.items() if k != "sha256"}
        content["sha256"] = disk.sha256(disk.canonical(body))
    path.write_text(json.dumps(content))


# === What a cache depends on ===


def test_a_cache_is_found_again(cache, monkeypatch):
    cached = cache()
    monkeypatch.setattr(writing, "_Job", None)
    again = cache(batch_size=9)
    assert again.folder == cached.folder
    assert again.settings == cached.settings


def test_an_equal_teacher_has_the_same_cache(cache, teacher):
    other = toy.make_teacher(vocabulary_size=VOCABULARY)
    assert identity.weights_digest(other) == identity.weights_digest(teacher)
    assert cache(teacher=other).folder == cache().folder


@pytest.mark.slow
def test_all_that_it_depends_on_has_a_cache_of_its_own(
    cache, make_corpus, teacher
):
    moved = toy.make_teacher(vocabulary_size=VOCABULARY)
    bias = moved.masked_lm_head._bias
    bias.assign(bias.numpy() + 1e-6)
    folders = [
        cache(make_corpus(rows=4), **options).folder
        for options in (
            {},
            {"teacher": moved},
            {"seed": 4},
            {"rate": 0.2},
            {"rare_token_exponent": 0.5},
            {"maskings": 1},
            {"top_k": 7},
            {"positions": "masked"},
            {"temperature": 2.5},
            {"temperature": (2.0, 2.5)},
            {"hidden_states": False},
        )
    ]
    folders.append(cache(make_corpus(rows=4, fingerprint="e" * 64)).folder)
    assert len(set(folders)) == 12
    half = toy.make_teacher(vocabulary_size=VOCABULARY, dtype="mixed_bfloat16")
    assert cache(make_corpus(rows=4), teacher=half).folder not in folders


def test_other_masks_of_another_version_are_seen(
    cache, make_corpus, tokenizer, monkeypatch
):
    corpus = make_corpus()
    before = cache(corpus)
    masking = before.settings.masking
    assert writing._first_masks(masking, corpus) == masking.first_masks
    other = masking.model_copy(update={"seed": 5})
    assert writing._first_masks(other, corpus) != masking.first_masks


def test_the_size_is_reported_before(cache, monkeypatch, tmp_path):
    lines = []
    cached = cache(say=lines.append, top_k=3, hidden_states=False)
    record = LENGTH * (3 * (2 + 2) + 4)
    shard = ROWS * record
    # Blocks of 64 KiB: one for the content, one for the index.
    expected = 2 * 2 * 2**16
    assert shard < 2**16
    assert cached.size_bytes == expected
    assert lines == [
        f"Teacher cache: 0.3 MB for {ROWS} sequences x 2 maskings, "
        f"{expected / (2 * ROWS * LENGTH):.0f} bytes per token, in "
        f"{cached.folder}; 0.3 MB to write, "
        f"{lines[0].split('write, ')[1]}"
    ]
    lines.clear()
    cache(say=lines.append, top_k=3, hidden_states=False)
    assert lines == []


def test_masked_positions_take_a_sixth():
    full, masked = (
        cache_settings.layout_of(
            _Settings(positions),
            writing.sequence_slots(128, 0.15, positions),
        ).record_bytes(128)
        for positions in ("all", "masked")
    )
    assert full / masked == pytest.approx(128 / 19)


class _Settings:
    """The settings that `layout_of` reads."""

    top_k, hidden_states, temperatures = 64, False, (2.0,)
    attention_shape = (0, 0)
    Teacher = collections.namedtuple("Teacher", "vocabulary_size hidden_dim")
    teacher = Teacher(30522, 768)

    def __init__(self, positions):
        self.positions = positions


def test_progress_is_reported(cache, monkeypatch):
    small_shards(monkeypatch)
    seen = []
    cache(progress=lambda done, total: seen.append((done, total)))
    assert [total for _, total in seen] == [2 * ROWS] * len(seen)
    counts = [done for done, _ in seen]
    assert counts == sorted(counts)
    assert counts[-1] == 2 * ROWS
    assert len(set(counts)) > 6


# === Interruptions ===


@pytest.mark.slow
def test_a_pass_continues_at_the_shard(cache, monkeypatch, tmp_path):
    small_shards(monkeypatch)
    whole = cache(output=tmp_path / "whole")
    write, written = store_writing.write_records, []

    def fails(path, records):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path.name)
        return write(path, records)

    monkeypatch.setattr(store_writing, "write_records", fails)
    with pytest.raises(KeyboardInterrupt):
        cache(output=tmp_path / "parts")
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
    parts = cache(output=tmp_path / "parts")
    shards = [x.file for part in parts._parts for x in part.shards]
    assert rest == [written[1], *shards[3:]]
    assert not scratch.exists()
    assert files_of(parts.folder) == files_of(whole.folder)


_MAKE = """
import sys
sys.path.insert(0, "tests")
import numpy as np, toy
from keras_distil import data, teachers
from keras_distil.data.corpus.text_files import CorpusReport
from keras_distil.teachers.store import writing

folder, rows, vocabulary = sys.argv[1:]
writing.SHARD_BYTES = 5000
train = np.load(rows)
corpus = data.PreparedCorpus(
    train, train[:0], np.ones(64), "f" * 64, CorpusReport(), folder
)
teachers.cache_teacher(
    toy.make_teacher(vocabulary_size=64),
    corpus,
    data.load_tokenizer(vocabulary),
    output=folder,
    top_k=8,
    batch_size=1,
)
"""


@pytest.mark.slow
def test_a_killed_pass_ends_as_an_uninterrupted_one(
    make_corpus, toy_teacher, tmp_path
):
    np.save(tmp_path / "rows.npy", make_corpus(rows=60).train)

    def start(folder):
        return processes.Process(
            ["-c", _MAKE, folder, tmp_path / "rows.npy", toy_teacher],
            cwd=ROOT,
        )

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


def test_one_waits_for_the_other(cache, tmp_path, monkeypatch):
    seen = []

    @contextlib.contextmanager
    def locked(path, doing):
        seen.append((path.name, doing))
        yield

    monkeypatch.setattr(disk, "locked", locked)
    cache(output=tmp_path / "mine")
    assert seen == [(".mine.lock", "caches this teacher")]


# === Disks ===


@pytest.mark.parametrize(
    ("count", "text"), [(123_456, "0.1 MB"), (2_340_000_000, "2.3 GB")]
)
def test_sizes_are_reported_in_mb_or_gb(count, text):
    assert store_writing.size_text(count) == text


def test_a_disk_that_is_too_small(cache, monkeypatch, tmp_path):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: usage._replace(free=1000)
    )
    with pytest.raises(
        OSError, match=r"needs 0.3 MB more, and .*/caches has 0.0 MB free. Low"
    ):
        cache()


def test_a_full_disk(cache, tmp_path, monkeypatch):
    def fails(target, records):
        raise disk.unwritten(target, "No space left on device")

    monkeypatch.setattr(store_writing, "write_records", fails)
    with pytest.raises(OSError, match="array_record could not be written: No "):
        cache(output=tmp_path / "mine")


def test_a_full_disk_meets_the_manifest(cache, tmp_path, monkeypatch):
    write = store_writing._Job._write

    def fill(self, task, count):
        partial = self._scratch / f".{manifest.MANIFEST}.partial"
        if not partial.is_symlink():
            partial.symlink_to("/dev/full")
        return write(self, task, count)

    monkeypatch.setattr(store_writing._Job, "_write", fill)
    with pytest.raises(OSError, match="json could not be written: No space"):
        cache(output=tmp_path / "mine")
    monkeypatch.undo()
    cache(output=tmp_path / "mine")


def test_a_folder_below_a_file(cache, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file/x could not be written: "):
        cache(output=tmp_path / "file" / "x")


# === Damage ===


@pytest.fixture(scope="module")
def made():
    """The folder of a finished cache."""
    return []


@pytest.fixture
def copied(cache, made, tmp_path, tmp_path_factory):
    """A copy of a cache."""
    if not made:
        folder = tmp_path_factory.mktemp("made") / "cache"
        made.append(cache(output=folder).folder)
    return shutil.copytree(made[0], tmp_path / "copied")


def test_another_cache_is_not_overwritten(cache, tmp_path):
    cache(output=tmp_path / "mine")
    with pytest.raises(
        CorpusError,
        match=r"holds another cache of a teacher: top_k=8 \(asked for: 7\). G",
    ):
        cache(output=tmp_path / "mine", top_k=7)
    other = toy.make_teacher(vocabulary_size=VOCABULARY)
    bias = other.masked_lm_head._bias
    bias.assign(bias.numpy() + 1.0)
    with pytest.raises(
        CorpusError,
        match=r"teacher.weights=[0-9a-f]{12} \(asked for: [0-9a-f]{12}\)",
    ):
        cache(output=tmp_path / "mine", teacher=other)


def test_an_empty_folder_is_taken_and_another_is_not(cache, tmp_path):
    (tmp_path / "empty").mkdir()
    cache(output=tmp_path / "empty")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("")
    with pytest.raises(CorpusError, match="full does not hold a teacher"):
        cache(output=tmp_path / "full")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format_version=2), "has format version 2; this"),
        (lambda m: m.update(format_version="1"), "has format version '1'"),
        (lambda m: m.update(more=1), "damaged .more: Extra inputs"),
        (lambda m: m["settings"].update(top_k=0), "damaged .settings.top_k"),
        (lambda m: m["settings"].update(top_k=65), "exceeds the vocabulary"),
        (lambda m: m["settings"].update(top_k=64), "do not fit `top_k`"),
        (lambda m: m["settings"].update(maskings=3), "shards are missing"),
        (lambda m: m["parts"][0].update(slots=13), "more slots than posit"),
        (
            lambda m: m["settings"]["teacher"].update(hidden_dim=10**9),
            "is too small for its 23 records. Remove the cache's folder",
        ),
        (
            lambda m: m["parts"][0]["shards"][0].update(file="../x"),
            "damaged .parts.0.shards.0.file",
        ),
        (
            lambda m: m["parts"][0]["shards"][0].update(bytes=5),
            "its manifest says 5: it is truncated or altered. Remove the",
        ),
        (
            lambda m: m["parts"][0]["shards"][0].update(file="x"),
            "x is missing. Remove the cache's folder and make it again.",
        ),
    ],
)
def test_a_damaged_manifest(copied, change, message):
    folder = copied
    change_manifest(folder, change)
    with pytest.raises(CorpusError, match=message):
        teachers.CachedTeacher(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "it is not JSON"),
        ("[]", "it is not a JSON object"),
        ("[" * 100_000, "it is not JSON"),
    ],
)
def test_a_manifest_that_is_none(copied, text, message):
    folder = copied
    (folder / manifest.MANIFEST).write_text(text)
    with pytest.raises(CorpusError, match=message):
        teachers.CachedTeacher(folder)


def test_a_manifest_that_was_altered(copied):
    folder = copied
    change_manifest(folder, lambda m: m["settings"].update(top_k=7), seal=False)
    with pytest.raises(CorpusError, match="its checksum differs"):
        teachers.CachedTeacher(folder)


def test_no_cache(tmp_path):
    with pytest.raises(CorpusError, match="teacher_cache.json is missing. `te"):
        teachers.CachedTeacher(tmp_path / "nothing")


def test_a_damaged_record_ends_training_in_one_line(cache, make_corpus):
    from teachers.masked_lm.test_cached_teacher import make_distiller, triple

    corpus = make_corpus()
    cached = cache(corpus)
    shard = cached.folder / cached._parts[0].shards[0].file
    content = bytearray(shard.read_bytes())
    # Somewhere in the records' bytes.
    content[6000] ^= 0xFF
    shard.write_bytes(bytes(content))
    distiller = make_distiller(teachers.CachedTeacher(cached.folder), triple())
    with pytest.raises(
        CorpusError,
        match="cannot be read: it has vanished or is damaged .*again.$",
    ):
        distiller.fit(
            cached.dataset(corpus, batch_size=4), steps_per_epoch=9, verbose=0
        )


# === Arguments ===


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"top_k": 0}, ValueError, "`top_k` must be from 1 to 64. Received: t"),
        ({"top_k": 65}, ValueError, "from 1 to 64. Received: top_k=65"),
        ({"top_k": 2.0}, TypeError, "`top_k` must be an integer. Received"),
        ({"top_k": True}, TypeError, "`top_k` must be an integer"),
        ({"maskings": 0}, ValueError, "`maskings` must be from 1 to"),
        ({"positions": "some"}, ValueError, "must be 'all' or 'masked'. Rec"),
        ({"temperature": 0.0}, ValueError, "Received: temperature=0.0"),
        ({"temperature": (3.0, 1.0)}, ValueError, "lowest and the highest"),
        (
            {"output": "x", "cache_dir": "y"},
            ValueError,
            "exactly one of `cache_dir` and `outp",
        ),
        ({"rate": 0.0}, ValueError, "`rate` must be above 0 and at most 1"),
        ({"rare_token_exponent": -1.0}, ValueError, "must not be negative"),
    ],
)
def test_arguments_out_of_range(cache, options, error, message):
    with pytest.raises(error, match=message):
        cache(**options)


def test_a_teacher_that_is_none(cache):
    with pytest.raises(TypeError, match="`teacher` must be a keras_hub maske"):
        cache(teacher=toy)


@pytest.mark.parametrize("value", [np.nan, 1e9])
def test_a_teacher_whose_outputs_are_not_finite(cache, value):
    wrong = toy.make_teacher(vocabulary_size=VOCABULARY)
    bias = np.zeros(VOCABULARY, "float32")
    bias[7] = value
    wrong.masked_lm_head._bias.assign(bias)
    with pytest.raises(ValueError, match="outputs .logits. are not finite, or"):
        cache(teacher=wrong)
