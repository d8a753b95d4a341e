import json
import os
import warnings

import numpy as np
import pytest
import tokenizers

from keras_distil.data import tokenize
from keras_distil.data.special_tokens import SpecialTokens
from keras_distil.data.tokenize import (
    encode_paragraphs,
    encode_texts,
    load_tokenizer,
    token_dtype,
)
from keras_distil.data.vocabulary import vocabulary_hash


def encode(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False).tokens


def test_vocabulary_file_lower_cases_and_strips_accents(tokenizer):
    assert encode(tokenizer, "The Café, suns.") == (
        ["the", "cafe", ",", "sun", "##s", "."]
    )


def test_lower_casing_is_read_from_the_configuration(tokenizer_dir):
    config = {"do_lower_case": False}
    (tokenizer_dir / "tokenizer_config.json").write_text(json.dumps(config))
    tokens = encode(load_tokenizer(tokenizer_dir), "The café the")
    assert tokens == ["[UNK]", "[UNK]", "the"]


def test_missing_lower_casing_means_true(tokenizer_dir):
    (tokenizer_dir / "tokenizer_config.json").write_text("{}")
    assert encode(load_tokenizer(tokenizer_dir), "THE") == ["the"]


def test_special_tokens_frame_a_sequence(tokenizer):
    assert tokenizer.encode("the [MASK]").tokens == (
        ["[CLS]", "the", "[MASK]", "[SEP]"]
    )


def test_words_over_100_characters_are_unknown(tokenizer):
    assert encode(tokenizer, "sun" + "s" * 97)[0] == "sun"
    assert encode(tokenizer, "sun" + "s" * 98) == ["[UNK]"]


def test_tokenizer_json_is_preferred_and_unlimited(tokenizer, tmp_path):
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "vocab.txt").write_text("nonsense")
    loaded = load_tokenizer(str(tmp_path))
    assert encode(loaded, "the sun of the sea") == (
        ["the", "sun", "of", "the", "sea"]
    )


def test_no_tokenizer(tmp_path):
    with pytest.raises(FileNotFoundError, match="No tokenizer in .*vocab.txt"):
        load_tokenizer(tmp_path)


def test_damaged_tokenizer_json(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="not a readable tokenizer.json"):
        load_tokenizer(tmp_path)


def test_vocabulary_without_unknown(tmp_path):
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(ValueError, match=r"has no \[UNK\] line"):
        load_tokenizer(tmp_path)


def test_vocabulary_without_other_special_tokens(tmp_path):
    (tmp_path / "vocab.txt").write_text("[UNK]\n[CLS]\n[PAD]\n")
    with pytest.raises(ValueError, match=r"lacks \[SEP\], \[MASK\]\."):
        load_tokenizer(tmp_path)


def test_special_tokens(tokenizer, special):
    assert SpecialTokens.from_tokenizer(tokenizer) == special
    assert special.ids == (1, 6, 7, 12, 14)


def test_hash_follows_the_order_of_the_vocabulary():
    def tokenizer_of(*tokens):
        vocabulary = {token: i for i, token in enumerate(tokens)}
        return tokenizers.Tokenizer(
            tokenizers.models.WordPiece(vocabulary, unk_token="a")
        )

    original = vocabulary_hash(tokenizer_of("a", "b", "c"))
    assert len(original) == 64
    assert vocabulary_hash(tokenizer_of("a", "b", "c")) == original
    assert vocabulary_hash(tokenizer_of("a", "c", "b")) != original
    assert vocabulary_hash(tokenizer_of("a", "b")) != original


def test_smallest_type_for_ids():
    assert token_dtype(65_536) == np.uint16
    assert token_dtype(65_537) == np.int32


def test_paragraphs_in_order_over_batches(tokenizer, monkeypatch):
    monkeypatch.setattr("keras_distil.data.tokenize._BATCH", 2)
    texts = ["the sun", "", "moon", "sea of rain", "zzz"]
    encoded = list(encode_paragraphs(tokenizer, iter(texts)))
    assert [ids.tolist() for ids in encoded] == (
        [[0, 3], [], [4], [10, 2, 18], [6]]
    )
    assert {ids.dtype for ids in encoded} == {np.dtype(np.uint16)}


def test_paragraphs_are_read_lazily(tokenizer, monkeypatch):
    monkeypatch.setattr("keras_distil.data.tokenize._BATCH", 2)
    taken = []

    def texts():
        for text in ["sun"] * 10:
            taken.append(text)
            yield text

    next(encode_paragraphs(tokenizer, texts()))
    assert len(taken) == 2


def test_special_tokens_in_a_text_get_their_ids(tokenizer):
    # As in Hugging Face's tokenizers, and in an exported student.
    ids = next(encode_paragraphs(tokenizer, ["the [MASK] [PAD]x[SEP]"]))
    tokens = [tokenizer.id_to_token(i) for i in ids.tolist()]
    assert tokens == ["the", "[MASK]", "[PAD]", "[UNK]", "[SEP]"]


