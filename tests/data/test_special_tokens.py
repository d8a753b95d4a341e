"""Special tokens are found by the parts they play."""

import json
import sys
from pathlib import Path

import pytest
import tokenizers
from tokenizers import models, processors
from toy import byte_level_tokenizer

from keras_distil import data
from keras_distil.data.special_tokens import (
    SpecialTokens,
    framing_ids,
    store_roles,
    unknown_token,
)

sys.path.append(str(Path(__file__).parent / "golden"))

import byte_level_cases as cases  # noqa: E402


@pytest.fixture
def byte_level(tmp_path):
    return byte_level_tokenizer(tmp_path)


def test_a_byte_level_tokenizer(byte_level):
    special = SpecialTokens.from_tokenizer(byte_level)
    assert special == SpecialTokens(
        1, 3, 0, 2, 700, separators=2, second_segment=0
    )
    assert special.ids == (0, 1, 2, 3, 700)
    assert special.in_pair == 4
    assert framing_ids(byte_level) == {0, 2}


def test_what_bert_had_needs_no_frame():
    special = SpecialTokens(0, 1, 2, 3, 4)
    assert (special.separators, special.second_segment) == (1, 1)
    assert special.in_pair == 3
    # As stored with a teacher's outputs by earlier versions.
    assert special.by_role() == {
        "pad_id": 0,
        "unknown_id": 1,
        "cls_id": 2,
        "sep_id": 3,
        "mask_id": 4,
    }
    assert SpecialTokens(**special.by_role()) == special


def test_no_unknown_token(tmp_path):
    words = {w: i for w, i in cases.VOCABULARY.items() if w != "<unk>"}
    folder = cases.write(tmp_path, cases.files("#version: 0.2", words))
    tokenizer = data.load_tokenizer(folder)
    special = SpecialTokens.from_tokenizer(tokenizer)
    assert special.unknown_id is None
    assert special.ids == (0, 1, 2, 700)
    assert unknown_token(tokenizer) is None
    assert data.Encoder(tokenizer).unknown_id == -1


def test_the_unknown_token_is_the_models():
    tokenizer = tokenizers.Tokenizer(
        models.WordLevel({"[UNK]": 0, "odd": 1}, unk_token="odd")
    )
    assert unknown_token(tokenizer) == "odd"
    tokenizer.model.unk_token = "none"
    assert unknown_token(tokenizer) == "[UNK]"


def test_cutting_and_padding_change_no_role(byte_level):
    expected = SpecialTokens.from_tokenizer(byte_level)
    byte_level.enable_truncation(5)
    byte_level.enable_padding(pad_id=1, pad_token="<pad>", length=9)
    assert SpecialTokens.from_tokenizer(byte_level) == expected


def test_a_tokenizer_without_a_frame():
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] a".split()
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = tokenizers.Tokenizer(
        models.WordPiece(vocabulary, unk_token="[UNK]")
    )
    assert SpecialTokens.from_tokenizer(tokenizer) == (
        SpecialTokens(0, 1, 2, 3, 4)
    )
    del vocabulary["[SEP]"], vocabulary["[MASK]"]
    tokenizer.model = models.WordPiece(vocabulary, unk_token="[UNK]")
    with pytest.raises(
        ValueError,
        match="no `cls_token`, which starts a text, `sep_token`, which ends a "
        "text, `mask_token`, which hides a token. Name tokens of the vocab",
    ):
        SpecialTokens.from_tokenizer(tokenizer)
    assert framing_ids(tokenizer) == set()


def test_usual_roles_are_not_stored(byte_level):
    before = byte_level.to_str()
    roles = {"mask_token": "<mask>", "pad_token": "<pad>"}
    assert store_roles(byte_level, roles) is byte_level
    assert byte_level.to_str() == before


@pytest.mark.parametrize("trim", [True, False])
@pytest.mark.parametrize("frame", ["roberta", "bert", "template", "sequence"])
def test_stored_roles_change_no_text(byte_level, frame, trim):
    sep, cls = ("</s>", 2), ("<s>", 0)
    if frame == "roberta":
        byte_level.post_processor = processors.RobertaProcessing(
            sep, cls, trim_offsets=trim, add_prefix_space=False
        )
    elif frame == "bert":
        byte_level.post_processor = processors.BertProcessing(sep, cls)
    else:
        template = processors.TemplateProcessing(
            single="<s> $A </s>",
            pair="<s> $A </s> </s> </s> $B:1 </s>:1",
            special_tokens=[cls, sep],
        )
        byte_level.post_processor = template
        if frame == "sequence":
            byte_level.post_processor = processors.Sequence(
                [processors.ByteLevel(trim_offsets=trim), template]
            )
    odd = store_roles(byte_level, {"mask_token": "ing", "pad_token": "er"})
    found = SpecialTokens.from_tokenizer(odd)
    usual = SpecialTokens.from_tokenizer(byte_level)
    assert found.mask_id == odd.token_to_id("ing")
    assert found.pad_id == odd.token_to_id("er")
    assert (found.separators, found.second_segment) == (
        (usual.separators, usual.second_segment)
    )
    for text in (" The  student's", "", "a <mask> b</s>"):
        for pair in (None, " b c"):
            one, two = (t.encode(text, pair) for t in (byte_level, odd))
            assert one.ids == two.ids
            assert one.type_ids == two.type_ids
            assert one.offsets == two.offsets
            assert one.sequence_ids == two.sequence_ids
            assert one.special_tokens_mask == two.special_tokens_mask
    copy = tokenizers.Tokenizer.from_str(odd.to_str())
    assert SpecialTokens.from_tokenizer(copy) == found
    stored = json.loads(odd.to_str())["post_processor"]
    assert '"mask_token"' in json.dumps(stored)


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ({"pad_token": "</s>"}, "`pad_token` and `sep_token` must be diff"),
        ({"pad_token": "<mask>"}, "`pad_token` and `mask_token` must be diff"),
        ({"mask_token": "<s>"}, "`mask_token` and `cls_token` must be diff"),
    ],
)
def test_padding_and_masks_are_told_from_text(tmp_path, roles, message):
    folder = cases.write(tmp_path, cases.files(**roles))
    with pytest.raises(ValueError, match=message) as raised:
        data.load_tokenizer(folder)
    assert str(tmp_path) in str(raised.value)


def test_both_conventional_names(tmp_path):
    # BERT's name counts, unless the folder says otherwise.
    words = cases.VOCABULARY | {"[MASK]": 701}
    folder = cases.write(tmp_path / "one", cases.files(vocabulary=words))
    tokenizer = data.load_tokenizer(folder)
    assert SpecialTokens.from_tokenizer(tokenizer).mask_id == 700
    files = cases.files(vocabulary=words, mask_token="[MASK]")
    tokenizer = data.load_tokenizer(cases.write(tmp_path / "two", files))
    assert SpecialTokens.from_tokenizer(tokenizer).mask_id == 701
