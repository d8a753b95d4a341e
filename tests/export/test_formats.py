"""One way to every format, and what it refuses."""

import dataclasses
import json

import numpy as np
import pytest

from keras_distil import config, data, export, models
from keras_distil.export import formats
from keras_distil.export.exporter import Exporter
from keras_distil.export.student import make_student
from keras_distil.runs.exports import _options


@pytest.mark.parametrize(
    ("format_", "options", "write"),
    [
        pytest.param(
            "saved_model",
            {"max_length": 12},
            export.export_saved_model,
            marks=pytest.mark.slow,
        ),
        ("hugging_face", {}, export.export_hugging_face),
        ("preset", {}, export.export_preset),
    ],
)
def test_it_writes_what_the_format_s_own_function_does(
    student, tokenizer, tmp_path, format_, options, write
):
    one = export.export(
        student, tmp_path / "one", tokenizer, format=format_, **options
    )
    other = write(student, tmp_path / "other", tokenizer, **options)
    assert one.format == format_
    # TensorFlow numbers the functions of a process.
    assert one.size_mb == pytest.approx(other.size_mb, rel=1e-2)
    assert one == dataclasses.replace(other, path=one.path, size_mb=one.size_mb)

    def names(folder):
        return sorted(str(x.relative_to(folder)) for x in folder.rglob("*"))

    assert names(one.path) == names(other.path)


def test_an_unknown_format(student, tmp_path):
    with pytest.raises(ValueError, match=r"be one of .*Did you mean 'onnx'"):
        export.export(student, tmp_path / "x", format="onxx")
    assert not list(tmp_path.iterdir())


def test_an_option_of_another_format(student, tmp_path):
    with pytest.raises(
        TypeError,
        match="`lengths` is not an option of format='saved_model'. Its "
        "options: max_length.",
    ):
        export.export(
            student, tmp_path / "x", format="saved_model", lengths=[8]
        )
    with pytest.raises(TypeError, match="Its options: none"):
        export.export(student, tmp_path / "x", format="preset", lengths=[8])
    with pytest.raises(TypeError, match=r"Export `models.embedding_model\(m"):
        export.export(
            student, tmp_path / "x", format="onnx", sentence_embedding=True
        )


def test_a_format_that_needs_a_tokenizer(student, tmp_path):
    with pytest.raises(TypeError, match="`tokenizer` must be a .*NoneType"):
        export.export(student, tmp_path / "x", format="hugging_face")


def test_every_format_of_a_recipe_has_an_exporter():
    for name in config.EXPORT_FORMATS:
        format_, options = _options(name, {}, None)
        exporter = formats.find_exporter(format_)
        assert set(options) <= set(exporter.options())


class _Numbers(Exporter):
    """A format of its own: weights as text."""

    format = "numbers"
    title = "The list of numbers"
    mark = "numbers.json"

    def __init__(self, student, tokenizer, folder, *, error=0.0):
        super().__init__(student, tokenizer, folder)
        self.error = error

    @property
    def tolerance(self):
        return export.TOLERANCES["saved_model", "float32"]

    def write(self, scratch):
        bias = np.asarray(self.student.model.masked_lm_head._bias)
        content = (bias + self.error).tolist()
        (scratch / self.mark).write_text(json.dumps(content))

    def read_back(self, scratch):
        copy = make_student(
            type(self.student.model).from_config(
                self.student.model.get_config()
            )
        )
        copy.model.set_weights(self.student.model.get_weights())
        bias = json.loads((scratch / self.mark).read_text())
        copy.model.masked_lm_head._bias.assign(bias)
        return copy.outputs

    def read_layers(self, scratch):
        return self.student.layers


def test_a_new_format_is_a_class_and_its_line(
    student, tokenizer, tmp_path, monkeypatch
):
    monkeypatch.setitem(formats._EXPORTERS, "numbers", _Numbers)
    folder = tmp_path / "made"
    report = export.export(student, folder, tokenizer, format="numbers")
    assert report.format == "numbers"
    written = json.loads((folder / "parity.json").read_text())
    assert written == report.to_json()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        export.export(student, folder, tokenizer, format="numbers")
    before = sorted(folder.iterdir())
    with pytest.raises(
        export.ParityError,
        match=r"The list of numbers for .*made is not the student: .* It "
        "starts in the head",
    ):
        export.export(
            student,
            folder,
            tokenizer,
            format="numbers",
            overwrite=True,
            error=0.5,
        )
    assert sorted(folder.iterdir()) == before
    assert json.loads((folder / "parity.json").read_text()) == written


# === Tokenizers of loaded models ===


@pytest.mark.slow
@pytest.mark.parametrize("through", ["teacher", "student", "task", "float16"])
def test_the_tokenizer_it_was_loaded_with(toy_teacher, tmp_path, through):
    """It need not be passed: a student reads texts as its teacher does."""
    model = models.load_teacher(toy_teacher)
    if through != "teacher":
        model = models.initialize_student(model, 1)
    if through == "task":
        model = models.task_model(model, "classification", 2)
    if through == "float16":
        model = models.with_dtype(model, "bfloat16")
    report = export.export_hugging_face(model, tmp_path / "made")
    assert report.comparison.max_difference < 1e-4
    again, before = (
        data.load_tokenizer(folder)
        for folder in (tmp_path / "made", toy_teacher)
    )
    assert data.vocabulary_hash(again) == data.vocabulary_hash(before)


def test_a_model_without_a_folder_needs_its_tokenizer(student, tmp_path):
    with pytest.raises(TypeError, match="`tokenizer` must be .*NoneType"):
        export.export_hugging_face(student, tmp_path / "made")


def test_a_folder_that_is_gone(toy_teacher, tmp_path, caplog):
    model = models.load_teacher(toy_teacher)
    (toy_teacher / "vocab.txt").unlink()
    with pytest.raises(FileNotFoundError, match="No tokenizer in .*teacher"):
        export.export_hugging_face(model, tmp_path / "made")
    (toy_teacher / "vocab.txt").write_text("no words\n")
    with pytest.raises(ValueError, match=r"no \[UNK\] line"):
        export.export_hugging_face(model, tmp_path / "made")
    pytest.importorskip("onnxruntime")
    export.export_onnx(model, tmp_path / "ids")
    (line,) = caplog.messages
    assert line.startswith("The export takes only token ids, since ")
