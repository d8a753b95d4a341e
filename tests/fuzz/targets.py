"""What is fuzzed: each target writes mutated files and reads them.

A reader is called as the command calls it. What may come out is what
`keras_distil.cli.app` turns into one line.
"""

import hashlib
import io
import json
import random
import struct
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import mutate
import yaml
from harness import Defect, Target

from keras_distil import config
from keras_distil.cli import app, printing
from keras_distil.utils import quiet

quiet.import_tensorflow()

# TensorFlow comes first, without its notes.
import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from safetensors.numpy import save  # noqa: E402

from keras_distil import Distiller, callbacks, losses, models, teachers  # noqa: E402
from keras_distil.data import tokenize  # noqa: E402
from keras_distil.data.corpus import prepared_corpus, shards  # noqa: E402
from keras_distil.data.corpus.text_files import CorpusReport  # noqa: E402
from keras_distil.data.masked_batches import reading_error  # noqa: E402
from keras_distil.data.tasks.batches import encode_examples  # noqa: E402
from keras_distil.models import adapters  # noqa: E402
from keras_distil.runs import run_folder, stages  # noqa: E402
from keras_distil.runs.corpus import load_tokenizer  # noqa: E402
from keras_distil.runs.report import write_page  # noqa: E402
from keras_distil.teachers.store import manifest as cache_manifest  # noqa: E402
from keras_distil.training import snapshots, sources  # noqa: E402
from keras_distil.utils import disk  # noqa: E402
from keras_distil.utils.progress import Progress  # noqa: E402

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "models" / "golden"
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *".,;:!?-"]
VOCABULARY = "\n".join(WORDS) + "\n"
QUIET = Progress(quiet=True)


def all_targets() -> list[Target]:
    """Every target, those that need toy models with them."""
    refusals = app._EXPECTED
    toys = Toys()
    return [
        Target("recipe", recipe, (config.RecipeError,), 8, False),
        Target("override", override, (config.RecipeError,), 4, False),
        Target("checkpoint", checkpoint, refusals, 8),
        Target("tokenizer", tokenizer, refusals, 4),
        Target("preset", toys.preset, refusals, 2),
        Target("keras_file", toys.keras_file, refusals, 4),
        Target("adapter", toys.adapter, refusals, 4),
        Target("snapshot", snapshot, refusals, 4),
        Target("state", toys.state, refusals, 6),
        Target("run_folder", toys.run_folder, refusals, 5),
        Target("corpus", toys.corpus, refusals, 5),
        Target("teacher_cache", toys.teacher_cache, refusals, 5),
        Target("task_cache", toys.task_cache, refusals, 5),
    ]


# === Recipes ===

_YAML_TRICKS = (
    "!!python/object/apply:os.system ['touch escaped']",
    "!!python/name:os.system",
    "!!python/object/new:subprocess.Popen [[touch, escaped]]",
    "!!binary '*'",
    "!!set {a, b}",
    "!!omap [a: 1]",
    "!!timestamp 9999-99-99",
    "!unknown 1",
    "? [a, b]\n: 1",
    "<<: 1",
    "<<: [*x]",
    "&a [*a]",
    "&a {a: *a}",
    "1" * 5000,
    "9999-99-99",
    "0x" + "f" * 5000,
    "1e999999",
    "190:20:30" + ":59" * 400,
    "[" * 2000,
    "{a: " * 500,
    "%YAML 9.9\n---\n",
    "--- 1\n--- 2\n",
    "\t- x",
    "'",
    '"\\x00"',
    '"\\ud800"',
    "*nowhere",
    ".inf",
    ".nan",
)


def _bomb(rng: random.Random) -> str:
    """Aliases of aliases: a few lines that stand for billions of values."""
    width, depth = rng.randint(2, 10), rng.randint(5, 40)
    lines = ["l0: &l0 [lol]"]
    for level in range(1, depth):
        aliases = ", ".join([f"*l{level - 1}"] * width)
        lines.append(f"l{level}: &l{level} [{aliases}]")
    key = rng.choice(("name", "data", "student", "extra", "teacher"))
    return "\n".join([*lines, f"{key}: *l{depth - 1}"]) + "\n"


