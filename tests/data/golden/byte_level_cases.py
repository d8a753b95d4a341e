"""Folders of byte-level BPE tokenizers: their files, as `write` makes them.

`make_tokenizers.py` asks transformers what each gives; the tests compare.
"""

import json
from pathlib import Path

from tokenizer_cases import token, word, write

__all__ = ["CASES", "MERGES", "TEXTS", "VOCABULARY", "whole", "write"]

HERE = Path(__file__).parent / "byte_level_bpe"
VOCABULARY = json.loads((HERE / "vocab.json").read_text("utf-8"))
MERGES = (HERE / "merges.txt").read_text("utf-8")
SIZE = len(VOCABULARY)
TEXTS = [
    "the student learns from the teacher",
    " The  tokens<mask> of <mask>  a text </s> <s>x",
    "[E1] it's [E1]the[E1]  [E1]\n",
    "XMASK a XMASK [MASK] [CLS] covid-19 a\ttab",
    "naïve 日本 👍",
    "",
]
ROBERTA = {"model_type": "roberta"}
GPT2 = {"model_type": "gpt2"}
PLAIN = {"tokenizer_class": "PreTrainedTokenizerFast"}
NAMED = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}


def files(merges=MERGES, vocabulary=VOCABULARY, config=ROBERTA, **settings):
    """A folder with the older files."""
    return {
        "config.json": config,
        "vocab.json": json.dumps(vocabulary, ensure_ascii=False),
        "merges.txt": merges,
        "tokenizer_config.json": settings,
    }


def rename(**names):
    """The vocabulary with other names for some of its tokens."""
    old = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "mask": "<mask>"}
    new_of = {old[role]: name for role, name in names.items()}
    return {new_of.get(word, word): i for word, i in VOCABULARY.items()}


def decoder(*tokens, **flags_of_mask):
    named = {str(i): token(w) for w, i in VOCABULARY.items() if i < 4}
    named[str(SIZE - 1)] = token("<mask>", **flags_of_mask)
    more = {str(SIZE + i): each for i, each in enumerate(tokens)}
    return named | more


def template(separators=2, second=0, cls="<s>", sep="</s>", **ids):
    def special(name, segment):
        return {"SpecialToken": {"id": name, "type_id": segment}}

    single = [
        special(cls, 0),
        {"Sequence": {"id": "A", "type_id": 0}},
        special(sep, 0),
    ]
    pair = [
        *single,
        *[special(sep, 0)] * (separators - 1),
        {"Sequence": {"id": "B", "type_id": second}},
        special(sep, second),
    ]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": pair,
        "special_tokens": {
            name: {"id": name, "ids": [i], "tokens": [name]}
            for name, i in ({cls: 0, sep: 2} | ids).items()
        },
    }


def byte_level(**changes):
    values = {"add_prefix_space": False, "trim_offsets": True}
    return {"type": "ByteLevel", **values, "use_regex": True, **changes}


FRAME = {
    "type": "RobertaProcessing",
    "sep": ["</s>", 2],
    "cls": ["<s>", 0],
    "trim_offsets": True,
    "add_prefix_space": False,
}


def whole(added=(), vocabulary=VOCABULARY, frame=FRAME, model=(), **parts):
    """A tokenizer.json."""
    mask = list(vocabulary)[-1]
    named = [{"id": i, **token(w)} for w, i in vocabulary.items() if i < 4]
    named.append({"id": SIZE - 1, **token(mask, lstrip=True)})
    named += [{"id": SIZE + i, **each} for i, each in enumerate(added)]
    pairs = [line.split(" ") for line in MERGES.splitlines()[1:]]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": named,
        "normalizer": None,
        "pre_tokenizer": byte_level(),
        "post_processor": frame,
        "decoder": byte_level(add_prefix_space=True),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": pairs,
            **dict(model),
        },
        **parts,
    }


def complete(settings=None, config=ROBERTA, **parts):
    """A folder with tokenizer.json."""
    return {
        "config.json": config,
        "tokenizer.json": whole(**parts),
        "tokenizer_config.json": settings or {},
    }


