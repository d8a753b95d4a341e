"""Folders of byte-level BPE give the ids of Hugging Face, or are refused."""

import json
import sys
from pathlib import Path

import pytest

from keras_distil import data
from keras_distil.data.tokenize import Encoder, load_tokenizer

GOLDEN = Path(__file__).parent / "golden"
sys.path.append(str(GOLDEN))

import byte_level_cases as cases  # noqa: E402
from hard_texts import HARD_TEXTS  # noqa: E402

EXPECTED = json.loads((GOLDEN / "byte_level.json").read_text("utf-8"))
SIZE = cases.SIZE


@pytest.fixture(scope="module", params=cases.CASES)
def case(request, tmp_path_factory):
    """A tokenizer, and that of transformers for the same folder."""
    folder = tmp_path_factory.mktemp("case")
    cases.write(folder, cases.CASES[request.param])
    return load_tokenizer(folder), EXPECTED[request.param]


def test_ids_are_those_of_hugging_face(case):
    tokenizer, expected = case
    assert [tokenizer.encode(text).ids for text in cases.TEXTS] == (
        expected["ids"]
    )
    pair = tokenizer.encode(*cases.TEXTS[:2])
    assert pair.ids == expected["pair"]
    assert pair.type_ids == expected["segments"]


def test_offsets_are_those_of_hugging_face(case):
    tokenizer, expected = case
    for text, offsets in zip(cases.TEXTS, expected["offsets"], strict=True):
        encoded = tokenizer.encode(text, add_special_tokens=False)
        assert list(map(list, encoded.offsets)) == offsets


def test_roles_are_those_of_hugging_face(case):
    tokenizer, expected = case
    special = data.SpecialTokens.from_tokenizer(tokenizer)
    # The plain classes know no role that no file names.
    assert expected["mask"] in (special.mask_id, None)
    assert expected["pad"] in (special.pad_id, None)
    first, second = (ids[1:-1] for ids in expected["ids"][:2])
    middle = [special.sep_id] * special.separators
    assert expected["pair"] == (
        [special.cls_id, *first, *middle, *second, special.sep_id]
    )
    assert set(expected["segments"]) == {0, special.second_segment}


def test_training_reads_the_same_ids(case):
    tokenizer, expected = case
    found = [ids.tolist() for ids in Encoder(tokenizer).encode(cases.TEXTS)]
    assert found == [ids[1:-1] for ids in expected["ids"]]
    examples = data.encode_examples(
        tokenizer, cases.TEXTS[:1], cases.TEXTS[1:2], max_length=512
    )
    assert examples.token_ids.tolist() == expected["pair"]


def test_a_tokenizer_survives_its_own_file(case, tmp_path):
    tokenizer, expected = case
    copy = type(tokenizer).from_str(tokenizer.to_str())
    assert copy.to_str() == tokenizer.to_str()
    assert data.SpecialTokens.from_tokenizer(copy) == (
        data.SpecialTokens.from_tokenizer(tokenizer)
    )


@pytest.mark.parametrize("name", cases.HARD_CASES)
def test_hard_texts(name, tmp_path):
    tokenizer = load_tokenizer(cases.write(tmp_path, cases.CASES[name]))
    found = [tokenizer.encode(text).ids for text in HARD_TEXTS]
    assert found == EXPECTED[name]["hard"]
    trained = [ids.tolist() for ids in Encoder(tokenizer).encode(HARD_TEXTS)]
    assert trained == [ids[1:-1] for ids in found]


def test_a_special_token_of_the_vocabulary_is_not_split(tmp_path):
    tokenizer = load_tokenizer(cases.write(tmp_path, cases.files()))
    assert tokenizer.encode("a<mask>b").tokens[2] == "<mask>"
    assert tokenizer.decode([cases.VOCABULARY["Ġthe"]]) == " the"


