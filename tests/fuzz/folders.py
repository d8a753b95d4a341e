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
    if frame != [numbers["[CLS]"], *whole, numbers["[SEP]"]]:
        raise Defect(f"framed as {frame}")
    special = data.SpecialTokens.from_tokenizer(tokenizer)
    if special.mask_id not in whole:
        raise Defect("[MASK] was not recognised")