E1 = [token("[E1]"), word("covid-19")]
OTHER = rename(cls="[CLS]", pad="[PAD]", sep="[SEP]", mask="[MASK]")
XMASK = rename(mask="XMASK")
CASES = {
    "vocab.json and merges.txt": files(),
    "class of tokenizer_config.json": files(
        config=GPT2, tokenizer_class="RobertaTokenizerFast"
    ),
    "class of config.json": files(
        config={"tokenizer_class": "RobertaTokenizer"}
    ),
    "a space before the first word": files(add_prefix_space=True),
    "spaces in offsets": files(trim_offsets=False),
    "a letter per token": files(merges="#version: 0.2"),
    "no version line": files(merges=MERGES.partition("\n")[2]),
    "Windows line ends": files(merges=MERGES.replace("\n", "\r\n")),
    "bytes that the vocabulary lacks": files(
        merges="#version: 0.2\n",
        vocabulary={"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
        | {letter: 4 + i for i, letter in enumerate("aehnrst<>")}
        | {"<mask>": 13},
    ),
    "gaps in vocab.json": files(
        vocabulary={w: 2 * i for w, i in VOCABULARY.items()}
    ),
    "special_tokens_map.json": {
        **files(),
        "special_tokens_map.json": {
            **NAMED,
            "mask_token": token("<mask>", lstrip=True),
            "additional_special_tokens": ["[E1]"],
        },
    },
    "added_tokens.json": {
        **files(additional_special_tokens=["[E1]"]),
        "added_tokens.json": {"[E1]": SIZE, "covid-19": SIZE + 1},
    },
    "added_tokens_decoder": files(
        **NAMED, added_tokens_decoder=decoder(*E1, lstrip=True)
    ),
    "spaces on both sides of the mask": files(
        added_tokens_decoder=decoder(*E1, lstrip=True, rstrip=True)
    ),
    "added words alone": files(
        added_tokens_decoder=decoder(word("covid-19", single_word=True))
    ),
    "an added token with a space": files(
        added_tokens_decoder=decoder(word("learns from"))
    ),
    "other names": files(
        vocabulary=OTHER,
        cls_token="[CLS]",
        pad_token="[PAD]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        bos_token="[CLS]",
        eos_token="[SEP]",
    ),
    "a mask of another name": files(vocabulary=XMASK, mask_token="XMASK"),
    "a mask of another name in the map": {
        **files(vocabulary=XMASK),
        "special_tokens_map.json": {"mask_token": token("XMASK", lstrip=True)},
    },
    "tokenizer.json": complete(),
    "tokens of tokenizer.json": complete(added=E1),
    "tokenizer.json without a frame": complete(frame=None),
    "settings win over tokenizer.json": complete(
        settings={"add_prefix_space": True, "trim_offsets": False}
    ),
    "tokenizer.json wins over vocab.json": {
        **files(vocabulary={"nonsense": 0}),
        **complete(),
    },
    "tokenizer.json as it is": complete(
        settings=PLAIN | NAMED,
        added=E1,
        pre_tokenizer=byte_level(add_prefix_space=True),
    ),
    "tokenizer.json as it is, with an unknown token": complete(
        settings=PLAIN,
        model={"unk_token": "<unk>"},
        normalizer={"type": "NFC"},
        frame=template(separators=1, second=1),
    ),
    "two pre-tokenizers": complete(
        settings={"tokenizer_class": "TokenizersBackend"},
        pre_tokenizer={
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                byte_level(),
            ],
        },
    ),
    "a mask of another name as it is": complete(
        settings=PLAIN | {"mask_token": "XMASK", "pad_token": "<unk>"},
        vocabulary=XMASK,
        frame={
            "type": "Sequence",
            "processors": [byte_level(), template()],
        },
    ),
    "GPT-2's class with a frame": complete(
        settings={
            "tokenizer_class": "GPT2Tokenizer",
            **NAMED,
        },
        config=GPT2,
        frame=template(),
    ),
}
# Those on which all hard texts are tried.
HARD_CASES = (
    "vocab.json and merges.txt",
    "a space before the first word",
    "tokenizer.json",
)
