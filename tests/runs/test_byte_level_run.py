"""A whole run whose teacher reads bytes: distilled, scored, exported."""

import json

import commands
import pytest

from keras_distil import data

# As many as the toy teacher knows.
WORDS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "\u0120"]
WORDS += list("abcdefghijklmnopqrstuvwxyz.,:;()_'-=\"")
WORDS += [chr(ord("A") + i) for i in range(64 - len(WORDS))]


@pytest.mark.slow
@pytest.mark.essential
def test_a_byte_level_run(
    toy_recipe, toy_teacher, tmp_path, quick_runs, caplog
):
    for name in data.TOKENIZER_FILES:
        (toy_teacher / name).unlink(missing_ok=True)
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    (toy_teacher / "vocab.json").write_text(json.dumps(vocabulary))
    (toy_teacher / "merges.txt").write_text("#version: 0.2\n")
    settings = {"tokenizer_class": "RobertaTokenizer"}
    (toy_teacher / "tokenizer_config.json").write_text(json.dumps(settings))
    run = tmp_path / "run"
    assert not commands.run_command("run", toy_recipe, "--output", run)
    report = json.loads((run / "report.json").read_text())
    assert report
    formats = ("--format", "hugging_face", "--format", "saved_model")
    assert not commands.run_command("export", run, *formats)
    assert "takes token ids, not texts" in caplog.text
    parity = json.loads((run / "saved_model" / "parity.json").read_text())
    assert "takes token ids, not texts" in parity["note"]
    teachers, students = (
        data.load_tokenizer(folder)
        for folder in (toy_teacher, run / "hugging_face")
    )
    text = "the <mask> says: B, 'no'"
    assert students.encode(text, "a").ids == teachers.encode(text, "a").ids
