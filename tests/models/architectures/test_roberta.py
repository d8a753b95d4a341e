"""RoBERTa against Hugging Face's outputs of the golden checkpoints."""

import json
import os
import shutil
from pathlib import Path

import keras
import keras_hub
import marks
import numpy as np
import pytest
import toy
from commands import keras_distil
from safetensors.numpy import load_file

from keras_distil import Distiller, data, edge, export, losses, models
from keras_distil.benchmark import parameter_count
from keras_distil.models import encoder_pass, forward
from keras_distil.models.architectures import FAMILIES
from keras_distil.models.checkpoints import (
    HuggingFaceCheckpoint,
    hugging_face_config,
    read_config,
    write_checkpoint,
)
from keras_distil.models.shape import encoder_shape, student_shape

GOLDEN = Path(__file__).parents[1] / "golden" / "roberta"
TASKS = Path(__file__).parents[2] / "export" / "golden"
NAMES = ("token_ids", "padding_mask")
TYPES = "roberta.embeddings.token_type_embeddings.weight"
POSITIONS = "roberta.embeddings.position_embeddings.weight"


@pytest.fixture(scope="module")
def arrays():
    return dict(np.load(GOLDEN / "outputs.npz"))


@pytest.fixture(scope="module")
def teacher():
    """Never change its weights."""
    return models.load_teacher(GOLDEN)


def inputs_of(arrays):
    return {name: arrays[name] for name in NAMES}


def test_logits_and_states_are_hugging_face_s(teacher, arrays, all_logits):
    inputs, real = inputs_of(arrays), arrays["padding_mask"] > 0
    # Sums of float32 in another order.
    np.testing.assert_allclose(
        all_logits(teacher, inputs)[real], arrays["logits"][real], atol=1e-4
    )
    assert encoder_pass.is_supported(teacher.backbone)
    states = forward.encode(teacher, inputs, training=False)
    np.testing.assert_allclose(
        np.asarray(states)[real], arrays["hidden_states"][real], atol=1e-4
    )


def test_other_settings(edit_checkpoint, arrays, all_logits):
    """Its head keeps the exact GELU, whatever the encoder's activation."""
    with np.load(GOLDEN / "variants.npz") as variants:
        ((settings, expected),) = variants.items()
    directory = edit_checkpoint(GOLDEN, config=json.loads(settings))
    logits = all_logits(models.load_teacher(directory), inputs_of(arrays))
    real = arrays["padding_mask"] > 0
    np.testing.assert_allclose(logits[real], expected[real], atol=1e-4)


@pytest.mark.parametrize(
    "head",
    ["SequenceClassification", "TokenClassification", "QuestionAnswering"],
)
def test_tasks(head):
    folder = TASKS / f"RobertaFor{head}"
    model = models.load_task_model(folder)
    arrays = dict(np.load(folder / "outputs.npz"))
    _, outputs = forward.encode_task(model, inputs_of(arrays), training=False)
    own = np.asarray(model(inputs_of(arrays), training=False))
    real = arrays["padding_mask"] > 0
    if head == "SequenceClassification":
        real = ...
    for found in (own, np.asarray(outputs)):
        np.testing.assert_allclose(
            found[real], arrays["logits"][real], atol=1e-4
        )


# === Students ===


def test_a_student_of_all_layers_is_its_teacher(teacher, arrays, all_logits):
    student = models.initialize_student(teacher, 2)
    assert isinstance(student, models.ExactRobertaMaskedLM)
    inputs, real = inputs_of(arrays), arrays["padding_mask"] > 0
    np.testing.assert_allclose(
        all_logits(student, inputs)[real],
        all_logits(teacher, inputs)[real],
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ("kind", "outputs"),
    [
        ("classification", 3),
        ("regression", 1),
        ("token_classification", 4),
        ("span", 1),
    ],
)
def test_a_student_of_a_task(teacher, arrays, kind, outputs):
    fine_tuned = toy.randomize(
        models.task_model(teacher, kind, outputs), seed=4
    )
    student = models.initialize_student(fine_tuned, 2)
    assert type(student) is type(fine_tuned)
    np.testing.assert_allclose(
        student(inputs_of(arrays)), fine_tuned(inputs_of(arrays)), atol=1e-5
    )
    half = models.initialize_student(fine_tuned, layers=[1])
    np.testing.assert_array_equal(
        half.output_dense.kernel, fine_tuned.output_dense.kernel
    )


