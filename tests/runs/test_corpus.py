import json

import pytest

from keras_distil import config, data
from keras_distil.runs.corpus import load_tokenizer


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("vocab.txt", b"[UNK]\n\xff\xfe\n"),
        ("tokenizer_config.json", b"["),
        ("tokenizer_config.json", b"[1]"),
        ("tokenizer_config.json", b'{"do_lower_case": []}'),
        ("tokenizer.json", b"{}"),
    ],
)
def test_a_damaged_tokenizer_is_told(toy_recipe, toy_teacher, name, content):
    (toy_teacher / name).write_bytes(content)
    with pytest.raises(
        ValueError, match="tokenizer in .*teacher cannot be use"
    ):
        load_tokenizer(config.load_recipe(toy_recipe))


def test_a_tokenizer_without_its_unknown_token_is_told(toy_recipe, toy_teacher):
    whole = json.loads(data.load_tokenizer(toy_teacher).to_str())
    whole["model"]["unk_token"] = "nowhere"
    (toy_teacher / "tokenizer.json").write_text(json.dumps(whole))
    with pytest.raises(ValueError, match="cannot be used: .*Missing"):
        load_tokenizer(config.load_recipe(toy_recipe))
