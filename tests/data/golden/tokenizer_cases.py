"""Tokenizer folders of many kinds: their files, as `write` makes them.

`make_tokenizers.py` asks transformers what each gives; the tests compare.
"""

import json
from pathlib import Path

WORDS = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] the The THE sea cafe café cov ##id "
    "##id-19 new york a b c d e ##s [ ] e1 E1 1 ##1 mask sep 中 - . i "
    "covid ##x x n ##ew ##t ##he"
).split()
TEXTS = [
    "The sea THE Café café [MASK] the [SEP] a",
    "[E1] the [/E1] [e1] [E1]the[E1] e1 E1",
    "covid covidx xcovid COVID Covid covid-19 covid 19",
    "new york newyork New York new-york",
    "中a中 [mask] a[MASK]b [PAD] [CLS] [UNK] zzz",
    "the  [E1]  sea\t[E1]\n",
    "",
]


def token(content, **flags):
    values = dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    values |= {"normalized": False, "special": True}
    return {"content": content, **values, **flags}


def word(content, **flags):
    return token(content, normalized=True, special=False, **flags)


def lines(*words):
    return "\n".join(words or WORDS) + "\n"


def decoder(*tokens):
    named = {i: token(WORDS[i]) for i in range(5)}
    more = {len(WORDS) + i: each for i, each in enumerate(tokens)}
    return {str(i): each for i, each in (named | more).items()}


def whole(vocabulary=None, added=(), **normalizer):
    """A tokenizer.json."""
    vocabulary = vocabulary or {w: i for i, w in enumerate(WORDS)}
    settings = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": None,
        "lowercase": True,
        **normalizer,
    }
    named = [{"id": i, **token(WORDS[i])} for i in range(5)]
    named += [{"id": len(WORDS) + i, **each} for i, each in enumerate(added)]
    frame = [
        {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
    ]
    pair = [
        *frame,
        {"Sequence": {"id": "B", "type_id": 1}},
        {"SpecialToken": {"id": "[SEP]", "type_id": 1}},
    ]
    specials = {
        name: {"id": name, "ids": [WORDS.index(name)], "tokens": [name]}
        for name in ("[CLS]", "[SEP]")
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": named,
        "normalizer": settings,
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": frame,
            "pair": pair,
            "special_tokens": specials,
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    }


def vocab(**settings):
    """A folder with vocab.txt and a tokenizer_config.json."""
    return {"vocab.txt": lines(), "tokenizer_config.json": settings}


E1 = [token("[E1]"), token("[/E1]")]
PLAIN = {"tokenizer_class": "PreTrainedTokenizerFast"}
CASES = {
    "vocab.txt alone": {"vocab.txt": lines()},
    "cased": vocab(do_lower_case=False),
    "lower-cased with its accents": vocab(strip_accents=False),
    "cased without accents": vocab(do_lower_case=False, strip_accents=True),
    "Chinese words": vocab(tokenize_chinese_chars=False),
    "other class name": vocab(tokenizer_class="DistilBertTokenizerFast"),
    "config wins over tokenizer.json": {
        "tokenizer.json": whole(lowercase=False),
        "tokenizer_config.json": {"do_lower_case": True},
    },
    "config's case wins over tokenizer.json": {
        "tokenizer.json": whole(),
        "tokenizer_config.json": {"do_lower_case": False},
    },
    "tokenizer.json wins over vocab.txt": {
        "tokenizer.json": whole(),
        "vocab.txt": lines("[UNK]", "nonsense"),
    },
    "tokenizer.json as it is": {
        "tokenizer.json": whole(lowercase=False),
        "tokenizer_config.json": PLAIN,
    },
    "added_tokens_decoder": vocab(
        added_tokens_decoder=decoder(*E1),
        additional_special_tokens=["[E1]", "[/E1]"],
    ),
    "added words": vocab(
        added_tokens_decoder=decoder(word("covid-19"), word("New York"))
    ),
    "an added word in the vocabulary": vocab(
        added_tokens_decoder=decoder()
        | {str(WORDS.index("covid")): word("covid")}
    ),
    "added whole words": vocab(
        added_tokens_decoder=decoder(word("covid-19", single_word=True))
    ),
    "overlapping added words": vocab(
        added_tokens_decoder=decoder(word("x co"), word("ovid-1"), word("ovid"))
    ),
    "added words as they are written": vocab(
        added_tokens_decoder=decoder(
            token("COVID", special=False), token("[E1]", lstrip=True)
        )
    ),
    "spaces beside a token": vocab(
        added_tokens_decoder=decoder()
        | {"4": token("[MASK]", lstrip=True, rstrip=True)}
    ),
    "Chinese added word": vocab(added_tokens_decoder=decoder(word("中a"))),
    "added_tokens.json": {
        **vocab(additional_special_tokens=["[E1]"]),
        "added_tokens.json": {
            "[E1]": len(WORDS),
            "[/E1]": len(WORDS) + 1,
        },
    },
    "special_tokens_map.json": {
        **vocab(),
        "special_tokens_map.json": {
            "additional_special_tokens": ["[E1]", "[/E1]"],
            "mask_token": token("[MASK]", lstrip=True, normalized=True),
        },
    },
    "additional_special_tokens": vocab(
        additional_special_tokens=["[E1]", "[/E1]"]
    ),
    "tokens of tokenizer.json": {
        "tokenizer.json": whole(added=[*E1, word("covid-19")]),
        "tokenizer_config.json": {},
    },
    "tokens of tokenizer.json as it is": {
        "tokenizer.json": whole(added=[*E1, word("covid-19")]),
        "tokenizer_config.json": PLAIN,
    },
    "tokens of both": {
        "tokenizer.json": whole(added=[token("[E1]", normalized=True)]),
        "tokenizer_config.json": {
            "added_tokens_decoder": decoder(token("[E1]"), word("covids"))
        },
    },
    "repeated lines": {"vocab.txt": lines(*WORDS, "the", "zzz", "sea")},
    "blank lines": {"vocab.txt": lines(*WORDS, "", "zzz", "", "")},
    "no last line end": {"vocab.txt": lines()[:-1]},
    "gaps in tokenizer.json": {
        "tokenizer.json": whole({w: 2 * i for i, w in enumerate(WORDS)})
        | {"added_tokens": [], "post_processor": None}
    },
    "Windows line ends": {"vocab.txt": lines().replace("\n", "\r\n")},
    "a mask of another name": vocab(mask_token="sea"),
    "a mask of another name in the map": {
        **vocab(),
        "special_tokens_map.json": {"mask_token": token("sea", lstrip=True)},
    },
    "other names": {
        "vocab.txt": lines("<pad>", "<unk>", "<s>", "</s>", "<mask>", *WORDS),
        "tokenizer_config.json": {
            "pad_token": "<pad>",
            "unk_token": "<unk>",
            "cls_token": "<s>",
            "sep_token": "</s>",
            "mask_token": "<mask>",
        },
    },
    "another mask in tokenizer.json": {
        "tokenizer.json": whole(),
        "tokenizer_config.json": {"mask_token": "york"},
    },
    "another mask in tokenizer.json as it is": {
        "tokenizer.json": whole(),
        "tokenizer_config.json": PLAIN | {"mask_token": "york"},
    },
}


def write(folder: Path, files) -> Path:
    """Writes the files, and a config.json of a BERT."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (
        {"config.json": {"model_type": "bert"}} | files
    ).items():
        if not isinstance(content, str):
            content = json.dumps(content)
        (folder / name).write_bytes(content.encode())
    return folder