def test_dropout_before_and_after_the_pooler():
    backbone = models.ExactRobertaBackbone(9, 1, 1, 4, 8, 0.0, 6)
    model = models.task_model(backbone, "classification", 2, dropout=0.5)
    states = np.ones((400, 3, 4), "float32")
    outputs = forward.task_outputs(model, states, training=True)
    # Of four features, each is dropped before the pooler or not: more values
    # than one mask after it could give.
    assert len(np.unique(np.round(np.asarray(outputs), 5), axis=0)) > 2**4
    outputs = forward.task_outputs(model, states, training=False)
    assert len(np.unique(np.round(np.asarray(outputs), 5), axis=0)) == 1


def test_sizes_are_known_without_weights(teacher):
    shape, _ = encoder_shape(GOLDEN)
    assert shape.architecture == "roberta"
    assert shape.max_sequence_length == 12
    assert shape.parameters == parameter_count(teacher)
    student = models.initialize_student(teacher, 1)
    assert student_shape(shape, 1).parameters == parameter_count(student)


# Parameters of Hugging Face's `RobertaForMaskedLM` of these sizes, without the
# two rows of unused positions and the row of the only token type.
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("FacebookAI/roberta-base", 124695129),
        ("FacebookAI/roberta-large", 355408985),
        ("distilbert/distilroberta-base", 82167897),
    ],
)
def test_published_sizes(name, parameters):
    shape, origin = encoder_shape(f"hf://{name}")
    assert "not downloaded" in origin
    assert shape.parameters == parameters


# === Checkpoints ===


def test_the_first_positions_are_left_out_and_the_type_is_added(teacher):
    stored = load_file(GOLDEN / "model.safetensors")
    assert np.abs(stored[TYPES]).max() > 0.1
    table = teacher.backbone.embeddings.position_embedding.position_embeddings
    np.testing.assert_array_equal(table, stored[POSITIONS][2:] + stored[TYPES])


def test_import_export_import(teacher, tmp_path):
    family = FAMILIES["roberta"]

    def write(model, folder):
        folder.mkdir()
        config = hugging_face_config(
            family, model.backbone.get_config(), "masked_lm", pad_id=1
        )
        arrays = {v.path: np.asarray(v) for v in model.weights}
        write_checkpoint(
            folder, family, config, arrays, num_layers=2, head="masked_lm"
        )
        return models.load_teacher(folder)

    again = write(teacher, tmp_path / "first")
    for ours, theirs in zip(teacher.weights, again.weights, strict=True):
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()
    write(again, tmp_path / "second")
    first, second = (
        (tmp_path / name / "model.safetensors").read_bytes()
        for name in ("first", "second")
    )
    assert first == second
    written, original = (
        load_file(folder / "model.safetensors")
        for folder in (tmp_path / "first", GOLDEN)
    )
    assert {k: v.shape for k, v in written.items()} == {
        k: v.shape for k, v in original.items()
    }
    assert not written[TYPES].any()
    assert not written[POSITIONS][:2].any()
    config = read_config(tmp_path / "first")
    assert config.backbone == read_config(GOLDEN).backbone


def test_decoder_and_pooler_may_be_stored(edit_checkpoint, caplog):
    word = "roberta.embeddings.word_embeddings.weight"

    def add(tensors):
        return {
            **tensors,
            "lm_head.decoder.weight": tensors[word],
            "lm_head.decoder.bias": tensors["lm_head.bias"],
            "roberta.pooler.dense.weight": np.ones((16, 16), "float32"),
            "roberta.pooler.dense.bias": np.ones(16, "float32"),
        }

    with caplog.at_level("INFO", "keras_distil"):
        models.load_teacher(edit_checkpoint(GOLDEN, tensors=add))
    (record,) = caplog.records
    assert "roberta.pooler.* belong to another" in record.getMessage()
    assert record.levelname == "INFO"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"type_vocab_size": 2}, "`type_vocab_size` .*must be 1.*2"),
        ({"pad_token_id": 0}, "`pad_token_id` .*must be 1.*0"),
        (
            {"max_position_embeddings": 2},
            "`max_position_embeddings` .*above 2: the first 2 positions of a "
            "RoBERTa .*Received: 2",
        ),
        (
            {"max_position_embeddings": 12},
            r"position_embeddings.weight` .*shape \(12, 16\).*\(14, 16\)",
        ),
        (
            {"architectures": ["BertForMaskedLM"]},
            "must name a class of 'roberta'.*Received: 'BertForMaskedLM'",
        ),
        (
            {"architectures": ["RobertaPreLayerNormForMaskedLM"]},
            "must name a class of 'roberta'.*Received: 'RobertaPre",
        ),
        ({"model_type": "bert"}, "`architectures` .*class of 'bert'"),
        ({"model_type": "xlm-roberta"}, r"\['bert', 'distilbert', 'roberta'"),
    ],
)
def test_wrong_configurations(edit_checkpoint, settings, message):
    directory = edit_checkpoint(GOLDEN, config=settings)
    with pytest.raises(ValueError, match=message) as raised:
        models.load_teacher(directory)
    assert "\n" not in str(raised.value)


