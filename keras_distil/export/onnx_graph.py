"""A student's forward pass in ONNX operators, built from its weights.

The graph is written node by node: a converter from TensorFlow would take more
than ten times the model's size in memory and store the embedding table twice.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from keras_distil.export.litert.graph import MASKED_SCORE
from keras_distil.export.student import MASKED_LM, SENTENCE_EMBEDDING, Student
from keras_distil.models import encoder_weights
from keras_distil.models.architectures import is_text_classifier, pooler_of
from keras_distil.models.architectures.sentence_embedding import (
    DENSE_ACTIVATIONS,
)
from keras_distil.models.embedding_model import (
    embedding_settings,
    vector_width,
)
from keras_distil.models.encoder_weights import TransformerLayer

# The first opset with LayerNormalization.
OPSET = 17
# The file format version of that opset, in use since 2021.
_IR_VERSION = 8
# Keeps a vector of zeros from being divided by 0.
_LEAST_SQUARE = 1e-24
_ACTIVATIONS = {
    keras.activations.relu: "Relu",
    keras.activations.tanh: "Tanh",
    keras.activations.sigmoid: "Sigmoid",
    keras.activations.linear: "Identity",
}


def outputs_model(student: Student) -> ModelProto:
    """Returns the model of `Student.outputs`; batch size and length are free.

    Args:
        student: the model to export.
    """
    graph = _Graph(student)
    states = _encode(graph)[-1][1]
    by_token = ["batch", "length"]
    found: dict[str, tuple[str, list[Any]]]
    if student.kind == SENTENCE_EMBEDDING:
        width = vector_width(student.model)
        found = {"embedding": (_embedding(graph, states), ["batch", width])}
    elif student.kind == MASKED_LM:
        words = student.model.backbone.vocabulary_size
        logits = _masked_lm(graph, states)
        found = {"logits": (logits, [*by_token, words])}
    else:
        found = _task(graph, states)
    return graph.model(found)


def layers_model(student: Student) -> ModelProto:
    """Returns the model of `Student.layers`."""
    graph = _Graph(student)
    width = student.model.backbone.hidden_dim
    return graph.model(
        {
            name: (states, ["batch", "length", width])
            for name, states in _encode(graph)
        }
    )


class _Graph:
    """Collects the nodes and weights of a graph.

    Args:
        student: the model whose inputs the graph has.
    """

    def __init__(self, student: Student) -> None:
        self.student = student
        self._nodes: list[Any] = []
        self._weights: dict[str, Any] = {}

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node; returns the name of its output."""
        name = f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(
            helper.make_node(operator, inputs, [name], name, **attributes)
        )
        return name

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        """Adds a constant; returns its name."""
        name = f"constant_{len(self._weights)}"
        array = np.asarray(values, dtype)
        self._weights[name] = numpy_helper.from_array(array, name)
        return name

    def weight(self, variable: keras.Variable, shape: Sequence[int]) -> str:
        """Adds a variable, once; returns its name."""
        name = f"{variable.path}:{'x'.join(map(str, shape))}"
        if name not in self._weights:
            array = np.reshape(variable.numpy(), shape)
            self._weights[name] = numpy_helper.from_array(array, name)
        return name

    def model(self, outputs: dict[str, tuple[str, list[Any]]]) -> ModelProto:
        """Returns the whole model, with named outputs of the given shapes."""
        for name, (value, _) in outputs.items():
            self._nodes.append(
                helper.make_node("Identity", [value], [name], f"output_{name}")
            )
        graph = helper.make_graph(
            self._nodes,
            "student",
            [
                helper.make_tensor_value_info(
                    name, TensorProto.INT32, ["batch", "length"]
                )
                for name in self.student.input_names
            ],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                for name, (_, shape) in outputs.items()
            ],
            list(self._weights.values()),
        )
        return helper.make_model(
            graph,
            producer_name="keras_distil",
            ir_version=_IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
        )


def _encode(graph: _Graph) -> list[tuple[str, str]]:
    """Names and hidden states by layer, (batch, length, width) each."""
    backbone = graph.student.model.backbone
    norm = encoder_weights.read_embeddings(backbone).norm
    states = _normalized(graph, norm, _embeddings(graph, backbone))
    mask = graph.add("Cast", "padding_mask", to=TensorProto.FLOAT)
    padding = graph.add("Sub", graph.constant(1.0), mask)
    bias = graph.add("Mul", padding, graph.constant(MASKED_SCORE))
    bias = graph.add("Unsqueeze", bias, graph.constant([1, 2], np.int64))
    found = [("embeddings", states)]
    for layer in encoder_weights.read_layers(backbone):
        attended = _attention(graph, layer, states, bias)
        states = _normalized(
            graph, layer.attention_norm, graph.add("Add", attended, states)
        )
        hidden = _dense(graph, layer.outer, _dense(graph, layer.inner, states))
        states = _normalized(
            graph, layer.norm, graph.add("Add", hidden, states)
        )
        found.append((layer.name, states))
    return found