def test_no_warning_at_a_fork(tokenizer, capfd):
    list(encode_paragraphs(tokenizer, ["sun"] * 64))
    with warnings.catch_warnings():
        # Python's own warning about threads is not what is tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert "parallelism" not in capfd.readouterr().err


# Spaces of all kinds, accents to combine, letters that change length when
# lower-cased, CJK, Hangul and its parts, invisible and private characters.
ODD = [chr(i) for i in range(1, 0x180)] + list(
    "\u0300\u0301\u0308\u0327\u200b\u200d\u00a0\u2003\u3000\u4e2d\U0001f600"
    "\u0915\u094d\uac00\u1100\u1161\u03a3\u03c2\u0130\ufb01\xdf\xbd\x85\u2028"
    "\ufeff\ufffd\u05d0\u05b0\ue000\U0001d400"
)


@pytest.mark.parametrize("lower_case", [True, False])
def test_words_are_encoded_as_whole_texts_are(tokenizer_dir, lower_case):
    config = tokenizer_dir / "tokenizer_config.json"
    config.write_text(json.dumps({"do_lower_case": lower_case}))
    with open(tokenizer_dir / "vocab.txt", "a") as file:
        file.writelines(f"{c}\n##{c}\n" for c in ODD[32:] if c.strip())
    tokenizer = load_tokenizer(tokenizer_dir)
    random = np.random.default_rng(0)
    characters = ODD + [" "] * 60 + list("[MASK]") * 5
    texts = [
        "".join(random.choice(characters, random.integers(0, 40)))
        for _ in range(3000)
    ]
    texts += ["x" * 101, "x" * 101 + " x", " ", "", "[MASK] [mask]", "a  b"]
    encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
    found = list(encode_paragraphs(tokenizer, texts))
    assert [ids.tolist() for ids in found] == [e.ids for e in encoded]
    assert len({tuple(e.ids) for e in encoded}) > 1000


def test_words_are_remembered_up_to_a_bound(tokenizer, monkeypatch):
    given = []

    def encode(tokenizer, batch):
        given.append(sorted(batch))
        return tokenize._encode_batch(tokenizer, batch)

    encoder = tokenize.Encoder(tokenizer)
    monkeypatch.setattr(
        encoder, "_encode_texts", lambda b: encode(tokenizer, b)
    )
    for text in ("the sun", "sun the moon", "moon"):
        list(encoder.encode([text]))
    assert given == [["sun", "the"], ["moon"], []]
    monkeypatch.setattr(tokenize, "_WORDS_KNOWN", 2)
    assert [i.tolist() for i in encoder.encode(["the"])] == [[0]]
    assert given[-1] == ["the"]


@pytest.mark.parametrize("change", ["token", "normalizer", "model"])
def test_other_tokenizers_get_whole_texts(tokenizer, change):
    if change == "token":
        tokenizer.add_tokens(["the sun"])
    elif change == "normalizer":
        tokenizer.normalizer = tokenizers.normalizers.Replace("e s", "es")
    else:
        tokenizer.model = tokenizers.models.WordLevel(
            tokenizer.get_vocab(), unk_token="[UNK]"
        )
    expected = tokenizer.encode("the sun of", add_special_tokens=False).ids
    (found,) = encode_paragraphs(tokenizer, ["the sun of"])
    assert found.tolist() == expected
    assert tokenize.Encoder(tokenizer)._known is None


def test_texts_become_a_padded_batch(tokenizer):
    batch = encode_texts(tokenizer, ["The sun [MASK].", "", "of suns"])
    # [CLS] the sun [MASK] . [SEP], [CLS] [SEP], [CLS] of sun ##s [SEP]
    assert batch["token_ids"].tolist() == [
        [7, 0, 3, 14, 19, 12],
        [7, 12, 1, 1, 1, 1],
        [7, 2, 3, 9, 12, 1],
    ]
    assert batch["padding_mask"].tolist() == [
        [1, 1, 1, 1, 1, 1],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 0],
    ]
    assert {x.dtype for x in batch.values()} == {np.dtype("int32")}


def test_texts_are_cut(tokenizer):
    batch = encode_texts(tokenizer, ["the sun shines", "the"], max_length=4)
    assert batch["token_ids"].tolist() == [[7, 0, 3, 12], [7, 0, 12, 1]]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("the sun",), TypeError, "`texts` must be a list of strings"),
        ((["the", 3],), TypeError, "`texts` must be a list of strings"),
        (([],), ValueError, "`texts` must hold at least one text"),
        ((["the"], 2), ValueError, "`max_length` must be at least 3"),
    ],
)
def test_texts_that_are_refused(tokenizer, arguments, error, message):
    with pytest.raises(error, match=message):
        encode_texts(tokenizer, *arguments)


def test_what_is_no_folder_is_refused(tmp_path):
    with pytest.raises(TypeError, match="a KerasHub preset .* directory=None"):
        load_tokenizer(None)
    with pytest.raises(
        FileNotFoundError, match="'embedded', is `models.checkpoint_directory"
    ):
        load_tokenizer("embedded")