def test_a_checkpoint_without_types(edit_checkpoint):
    def cut(tensors):
        return {k: v for k, v in tensors.items() if k != TYPES}

    directory = edit_checkpoint(GOLDEN, tensors=cut)
    with pytest.raises(ValueError, match=f"lacks the tensor `{TYPES}`"):
        models.load_teacher(directory)


def test_an_encoder_alone(edit_checkpoint):
    def strip(tensors):
        return {
            name.removeprefix("roberta."): value
            for name, value in tensors.items()
            if name.startswith("roberta.")
        }

    directory = edit_checkpoint(
        GOLDEN, tensors=strip, config={"architectures": ["RobertaModel"]}
    )
    with pytest.raises(ValueError, match="has no masked-LM head"):
        models.load_teacher(directory)
    model = models.load_teacher(directory, allow_new_head=True)
    checkpoint = HuggingFaceCheckpoint(directory)
    assert not checkpoint.has_masked_lm_head
    np.testing.assert_array_equal(
        model.backbone.token_embedding.embeddings,
        load_file(GOLDEN / "model.safetensors")[
            "roberta.embeddings.word_embeddings.weight"
        ],
    )


def test_a_keras_hub_preset(teacher, tmp_path, arrays, all_logits):
    plain = keras_hub.models.RobertaMaskedLM(
        keras_hub.models.RobertaBackbone.from_config(
            teacher.backbone.get_config()
        )
    )
    plain.set_weights(teacher.get_weights())
    plain.save_to_preset(tmp_path / "preset")
    loaded = models.load_teacher(tmp_path / "preset")
    inputs = inputs_of(arrays)
    np.testing.assert_array_equal(
        all_logits(loaded, inputs), all_logits(plain, inputs)
    )
    student = models.initialize_student(loaded, 1)
    assert isinstance(student, models.ExactRobertaMaskedLM)


def test_saved_and_loaded(teacher, tmp_path, arrays, all_logits):
    teacher.save(tmp_path / "teacher.keras")
    loaded = models.load_teacher(tmp_path / "teacher.keras")
    assert type(loaded.backbone) is models.ExactRobertaBackbone
    inputs = inputs_of(arrays)
    np.testing.assert_array_equal(
        all_logits(loaded, inputs), all_logits(teacher, inputs)
    )


@pytest.mark.slow
def test_a_step_of_distillation(teacher):
    student = models.initialize_student(teacher, 1, dropout=0.0)
    distiller = Distiller(teacher, student, losses.triple_loss())
    distiller.compile(optimizer="adam", jit_compile=False)
    ids = np.random.default_rng(0).integers(5, 60, (4, 8), dtype="int32")
    batch = (
        {"token_ids": ids, "padding_mask": np.ones_like(ids)},
        ids,
        np.ones(ids.shape, "float32"),
    )
    before = toy.weights_of(student)
    logs = distiller.train_on_batch(*batch, return_dict=True)
    assert np.isfinite(logs["loss"])
    after = toy.weights_of(student)
    assert all((before[name] != after[name]).any() for name in before)


# === Exports ===