def _recipe_text(rng: random.Random) -> bytes:
    text = rng.choice(RECIPES).read_text("utf-8")
    kind = rng.randrange(6)
    if kind == 0:
        return mutate.change_bytes(rng, text.encode())
    if kind == 1:
        return (text + _bomb(rng)).encode()
    if kind == 2:
        lines = text.splitlines()
        place = rng.randrange(len(lines))
        head = lines[place].partition(":")[0]
        lines[place] = f"{head}: {rng.choice(_YAML_TRICKS)}"
        return "\n".join(lines).encode()
    if kind == 3:
        lines = text.splitlines()
        lines.insert(rng.randrange(len(lines)), rng.choice(lines))
        return "\n".join(lines).encode()
    values = mutate.change_tree(rng, yaml.safe_load(text))
    dumped = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    return dumped.encode("utf-8", "surrogatepass")


def _load_recipe(path: Path, overrides: list[str]) -> None:
    made = config.load_recipe(path, overrides)
    copy = path.with_name("copy.yaml")
    copy.write_text(config.dump_recipe(made), "utf-8")
    if repr(config.load_recipe(copy)) != repr(made):
        raise Defect("the recipe reads back as another one")


def recipe(rng: random.Random, folder: Path) -> None:
    """A recipe's file."""
    path = folder / "recipe.yaml"
    path.write_bytes(_recipe_text(rng))
    _load_recipe(path, [])


def override(rng: random.Random, folder: Path) -> None:
    """Strings of `--set` on a good recipe."""
    path = folder / "recipe.yaml"
    path.write_bytes(rng.choice(RECIPES).read_bytes())
    keys = [
        *("distill.steps", "data.sources.0.packages", "teacher.source"),
        *(
            "distill.losses.soft_target.temperature",
            "name",
            "data.sources.9.kind",
        ),
        *(
            "data.sources.-1.kind",
            "distill.schedules.soft_target.temperature",
            "a.b.c",
        ),
        *("", ".", "..", "data.", ".data", "data.sources.٣.kind", "name.x"),
        *("data.sources.0", "data.sources", "data", "data.sources.0.kind"),
        *("data.sources.²", "teacher.train", "student.layers", "x" * 3000),
    ]
    given = []
    for _ in range(rng.randint(1, 4)):
        value = rng.choice(
            (
                rng.choice(_YAML_TRICKS),
                json.dumps(rng.choice(mutate.ODD_VALUES)),
                str(rng.choice(mutate.ODD_VALUES)),
                json.dumps(mutate.nested(rng.choice((3, 400)), False)),
                _bomb(rng),
            )
        )
        text = f"{rng.choice(keys)}={value}"
        if rng.random() < 0.2:
            text = mutate.change_bytes(rng, text.encode()).decode(
                "utf-8", "surrogateescape"
            )
        given.append(text)
    _load_recipe(path, given)


# === safetensors ===


def _split_safetensors(content: bytes) -> tuple[Any, bytes]:
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def _join_safetensors(header: Any, body: bytes) -> bytes:
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + body


def change_safetensors(rng: random.Random, content: bytes) -> bytes:
    """Changes names, types, shapes, offsets, the length or any bytes."""
    kind = rng.randrange(6)
    if kind == 0:
        return mutate.change_bytes(rng, content)
    header, body = _split_safetensors(content)
    if kind == 1:
        length = rng.choice((0, 1, 2**31, 2**63 - 1, 2**64 - 1, len(content)))
        return struct.pack("<Q", length) + content[8:]
    if kind == 2:
        return _join_safetensors(header, body[: rng.randrange(len(body) + 1)])
    names = [name for name in header if name != "__metadata__"]
    name = rng.choice(names)
    if kind == 3:
        header[name]["dtype"] = rng.choice(
            (
                *("BF16", "F64", "F16", "I32", "U8", "BOOL", "F8_E4M3", "U64"),
                *("F4", "C64", "X", "", None, 3),
            )
        )
    elif kind == 4:
        shape = rng.choice(
            ([2**40, 2**40], [0], [], [-1], [2**63], [1.5], "x", None, [1, 0])
        )
        header[name]["shape"] = shape
        if rng.random() < 0.3:
            header[name]["data_offsets"] = rng.choice(
                ([0, 0], [0, 2**62], [2**62, 0], [-1, 4], [0], None)
            )
    else:
        offsets = [header[other]["data_offsets"] for other in names]
        header = mutate.change_tree(
            rng, header, ("BF16", "I64", [4, 4], [0, 16], *offsets)
        )
    return _join_safetensors(header, body)


