"""Sentence embedders in every format, against NumPy."""

import json

import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from toy import byte_level_tokenizer, convert_litert_here, randomize

from keras_distil import edge, export, models
from keras_distil.export.student import make_student
from keras_distil.models.load_model import load_model

TEXTS = ["a naïve café fine", "日本語", " b c " * 20, "x"]
PROMPTS = {"query": "a b ", "passage": "c "}
# The whole of it is as near as float32 sums in another order.
NEAR = {"rtol": 1e-4, "atol": 1e-5}


def roberta(folder):
    backbone = models.ExactRobertaBackbone(
        vocabulary_size=701,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=12,
        max_sequence_length=24,
    )
    encoder = randomize(models.ExactRobertaMaskedLM(backbone), seed=3)
    return encoder, byte_level_tokenizer(folder)


@pytest.fixture(scope="module")
def embedders(student, bert, tokenizer, tmp_path_factory):
    """One of each family and pooling, with all that an embedder may have."""

    def make(encoder, reads, *arguments, **settings):
        model = models.embedding_model(
            encoder, *arguments, tokenizer=reads, **settings
        )
        randomize(model.sentence_embedding, seed=4)
        return model

    return {
        "distil_bert": make(
            student,
            tokenizer,
            sequence_length=12,
            prompts=PROMPTS,
            default_prompt_name="passage",
        ),
        "bert": make(bert, tokenizer, "cls", normalize=False),
        "bert_dense": make(bert, tokenizer, "mean", False, 6),
        "roberta": make(
            *roberta(tmp_path_factory.mktemp("roberta")),
            "max",
            dimension=5,
            prompts=PROMPTS,
        ),
    }


def alike(*quick):
    """All embedders, of which some are tested only among the slow tests."""
    names = ("distil_bert", "bert", "bert_dense", "roberta")
    return [
        name if name in quick else pytest.param(name, marks=pytest.mark.slow)
        for name in names
    ]


def tokens(model, text):
    """Ids of a text, cut as the model does."""
    ids = model.preprocessor.tokenizer.encode(text.strip()).ids
    length = model.preprocessor.sequence_length
    return ids if len(ids) <= length else [*ids[: length - 1], ids[-1]]


def vectors(model, texts, prompt=""):
    """Vectors by NumPy, from the encoder's states of one text at a time."""
    found = []
    for text in texts:
        ids = np.array([tokens(model, prompt + text)], np.int32)
        inputs = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
        if "segment_ids" in model.backbone.input:
            inputs["segment_ids"] = np.zeros_like(ids)
        states = model.backbone(inputs, training=False)
        if isinstance(states, dict):
            states = states["sequence_output"]
        states = np.asarray(states, np.float64)[0]
        vector = {
            "mean": states.mean(axis=0),
            "max": states.max(axis=0),
            "cls": states[0],
        }[model.pooling_mode]
        if model.dimension is not None:
            kernel, bias = model.sentence_embedding.weights
            vector = vector @ kernel.numpy() + bias.numpy()
        if model.normalize:
            vector /= np.linalg.norm(vector)
        found.append(vector)
    return np.stack(found)


def write(model, folder, format_, **options):
    report = export.export(model, folder, format=format_, **options)
    assert report.comparison.cosine > 0.9999
    assert report.comparison.top1_agreement is None
    return report


@pytest.mark.slow
@pytest.mark.parametrize("name", ["distil_bert", "bert_dense"])
def test_a_saved_model_reads_strings(embedders, tmp_path, name):
    model = embedders[name]
    made = write(model, tmp_path / "made", "saved_model")
    loaded = tf.saved_model.load(made.path)
    used = {"texts": ""}
    if model.prompts:
        used = {"texts": "c ", "queries": "a b ", "documents": "c "}
    assert set(loaded.signatures) == {"serving_default", "token_ids", *used}
    for signature, prompt in used.items():
        found = loaded.signatures[signature](texts=tf.constant(TEXTS))
        np.testing.assert_allclose(
            found["embedding"], vectors(model, TEXTS, prompt), **NEAR
        )
    assert found["token_ids"].shape[1] == model.preprocessor.sequence_length
    with pytest.raises(tf.errors.InvalidArgumentError, match="Leave it out"):
        loaded.signatures["texts"](texts=tf.constant(["x", " \t"]))


@pytest.mark.slow
@pytest.mark.essential
def test_a_saved_model_of_bytes_reads_ids_and_texts(embedders, tmp_path):
    model = embedders["roberta"]
    made = write(model, tmp_path / "made", "saved_model")
    assert made.note is None
    loaded = tf.saved_model.load(made.path)
    found = loaded.signatures["queries"](texts=tf.constant(TEXTS))
    np.testing.assert_allclose(
        found["embedding"], vectors(model, TEXTS, "a b "), **NEAR
    )
    ids = tf.constant([tokens(model, TEXTS[0])])
    found = loaded.signatures["token_ids"](
        token_ids=ids, padding_mask=tf.ones_like(ids)
    )
    np.testing.assert_allclose(
        found["embedding"], vectors(model, TEXTS[:1]), **NEAR
    )


@pytest.mark.parametrize("name", alike("distil_bert", "bert_dense"))
def test_litert_by_edge(embedders, tmp_path, monkeypatch, name):
    convert_litert_here(monkeypatch)
    model = embedders[name]
    made = write(
        model,
        tmp_path / "made",
        "litert",
        precision="float32",
        lengths=[8, 12],
    )
    student = edge.Student(made.path)
    texts = ["a b c", "x " * 4]
    prompts = model.prompts
    default = prompts.get(model.default_prompt_name or "", "")
    np.testing.assert_allclose(
        student.embed(texts), vectors(model, texts, default), **NEAR
    )
    for prompt_name, prompt in prompts.items():
        np.testing.assert_allclose(
            student.embed(texts, prompt_name),
            vectors(model, texts, prompt),
            **NEAR,
        )
    np.testing.assert_allclose(student(texts[0]), student.embed(texts[0])[0])