@pytest.mark.parametrize(
    ("format_", "options"),
    [
        pytest.param(
            "litert",
            {"precision": "float32", "lengths": [8]},
            marks=pytest.mark.slow,
        ),
        ("onnx", {}),
        ("preset", {}),
        pytest.param("saved_model", {}, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("kind", ["masked_lm", "classification"])
def test_exports(teacher, tmp_path, kind, format_, options):
    if format_ == "onnx":
        pytest.importorskip("onnxruntime")
    model = teacher
    if kind != "masked_lm":
        model = toy.randomize(models.task_model(teacher, kind, 3), seed=1)
    report = export.export(model, tmp_path / "x", format=format_, **options)
    # A preset's head has the same epsilon as the student's.
    assert report.comparison.max_difference < 1e-3
    assert report.comparison.top1_agreement == 1.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Hugging Face folder that an export wrote, with a tokenizer."""
    return toy.roberta_folder(tmp_path_factory.mktemp("roberta") / "model")


def test_its_folder_is_written_and_read_back(folder, tmp_path):
    teacher = models.load_teacher(folder)
    export.export_hugging_face(teacher, tmp_path / "again")
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        before, after = (x / name for x in (folder, tmp_path / "again"))
        assert before.read_bytes() == after.read_bytes()
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["RobertaForMaskedLM"]
    assert config["max_position_embeddings"] == 16 + 2
    assert (config["pad_token_id"], config["type_vocab_size"]) == (1, 1)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "RobertaTokenizer"
    assert settings["mask_token"] == "<mask>"


@pytest.mark.parametrize(
    "kind",
    marks.slow_except(
        ["classification", "regression", "token_classification", "span"],
        "classification",
    ),
)
def test_folders_of_tasks(folder, tmp_path, kind):
    count = {"classification": 3, "token_classification": 3}.get(kind, 1)
    model = models.task_model(models.load_teacher(folder), kind, count)
    toy.randomize(model, seed=5)
    report = export.export_hugging_face(model, tmp_path / "task")
    assert report.comparison.max_difference < 1e-5
    loaded = models.load_task_model(tmp_path / "task")
    assert type(loaded) is type(model)


@pytest.mark.slow
def test_a_text_through_edge(folder, tmp_path):
    pytest.importorskip("ai_edge_litert")
    teacher = models.load_teacher(folder)
    export.export_litert(
        teacher, tmp_path / "phone", precision="float32", lengths=[16]
    )
    student = edge.Student(tmp_path / "phone")
    (answers,) = student("the<mask> of a model")
    tokenizer = data.load_tokenizer(folder)
    ids = np.array([tokenizer.encode("the<mask> of a model").ids], "int32")
    logits = forward.logits(
        teacher, {"token_ids": ids, "padding_mask": np.ones_like(ids)}
    )
    (place,) = np.flatnonzero(ids[0] == tokenizer.token_to_id("<mask>"))
    best = int(np.argmax(logits[0, place]))
    assert answers[0].text.strip() == tokenizer.decode([best]).strip()


def test_a_tokenizer_of_another_family(folder, toy_teacher, tmp_path, capsys):
    message = "pads with the id 0, but a RoBERTa counts its positions from 1"
    other = data.load_tokenizer(toy_teacher)
    with pytest.raises(ValueError, match=message):
        export.export_onnx(models.load_teacher(folder), tmp_path / "x", other)
    mixed = tmp_path / "mixed"
    shutil.copytree(folder, mixed)
    for path in mixed.iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            path.unlink()
    shutil.copy(toy_teacher / "vocab.txt", mixed)
    text = json.dumps({"tokenizer_class": "BertTokenizer"})
    (mixed / "tokenizer_config.json").write_text(text)
    (tmp_path / "text.txt").write_text("a line of text.\n" * 40)
    status, _, error = keras_distil(
        capsys,
        *["run", "recipes/roberta_tiny.yaml", "--output", tmp_path / "run"],
        *["--set", f"teacher.source={mixed}", "--set", "distill.steps=2"],
        *["--set", f"data.root={tmp_path}", "--set", "data.sequence_length=12"],
        *["--set", "evaluate={latency_length: 8}"],
    )
    assert status == 1
    assert message in error


# === A real one ===


def real_folder():
    root = os.environ.get("KERAS_DISTIL_TEST_MODELS")
    folders = sorted(Path(root).glob("*roberta*")) if root else []
    if not folders:
        pytest.skip("KERAS_DISTIL_TEST_MODELS names no folder with a RoBERTa")
    return folders[0]


@pytest.mark.peer
def test_a_real_checkpoint():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = real_folder()
    peer = transformers.RobertaForMaskedLM.from_pretrained(folder).eval()
    rows = peer.config.vocab_size
    generator = np.random.default_rng(0)
    ids = generator.integers(4, rows, (10, 40)).astype("int32")
    mask = (np.arange(40) < np.arange(13, 43, 3)[:, None]).astype("int32")
    inputs = {"token_ids": np.where(mask, ids, 1), "padding_mask": mask}
    with torch.no_grad():
        expected = peer(
            input_ids=torch.tensor(inputs["token_ids"]).long(),
            attention_mask=torch.tensor(mask).long(),
        ).logits.numpy()
    teacher = models.load_teacher(folder)
    logits = keras.ops.convert_to_numpy(forward.logits(teacher, inputs))
    np.testing.assert_allclose(logits[mask > 0], expected[mask > 0], atol=2e-5)
