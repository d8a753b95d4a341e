"""A checkpoint folder whose files are damaged, or say odd things.

What is accepted must give the ids that the files say: they are worked out here
anew, from the files alone.
"""

import json
import random
import shutil
from pathlib import Path

import mutate
import targets
import yaml
from harness import Defect, Target

from keras_distil import config, data, models
from keras_distil.cli import app
from keras_distil.data.tokenize import Encoder
from keras_distil.runs import earlier_runs
from keras_distil.runs.corpus import load_tokenizer

_EARLIER = targets.ROOT / "tests/golden/before_layout_runs/finished"
_SETTINGS_FILE = "tokenizer_config.json"
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_TEXT = "a b [MASK] c.d [E1]e[E1] A"
_SETTINGS = (
    ("do_lower_case", (True, False, None, 1, "true")),
    ("strip_accents", (True, False, None, [])),
    ("tokenize_chinese_chars", (True, False, None)),
    (
        "tokenizer_class",
        (
            *("BertTokenizer", "DistilBertTokenizerFast", "BertJapanese", 3),
            *("PreTrainedTokenizerFast", "RobertaTokenizer", None),
        ),
    ),
    ("never_split", ([], None, ["a"])),
    ("mask_token", ("[MASK]", "<mask>", {"content": "[MASK]"}, None)),
    ("additional_special_tokens", (["[E1]"], [], [""], "x", [3], None)),
    ("model_max_length", (8, 10**30, "x")),
)
_MODEL = (
    ("hidden_act", ("gelu", "relu", 3)),
    ("architectures", (["BertForMaskedLM"], ["Roberta"], [], 3, None)),
    ("problem_type", ("regression", "multi_label_classification", [])),
    ("id2label", ({"0": "a", "1": "b"}, {"0": "a", "2": "b"}, [], 3)),
    ("label2id", ({"a": 0, "b": 1}, {"a": []}, "x")),
    ("is_decoder", (True, False, None, 0)),
    ("pruned_heads", ({}, {"0": [0]}, [])),
    ("tie_word_embeddings", (True, False, None)),
    ("classifier_dropout", (0.1, None, 2, "x")),
    ("quantization_config", (None, {"bits": 4})),
    ("torch_dtype", ("float16", 3)),
)


def all_targets() -> list[Target]:
    """The folder, read as a tokenizer and as a model."""
    refusals = app._EXPECTED
    return [
        Target("folder_tokenizer", tokenizer_folder, refusals, 8),
        Target("folder_byte_level", byte_level_folder, refusals, 8),
        Target("folder_config", config_folder, refusals, 4),
        Target("earlier_run", earlier_run, refusals, 5),
    ]


def earlier_run(rng: random.Random, folder: Path) -> None:
    """A finished run of an earlier keras_distil, translated."""
    names = ("recipe.yaml", "environment.json", "report.json", "metrics.jsonl")
    for name in names:
        shutil.copy(_EARLIER / name, folder)
    (folder / "twin.keras").touch()
    path = folder / rng.choice(names)
    text = path.read_text()
    if path.suffix == ".json" and rng.random() < 0.7:
        path.write_bytes(targets.change_json(rng, text))
    elif path.suffix == ".yaml" and rng.random() < 0.7:
        values = mutate.change_tree(rng, yaml.safe_load(text))
        path.write_text(yaml.dump(values))
    else:
        path.write_bytes(mutate.change_bytes(rng, path.read_bytes()))
    earlier_runs.translate_run(folder, lambda line: None)


def tokenizer_folder(rng: random.Random, folder: Path) -> None:
    """All files that say something of a tokenizer."""
    files: dict[str, bytes] = {"vocab.txt": _vocabulary(rng)}
    if rng.random() < 0.4:
        files["tokenizer.json"] = _whole(rng)
    for name, make in (
        ("tokenizer_config.json", _settings),
        ("special_tokens_map.json", _special),
        ("added_tokens.json", _added),
        ("config.json", lambda rng: {"model_type": "bert"}),
    ):
        if rng.random() < 0.5:
            text = json.dumps(make(rng))
            files[name] = text.encode()
            if rng.random() < 0.2:
                files[name] = targets.change_json(rng, text)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    recipe = config.load_recipe(
        targets.RECIPES[0], [f"teacher.source={folder}"]
    )
    tokenizer = load_tokenizer(recipe)
    _check_ids(tokenizer, files)


