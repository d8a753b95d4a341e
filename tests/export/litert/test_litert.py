"""LiteRT files: what they compute, and what is refused."""

import dataclasses
import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from toy import convert_litert_here, randomize

from keras_distil import edge, export, models
from keras_distil.export.litert import converter, graph
from keras_distil.export.student import make_student

TEXTS = ["the cat sat on the mat", "a dog", "no", "the old bridge of stone"]
LOOSE = export.Tolerance(10.0, 1.0, 0.0)


@pytest.fixture(autouse=True)
def in_this_process(request, monkeypatch):
    """Converts without a process of its own, which takes seconds to start."""
    if "own_process" in request.fixturenames:
        return

    convert_litert_here(monkeypatch)


@pytest.fixture
def own_process():
    """Leaves the converter the process of its own."""


def inputs_of(words, *, batch, length, segments=False):
    generator = np.random.default_rng(3)
    ids = generator.integers(0, words, (batch, length), np.int32)
    real = np.arange(length) < generator.integers(2, length + 1, (batch, 1))
    found = {"token_ids": ids, "padding_mask": real.astype(np.int32)}
    if segments:
        found["segment_ids"] = generator.integers(0, 2, ids.shape, np.int32)
    return found


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("kind", [None, "classification", "span"])
@pytest.mark.parametrize("architecture", ["student", "bert"])
def test_graph_computes_what_the_student_does(
    architecture, kind, batch, request
):
    model = request.getfixturevalue(architecture)
    if kind is not None:
        outputs = 2 if kind == "span" else 3
        model = randomize(models.task_model(model, kind, outputs), seed=2)
    plain = make_student(model)
    inputs = inputs_of(
        plain.model.backbone.vocabulary_size,
        batch=batch,
        length=9,
        segments=architecture == "bert",
    )
    tensors = {name: tf.constant(value) for name, value in inputs.items()}
    expected = plain.outputs(tensors)
    found = graph.outputs(plain, tensors)
    assert found.keys() == expected.keys()
    real = inputs["padding_mask"] > 0
    for name, values in expected.items():
        by_token = kind != "classification"
        kept = real if by_token else np.s_[:]
        np.testing.assert_allclose(
            found[name].numpy()[kept], values.numpy()[kept], atol=2e-5
        )
    ours, theirs = plain.layers(tensors), graph.layers(plain, tensors)
    assert list(ours) == list(theirs)
    for name, values in ours.items():
        np.testing.assert_allclose(
            theirs[name].numpy()[real], values.numpy()[real], atol=2e-5
        )


@pytest.fixture(scope="module")
def exported(student, tokenizer, tmp_path_factory):
    """A masked-LM student in float32, with three signatures."""
    folder = tmp_path_factory.mktemp("litert") / "float32"
    with pytest.MonkeyPatch.context() as patch:
        convert_litert_here(patch)
        report = export.export_litert(
            student,
            folder,
            tokenizer,
            precision="float32",
            lengths=[16, None, 8, 16],
            held_out=TEXTS,
        )
    return folder, report


def test_report_and_files(exported):
    folder, report = exported
    assert sorted(path.name for path in folder.iterdir()) == [
        "parity.json",
        "student.json",
        "student.tflite",
        "tokenizer.json",
        "vocab.txt",
    ]
    assert (report.format, report.precision) == ("litert", "float32")
    assert report.comparison.max_difference < 1e-4
    assert report.comparison.top1_agreement == 1.0
    assert "EMBEDDING_LOOKUP" in report.operators
    assert "FULLY_CONNECTED" in report.operators
    assert report.to_json()["operators"] == list(report.operators)
    card = json.loads((folder / "student.json").read_text())
    assert card["lengths"] == [8, 16]
    assert card["max_length"] == 24
    assert card["operators"] == list(report.operators)