def _consistent_change(rng: random.Random, content: bytes) -> bytes:
    """Other tensors in a file that is whole: types, shapes, names, values."""
    header, body = _split_safetensors(content)
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        kinds = {"F32": "f4", "I64": "i8", "I32": "i4", "U32": "u4"}
        kind = kinds.get(entry["dtype"], "u1")
        array = np.frombuffer(body[start:end], kind)
        if entry["dtype"] in kinds:
            array = array.reshape(entry["shape"])
        tensors[name] = array
    for _ in range(rng.randint(1, 3)):
        name = rng.choice(list(tensors))
        kind = rng.randrange(6)
        if kind == 0:
            del tensors[name]
        elif kind == 1:
            tensors[name[:-1] + rng.choice("xyz./")] = tensors[name]
        elif kind == 2:
            tensors[name] = np.repeat(tensors[name].reshape(-1), 2)
        elif kind == 3:
            new_type = rng.choice(("f2", "f8", "i4", "u1", "?", "i8"))
            with np.errstate(all="ignore"):
                tensors[name] = tensors[name].astype(new_type)
        elif kind == 4:
            tensors[name] = tensors[name].reshape(-1)
        else:
            tensors[name] = np.full_like(tensors[name], np.nan)
        if not tensors:
            break
    return save(tensors, header.get("__metadata__"))


# === Checkpoints and tokenizers in Hugging Face's layout ===


def change_json(rng: random.Random, text: str, more: tuple = ()) -> bytes:
    """Other bytes, or another tree."""
    if rng.random() < 0.2:
        return mutate.change_bytes(rng, text.encode())
    if rng.random() < 0.1:
        return rng.choice((b"[" * 200_000, b"1" * 6000, b"", b"\xff\xfe{}"))
    changed = json.dumps(mutate.change_tree(rng, json.loads(text), more))
    return changed.encode()


def checkpoint(rng: random.Random, folder: Path) -> None:
    """config.json, model.safetensors, and the index of shards."""
    source = GOLDEN / rng.choice(("bert", "distil_bert"))
    settings = (source / "config.json").read_text()
    weights = (source / "model.safetensors").read_bytes()
    index = None
    kind = rng.randrange(6)
    if kind == 0:
        settings = change_json(rng, settings).decode("utf-8", "replace")
    elif kind == 1:
        # A size that is a number, but not that of the weights.
        values = json.loads(settings)
        name = rng.choice([k for k, v in values.items() if type(v) is int])
        values[name] = rng.choice((0, 1, 3, 17, 10**6, 10**9, 10**13, 2**63))
        settings = json.dumps(values)
    elif kind in (2, 3):
        weights = change_safetensors(rng, weights)
    elif kind == 4:
        weights = _consistent_change(rng, weights)
    else:
        header, body = _split_safetensors(weights)
        shard = rng.choice(
            ("a.safetensors", "../a.safetensors", "/a.safetensors", "..", "a/")
        )
        names = {name: shard for name in header if name != "__metadata__"}
        text = json.dumps({"metadata": {"total_size": 1}, "weight_map": names})
        index = change_json(rng, text, ("../a.safetensors", "b.safetensors"))
        (folder / "a.safetensors").write_bytes(weights)
    (folder / "config.json").write_text(settings)
    if index is None:
        (folder / "model.safetensors").write_bytes(weights)
    else:
        (folder / "model.safetensors.index.json").write_bytes(index)
    models.load_teacher(folder, allow_new_head=rng.random() < 0.2)


def tokenizer(rng: random.Random, folder: Path) -> None:
    """vocab.txt with its settings, and tokenizer.json."""
    settings = {
        "do_lower_case": True,
        "strip_accents": None,
        "tokenize_chinese_chars": True,
    }
    (folder / "vocab.txt").write_text(VOCABULARY)
    kind = rng.randrange(3)
    if kind == 0:
        (folder / "vocab.txt").write_bytes(
            mutate.change_bytes(rng, VOCABULARY.encode())
        )
    elif kind == 1:
        (folder / "tokenizer_config.json").write_bytes(
            change_json(rng, json.dumps(settings))
        )
    else:
        whole = _whole_tokenizer()
        (folder / "tokenizer.json").write_bytes(change_json(rng, whole))
    good = config.load_recipe(RECIPES[0], [f"teacher.source={folder}"])
    load_tokenizer(good).encode("a line of text")