def byte_level_folder(rng: random.Random, folder: Path) -> None:
    """vocab.json, merges.txt or tokenizer.json, and what belongs to them."""
    words = _byte_level_words(rng)
    merges = _merges(rng)
    files = {
        "vocab.json": json.dumps(words).encode(),
        "merges.txt": merges,
        "tokenizer_config.json": json.dumps(_byte_level_settings(rng)).encode(),
    }
    if rng.random() < 0.3:
        files["tokenizer.json"] = _byte_level_whole(rng, words)
    if rng.random() < 0.3:
        odd = rng.choice(("<mask>", "<mask>", "a", 3, None))
        text = json.dumps({"mask_token": odd})
        files["special_tokens_map.json"] = text.encode()
    for name, content in files.items():
        if rng.random() < 0.1:
            files[name] = mutate.change_bytes(rng, content)
        elif rng.random() < 0.1 and name in ("vocab.json", _SETTINGS_FILE):
            files[name] = targets.change_json(rng, content.decode())
    for name, content in files.items():
        (folder / name).write_bytes(content)
    recipe = config.load_recipe(
        targets.RECIPES[0], [f"teacher.source={folder}"]
    )
    tokenizer = load_tokenizer(recipe)
    _check_byte_level(tokenizer, files)


def _byte_level_words(rng: random.Random) -> dict:
    names = ["<s>", "<pad>", "</s>", "<unk>", *targets.LETTERS, "\u0120", "ab"]
    words = {word: i for i, word in enumerate([*names, "<mask>"])}
    for _ in range(rng.choice((*[0] * 8, 1, 2))):
        word = rng.choice((*words, "zz", "[E1]", "", " "))
        words[word] = rng.choice((0, 7, 50, -1, 2**31, 10**9, "x", 1.5, None))
    if rng.random() < 0.1:
        del words[rng.choice(("<s>", "<pad>", "</s>", "<mask>", "a"))]
    return words


def _merges(rng: random.Random) -> bytes:
    lines = ["#version: 0.2", "a b"]
    for _ in range(rng.choice((*[0] * 8, 1, 2))):
        odd = ("", "a", "a b c", " a", "zz q", "#version", "\u0120 a", "a\tb")
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(odd))
    return rng.choice(("\n", "\n", "\r\n")).join([*lines, ""]).encode()


def _byte_level_settings(rng: random.Random) -> dict:
    choices = (
        ("add_prefix_space", (True, False, 1, "x")),
        ("trim_offsets", (True, False, None)),
        ("errors", ("replace", "strict", 3)),
        ("mask_token", ("<mask>", "a", "[MASK]", {"content": "<mask>"}, None)),
        ("cls_token", ("<s>", "b", [], None)),
        ("pad_token", ("<pad>", "c", 7)),
        ("bos_token", ("<s>", None, "zz")),
        ("additional_special_tokens", (["[E1]"], ["d"], "x", None)),
    )
    names = ("RobertaTokenizer", "RobertaTokenizerFast") * 9
    others = ("PreTrainedTokenizerFast", "GPT2Tokenizer", 3)
    values = {"tokenizer_class": rng.choice((*names, *others))}
    for key, of_key in rng.sample(choices, rng.randint(0, 2)):
        values[key] = rng.choice((of_key[0], *of_key))
    return values