@pytest.mark.parametrize("name", alike("bert", "bert_dense", "roberta"))
def test_onnx(embedders, tmp_path, name):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = embedders[name]
    made = write(model, tmp_path / "made", "onnx")
    session = onnxruntime.InferenceSession(str(made.path / "model.onnx"))
    ids = np.array([tokens(model, TEXTS[0])], np.int32)
    inputs = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
    if "segment_ids" in model.backbone.input:
        inputs["segment_ids"] = np.zeros_like(ids)
    # Padding must not count.
    inputs = {k: np.pad(v, [(0, 0), (0, 3)]) for k, v in inputs.items()}
    [found] = session.run(None, inputs)
    np.testing.assert_allclose(found, vectors(model, TEXTS[:1]), **NEAR)


@pytest.mark.parametrize("name", alike("bert_dense", "roberta"))
def test_hugging_face_folders_read_back(embedders, tmp_path, name):
    model = embedders[name]
    made = write(model, tmp_path / "made", "hugging_face")
    again = load_model(made.path)
    for method in ("encode_text", "encode_query", "encode_documents"):
        np.testing.assert_allclose(
            getattr(again, method)(TEXTS), getattr(model, method)(TEXTS), **NEAR
        )
    config = json.loads((made.path / "config.json").read_text())
    assert config["architectures"][0].endswith("Model")
    folders = sorted(path.name for path in made.path.iterdir() if path.is_dir())
    expected = ["1_Pooling"]
    expected += ["2_Dense"] if model.dimension else []
    expected += [f"{len(expected) + 1}_Normalize"] if model.normalize else []
    assert folders == expected
    assert "pipeline_tag: sentence-similarity" in (
        made.path / "README.md"
    ).read_text("utf-8")


@pytest.mark.parametrize("name", alike("bert", "roberta"))
def test_presets(embedders, tmp_path, name):
    model = embedders[name]
    made = export.export(model, tmp_path / "made", format="preset")
    again = keras_hub.models.TextEmbedder.from_preset(str(made.path))
    read = load_model(made.path)
    assert type(again) is type(read)
    assert again.pooling_mode == model.pooling_mode
    if name == "bert":
        # KerasHub's own class, with its approximate GELU.
        assert type(again) is keras_hub.models.BertTextEmbedder
        assert again.preprocessor.sequence_length == 24
        assert made.note is None
        inputs = dict(again.preprocessor(["a b c"]))
        np.testing.assert_allclose(
            again(inputs), vectors(model, ["a b c"]), rtol=0.1, atol=0.1
        )
        return
    assert "import keras_distil.models" in made.note
    assert again.prompts == model.prompts
    np.testing.assert_allclose(
        again.encode_text(TEXTS), model.encode_text(TEXTS), **NEAR
    )


def test_eight_bits_and_a_score(embedders, tmp_path, monkeypatch):
    """Weights are fitted to texts, and a score of vectors is compared."""
    convert_litert_here(monkeypatch)
    model = embedders["distil_bert"]
    examples = export.Examples.from_inputs(
        [
            {"token_ids": np.array([[2, 5, 6, 3]], np.int32)}
            | {"padding_mask": np.ones((1, 4), np.int32)}
        ],
        1,
    )
    scored = export.Examples(
        examples.batches,
        score=lambda run: float(run(examples.batches[0][0]).shape == (1, 16)),
    )
    made = export.export(
        model,
        tmp_path / "made",
        format="litert",
        precision="dynamic_int8",
        lengths=[8],
        representative=["a b c", "x"],
        held_out=scored,
    )
    assert made.comparison.cosine > 0.98
    assert made.comparison.score == made.comparison.student_score == 1.0


def test_the_model_s_own_length_and_tokenizer(embedders):
    assert make_student(embedders["distil_bert"]).max_length == 12
    assert make_student(embedders["bert"]).max_length == 24


def test_edge_refuses(
    embedders, tmp_path, monkeypatch, task_student, tokenizer
):
    convert_litert_here(monkeypatch)
    options = {"format": "litert", "precision": "float32", "lengths": [8]}
    made = write(
        embedders["distil_bert"],
        tmp_path / "made",
        **{
            "format_": options["format"],
            **{k: v for k, v in options.items() if k != "format"},
        },
    )
    student = edge.Student(made.path)
    for texts, error, message in (
        ("", ValueError, "not white space. Received: '' as text 0"),
        (["x", " \n"], ValueError, "Received: .* as text 1 .*Leave it out"),
        ([], ValueError, "one text or more. Received: none"),
        (["x", 5], TypeError, "must be strings. Received: int as text 1"),
    ):
        with pytest.raises(error, match=message):
            student.embed(texts)
    with pytest.raises(ValueError, match=r"one of \['passage', 'query'\]"):
        student.embed("x", "title")
    with pytest.raises(ValueError, match="reads one text at a time"):
        student("x", "x")
    card = made.path / "student.json"
    content = json.loads(card.read_text())
    for prompts in ([], {"query": 5}, None):
        card.write_text(json.dumps({**content, "prompts": prompts}))
        with pytest.raises(ValueError, match="damaged: prompts cannot be"):
            edge.Student(made.path)
    report = export.export(
        task_student("classification", 3),
        tmp_path / "classes",
        tokenizer,
        **options,
    )
    with pytest.raises(ValueError, match="`embed` is for embedding models"):
        edge.Student(report.path).embed("x")