def test_the_letters_of_a_vocabulary_are_enough(tmp_path):
    # As in models of proteins: a merges file with its first line only.
    words = ["<s>", "<pad>", "</s>", "<unk>", *"ACDEFG", "<mask>"]
    vocabulary = {word: i for i, word in enumerate(words)}
    folder = cases.write(tmp_path, cases.files("#version: 0.2", vocabulary))
    tokenizer = load_tokenizer(folder)
    assert tokenizer.encode("FAD<mask>Ge").ids == [0, 8, 4, 6, 10, 9, 2]


# === Refusals ===


def with_model(**changes):
    return cases.complete(model=changes)


def without(*names, **more):
    kept = {w: i for w, i in cases.VOCABULARY.items() if w not in names}
    merges = "#version: 0.2\n"
    return cases.files(merges, kept, **more)


REFUSED = {
    "no class": (
        {**cases.files(), "config.json": {}},
        "tokenizer_config.json' must name the `tokenizer_class` of a byte-"
        r"level BPE tokenizer.*\['RobertaTokenizer', 'GPT2Tokenizer'\].*none",
    ),
    "no class for tokenizer.json": (
        {**cases.complete(), "config.json": {"model_type": "electra"}},
        "must name the `tokenizer_class` of a byte-level BPE",
    ),
    "another kind's class": (
        cases.files(tokenizer_class="BertTokenizer"),
        "`tokenizer_class` in .*tokenizer_config.json' needs vocab.txt, but "
        ".* holds vocab.json and merges.txt. Received: 'BertTokenizer'",
    ),
    "another kind's model": (
        cases.complete(settings={"tokenizer_class": "BertTokenizer"}),
        "The model in .* must be WordPiece, BERT's. Received: BPE",
    ),
    "no BPE": (
        with_model(
            type="WordPiece", unk_token="<unk>", max_input_chars_per_word=9
        ),
        "The model in .* must be BPE. Received: WordPiece",
    ),
    "other models as they are": (
        {
            **cases.complete(settings=cases.PLAIN),
            "tokenizer.json": cases.whole()
            | {"model": {"type": "Unigram", "unk_id": 0, "vocab": [["a", 0]]}},
        },
        r"The model in .* must be one of \['WordPiece', 'BPE'\].*'Unigram'",
    ),
    "characters": (
        cases.complete(
            settings=cases.PLAIN, pre_tokenizer={"type": "Whitespace"}
        ),
        "`pre_tokenizer` in .* must be ByteLevel.*Received: Whitespace",
    ),
    "no pre-tokenizer": (
        cases.complete(pre_tokenizer=None),
        "`pre_tokenizer` in .* must be ByteLevel.*Received: none",
    ),
    "dropout": (
        with_model(dropout=0.1),
        "`model.dropout` in .* must be null.*Received: 0.1",
    ),
    "unknown token": (
        with_model(unk_token="<unk>"),
        "`model.unk_token` in .* must be None: Hugging Face's RobertaTokenizer "
        'supports no other value. With .*"PreTrainedTokenizerFast".*'
        "Received: '<unk>'",
    ),
    "prefix": (
        with_model(continuing_subword_prefix="@@", merges=["zz q"]),
        "`model.continuing_subword_prefix` in .* must be null.*'@@'",
    ),
    "suffix": (
        with_model(end_of_word_suffix="</w>"),
        "`model.end_of_word_suffix` in .* must be ''.*Received: '</w>'",
    ),
    "merges that are ignored": (
        with_model(ignore_merges=True),
        "`model.ignore_merges` in .* must be False",
    ),
    "normalizer": (
        cases.complete(normalizer={"type": "NFC"}),
        "`normalizer` in .* must be None",
    ),
    "two pre-tokenizers": (
        cases.complete(
            pre_tokenizer={
                "type": "Sequence",
                "pretokenizers": [cases.byte_level()],
            }
        ),
        "`pre_tokenizer.type` in .* must be 'ByteLevel'.*'Sequence'",
    ),
    "no words": (
        cases.complete(pre_tokenizer=cases.byte_level(use_regex=False)),
        "`pre_tokenizer.use_regex` in .* must be True",
    ),
    "another frame": (
        cases.complete(frame=cases.template(separators=1)),
        r"`post_processor` in .* must be \(\['<s>', '</s>', '</s>', '</s>'\]",
    ),
    "space unsaid": (
        cases.complete(pre_tokenizer=cases.byte_level(add_prefix_space=True)),
        "has add_prefix_space=true, and tokenizer_config.json has no "
        "`add_prefix_space`, for which Hugging Face uses false. Write",
    ),
    "offsets unsaid": (
        cases.complete(frame=cases.FRAME | {"trim_offsets": False}),
        "has trim_offsets=false, and tokenizer_config.json has no "
        "`trim_offsets`, for which Hugging Face uses true",
    ),
    "space of a file that is used as is": (
        cases.complete(settings=cases.PLAIN | {"add_prefix_space": True}),
        "`add_prefix_space` in .*tokenizer_config.json' is true, and "
        "`pre_tokenizer` in .*tokenizer.json', which is used as is, has false",
    ),
    "offsets of a file that is used as is": (
        cases.complete(settings=cases.PLAIN | {"trim_offsets": False}),
        "`trim_offsets` in .* is false, and `post_processor` .* has true",
    ),
    "a flag that is a number": (
        cases.files(add_prefix_space=1),
        "`add_prefix_space` in .* must be one of true, false. Received: 1",
    ),
    "lower case": (
        cases.files(do_lower_case=True),
        "`do_lower_case` in .* must be false or left out",
    ),
    "errors": (
        cases.files(errors="strict"),
        "`errors` in .* must be \"replace\" or left out.*'strict'",
    ),
    "left padding": (
        cases.files(padding_side="left"),
        "`padding_side` .*must be \"right\".*Received: 'left'",
    ),
    "no mask": (
        without("<mask>"),
        "': the vocabulary lacks <mask>. It must have `mask_token`, which "
        "hides a token. Name tokens of the vocabulary for that in token",
    ),
    "no padding": (
        without("<pad>"),
        "': the vocabulary lacks <pad>. It must have `pad_token`",
    ),
    "no frame": (
        without("<s>", "</s>"),
        "': the vocabulary lacks <s>, </s>.|lacks </s>, <s>.",
    ),
    "no mask in a file that is used as is": (
        cases.complete(settings=cases.PLAIN, vocabulary=cases.XMASK, added=()),
        "': The tokenizer has no `mask_token`, which hides a token. Name",
    ),
    "GPT-2's class without a frame": (
        cases.complete(
            settings={"tokenizer_class": "GPT2Tokenizer", **cases.NAMED},
            frame=cases.byte_level(),
        ),
        "': The tokenizer has no `cls_token`, which starts a text, `sep_token`",
    ),
    "texts that are not framed": (
        cases.complete(
            settings=cases.PLAIN,
            frame={
                **cases.template(),
                "pair": [{"Sequence": {"id": n, "type_id": 0}} for n in "AB"],
            },
        ),
        "': The tokenizer has no `cls_token`",
    ),
    "segments that change too soon": (
        cases.complete(
            settings=cases.PLAIN,
            frame={
                **cases.template(),
                "pair": [
                    {"SpecialToken": {"id": "<s>", "type_id": 1}},
                    {"Sequence": {"id": "A", "type_id": 0}},
                    {"SpecialToken": {"id": "</s>", "type_id": 0}},
                    {"Sequence": {"id": "B", "type_id": 1}},
                    {"SpecialToken": {"id": "</s>", "type_id": 1}},
                ],
            },
        ),
        "': The tokenizer must frame a pair as `CLS A SEP B SEP`.*"
        r"with the segments \[1, 0, 1\]",
    ),
    "a text of another segment": (
        cases.complete(
            settings=cases.PLAIN,
            frame={
                **cases.template(),
                "pair": [
                    *cases.template()["single"],
                    {"Sequence": {"id": "B", "type_id": 1}},
                    {"SpecialToken": {"id": "</s>", "type_id": 0}},
                ],
            },
        ),
        "must turn a text into .*, two texts into `CLS A SEP B SEP`, with one ",
    ),
    "a text by itself that is not framed": (
        cases.complete(
            settings=cases.PLAIN,
            frame={
                **cases.template(),
                "single": [{"Sequence": {"id": "A", "type_id": 0}}],
            },
        ),
        "must turn a text into `CLS A SEP`.*Received: <mask> and <s> <mask> ",
    ),
    "a mask that is not an added token": (
        cases.complete(settings=cases.PLAIN, added_tokens=[]),
        "and keep its mask token whole. Received: <s> < m",
    ),
    "a mask that nobody knows": (
        cases.files(mask_token="<hidden>"),
        "`mask_token` in .* must be '<mask>', or another token that the "
        "vocabulary has. Received: '<hidden>'",
    ),
    "a mask that nobody knows as it is": (
        cases.complete(settings=cases.PLAIN | {"mask_token": "<hidden>"}),
        "`mask_token` in .* must be another token that the vocabulary has",
    ),
    "no mask at all": (
        cases.files(mask_token=None),
        "`mask_token` in .* must hold tokens with a `content`. Received: None",
    ),
    "merges of three": (
        cases.files(merges="#version: 0.2\na b c\n"),
        "vocab.json' and '.*merges.txt' cannot be read: .*Each line",
    ),
    "merges of one": (
        cases.files(merges="#version: 0.2\nab\n"),
        "merges.txt' cannot be read",
    ),
    "a blank line among the merges": (
        cases.files(merges=cases.MERGES + "\n"),
        "merges.txt' cannot be read",
    ),
    "merges of other words": (
        cases.files(merges="#version: 0.2\nGG QQ\n"),
        "The merges in .* do not fit its vocabulary",
    ),
    "an id twice": (
        cases.files(vocabulary=cases.VOCABULARY | {"zzz": 9}),
        "vocab.json' gives '.' and 'zzz' the same id 9",
    ),
    "an enormous id": (
        cases.files(vocabulary=cases.VOCABULARY | {"zzz": 10**9}),
        "from 0 to 16,777,215. Received: 1000000000 for 'zzz'",
    ),
    "no numbers": (
        cases.files(vocabulary=cases.VOCABULARY | {"zzz": "9"}),
        "vocab.json' must be whole numbers .* Received: '9' for 'zzz'",
    ),
    "no object": (
        {**cases.files(), "vocab.json": "[]"},
        "vocab.json` must hold a JSON object. Received: list",
    ),
    "no JSON": (
        {**cases.files(), "vocab.json": "{"},
        "vocab.json` is not valid JSON",
    ),
    "ids with a gap": (
        cases.files(added_tokens_decoder={"999": cases.token("[E1]")}),
        r"gives '\[E1\]' the id 999, but it gets 701: added tokens follow",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_refused_by_name(name, tmp_path):
    files, message = REFUSED[name]
    with pytest.raises(ValueError, match=message) as raised:
        load_tokenizer(cases.write(tmp_path, files))
    assert str(tmp_path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_merges_that_are_not_utf_8(tmp_path):
    cases.write(tmp_path, cases.files())
    (tmp_path / "merges.txt").write_bytes(b"caf \xe9\n")
    with pytest.raises(ValueError, match="merges.txt' cannot be read"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("missing", ["vocab.json", "merges.txt"])
def test_a_missing_file(tmp_path, missing):
    cases.write(tmp_path, cases.files())
    (tmp_path / missing).unlink()
    with pytest.raises(
        FileNotFoundError,
        match="expected tokenizer.json, or vocab.json and merges.txt, there",
    ):
        load_tokenizer(tmp_path)


def test_the_plain_class_needs_its_file(tmp_path):
    cases.write(tmp_path, cases.files(**cases.PLAIN))
    with pytest.raises(FileNotFoundError, match="expected tokenizer.json th"):
        load_tokenizer(tmp_path)