def _byte_level_whole(rng: random.Random, words: dict) -> bytes:
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": rng.random() < 0.2,
        "trim_offsets": True,
        "use_regex": rng.random() < 0.9,
    }
    frame = {
        "type": "RobertaProcessing",
        "sep": ["</s>", 2],
        "cls": ["<s>", 0],
        "trim_offsets": True,
        "add_prefix_space": False,
    }
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": rng.choice((None, None, {"type": "NFC"})),
        "pre_tokenizer": byte_level,
        "post_processor": rng.choice((frame, frame, None, byte_level)),
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": rng.choice((None,) * 9 + (0.5,)),
            "unk_token": rng.choice((None,) * 5 + ("<unk>", "nowhere")),
            "continuing_subword_prefix": rng.choice((None, None, "", "@@")),
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": rng.random() < 0.1,
            "vocab": words,
            "merges": rng.choice(
                (["a b"], [["a", "b"]], [], ["zz q"], [["a"]])
            ),
        },
    }
    text = json.dumps(whole)
    if rng.random() < 0.3:
        return targets.change_json(rng, text)
    return text.encode()


def _check_byte_level(tokenizer, files: dict[str, bytes]) -> None:
    """Ids of single letters, as the files number them, and their frame."""
    if "tokenizer.json" in files:
        numbers = json.loads(files["tokenizer.json"])["model"]["vocab"]
    else:
        numbers = json.loads(files["vocab.json"])
    special = data.SpecialTokens.from_tokenizer(tokenizer)
    space = tokenizer.encode("", add_special_tokens=False).ids
    for letter in "wxyz":
        found = tokenizer.encode(f" {letter}", add_special_tokens=False).ids
        expected = [numbers[x] for x in ("\u0120", letter) if x in numbers]
        if found != [*space, *expected]:
            raise Defect(f"{letter!r} has the ids {found}, not {expected}")
    text = "a b  <mask> c.d [E1]e[E1] A <s>"
    whole = tokenizer.encode(text, add_special_tokens=False).ids
    (trained,) = Encoder(tokenizer).encode([text])
    if trained.tolist() != whole:
        raise Defect(f"trained on {trained.tolist()}, served {whole}")
    if max(whole, default=0) >= data.vocabulary_size(tokenizer):
        raise Defect(f"an id beyond the vocabulary: {whole}")
    frame = tokenizer.encode(text, text).ids
    middle = [special.sep_id] * special.separators
    if frame != [special.cls_id, *whole, *middle, *whole, special.sep_id]:
        raise Defect(f"framed as {frame}")


def config_folder(rng: random.Random, folder: Path) -> None:
    """config.json of a small model, with keys that change outputs."""
    source = targets.GOLDEN / rng.choice(("bert", "distil_bert"))
    shutil.copytree(source, folder, dirs_exist_ok=True)
    path = folder / "config.json"
    values = json.loads(path.read_text())
    for key, choices in rng.sample(_MODEL, rng.randint(1, 4)):
        values[key] = rng.choice(choices)
    path.write_text(json.dumps(values))
    if rng.random() < 0.2:
        path.write_bytes(targets.change_json(rng, path.read_text()))
    load = rng.choice((models.load_teacher, models.load_task_model))
    load(folder)
    read = json.loads(path.read_text())
    if read.get("is_decoder") or read.get("pruned_heads"):
        raise Defect("accepted what is not computed")


def _vocabulary(rng: random.Random) -> bytes:
    words = list(targets.WORDS)
    for _ in range(rng.randrange(4)):
        place = rng.randrange(len(words) + 1)
        words.insert(place, rng.choice(("", "a", "zz", "[E1]", "##a", " x")))
    text = rng.choice(("\n", "\n", "\r\n")).join([*words, ""])
    content = text.encode()
    if rng.random() < 0.1:
        content = b"\xef\xbb\xbf" + content
    if rng.random() < 0.2:
        content = mutate.change_bytes(rng, content)
    return content