def _embeddings(graph: _Graph, backbone: keras.Model) -> str:
    embeddings = encoder_weights.read_embeddings(backbone)
    tokens = graph.add("Gather", _table(graph), "token_ids")
    positions = embeddings.positions.position_embeddings
    length = graph.add(
        "Slice",
        graph.add("Shape", "token_ids"),
        *(graph.constant([value], np.int64) for value in (1, 2)),
    )
    added = graph.add(
        "Slice",
        graph.weight(positions, positions.shape),
        graph.constant([0], np.int64),
        length,
    )
    found = graph.add("Add", tokens, added)
    if embeddings.segments is None:
        return found
    segments = embeddings.segments.embeddings
    table = graph.weight(segments, segments.shape)
    return graph.add("Add", found, graph.add("Gather", table, "segment_ids"))


def _table(graph: _Graph) -> str:
    variable = graph.student.model.backbone.token_embedding.embeddings
    return graph.weight(variable, variable.shape)


def _normalized(
    graph: _Graph, layer: keras.layers.LayerNormalization, states: str
) -> str:
    return graph.add(
        "LayerNormalization",
        states,
        graph.weight(layer.gamma, layer.gamma.shape),
        graph.weight(layer.beta, layer.beta.shape),
        axis=-1,
        epsilon=layer.epsilon,
    )


def _attention(
    graph: _Graph, layer: TransformerLayer, states: str, bias: str
) -> str:
    width, heads, size = layer.projection_shape
    split = graph.constant([0, 0, heads, size], np.int64)

    def project(part: Any, order: list[int]) -> str:
        kernel = graph.weight(part.kernel, (width, heads * size))
        added = graph.weight(part.bias, (heads * size,))
        found = graph.add("Add", graph.add("MatMul", states, kernel), added)
        found = graph.add("Reshape", found, split)
        return graph.add("Transpose", found, perm=order)

    query = project(layer.query, [0, 2, 1, 3])
    key = project(layer.key, [0, 2, 3, 1])
    value = project(layer.value, [0, 2, 1, 3])
    scores = graph.add("MatMul", query, key)
    scores = graph.add("Div", scores, graph.constant(math.sqrt(size)))
    weights = graph.add("Softmax", graph.add("Add", scores, bias), axis=-1)
    context = graph.add("MatMul", weights, value)
    context = graph.add("Transpose", context, perm=[0, 2, 1, 3])
    context = graph.add(
        "Reshape", context, graph.constant([0, 0, heads * size], np.int64)
    )
    output = layer.attention_output
    kernel = graph.weight(output.kernel, (heads * size, width))
    return graph.add(
        "Add",
        graph.add("MatMul", context, kernel),
        graph.weight(output.bias, (width,)),
    )


def _dense(graph: _Graph, layer: keras.layers.Dense, values: str) -> str:
    kernel = graph.weight(layer.kernel, layer.kernel.shape)
    product = graph.add("MatMul", values, kernel)
    found = graph.add(
        "Add", product, graph.weight(layer.bias, layer.bias.shape)
    )
    # KerasHub passes its own function for the approximate GELU.
    name = getattr(layer.activation, "__name__", "")
    if name == "gelu":
        return _gelu(graph, found)
    if name == "silu":
        return graph.add("Mul", found, graph.add("Sigmoid", found))
    if name in ("gelu_approximate", "gelu_tanh"):
        return _gelu_approximate(graph, found)
    if layer.activation not in _ACTIVATIONS:
        raise ValueError(
            f"The activation {name!r} of {layer.name!r} has no counterpart in "
            "ONNX here: export a SavedModel or a LiteRT model."
        )
    return graph.add(_ACTIVATIONS[layer.activation], found)


def _gelu(graph: _Graph, values: str) -> str:
    """GELU by `Erf`, a pattern ONNX Runtime recognises; ONNX has no `Erfc`."""
    scaled = graph.add("Div", values, graph.constant(math.sqrt(2.0)))
    cumulative = graph.add("Add", graph.add("Erf", scaled), graph.constant(1.0))
    product = graph.add("Mul", values, cumulative)
    return graph.add("Mul", product, graph.constant(0.5))


