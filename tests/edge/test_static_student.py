"""A static table without TensorFlow and Keras: texts in, vectors out."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from keras_distil import edge

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "sat", "##s"]
DIMENSION = 3


def make_tokenizer():
    made = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(
            {word: number for number, word in enumerate(WORDS)},
            unk_token="[UNK]",
        )
    )
    made.normalizer = tokenizers.normalizers.BertNormalizer()
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.post_processor = tokenizers.processors.BertProcessing(
        ("[SEP]", 3), ("[CLS]", 2)
    )
    return made


@pytest.fixture(scope="module")
def table():
    generator = np.random.default_rng(0)
    made = np.zeros(len(WORDS), edge.row_type(DIMENSION))
    made["row"] = generator.integers(-127, 128, (len(WORDS), DIMENSION))
    made["scale"] = generator.uniform(0.001, 0.01, len(WORDS))
    made["scale"][:4] = 0.0
    return made


@pytest.fixture
def folder(table, tmp_path):
    """An export written by hand."""
    (tmp_path / "vectors.bin").write_bytes(table.tobytes())
    make_tokenizer().save(str(tmp_path / "tokenizer.json"))
    card = {
        "format_version": 1,
        "kind": "static_embedding",
        "precision": "int8",
        "max_length": 5,
        "tokens": len(WORDS),
        "dimension": DIMENSION,
        "prompts": {"query": "the "},
        "default_prompt": None,
    }
    (tmp_path / "student.json").write_text(json.dumps(card))
    return tmp_path


def by_hand(table, ids):
    rows = table["scale"][ids, None].astype(float) * table["row"][ids]
    total = rows.sum(axis=0)
    return total / np.linalg.norm(total)


def test_vectors_are_sums_of_rows(folder, table):
    student = edge.StaticStudent(folder)
    assert (student.dimension, student.max_length) == (3, 5)
    texts = ["The cats sat", " sat ", "dog cat", "the cat the sat sat"]
    # The last one is cut to 5 tokens with those that frame it.
    ids = [[4, 5, 7], [6], [5], [4, 5, 4]]
    ids[0] = ids[0][:3]
    expected = np.stack([by_hand(table, row) for row in ids])
    # Float32 sums.
    found = student.embed(texts)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(
        student.embed("cat", "query")[0], by_hand(table, [4, 5]), atol=1e-6
    )
    assert not student.embed("dog").any()


def test_many_texts_are_those_of_one(folder):
    student = edge.StaticStudent(folder)
    texts = [" ".join(WORDS[4 + n % 3] for n in range(k)) for k in range(1, 90)]
    one = np.concatenate([student.embed(text) for text in texts])
    np.testing.assert_array_equal(student.embed(texts), one)


def test_the_table_stays_on_disk(folder):
    table = edge.StaticStudent(folder)._table
    assert not table.flags.owndata and not table.flags.writeable
    assert isinstance(table.base, np.memmap)


def change(folder, **values):
    card = folder / "student.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), **values}))


def test_damaged_tables(folder, table):
    path = folder / "vectors.bin"
    message = "must have 56 bytes, of 8 tokens with 3 numbers each, .*: 55 by"
    for content in (table.tobytes()[:-1], b"", table.tobytes() * 2):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=message.replace("55", str(len(content)))
        ):
            edge.StaticStudent(folder)
    path.write_bytes(table.tobytes())
    for values in ({"tokens": 7}, {"dimension": 10**12}):
        change(folder, **{"tokens": 8, "dimension": 3, **values})
        with pytest.raises(ValueError, match="damaged, or of another export"):
            edge.StaticStudent(folder)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="vectors.bin is missing"):
        edge.StaticStudent(folder)


def test_a_table_of_another_export(folder, table):
    path = folder / "vectors.bin"
    path.write_bytes(table[:5].tobytes())
    change(folder, tokens=5)
    with pytest.raises(ValueError, match="5 rows, fewer than tokenizer.json"):
        edge.StaticStudent(folder).embed("the cat")
    wrong = table.copy()
    wrong["scale"][5] = np.nan
    path.write_bytes(wrong.tobytes())
    change(folder, tokens=8)
    student = edge.StaticStudent(folder)
    assert np.isfinite(student.embed("the")).all()
    with pytest.raises(ValueError, match="scales that are not numbers"):
        student.embed("cat")


def test_texts_that_are_refused(folder):
    student = edge.StaticStudent(folder)
    for texts, error, message in (
        ("", ValueError, "not white space. Received: '' as text 0"),
        (["x", " \n"], ValueError, "Received: .* as text 1 .*Leave it out"),
        ([], ValueError, "one text or more. Received: none"),
        (["x", 5], TypeError, "must be strings. Received: int as text 1"),
        (None, TypeError, "a text or a list of them. Received: NoneType"),
    ):
        with pytest.raises(error, match=message):
            student.embed(texts)
    with pytest.raises(ValueError, match=r"one of \['query'\], the model's"):
        student.embed("cat", "title")
    change(folder, prompts={})
    with pytest.raises(ValueError, match="None, because the model has no pro"):
        edge.StaticStudent(folder).embed("cat", "query")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match="reads only token ids"):
        edge.StaticStudent(folder).embed("cat")


def test_folders_of_another_kind(folder):
    with pytest.raises(ValueError, match="Open it with `edge.StaticStudent`"):
        edge.Student(folder)
    card = folder / "student.json"
    content = json.loads(card.read_text())
    for change, message in (
        ({"kind": "span"}, "describes a span model. Open it with `edge.Stud"),
        ({"kind": "tree"}, "damaged: kind cannot be 'tree'"),
        ({"kind": 5}, "damaged: kind cannot be 5"),
        ({"max_length": "5"}, "damaged: max_length cannot be '5'"),
        ({"dimension": 0}, "damaged: dimension cannot be 0"),
        ({"prompts": {"query": 5}}, "damaged: prompts cannot be"),
        ({"default_prompt": "title"}, "with the default 'title'"),
    ):
        card.write_text(json.dumps({**content, **change}))
        with pytest.raises(ValueError, match=message):
            edge.StaticStudent(folder)
    card.unlink()
    with pytest.raises(FileNotFoundError, match="with format='litert' or 'st"):
        edge.StaticStudent(folder)


def test_it_needs_numpy_and_tokenizers_alone(folder, table, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    program = f"""
import importlib.abc, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        allowed = ("numpy", "tokenizers", "keras_distil")
        first = name.partition(".")[0]
        if first not in allowed and first not in sys.stdlib_module_names:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
from keras_distil import edge
print(edge.StaticStudent({str(copy)!r}).embed("cat")[0].tolist())
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(
        json.loads(done.stdout), by_hand(table, [5]), atol=1e-6
    )
