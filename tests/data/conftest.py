"""A toy vocabulary shared by the tests of the data pipeline."""

import pytest

from keras_distil.data.special_tokens import SpecialTokens
from keras_distil.data.tokenize import load_tokenizer

# [PAD] is not 0 and the special ids are not adjacent, on purpose.
VOCABULARY = (
    "the [PAD] of sun moon shines [UNK] [CLS] over ##s sea river [SEP] hill "
    "[MASK] star wind cafe rain . , [ ] mask light"
).split()


@pytest.fixture
def special() -> SpecialTokens:
    return SpecialTokens(
        pad_id=1, unknown_id=6, cls_id=7, sep_id=12, mask_id=14
    )


@pytest.fixture
def tokenizer_dir(tmp_path):
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    text = "\n".join(VOCABULARY) + "\n"
    (folder / "vocab.txt").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def tokenizer(tokenizer_dir):
    return load_tokenizer(tokenizer_dir)