@pytest.mark.parametrize("length", [3, 8, 9, 16, 24])
def test_every_length_is_read(exported, student, length):
    folder, _ = exported
    reader = edge.Student(folder, num_threads=2)
    plain = make_student(student)
    inputs = inputs_of(
        plain.model.backbone.vocabulary_size, batch=3, length=length
    )
    found = reader.run(inputs)["logits"]
    expected = plain.outputs(
        {name: tf.constant(value) for name, value in inputs.items()}
    )["logits"].numpy()
    assert found.shape == expected.shape
    real = inputs["padding_mask"] > 0
    np.testing.assert_allclose(found[real], expected[real], atol=1e-4)


@pytest.mark.slow
def test_table_is_stored_once(student, tokenizer, tmp_path):
    sizes = {}
    for precision in ("float32", "float16", "dynamic_int8"):
        report = export.export_litert(
            student,
            tmp_path / precision,
            tokenizer,
            precision=precision,
            lengths=[16],
            held_out=TEXTS,
            tolerance=LOOSE,
        )
        sizes[precision] = report.size_mb * 1e6
        assert report.comparison.max_difference < 0.2
        words = student.backbone.vocabulary_size
        tables = [
            (tuple(each["shape"]), each["dtype"])
            for each in tensors_of(tmp_path / precision)
            if words in each["shape"]
            and 16 in each["shape"]
            # What is computed from it has the length of the sequence.
            and len(each["shape"]) == 2
            and tuple(each["shape"]) != (16, words)
        ]
        dtype = np.int8 if precision == "dynamic_int8" else np.float32
        # Half floats are made floats by an operator of their own.
        stored = [kind for _, kind in tables if kind == np.float16]
        assert len(stored) == (precision == "float16")
        assert [kind for _, kind in tables if kind == dtype] == [dtype]
    # What is not the table is small here, so overheads count.
    assert sizes["float16"] < sizes["float32"]
    assert sizes["dynamic_int8"] < sizes["float16"]


def tensors_of(folder):
    return Interpreter(str(folder / "student.tflite")).get_tensor_details()


def test_only_the_small_layers_of_the_head_stay_exact(
    student, tokenizer, tmp_path
):
    for kind, expected in (("masked_lm", 1), ("classification", 2)):
        model = student
        if kind != "masked_lm":
            model = models.task_model(student, kind, 3)
        export.export_litert(
            model, tmp_path / kind, tokenizer, lengths=[8], tolerance=LOOSE
        )
        interpreter = Interpreter(str(tmp_path / kind / "student.tflite"))
        details = interpreter.get_tensor_details()
        types = {each["index"]: each["dtype"] for each in details}
        weights = Counter(
            types[operator["inputs"][1]]
            for operator in interpreter._get_ops_details()
            if operator["op_name"] == "FULLY_CONNECTED"
        )
        # Six in each of two layers, and the decoder.
        quantised = 13 if kind == "masked_lm" else 12
        assert weights == {np.int8: quantised, np.float32: expected}


def test_full_int8(student, tokenizer, tmp_path):
    report = export.export_litert(
        student,
        tmp_path / "int8",
        tokenizer,
        precision="full_int8",
        lengths=[16],
        representative=TEXTS,
        held_out=TEXTS,
        tolerance=LOOSE,
    )
    assert 0 < report.comparison.max_difference < 3.0


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_tasks_have_labels_and_scores(student, tokenizer, tmp_path, kind):
    outputs = 3 if kind == "classification" else 1
    model = randomize(models.task_model(student, kind, outputs), seed=4)
    labels = ["a", "b", "c"] if kind == "classification" else None
    seen = []

    def score(outputs_of):
        inputs = inputs_of(20, batch=2, length=20, segments=True)
        seen.append(outputs_of(inputs))
        return 3.0 - len(seen)

    examples = export.Examples(
        [(inputs_of(20, batch=2, length=10), np.ones((2, 10), bool))],
        score=score,
    )
    report = export.export_litert(
        model,
        tmp_path / kind,
        tokenizer,
        precision="float32",
        lengths=[12],
        labels=labels,
        held_out=examples,
    )
    # Inputs of 20 tokens were cut to what the file takes.
    assert [each.shape for each in seen] == [(2, outputs)] * 2
    assert report.comparison.score == 2.0
    assert report.comparison.student_score == 1.0
    assert "score 200.0 of the student's 100.0" in str(report)