def _gelu_approximate(graph: _Graph, values: str) -> str:
    """GELU by `Tanh`: x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))."""
    square = graph.add("Mul", values, values)
    cube = graph.add("Mul", square, values)
    cube = graph.add("Mul", cube, graph.constant(0.044715))
    inner = graph.add("Add", values, cube)
    inner = graph.add("Mul", inner, graph.constant(math.sqrt(2.0 / math.pi)))
    cumulative = graph.add("Add", graph.add("Tanh", inner), graph.constant(1.0))
    product = graph.add("Mul", values, cumulative)
    return graph.add("Mul", product, graph.constant(0.5))


def _masked_lm(graph: _Graph, states: str) -> str:
    model = graph.student.model
    head = encoder_weights.read_masked_lm_head(model)
    features = _normalized(graph, head.norm, _dense(graph, head.dense, states))
    width, words = model.backbone.hidden_dim, model.backbone.vocabulary_size
    bias = head.bias
    rows = graph.add("Reshape", features, graph.constant([-1, width], np.int64))
    logits = graph.add(
        "Gemm", rows, _table(graph), graph.weight(bias, bias.shape), transB=1
    )
    shape = graph.add(
        "Concat",
        graph.add("Shape", "token_ids"),
        graph.constant([words], np.int64),
        axis=0,
    )
    return graph.add("Reshape", logits, shape)


def _task(graph: _Graph, states: str) -> dict[str, tuple[str, list[Any]]]:
    """Outputs of a task's head with their shapes."""
    model, kind = graph.student.model, graph.student.kind
    features = states
    if is_text_classifier(model):
        place = graph.constant(0, np.int64)
        features = graph.add("Gather", states, place, axis=1)
        for layer in pooler_of(model):
            if not isinstance(layer, keras.layers.Dropout):
                features = _dense(graph, layer, features)
    found = _dense(graph, model.output_dense, features)
    if kind == "regression":
        every = graph.constant([-1], np.int64)
        return {"score": (graph.add("Reshape", found, every), ["batch"])}
    if kind == "span":
        return {
            name: (
                graph.add(
                    "Gather", found, graph.constant(index, np.int64), axis=2
                ),
                ["batch", "length"],
            )
            for index, name in enumerate(("start_logits", "end_logits"))
        }
    classes = model.num_classes
    if kind == "token_classification":
        return {"logits": (found, ["batch", "length", classes])}
    return {"logits": (found, ["batch", classes])}


def _embedding(graph: _Graph, states: str) -> str:
    """A text's vector from the states of its tokens."""
    model = graph.student.model
    settings = embedding_settings(model)
    vector = _pooled(graph, settings["pooling_mode"], states)
    if settings["dimension"] is not None:
        layer = model.sentence_embedding
        kernel = graph.weight(layer.kernel, layer.kernel.shape)
        bias = graph.weight(layer.bias, layer.bias.shape)
        vector = graph.add("Add", graph.add("MatMul", vector, kernel), bias)
        activation = DENSE_ACTIVATIONS[settings["activation"]]
        vector = graph.add(_ACTIVATIONS[activation], vector)
    if not settings["normalize"]:
        return vector
    last = graph.constant([-1], np.int64)
    squares = graph.add("ReduceSum", graph.add("Mul", vector, vector), last)
    squares = graph.add("Max", squares, graph.constant(_LEAST_SQUARE))
    return graph.add("Div", vector, graph.add("Sqrt", squares))


def _pooled(graph: _Graph, pooling_mode: str, states: str) -> str:
    if pooling_mode == "cls":
        place = graph.constant(0, np.int64)
        return graph.add("Gather", states, place, axis=1)
    mask = graph.add("Cast", "padding_mask", to=TensorProto.FLOAT)
    weights = graph.add("Unsqueeze", mask, graph.constant([2], np.int64))
    if pooling_mode == "max":
        real = graph.add("Cast", weights, to=TensorProto.BOOL)
        never = graph.constant(np.finfo(np.float32).min)
        kept = graph.add("Where", real, states, never)
        return graph.add("ReduceMax", kept, axes=[1], keepdims=0)
    tokens = graph.constant([1], np.int64)
    total = graph.add(
        "ReduceSum", graph.add("Mul", states, weights), tokens, keepdims=0
    )
    count = graph.add("ReduceSum", weights, tokens, keepdims=0)
    count = graph.add("Max", count, graph.constant(1.0))
    return graph.add("Div", total, count)