def _whole(rng: random.Random) -> bytes:
    whole = json.loads(targets._whole_tokenizer())
    words = whole["model"]["vocab"]
    for _ in range(rng.randrange(3)):
        word = rng.choice((*words, "zz", "[E1]"))
        words[word] = rng.choice((0, 7, 50, 99, -1, 2**31, 10**9, "x", 1.5))
    if rng.random() < 0.3:
        content, flags = "[E1]", {flag: rng.random() < 0.5 for flag in _FLAGS}
        token = {"id": rng.choice((39, 40, 7)), "content": content, **flags}
        whole["added_tokens"].append(token)
    if rng.random() < 0.3:
        whole["normalizer"]["lowercase"] = False
    if rng.random() < 0.2:
        whole["model"]["type"] = rng.choice(("BPE", "WordLevel", "Unigram"))
    text = json.dumps(whole)
    return (
        targets.change_json(rng, text)
        if rng.random() < 0.3
        else (text.encode())
    )


def _settings(rng: random.Random) -> dict:
    chosen = rng.sample(_SETTINGS, rng.randint(0, 3))
    values = {key: rng.choice(choices) for key, choices in chosen}
    if rng.random() < 0.3:
        ids = rng.sample((0, 4, 7, len(targets.WORDS), 99, "x", -1), 2)
        values["added_tokens_decoder"] = {
            str(i): rng.choice((_token(rng), {"content": "a"}, 3, {}))
            for i in ids
        }
    return values


def _token(rng: random.Random) -> dict:
    flags = {flag: rng.choice((True, False)) for flag in _FLAGS}
    return {"content": rng.choice(("[E1]", "[MASK]", "b c")), **flags}


def _special(rng: random.Random) -> dict:
    keys = ("cls_token", "mask_token", "additional_special_tokens")
    values = ("[CLS]", "[MASK]", ["[E1]"], {"content": "[MASK]"}, 3, "x")
    return {rng.choice(keys): rng.choice(values)}


def _added(rng: random.Random) -> dict:
    ids = (len(targets.WORDS), 7, 99, -1, "x", 1.5, None)
    return {rng.choice(("[E1]", "a", "")): rng.choice(ids)}


def _check_ids(tokenizer, files: dict[str, bytes]) -> None:
    """Ids of single letters, as the files number them."""
    if "tokenizer.json" in files:
        numbers = json.loads(files["tokenizer.json"])["model"]["vocab"]
    else:
        # Text mode: any line end counts.
        text = files["vocab.txt"].decode("utf-8")
        lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        numbers = {line: i for i, line in enumerate(lines)}
    for letter in "bxyz":
        expected = numbers.get(letter, numbers["[UNK]"])
        found = tokenizer.encode(letter, add_special_tokens=False).ids
        if found != [expected]:
            raise Defect(f"{letter!r} has the ids {found}, not {expected}")
    whole = tokenizer.encode(_TEXT, add_special_tokens=False).ids
    (trained,) = Encoder(tokenizer).encode([_TEXT])
    if trained.tolist() != whole:
        raise Defect(f"trained on {trained.tolist()}, served {whole}")
    if max(whole) >= data.vocabulary_size(tokenizer):
        raise Defect(f"an id beyond the vocabulary: {whole}")
    frame = tokenizer.encode(_TEXT).ids
    cls = numbers[_role(files, "cls_token", "[CLS]")]
    if frame != [cls, *whole, numbers["[SEP]"]]:
        raise Defect(f"framed as {frame}")
    special = data.SpecialTokens.from_tokenizer(tokenizer)
    mask = _role(files, "mask_token", "[MASK]")
    found = tokenizer.encode(f"a {mask} b", add_special_tokens=False).ids
    if special.mask_id != numbers[mask] or special.mask_id not in found:
        raise Defect(f"{mask} was not recognised")


def _role(files: dict[str, bytes], key: str, usual: str) -> str:
    """The token that the files name for a role."""
    named = json.loads(files.get("tokenizer_config.json", b"{}"))
    if "added_tokens_decoder" not in named:
        named |= json.loads(files.get("special_tokens_map.json", b"{}"))
    value = named.get(key, usual)
    return value["content"] if isinstance(value, dict) else value
