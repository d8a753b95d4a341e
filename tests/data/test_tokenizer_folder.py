"""Tokenizer folders give the ids of Hugging Face, or are refused."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from keras_distil import data
from keras_distil.data.tokenize import Encoder, load_tokenizer

GOLDEN = Path(__file__).parent / "golden"


def load_cases():
    path = GOLDEN / "tokenizer_cases.py"
    spec = importlib.util.spec_from_file_location("tokenizer_cases", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


cases = load_cases()
EXPECTED = json.loads((GOLDEN / "tokenizers.json").read_text("utf-8"))


@pytest.fixture(scope="module", params=cases.CASES)
def case(request, tmp_path_factory):
    """A tokenizer, and that of transformers for the same folder."""
    folder = tmp_path_factory.mktemp("case")
    cases.write(folder, cases.CASES[request.param])
    return load_tokenizer(folder), EXPECTED[request.param]


def test_ids_are_those_of_hugging_face(case):
    tokenizer, expected = case
    found = [tokenizer.encode(text).ids for text in cases.TEXTS]
    assert found == expected["ids"]
    pair = tokenizer.encode(*cases.TEXTS[:2])
    assert pair.ids == expected["pair"]


def test_training_reads_the_same_ids(case):
    tokenizer, expected = case
    found = [ids.tolist() for ids in Encoder(tokenizer).encode(cases.TEXTS)]
    assert found == [ids[1:-1] for ids in expected["ids"]]
    examples = data.encode_examples(
        tokenizer, cases.TEXTS[:1], cases.TEXTS[1:2], max_length=512
    )
    assert examples.token_ids.tolist() == expected["pair"]


def test_every_id_is_below_the_vocabulary_size(case):
    tokenizer, expected = case
    largest = max(max(ids) for ids in expected["ids"])
    assert largest < data.vocabulary_size(tokenizer)


# === Refusals ===

WHOLE = cases.whole()


def with_model(**changes):
    return {"tokenizer.json": WHOLE | {"model": WHOLE["model"] | changes}}


def with_settings(**settings):
    return cases.vocab(**settings)


REFUSED = {
    "Japanese": (
        with_settings(tokenizer_class="BertJapaneseTokenizer"),
        r"`tokenizer_class` in .*tokenizer_config.json' must be one of "
        r"\['BertTokenizer'.*Received: 'BertJapaneseTokenizer'",
    ),
    "sentencepiece": (
        with_settings(tokenizer_class="BertGenerationTokenizer"),
        "`tokenizer_class` .*Received: 'BertGenerationTokenizer'",
    ),
    "class of config.json": (
        cases.vocab()
        | {"config.json": {"tokenizer_class": "RobertaTokenizer"}},
        "`tokenizer_class` in .*config.json' .*Received: 'RobertaTokenizer'",
    ),
    "no class": (
        with_settings(tokenizer_class=["BertTokenizer"]),
        "`tokenizer_class` .*Received: ",
    ),
    "own code": (
        with_settings(auto_map={"AutoTokenizer": ["a.B", None]}),
        "`auto_map` .*must be null or left out",
    ),
    "BPE": (
        {
            "tokenizer.json": WHOLE
            | {
                "model": {
                    "type": "BPE",
                    "vocab": {"[UNK]": 0, "a": 1},
                    "merges": [],
                }
            }
        },
        "The model in .* must be WordPiece, BERT's. Received: BPE",
    ),
    "unigram": (
        {
            "tokenizer.json": WHOLE
            | {"model": {"type": "Unigram", "unk_id": 0, "vocab": [["a", 0]]}}
        },
        "The model in .* must be WordPiece, BERT's. Received: Unigram",
    ),
    "never_split": (
        with_settings(never_split=["covid"]),
        r"`never_split` .*must be \[\] or left out.*Received: \['covid'\]",
    ),
    "split_special_tokens": (
        with_settings(split_special_tokens=True),
        "`split_special_tokens` .*must be false",
    ),
    "left padding": (
        with_settings(padding_side="left"),
        "`padding_side` .*must be \"right\".*Received: 'left'",
    ),
    "left truncation": (
        with_settings(truncation_side="left"),
        "`truncation_side` .*must be \"right\".*Received: 'left'",
    ),
    "no basic tokens": (
        with_settings(do_basic_tokenize=False),
        "`do_basic_tokenize` .*must be true",
    ),
    "case": (
        with_settings(do_lower_case="yes"),
        "`do_lower_case` .*must be one of true, false. Received: 'yes'",
    ),
    "case as a number": (
        with_settings(do_lower_case=1),
        "`do_lower_case` .*must be one of true, false. Received: 1",
    ),
    "accents": (
        with_settings(strip_accents=[]),
        "`strip_accents` .*one of true, false, null",
    ),
    "case of sentences": (
        cases.vocab() | {"sentence_bert_config.json": {"do_lower_case": True}},
        "`do_lower_case` in .*sentence_bert_config.json' must be false",
    ),
    "case unsaid": (
        {"tokenizer.json": cases.whole(lowercase=False)},
        "has lowercase=false, and tokenizer_config.json has no "
        "`do_lower_case`, for which Hugging Face uses true",
    ),
    "other names": (
        with_settings(mask_token="<mask>"),
        r"`mask_token` .*must be '\[MASK\]'.*Received: '<mask>'",
    ),
    "other names in the map": (
        cases.vocab()
        | {"special_tokens_map.json": {"cls_token": {"content": "<s>"}}},
        r"`cls_token` .*must be '\[CLS\]'.*Received: '<s>'",
    ),
    "token of no kind": (
        with_settings(pad_token=7),
        "`pad_token` .*must hold tokens with a `content`. Received: 7",
    ),
    "ids with a gap": (
        with_settings(added_tokens_decoder={"99": cases.token("[E1]")}),
        r"gives '\[E1\]' the id 99, but it gets 41: added tokens follow",
    ),
    "id of another token": (
        with_settings(added_tokens_decoder={"5": cases.token("[E1]")}),
        r"gives '\[E1\]' the id 5, but it gets 41",
    ),
    "added_tokens.json with a gap": (
        cases.vocab() | {"added_tokens.json": {"[E1]": 99}},
        r"added_tokens.json' gives '\[E1\]' the id 99, but it gets 41",
    ),
    "no id": (
        with_settings(added_tokens_decoder={"x": cases.token("[E1]")}),
        "ids must be whole numbers from 0 to .*Received: 'x'",
    ),
    "flags": (
        with_settings(added_tokens_decoder={"41": cases.token("a", lstrip=2)}),
        "`lstrip` of 'a' must be true or false. Received: 2",
    ),
    "decoder of no kind": (
        with_settings(added_tokens_decoder=[]),
        "`added_tokens_decoder` .*must be an object of ids",
    ),
    "an added token where the vocabulary has a gap": (
        {
            "tokenizer.json": WHOLE
            | {
                "model": WHOLE["model"]
                | {
                    "vocab": {w: i + (i > 9) for i, w in enumerate(cases.WORDS)}
                },
                "added_tokens": [],
                "post_processor": None,
            },
            "tokenizer_config.json": {"additional_special_tokens": ["[E1]"]},
        },
        r"'\[E1\]' in .* would get the id 41 of .*the vocabulary has gaps",
    ),
    "an id twice": (
        with_model(vocab={**WHOLE["model"]["vocab"], "zzz": 9}),
        "gives '[a-zé]+' and '[a-zé]+' the same id 9",
    ),
    "an enormous id": (
        with_model(vocab={**WHOLE["model"]["vocab"], "zzz": 10**9}),
        "from 0 to 16,777,215. Received: 1000000000 for 'zzz'",
    ),
    "longest word": (
        with_model(max_input_chars_per_word=20),
        "`model.max_input_chars_per_word` .*must be 100.*Received: 20",
    ),
    "prefix": (
        with_model(continuing_subword_prefix="@@"),
        "`model.continuing_subword_prefix` .*'##'.*Received: '@@'",
    ),
    "other words": (
        {"tokenizer.json": WHOLE | {"pre_tokenizer": {"type": "Whitespace"}}},
        "`pre_tokenizer.type` .*'BertPreTokenizer'.*Received: 'Whitespace'",
    ),
    "another frame": (
        {
            "tokenizer.json": WHOLE
            | {
                "post_processor": {
                    "type": "RobertaProcessing",
                    "sep": ["[SEP]", 3],
                    "cls": ["[CLS]", 2],
                    "trim_offsets": True,
                    "add_prefix_space": False,
                }
            },
            "tokenizer_config.json": cases.PLAIN,
        },
        r"`post_processor` .*must turn two texts into `\[CLS\] A \[SEP\] B \[S",
    ),
    "byte order mark": (
        {"vocab.txt": "\ufeff" + cases.lines()},
        "begins with a byte order mark",
    ),
    "no unknown word": ({"vocab.txt": "a\nb\n"}, r"has no \[UNK\] line"),
    "no mask": (
        {"vocab.txt": "[UNK]\n[CLS]\n[SEP]\n[PAD]\n"},
        r"lacks \[MASK\]",
    ),
    "no JSON": (
        cases.vocab() | {"added_tokens.json": "{"},
        "added_tokens.json` is not valid JSON",
    ),
    "no object": (
        cases.vocab() | {"special_tokens_map.json": "[]"},
        "special_tokens_map.json` must hold a JSON object. Received: list",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_refused_by_name(name, tmp_path):
    files, message = REFUSED[name]
    with pytest.raises(ValueError, match=message) as raised:
        load_tokenizer(cases.write(tmp_path, files))
    assert str(tmp_path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_vocabulary_that_is_not_utf_8(tmp_path):
    (tmp_path / "vocab.txt").write_bytes(b"[UNK]\ncaf\xe9\n")
    with pytest.raises(ValueError, match="must be UTF-8. Received: byte 0xe9"):
        load_tokenizer(tmp_path)


def test_the_plain_class_needs_its_file(tmp_path):
    cases.write(tmp_path, cases.vocab(**cases.PLAIN))
    with pytest.raises(FileNotFoundError, match="expected tokenizer.json th"):
        load_tokenizer(tmp_path)


def test_vocabulary_size_counts_gaps_and_no_blank_lines(tmp_path):
    words = cases.lines(*cases.WORDS, "the", "last", "", "")
    cases.write(tmp_path, {"vocab.txt": words})
    tokenizer = load_tokenizer(tmp_path)
    assert data.vocabulary_size(tokenizer) == len(cases.WORDS) + 2
    assert tokenizer.token_to_id("the") == len(cases.WORDS)
    assert Encoder(tokenizer).dtype == np.uint16


@pytest.mark.parametrize(
    ("stated", "limit"), [(9, 9), (9.0, 9), (10**30, None), (None, None)]
)
def test_the_longest_sequence(tmp_path, stated, limit):
    settings = {} if stated is None else {"model_max_length": stated}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    assert data.read_max_length(tmp_path) == limit


@pytest.mark.parametrize("stated", [0, -1, "x", True, [9]])
def test_a_longest_sequence_that_is_none(tmp_path, stated):
    settings = {"model_max_length": stated}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="`model_max_length` of .* must be a"):
        data.read_max_length(tmp_path)