def test_spans_that_are_not_read_are_not_chosen(student, tokenizer, tmp_path):
    model = randomize(models.task_model(student, "span", 2), seed=4)
    seen = []

    def score(outputs_of):
        seen.append(outputs_of(inputs_of(20, batch=1, length=20)))
        return 1.0

    examples = export.Examples(
        [(inputs_of(20, batch=2, length=10), np.ones((2, 10), bool))],
        score=score,
    )
    export.export_litert(
        model,
        tmp_path / "span",
        tokenizer,
        precision="float32",
        lengths=[12],
        held_out=examples,
    )
    assert seen[0].shape == (1, 20, 2)
    assert (seen[0][:, 12:] == graph.MASKED_SCORE).all()
    assert (seen[0][:, :12] != graph.MASKED_SCORE).all()


def test_a_lower_score_fails_the_gate(student, tokenizer, tmp_path):
    model = models.task_model(student, "classification", 2)
    scores = iter([0.80, 0.90])
    examples = export.Examples(
        [(inputs_of(20, batch=1, length=8), np.ones((1, 8), bool))],
        score=lambda outputs_of: next(scores),
    )
    with pytest.raises(
        export.ParityError,
        match=r"score 80.0 of the student's 90.0.*0.5 points less\)",
    ):
        export.export_litert(
            model,
            tmp_path / "export",
            tokenizer,
            precision="float32",
            lengths=[8],
            held_out=examples,
        )
    assert not list(tmp_path.iterdir())


