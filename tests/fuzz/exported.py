"""Exports as others hand them on: each target changes files of one."""

import contextlib
import io
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import targets
from harness import Target

from keras_distil import data, edge, export, models
from keras_distil.cli import app

sys.path.append(str(Path(__file__).parents[1]))
from toy import convert_litert_here, randomize  # noqa: E402

_LOOSE = export.Tolerance(9.0, 9.0, 0.0)


def all_targets() -> list[Target]:
    """Hugging Face folders of tasks, and LiteRT folders."""
    exported = Exported()
    refusals = app._EXPECTED
    return [
        Target("task_folder", exported.task_folder, refusals, 4),
        Target("litert_folder", exported.litert_folder, refusals, 4),
        Target("static_table", exported.static_table, refusals, 4),
        Target("static_folder", exported.static_folder, refusals, 2),
    ]


class _Patch:
    """What `convert_litert_here` asks of pytest's fixture."""

    setattr = staticmethod(setattr)


class Exported:
    """Exports of a toy classifier, made once."""

    def __init__(self) -> None:
        self._root = tempfile.TemporaryDirectory()
        root = Path(self._root.name)
        (root / "vocab.txt").write_text(targets.VOCABULARY)
        tokenizer = data.load_tokenizer(root)
        backbone = models.ExactBertBackbone(
            vocabulary_size=len(targets.WORDS),
            num_layers=1,
            num_heads=2,
            hidden_dim=8,
            intermediate_dim=12,
            dropout=0.0,
            max_sequence_length=8,
        )
        encoder = models.ExactBertMaskedLM(backbone)
        model = models.task_model(encoder, "classification", 3)
        randomize(model, seed=0)
        self._hugging_face = root / "hugging_face"
        self._litert = root / "litert"
        export.export_hugging_face(model, self._hugging_face, tokenizer)
        convert_litert_here(_Patch)
        with contextlib.redirect_stderr(io.StringIO()):
            export.export_litert(
                model,
                self._litert,
                tokenizer,
                precision="float32",
                lengths=[8],
                tolerance=_LOOSE,
            )

        embedder = models.embedding_model(encoder, tokenizer=tokenizer)
        table = models.static_embedding_model(embedder, ["a line of text"], 4)
        self._table = root / "table"
        self._static = root / "static"
        export.export_static_table(table, self._table)
        export.export_hugging_face(table, self._static)

    def task_folder(self, rng: random.Random, folder: Path) -> None:
        """config.json and model.safetensors of a classifier."""
        shutil.copytree(self._hugging_face, folder, dirs_exist_ok=True)
        if rng.random() < 0.5:
            path = folder / "config.json"
            path.write_bytes(targets.change_json(rng, path.read_text()))
        else:
            path = folder / "model.safetensors"
            content = path.read_bytes()
            path.write_bytes(targets.change_safetensors(rng, content))
        models.load_task_model(folder)

    def litert_folder(self, rng: random.Random, folder: Path) -> None:
        """student.json, tokenizer.json, and a file that ends too early."""
        shutil.copytree(self._litert, folder, dirs_exist_ok=True)
        kind = rng.randrange(5)
        if kind == 0:
            path = folder / edge.MODEL_FILE
            content = path.read_bytes()
            path.write_bytes(content[: rng.randrange(len(content))])
        else:
            _change_text(rng, folder, kind)
        student = edge.Student(folder)
        for text in ("a line of text", "", "x" * 50):
            answers = student(text)
            if answers and not all(np.isfinite(a.score) for a in answers):
                raise AssertionError(f"no numbers: {answers}")

    def static_table(self, rng: random.Random, folder: Path) -> None:
        """student.json, tokenizer.json and a table, cut off or changed."""
        shutil.copytree(self._table, folder, dirs_exist_ok=True)
        path = folder / edge.TABLE_FILE
        content = bytearray(path.read_bytes())
        kind = rng.randrange(5)
        if kind == 0:
            path.write_bytes(content[: rng.randrange(len(content))])
        elif kind == 4:
            for _ in range(rng.randrange(1, 6)):
                content[rng.randrange(len(content))] = rng.randrange(256)
            path.write_bytes(content)
        else:
            _change_text(rng, folder, kind)
        student = edge.StaticStudent(folder)
        vectors = student.embed(["a line of text", "x" * 50, "\x07"])
        if not np.isfinite(vectors).all():
            raise AssertionError(f"no numbers: {vectors}")

    def static_folder(self, rng: random.Random, folder: Path) -> None:
        """The files of a static table as sentence-transformers has it."""
        shutil.copytree(self._static, folder, dirs_exist_ok=True)
        names = ("modules.json", "tokenizer.json", "model.safetensors")
        path = folder / rng.choice(
            (*names, "config_sentence_transformers.json")
        )
        if path.suffix == ".json":
            path.write_bytes(targets.change_json(rng, path.read_text()))
        else:
            content = path.read_bytes()
            path.write_bytes(targets.change_safetensors(rng, content))
        models.load_embedding_model(folder)


def _change_text(rng: random.Random, folder: Path, kind: int) -> None:
    """Changes the tokenizer, the card, or one of the card's values."""
    if kind in (1, 2):
        path = folder / (edge.TOKENIZER_FILE, edge.CARD_FILE)[kind - 1]
        path.write_bytes(targets.change_json(rng, path.read_text()))
        return
    # One of its values, as another type or another size.
    path = folder / edge.CARD_FILE
    card = json.loads(path.read_text())
    card[rng.choice(list(card))] = rng.choice(
        (None, 0, -1, 7, 10**9, True, "x", [], [9], ["a"], {}, 2.5)
    )
    path.write_text(json.dumps(card))