def _whole_tokenizer() -> str:
    from keras_distil import data

    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "vocab.txt").write_text(VOCABULARY)
        return data.load_tokenizer(name).to_str()


# === Training states ===


def _sign(folder: Path, manifest: Any) -> None:
    """Gives an altered snapshot the checksums of a good one."""
    body = {k: v for k, v in manifest.items() if k != "sha256"}
    if isinstance(body.get("files"), dict):
        for name in body["files"]:
            path = folder / "x" if "\x00" in name else folder / name
            if path.is_file():
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                body["files"][name] = digest
    digest = disk.sha256(disk.canonical(body))
    text = json.dumps({**body, "sha256": digest})
    (folder / "manifest.json").write_text(text)


def change_snapshot(rng: random.Random, folder: Path) -> None:
    """Changes files of a snapshot, with wrong checksums or with right ones."""
    files = [path for path in folder.iterdir() if path.is_file()]
    signed = rng.random() < 0.6
    path = rng.choice(files)
    manifest = json.loads((folder / "manifest.json").read_text())
    kind = rng.randrange(5)
    if path.name == "tensors.safetensors" and kind < 2:
        path.write_bytes(change_safetensors(rng, path.read_bytes()))
    elif path.name == "tensors.safetensors" and kind < 4:
        path.write_bytes(_consistent_change(rng, path.read_bytes()))
    elif kind == 4:
        path.unlink()
        if rng.random() < 0.3:
            path.mkdir()
    elif path.name != "manifest.json":
        path.write_bytes(mutate.change_bytes(rng, path.read_bytes()))
    elif rng.random() < 0.3:
        path.write_bytes(change_json(rng, path.read_text()))
        return
    else:
        more = ({"..": "0"}, {"../a": "0"}, {"": "0"}, {"a\x00": "0"})
        manifest = mutate.change_tree(rng, manifest, more)
    if signed and isinstance(manifest, dict) and not path.is_dir():
        _sign(folder, manifest)
    elif path.name == "manifest.json" and path.is_file():
        path.write_text(json.dumps(manifest))


def snapshot(rng: random.Random, folder: Path) -> None:
    """The newest snapshot of a folder."""
    tensors = {"kernel": np.arange(6.0).reshape(2, 3), "step": np.array(3)}
    for step in (1, 2):
        snapshots.write_snapshot(
            folder, step, tensors, {"epoch": {"number": step}}, keep=9
        )
    change_snapshot(rng, folder / "step-000000002")
    if rng.random() < 0.3:
        change_snapshot(rng, folder / "step-000000001")
    if rng.random() < 0.2:
        name = rng.choice(("step-", "step-000000003", "step-" + "9" * 200))
        (folder / name).mkdir()
    snapshots.newest_snapshot(folder, lambda line: None)


def _files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def change_cache(
    rng: random.Random, files: dict[str, bytes]
) -> dict[str, bytes]:
    """The files of a teacher's cache with one of them changed."""
    files = dict(files)
    name = rng.choice(list(files))
    if rng.random() < 0.1:
        del files[name]
    elif name != cache_manifest.MANIFEST:
        files[name] = mutate.change_bytes(rng, files[name])
    else:
        body = json.loads(files[name])
        del body["sha256"]
        body = mutate.change_tree(rng, body, ("../x", 10**9, 10**13))
        if isinstance(body, dict):
            digest = disk.sha256(disk.canonical(body))
            body = {**body, "sha256": digest}
        files[name] = json.dumps(body).encode()
    return files


# === What needs models ===