def test_what_fails_is_named_with_its_layer(
    student, tokenizer, tmp_path, monkeypatch
):
    layer = student.backbone.transformer_layers[1]
    compute = graph._Encoder._layer

    def wrong(encoder, computed, *arguments):
        found = compute(encoder, computed, *arguments)
        if computed.name != layer.name:
            return found
        beta = found.norm.beta + 0.5
        norm = dataclasses.replace(found.norm, beta=beta)
        return found._replace(norm=norm)

    monkeypatch.setattr(graph._Encoder, "_layer", wrong)
    with pytest.raises(
        export.ParityError,
        match=f"in float32 is not the student: .* It starts at `{layer.name}`",
    ):
        export.export_litert(
            student,
            tmp_path / "export",
            tokenizer,
            precision="float32",
            lengths=[8],
            held_out=TEXTS,
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.essential
def test_converts_in_a_process_of_its_own(
    student, tokenizer, tmp_path, own_process
):
    before = set(sys.modules)
    report = export.export_litert(
        student, tmp_path / "export", tokenizer, lengths=[8], tolerance=LOOSE
    )
    assert report.precision == "dynamic_int8"
    assert "ai_edge_quantizer" not in set(sys.modules) - before
    assert (tmp_path / "export" / "student.tflite").is_file()


@pytest.mark.parametrize(
    ("stdout", "stderr", "error", "message"),
    [
        ('{"error": "needs FlexErf"}', "", RuntimeError, "x needs FlexErf. It"),
        ('{"unwritten": "No space left"}', "", OSError, "No space left"),
        ("", "a\nkilled", RuntimeError, r"converter \(status 3\): killed. It"),
        ("not JSON", "", RuntimeError, r"\(status 3\): no reason given. It is"),
    ],
)
def test_what_the_converter_says(
    student, tmp_path, monkeypatch, own_process, stdout, stderr, error, message
):
    monkeypatch.setattr(
        subprocess,
        "run",
        lambda *_, **__: subprocess.CompletedProcess([], 3, stdout, stderr),
    )
    with pytest.raises(error, match=message):
        export.export_litert(student, tmp_path / "x", lengths=[8])
    assert not list(tmp_path.iterdir())


def test_operators_that_are_not_built_in():
    converter.check_operators(Counter({"ADD": 1}))
    found = Counter({"ADD": 1, "FlexErf": 2, "CUSTOM mine": 1})
    with pytest.raises(
        converter.ConversionError,
        match="needs CUSTOM mine, FlexErf, which LiteRT has not built in",
    ):
        converter.check_operators(found)


def test_what_needs_flex_is_no_litert_model(student, tmp_path, monkeypatch):
    encode = graph._Encoder.layers

    def with_flex(*arguments):
        found = encode(*arguments)
        name, rows = found[-1]
        return [*found[:-1], (name, rows + tf.math.betainc(rows, rows, rows))]

    monkeypatch.setattr(graph._Encoder, "layers", with_flex)
    with pytest.raises(RuntimeError, match="(?i)betainc"):
        export.export_litert(
            student, tmp_path / "x", precision="float32", lengths=[8]
        )
    assert not list(tmp_path.iterdir())


def test_the_converter_as_a_program(tmp_path, capsys, monkeypatch):
    spec = tmp_path / "spec.json"
    conversion = converter.Conversion("x", ["a"], "float32", "y")
    spec.write_text(json.dumps(vars(conversion)))

    def say(outcome):
        def run(_):
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        monkeypatch.setattr(converter, "convert", run)
        status = converter.main(str(spec))
        return status, json.loads(capsys.readouterr().out)

    assert say(["ADD"]) == (0, {"operators": ["ADD"]})
    wrong = converter.ConversionError("needs x")
    assert say(wrong) == (1, {"error": "needs x"})
    assert say(OSError(28, "No space left")) == (
        1,
        {"unwritten": "No space left"},
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"precision": "int8"}, ValueError, "must be one of float32, .*'int4'"),
        ({"precision": "x"}, ValueError, "int4. Received: precision='x'"),
        ({"lengths": []}, ValueError, "`lengths` must name one or more"),
        ({"lengths": [25]}, ValueError, "from 4 to 24, .*Received: 25"),
        ({"lengths": [3]}, ValueError, "from 4 to .* Received: 3"),
        ({"lengths": [8.0]}, TypeError, "must be integers or None. .*float"),
        ({"lengths": [True]}, TypeError, "integers or None. Received: True"),
        (
            {"precision": "full_int8"},
            ValueError,
            "precision='full_int8' needs `representative`: some hundred",
        ),
        (
            {"precision": "int4", "representative": ["a"]},
            ValueError,
            "is for precision=dynamic_int8 or full_int8. Received: .*'int4'",
        ),
        (
            {"representative": export.Examples([])},
            ValueError,
            "`representative` must hold sequences. Received: none",
        ),
        (
            {"precision": "full_int8", "representative": "a text"},
            TypeError,
            "must be a list of texts or `export.Examples`. Received: str",
        ),
        (
            {"precision": "full_int8", "representative": [1]},
            TypeError,
            "must be a list of texts .* Received: list",
        ),
        (
            {"precision": "full_int8", "representative": []},
            ValueError,
            "must hold texts, and needs a `tokenizer`. Received: 0 texts",
        ),
        (
            {"tokenizer": "vocab.txt"},
            TypeError,
            "must be a `tokenizers.Tokenizer`",
        ),
        ({"labels": ["a"]}, ValueError, "a masked_lm model has none"),
    ],
)
def test_bad_arguments(student, tokenizer, tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        export.export_litert(
            student,
            tmp_path / "x",
            **({"tokenizer": tokenizer, "lengths": [8]} | arguments),
        )
    assert not list(tmp_path.iterdir())


def test_existing_exports_stay(exported, student, tokenizer):
    folder, _ = exported
    before = (folder / "student.tflite").read_bytes()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        export.export_litert(student, folder, tokenizer, lengths=[8])
    assert (folder / "student.tflite").read_bytes() == before
