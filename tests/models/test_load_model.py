"""Valid paths of models, and the errors for other paths."""

import shutil
import zipfile
from pathlib import Path

import keras_hub
import pytest
from toy import SIZES

from keras_distil import models
from keras_distil.models.load_model import load_model

TASK_FOLDER = (
    Path(__file__).parents[1] / "export/golden/BertForSequenceClassification"
)


@pytest.fixture(scope="module")
def classifier():
    backbone = models.ExactBertBackbone(**{**SIZES, "num_layers": 1})
    return models.task_model(backbone, "classification", 3)


def test_a_hugging_face_folder_of_each_kind(golden_bert):
    assert type(load_model(golden_bert)) is models.ExactBertMaskedLM
    model = load_model(TASK_FOLDER)
    assert isinstance(model, keras_hub.models.BertTextClassifier)


def test_keras_files(classifier, tmp_path):
    classifier.save(tmp_path / "a.keras")
    assert load_model(tmp_path / "a.keras").num_classes == 3


def test_presets(classifier, tmp_path):
    classifier.save_to_preset(str(tmp_path / "task"))
    for load in (load_model, models.load_task_model):
        assert load(tmp_path / "task").num_classes == 3
    encoder = classifier.backbone
    models.ExactBertMaskedLM(encoder).save_to_preset(str(tmp_path / "masked"))
    found = load_model(tmp_path / "masked")
    assert isinstance(found, keras_hub.models.BertMaskedLM)
    with pytest.raises(ValueError, match="fine-tuned on a task. Received: Ex"):
        models.load_task_model(tmp_path / "masked")


def test_an_encoder_alone_is_not_a_model_of_a_task(classifier, tmp_path):
    classifier.backbone.save_to_preset(str(tmp_path / "encoder"))
    with pytest.raises(ValueError, match="no masked-LM head"):
        load_model(tmp_path / "encoder")
    with pytest.raises(ValueError, match="fine-tuned on a task. Received: an "):
        models.load_task_model(tmp_path / "encoder")


@pytest.mark.parametrize("load", [load_model, models.load_task_model])
def test_each_wrong_path_has_a_line_of_its_own(load, tmp_path, classifier):
    def refused(path, error=ValueError):
        with pytest.raises(error) as raised:
            load(path)
        assert "\n" not in str(raised.value)
        return str(raised.value)

    missing = tmp_path / "none.keras"
    assert (
        refused(missing, FileNotFoundError) == f"There is no model {missing}."
    )
    run = tmp_path / "run"
    (run / "tasks/rte/student/seed_0").mkdir(parents=True)
    (run / "recipe.yaml").write_text("")
    assert "Nor is there a `.keras` file" in refused(run)
    inside = run / "tasks/rte/student/seed_0/model.keras"
    classifier.save(inside)
    message = refused(run)
    assert f"Give a model in it, such as `{inside}`." in message
    # The advice.
    assert load(inside).num_classes == 3
    (run / "saved_model.pb").write_text("")
    assert "holds a SavedModel, which is not read back" in refused(run)
    damaged = tmp_path / "damaged.keras"
    damaged.write_text("text")
    assert "not a `.keras` file, or a damaged one" in refused(damaged)
    text = run / "recipe.yaml"
    assert "nor a directory with `config.json`" in refused(text)
    shutil.copytree(TASK_FOLDER, tmp_path / "folder")
    weights = tmp_path / "folder/model.safetensors"
    message = refused(weights)
    assert f"Give the directory: `{weights.parent}`" in message
    assert load(weights.parent).num_classes == 3
    message = refused(Path("hf://someone/tiny"), FileNotFoundError)
    assert (
        "`hf download someone/tiny --local-dir tiny`. Then give tiny."
        in message
    )


def test_an_archive_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        archive.writestr("notes.txt", "")
    with pytest.raises(ValueError, match="damaged or truncated"):
        load_model(tmp_path / "a.keras")


def test_files_in_a_models_directory_are_led_to_it(golden_bert):
    for name in ("model.safetensors", "config.json"):
        with pytest.raises(ValueError, match="Give the directory: ") as error:
            models.load_teacher(golden_bert / name)
        directory = str(error.value).split("`")[-2]
        assert directory == str(golden_bert)
        models.load_teacher(directory)


def test_a_task_model_of_the_hub(monkeypatch):
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda repository, allow_patterns: str(TASK_FOLDER),
    )
    model = models.load_task_model("hf://someone/classifier")
    assert isinstance(model, keras_hub.models.BertTextClassifier)
