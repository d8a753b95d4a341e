"""Random texts get the ids of transformers' tokenizers, of both kinds."""

import random
import shutil
import sys
from pathlib import Path

import pytest
from toy import byte_level_tokenizer

from keras_distil import data

pytestmark = pytest.mark.peer

GOLDEN = Path(__file__).parent / "golden"
sys.path.append(str(GOLDEN))

from hard_texts import HARD_TEXTS  # noqa: E402

COUNT = 20_000
# First and last code points of some scripts, marks, signs and spaces.
RANGES = (
    *((0x20, 0x7E), (0x20, 0x7E), (0x61, 0x7A), (0x00, 0x1F), (0x7F, 0xFF)),
    *((0x100, 0x24F), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x4FF)),
    *((0x590, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F), (0x1E00, 0x1FFF)),
    *((0x2000, 0x206F), (0x20A0, 0x218F), (0x2460, 0x24FF), (0x3000, 0x30FF)),
    *((0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xE000, 0xE0FF), (0xFB00, 0xFDFF)),
    *((0xFE00, 0xFEFF), (0xFF00, 0xFFFF), (0x1D400, 0x1D7FF)),
    *((0x1F000, 0x1FAFF), (0x20000, 0x2A6DF), (0xE0000, 0xE01FF)),
)
PIECES = ("<mask>", "[MASK]", "</s>", "[SEP]", "'s", "'re", "  ", "\r\n", "12")


def random_text(generator: random.Random) -> str:
    """Words of one or several scripts, with spaces and special tokens."""
    ranges = generator.sample(RANGES, generator.randint(1, 4))
    parts = []
    for _ in range(generator.randint(0, 12)):
        first, last = generator.choice(ranges)
        for _ in range(generator.randint(1, 6)):
            parts.append(chr(generator.randint(first, last)))
        if generator.random() < 0.2:
            parts.append(generator.choice(PIECES))
        if generator.random() < 0.7:
            parts.append(" ")
    return "".join(parts)


@pytest.fixture(scope="module")
def texts():
    generator = random.Random(0)
    made = [random_text(generator) for _ in range(COUNT)]
    assert len(set(made)) > 0.9 * COUNT
    return [*made, *HARD_TEXTS]


@pytest.mark.parametrize("kind", ["byte_level_bpe", "word_piece"])
def test_ids_and_offsets(kind, texts, tmp_path):
    transformers = pytest.importorskip("transformers")
    if kind == "byte_level_bpe":
        byte_level_tokenizer(tmp_path)
    else:
        shutil.copy(GOLDEN / kind / "vocab.txt", tmp_path)
        (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    ours = data.load_tokenizer(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    expected = theirs(texts, return_offsets_mapping=True)
    found = ours.encode_batch(texts)
    for text, ids, offsets, encoded in zip(
        texts,
        expected["input_ids"],
        expected["offset_mapping"],
        found,
        strict=True,
    ):
        assert encoded.ids == ids, text
        assert encoded.offsets == [tuple(pair) for pair in offsets], text
    trained = data.Encoder(ours).encode(texts)
    for text, ids, encoded in zip(texts, trained, found, strict=True):
        assert ids.tolist() == encoded.ids[1:-1], text


@pytest.mark.parametrize("kind", ["byte_level_bpe", "word_piece"])
def test_pairs(kind, texts, tmp_path):
    transformers = pytest.importorskip("transformers")
    if kind == "byte_level_bpe":
        byte_level_tokenizer(tmp_path)
    else:
        shutil.copy(GOLDEN / kind / "vocab.txt", tmp_path)
        (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    first, second = texts[:2000], texts[2000:4000]
    examples = data.encode_examples(
        data.load_tokenizer(tmp_path), first, second, max_length=32
    )
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    expected = theirs(
        first,
        second,
        max_length=32,
        truncation="longest_first",
        return_token_type_ids=True,
    )
    for i, ids in enumerate(expected["input_ids"]):
        start, end = examples.starts[i : i + 2]
        assert examples.token_ids[start:end].tolist() == ids
        zeros = expected["token_type_ids"][i].count(0)
        assert examples.first_lengths[i] == zeros