class Toys:
    """Toy models, made once, and the targets that need them."""

    def __init__(self) -> None:
        backbone = models.ExactBertBackbone(
            vocabulary_size=len(WORDS),
            num_layers=2,
            num_heads=2,
            hidden_dim=8,
            intermediate_dim=12,
            dropout=0.0,
            max_sequence_length=8,
        )
        self._teacher = models.ExactBertMaskedLM(backbone)
        self._states: dict[str, bytes] = {}
        self._make_files()
        self._make_states()
        self._make_corpus()

    def _make_files(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            self._teacher.save(folder / "toy.keras")
            self._teacher.save_to_preset(folder / "preset")
            self._preset = {
                str(path.relative_to(folder / "preset")): path.read_bytes()
                for path in (folder / "preset").rglob("*")
                if path.is_file()
            }
            self._keras_file = (folder / "toy.keras").read_bytes()
            self._base = models.load_teacher(folder / "toy.keras")
            trained = models.load_teacher(folder / "toy.keras")
            adapters.enable_adapter(trained, 2)
            path = folder / "adapter.safetensors"
            adapters.save_adapter(trained, path, base_sha256="0")
            self._adapter = path.read_bytes()

    def _make_states(self) -> None:
        student = models.initialize_student(self._teacher, 1, dropout=0.0)
        self._distiller = Distiller(
            self._teacher, student, losses.triple_loss()
        )
        self._distiller.compile(keras.optimizers.AdamW(0.01))
        token_ids = np.arange(32).reshape(4, 8) % 20 + 5
        x = {
            "token_ids": token_ids.astype("int32"),
            "padding_mask": np.ones((4, 8), "int32"),
        }
        triple = x, token_ids.astype("int32"), np.ones((4, 8), "float32")
        batches = tf.data.Dataset.from_tensor_slices(triple).repeat().batch(2)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            self._distiller.fit(
                batches,
                epochs=1,
                steps_per_epoch=2,
                verbose=0,
                callbacks=[
                    callbacks.StudentCheckpoint(
                        folder / "student.keras", monitor="loss"
                    ),
                    callbacks.TrainingState(
                        folder / "states", keep=2, every_steps=1
                    ),
                    callbacks.MetricsLog(
                        folder / "metrics.jsonl", stage="distill"
                    ),
                ],
            )
            self._metrics = (folder / "metrics.jsonl").read_bytes()
            self._states = {
                str(path.relative_to(folder / "states")): path.read_bytes()
                for path in (folder / "states").rglob("*")
                if path.is_file()
            }
        self._source = sources.make_source(self._distiller, batches, 2)

    def _make_corpus(self) -> None:
        ids = np.arange(64, dtype=np.uint16) % len(WORDS)
        sequences = ids.reshape(8, 8)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            parts = {
                part: {
                    "length": 8,
                    "shards": [
                        shards.write_shard(
                            folder / shards.shard_name(part, 0, 1), sequences
                        )
                    ],
                }
                for part in ("train", "held_out")
            }
            self._settings = {"dtype": "uint16", "sequence_length": 8}
            manifest = prepared_corpus.make_manifest(
                self._settings, parts, np.arange(64), CorpusReport(), []
            )
            prepared_corpus.write_manifest(
                folder / prepared_corpus.MANIFEST, manifest
            )
            self._corpus = {
                path.name: path.read_bytes() for path in folder.iterdir()
            }
            self._opened = prepared_corpus.open_corpus(folder)
            self._make_cache(folder)

    def _make_cache(self, folder: Path) -> None:
        (folder / "vocab.txt").write_text(VOCABULARY)
        cached = teachers.cache_teacher(
            self._teacher,
            self._opened,
            tokenize.load_tokenizer(folder),
            output=folder / "cache",
            top_k=3,
            maskings=1,
            say=None,
        )
        self._cache = _files_in(cached.folder)
        self._examples = encode_examples(
            tokenize.load_tokenizer(folder), ["a b", "c", "d e f"], max_length=8
        )
        cached_task = teachers.cache_task_teacher(
            models.task_model(self._teacher, "span"),
            self._examples,
            folder / "task_cache",
            hidden_states=["last"],
            attention=[0],
            say=None,
        )
        self._task_cache = _files_in(cached_task.folder)

    def teacher_cache(self, rng: random.Random, folder: Path) -> None:
        """A cache of a teacher: its manifest and shards."""
        _write_files(folder, change_cache(rng, self._cache))
        cached = teachers.CachedTeacher(folder)
        part = cached._parts[0]
        with tf.device("cpu"):
            read = cached._reader(part)
            places = tf.range(min(part.rows, 4), dtype=tf.int64)
            try:
                read(places, tf.zeros_like(places))
            except tf.errors.OpError as error:
                raise reading_error(error) or error from None

    def task_cache(self, rng: random.Random, folder: Path) -> None:
        """A cache of a task's teacher: its manifest and shards."""
        _write_files(folder, change_cache(rng, self._task_cache))
        cached = teachers.CachedTaskTeacher(folder)
        with tf.device("cpu"):
            read = cached.reader(self._examples)
            try:
                read(tf.range(3, dtype=tf.int64), tf.constant(8, tf.int64))
            except tf.errors.OpError as error:
                raise reading_error(error) or error from None

    def corpus(self, rng: random.Random, folder: Path) -> None:
        """A prepared corpus: its manifest and shards."""
        files = dict(self._corpus)
        name = rng.choice(list(files))
        if rng.random() < 0.1:
            del files[name]
        elif name != prepared_corpus.MANIFEST:
            files[name] = mutate.change_bytes(rng, files[name])
        elif rng.random() < 0.3:
            files[name] = change_json(rng, files[name].decode())
        else:
            more = ("../train-00000-of-00001.array_record", 10**9, 10**13)
            body = json.loads(files[name])
            del body["sha256"]
            body = mutate.change_tree(rng, body, more)
            if isinstance(body, dict):
                digest = disk.sha256(disk.canonical(body))
                body = {**body, "sha256": digest}
            files[name] = json.dumps(body).encode()
        if rng.random() < 0.6 and prepared_corpus.MANIFEST in files:
            files[prepared_corpus.MANIFEST] = _fitting_manifest(files)
        _write_files(folder, files)
        made = prepared_corpus.open_corpus(
            folder,
            expected=self._settings if rng.random() < 0.5 else None,
            verify=rng.random() < 0.3,
        )
        made.held_out[:2]
        train = made.train if isinstance(made.train, list) else [made.train]
        for part in train:
            part.read(np.arange(min(len(part), 8)))

    def keras_file(self, rng: random.Random, folder: Path) -> None:
        """A `.keras` archive."""
        self.write_keras_file(rng, folder / "toy.keras")
        models.load_teacher(folder / "toy.keras")

    def write_keras_file(self, rng: random.Random, path: Path) -> None:
        """Writes a changed archive."""
        content = self._keras_file
        kind = rng.randrange(6)
        if kind == 0:
            path.write_bytes(mutate.change_bytes(rng, content))
        else:
            path.write_bytes(_change_archive(rng, content, kind))

    def preset(self, rng: random.Random, folder: Path) -> None:
        """A directory that KerasHub wrote."""
        files = dict(self._preset)
        name = rng.choice(list(files))
        if rng.random() < 0.1:
            del files[name]
        elif name.endswith(".json"):
            text = files[name].decode()
            files[name] = change_json(rng, text, _KERAS_TRICKS)
        else:
            files[name] = mutate.change_bytes(rng, files[name])
        _write_files(folder, files)
        models.load_teacher(folder)

    def adapter(self, rng: random.Random, folder: Path) -> None:
        """An adapter, merged into its base or trained on."""
        path = folder / "adapter.safetensors"
        change = rng.choice((change_safetensors, _consistent_change))
        path.write_bytes(change(rng, self._adapter))
        before = self._base.get_weights()
        try:
            adapters.merge_adapter(self._base, path, base_sha256="0")
        finally:
            self._base.set_weights(before)

    def state(self, rng: random.Random, folder: Path) -> None:
        """A training state, as `fit` enters it."""
        _write_files(folder, self._states)
        newest = max(folder.iterdir())
        change_snapshot(rng, newest)
        if rng.random() < 0.3:
            change_snapshot(rng, min(folder.iterdir()))
        checkpoint = callbacks.StudentCheckpoint(
            folder / "student.keras", monitor="loss"
        )
        state = callbacks.TrainingState(folder, every_steps=1)
        position = state.start(self._distiller, self._source, [checkpoint])
        values = (*position, checkpoint.best or 0.0)
        if not all(isinstance(x, int | float) and x == x for x in values):
            raise Defect(f"went on from {position}, {checkpoint.best!r}")

    def run_folder(self, rng: random.Random, folder: Path) -> None:
        """A run's folder: the same command again."""
        made = config.load_recipe(RECIPES[0])
        run = run_folder.open_run(made, folder, QUIET, command=["run", "toy"])
        choice = {"word": "a", "probability": 0.5}
        guess = {"before": "b", "after": "c", "word": "a"}
        guess |= {"teacher": [choice], "student": [choice]}
        run_folder.write_json(
            folder / "side_by_side.json",
            {"sequences": 1, "similarity": [[0.5]], "guesses": [guess]},
        )
        report = {
            "name": "toy",
            "rows": {
                name: {
                    "mlm_accuracy": 0.5,
                    "mlm_loss": 1.5,
                    "teacher_agreement": 0.5,
                    "parameters": 10,
                    "latency_ms": 1.0,
                    "size_mb": 2.0,
                }
                for name in ("teacher", "student")
            },
            "kept_percent": 50.0,
            "duration_s": 3.0,
        }
        run_folder.write_json(folder / "report.json", report)
        (folder / "metrics.jsonl").write_bytes(self._metrics)
        path = folder / rng.choice(
            (
                *("recipe.yaml", "environment.json", "report.json"),
                *("metrics.jsonl", "side_by_side.json", "commands.json"),
            )
        )
        if path.suffix == ".json":
            path.write_bytes(change_json(rng, path.read_text()))
        elif rng.random() < 0.1:
            path.unlink()
            path.mkdir()
        else:
            path.write_bytes(mutate.change_bytes(rng, path.read_bytes()))
        run = run_folder.open_run(made, folder, QUIET)
        if run.report_path.is_file():
            found = stages.run_recipe(run)
            printing.print_report(found)
            # Its charts take a second.
            if rng.random() < 0.1:
                write_page(folder, found)
        log = callbacks.MetricsLog(folder / "metrics.jsonl", stage="distill")
        log.set_model(self._distiller)
        try:
            log.on_train_begin()
        finally:
            log.on_train_end()


def _write_files(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _fitting_manifest(files: dict[str, bytes]) -> bytes:
    """The manifest with the sizes and checksums that the shards have."""
    content = files[prepared_corpus.MANIFEST]
    try:
        body = json.loads(content)
        del body["sha256"]
        for part in body["parts"].values():
            for shard in part["shards"]:
                found = files[shard["file"]]
                shard["bytes"] = len(found)
                shard["sha256"] = hashlib.sha256(found).hexdigest()
        digest = disk.sha256(disk.canonical(body))
        return json.dumps({**body, "sha256": digest}).encode()
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
    ):
        return content


# === Keras's archives ===

_BOMB_BYTES = 128 * 2**20

_KERAS_TRICKS: tuple[Any, ...] = (
    10**9,
    10**13,
    "Lambda",
    "__lambda__",
    "builtins",
    "os",
    "system",
    "subprocess",
    {
        "module": "os",
        "class_name": "system",
        "config": "touch escaped",
        "registered_name": "system",
    },
    {
        "module": "builtins",
        "class_name": "function",
        "config": "exec",
        "registered_name": "function",
    },
    {
        "class_name": "__lambda__",
        "config": {"value": "4wEAAAA=", "defaults": None, "closure": None},
    },
    {
        "module": "keras.layers",
        "class_name": "Lambda",
        "config": {
            "name": "l",
            "function": {
                "class_name": "__lambda__",
                "config": {"code": "4wEAAAA=", "defaults": None},
            },
        },
        "registered_name": None,
    },
)


def _change_archive(rng: random.Random, content: bytes, kind: int) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {n: archive.read(n) for n in archive.namelist()}
    compression = zipfile.ZIP_STORED
    config_text = members["config.json"].decode()
    if kind == 1:
        members["config.json"] = change_json(rng, config_text, _KERAS_TRICKS)
    elif kind == 2:
        evil = rng.choice(("../escaped", "/escaped", "assets/../../escaped"))
        members[evil] = b"written"
    elif kind == 3 and rng.random() < 0.3:
        # Few bytes that unpack to many.
        compression = zipfile.ZIP_DEFLATED
        name = rng.choice((*members, "assets/a"))
        members[name] = bytes(_BOMB_BYTES)
    elif kind == 4:
        name = rng.choice(list(members))
        if rng.random() < 0.3:
            del members[name]
        else:
            members[name] = mutate.change_bytes(rng, members[name])
    else:
        values = json.loads(config_text)
        backbone = values["config"]["backbone"]["config"]
        name = rng.choice([k for k, v in backbone.items() if type(v) is int])
        backbone[name] = rng.choice((0, -1, 1, 7, 10**6, 10**9, 10**13))
        members["config.json"] = json.dumps(values).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return packed.getvalue()
