import json
from pathlib import Path

import keras_hub
import pytest
import tokenizers
from toy import randomize

from keras_distil import data, models

GOLDEN = Path(__file__).parent / "golden"
SIZES = {
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 24,
    "max_sequence_length": 24,
}


@pytest.fixture(scope="session", params=["uncased", "cased"])
def golden_ids(request):
    """What Hugging Face's tokenizer makes of hard texts."""
    path = GOLDEN / f"ids_{request.param}.json"
    return json.loads(path.read_text("utf-8"))


def make_tokenizer(folder, content) -> tokenizers.Tokenizer:
    words = "\n".join(content["vocabulary"]) + "\n"
    (folder / "vocab.txt").write_text(words, "utf-8")
    settings = {"do_lower_case": content["do_lower_case"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return data.load_tokenizer(folder)


@pytest.fixture(scope="session")
def golden_tokenizer(golden_ids, tmp_path_factory):
    return make_tokenizer(tmp_path_factory.mktemp("golden"), golden_ids)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    """An uncased tokenizer of some hundred words."""
    content = json.loads((GOLDEN / "ids_uncased.json").read_text("utf-8"))
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"), content)


@pytest.fixture(scope="session")
def student(tokenizer):
    """A masked-LM student; never change its weights."""
    words = tokenizer.get_vocab_size()
    backbone = keras_hub.models.DistilBertBackbone(
        vocabulary_size=words, dropout=0.1, **SIZES
    )
    return randomize(models.ExactDistilBertMaskedLM(backbone), seed=7)


@pytest.fixture(scope="session")
def bert(tokenizer):
    """A masked-LM BERT; never change its weights."""
    words = tokenizer.get_vocab_size()
    backbone = models.ExactBertBackbone(
        vocabulary_size=words, dropout=0.1, **SIZES
    )
    return randomize(models.ExactBertMaskedLM(backbone), seed=8)


@pytest.fixture(scope="session")
def task_student(student):
    """Function of a kind and a number of outputs to a model of a task."""

    def make(kind, outputs=1, encoder=student):
        return randomize(models.task_model(encoder, kind, outputs), seed=9)

    return make
