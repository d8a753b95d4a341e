"""Pairs of Keras variables and Hugging Face tensors, with their layouts.

One `WeightTable` per architecture serves both directions: reading a checkpoint
applies a rule from right to left, exporting applies it from left to right.
"""

import dataclasses
import re
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Layout:
    """A reversible change of layout between the two libraries.

    Args:
        to_keras: function of the tensor and of the variable's shape.
        to_hugging_face: function of the variable's value.
    """

    to_keras: Callable[[np.ndarray, tuple[int, ...]], np.ndarray]
    to_hugging_face: Callable[[np.ndarray], np.ndarray]

    def hugging_face_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the tensor's shape for a Keras variable of `shape`."""
        # The memory is never touched: only the shape is needed.
        return self.to_hugging_face(np.empty(shape, dtype=bool)).shape


# Embeddings, normalisation and plain biases are stored the same way.
SAME = Layout(lambda tensor, _: tensor, lambda array: array)
# Dense kernels: (out, in) <-> (in, out).
DENSE_KERNEL = Layout(lambda tensor, _: tensor.T, lambda array: array.T)
# Query, key and value kernels: (heads * width, in) <-> (in, heads, width).
SPLIT_KERNEL = Layout(
    lambda tensor, shape: tensor.T.reshape(shape),
    lambda array: array.reshape(array.shape[0], -1).T,
)
# Query, key and value biases: (heads * width,) <-> (heads, width).
SPLIT_BIAS = Layout(
    lambda tensor, shape: tensor.reshape(shape),
    lambda array: array.reshape(-1),
)
# Attention output kernel: (out, heads * width) <-> (heads, width, out).
MERGE_KERNEL = Layout(
    lambda tensor, shape: tensor.T.reshape(shape),
    lambda array: array.reshape(-1, array.shape[-1]).T,
)


@dataclasses.dataclass(frozen=True)
class Rule:
    """One pair of names: a Keras variable path and a tensor name."""

    keras: str
    hugging_face: str
    layout: Layout = SAME

    def for_layer(self, index: int) -> "Rule":
        """Returns the rule with `{i}` replaced by a layer's index."""
        return Rule(
            self.keras.format(i=index),
            self.hugging_face.format(i=index),
            self.layout,
        )


@dataclasses.dataclass(frozen=True)
class WeightTable:
    """Every weight of one architecture.

    Args:
        prefix: what a task model's checkpoint adds before the encoder's names
            and a bare encoder's checkpoint does not.
        embeddings: rules before the encoder's layers.
        layer: rules of one encoder layer, with `{i}` for its index.
        pooler: rules of the pooler; empty if the architecture has none.
        masked_lm: rules of the masked-LM head.
        tasks: rules of the head of each kind of task. A regression uses those
            of "classification".
        tasks_with_pooler: the kinds whose head reads the pooler.
        duplicates: tensor name -> the name of the tensor it must equal. A
            duplicate alone can replace the original.
        ignored: pattern of the names of tensors that are not weights.
        sizes: the tensors whose shapes show every size of a configuration, by
            name, with the names of the sizes in their shape. `{i}` is the
            last layer's index.
        head_prefixes: how names outside of the encoder start.
    """

    prefix: str
    embeddings: tuple[Rule, ...]
    layer: tuple[Rule, ...]
    pooler: tuple[Rule, ...]
    masked_lm: tuple[Rule, ...]
    tasks: dict[str, tuple[Rule, ...]]
    tasks_with_pooler: frozenset[str]
    duplicates: dict[str, str]
    ignored: re.Pattern
    sizes: dict[str, tuple[str, ...]]
    head_prefixes: tuple[str, ...]

    def rules(
        self,
        num_layers: int,
        *,
        pooler: bool,
        masked_lm: bool,
        task: str | None = None,
    ) -> list[Rule]:
        """Returns the rules of a model, with one set for each layer.

        Args:
            num_layers: int, the number of encoder layers.
            pooler: bool, whether to include the pooler.
            masked_lm: bool, whether to include the masked-LM head.
            task: the kind of task whose head to include; None for none.
        """
        rules = list(self.embeddings)
        for index in range(num_layers):
            rules += [rule.for_layer(index) for rule in self.layer]
        if pooler:
            rules += self.pooler
        if masked_lm:
            rules += self.masked_lm
        if task is not None:
            rules += self.tasks[task]
        return rules

    def canonical_name(self, name: str) -> str:
        """Returns `name` with the prefix and with current norm names."""
        for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
            if name.endswith(old):
                name = name.removesuffix(old) + new
        if name.startswith((self.prefix, *self.head_prefixes)):
            return name
        return self.prefix + name


def _dense(keras: str, hugging_face: str) -> tuple[Rule, Rule]:
    return (
        Rule(f"{keras}/kernel", f"{hugging_face}.weight", DENSE_KERNEL),
        Rule(f"{keras}/bias", f"{hugging_face}.bias"),
    )


def _norm(keras: str, hugging_face: str) -> tuple[Rule, Rule]:
    return (
        Rule(f"{keras}/gamma", f"{hugging_face}.weight"),
        Rule(f"{keras}/beta", f"{hugging_face}.bias"),
    )


def _split(keras: str, hugging_face: str) -> tuple[Rule, Rule]:
    return (
        Rule(f"{keras}/kernel", f"{hugging_face}.weight", SPLIT_KERNEL),
        Rule(f"{keras}/bias", f"{hugging_face}.bias", SPLIT_BIAS),
    )


def _merge(keras: str, hugging_face: str) -> tuple[Rule, Rule]:
    return (
        Rule(f"{keras}/kernel", f"{hugging_face}.weight", MERGE_KERNEL),
        Rule(f"{keras}/bias", f"{hugging_face}.bias"),
    )


_LAYER = "transformer_layer_{i}"
_ATTENTION = f"{_LAYER}/self_attention_layer"
_BERT = "bert.encoder.layer.{i}"
_DISTIL = "distilbert.transformer.layer.{i}"

BERT = WeightTable(
    prefix="bert.",
    embeddings=(
        Rule(
            "token_embedding/embeddings",
            "bert.embeddings.word_embeddings.weight",
        ),
        Rule(
            "position_embedding/embeddings",
            "bert.embeddings.position_embeddings.weight",
        ),
        Rule(
            "segment_embedding/embeddings",
            "bert.embeddings.token_type_embeddings.weight",
        ),
        *_norm("embeddings_layer_norm", "bert.embeddings.LayerNorm"),
    ),
    layer=(
        *_split(f"{_ATTENTION}/query", f"{_BERT}.attention.self.query"),
        *_split(f"{_ATTENTION}/key", f"{_BERT}.attention.self.key"),
        *_split(f"{_ATTENTION}/value", f"{_BERT}.attention.self.value"),
        *_merge(
            f"{_ATTENTION}/attention_output", f"{_BERT}.attention.output.dense"
        ),
        *_norm(
            f"{_LAYER}/self_attention_layer_norm",
            f"{_BERT}.attention.output.LayerNorm",
        ),
        *_dense(
            f"{_LAYER}/feedforward_intermediate_dense",
            f"{_BERT}.intermediate.dense",
        ),
        *_dense(f"{_LAYER}/feedforward_output_dense", f"{_BERT}.output.dense"),
        *_norm(f"{_LAYER}/feedforward_layer_norm", f"{_BERT}.output.LayerNorm"),
    ),
    pooler=_dense("pooled_dense", "bert.pooler.dense"),
    masked_lm=(
        *_dense(
            "mlm_head/intermediate_dense", "cls.predictions.transform.dense"
        ),
        *_norm(
            "mlm_head/intermediate_layer_norm",
            "cls.predictions.transform.LayerNorm",
        ),
        Rule("mlm_head/output_bias", "cls.predictions.bias"),
    ),
    tasks={
        "classification": _dense("logits", "classifier"),
        "token_classification": _dense("logits", "classifier"),
        "span": _dense("logits", "qa_outputs"),
    },
    tasks_with_pooler=frozenset({"classification"}),
    duplicates={
        "cls.predictions.decoder.weight": (
            "bert.embeddings.word_embeddings.weight"
        ),
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
    ignored=re.compile(r"bert\.embeddings\.(position_ids|token_type_ids)"),
    sizes={
        "bert.embeddings.word_embeddings.weight": (
            "vocabulary_size",
            "hidden_dim",
        ),
        "bert.embeddings.position_embeddings.weight": (
            "max_sequence_length",
            "hidden_dim",
        ),
        "bert.embeddings.token_type_embeddings.weight": (
            "num_segments",
            "hidden_dim",
        ),
        "bert.encoder.layer.{i}.intermediate.dense.weight": (
            "intermediate_dim",
            "hidden_dim",
        ),
    },
    head_prefixes=("cls.", "classifier.", "qa_outputs."),
)

DISTILBERT = WeightTable(
    prefix="distilbert.",
    embeddings=(
        Rule(
            "token_and_position_embedding/token_embedding/embeddings",
            "distilbert.embeddings.word_embeddings.weight",
        ),
        Rule(
            "token_and_position_embedding/position_embedding/embeddings",
            "distilbert.embeddings.position_embeddings.weight",
        ),
        *_norm("embeddings_layer_norm", "distilbert.embeddings.LayerNorm"),
    ),
    layer=(
        *_split(f"{_ATTENTION}/query", f"{_DISTIL}.attention.q_lin"),
        *_split(f"{_ATTENTION}/key", f"{_DISTIL}.attention.k_lin"),
        *_split(f"{_ATTENTION}/value", f"{_DISTIL}.attention.v_lin"),
        *_merge(
            f"{_ATTENTION}/attention_output", f"{_DISTIL}.attention.out_lin"
        ),
        *_norm(
            f"{_LAYER}/self_attention_layer_norm", f"{_DISTIL}.sa_layer_norm"
        ),
        *_dense(
            f"{_LAYER}/feedforward_intermediate_dense", f"{_DISTIL}.ffn.lin1"
        ),
        *_dense(f"{_LAYER}/feedforward_output_dense", f"{_DISTIL}.ffn.lin2"),
        *_norm(
            f"{_LAYER}/feedforward_layer_norm", f"{_DISTIL}.output_layer_norm"
        ),
    ),
    pooler=(),
    masked_lm=(
        *_dense("mlm_head/intermediate_dense", "vocab_transform"),
        *_norm("mlm_head/intermediate_layer_norm", "vocab_layer_norm"),
        Rule("mlm_head/output_bias", "vocab_projector.bias"),
    ),
    tasks={
        "classification": (
            *_dense("pooled_dense", "pre_classifier"),
            *_dense("logits", "classifier"),
        ),
        "token_classification": _dense("logits", "classifier"),
        "span": _dense("logits", "qa_outputs"),
    },
    tasks_with_pooler=frozenset(),
    duplicates={
        "vocab_projector.weight": (
            "distilbert.embeddings.word_embeddings.weight"
        ),
    },
    ignored=re.compile(r"distilbert\.embeddings\.position_ids"),
    sizes={
        "distilbert.embeddings.word_embeddings.weight": (
            "vocabulary_size",
            "hidden_dim",
        ),
        "distilbert.embeddings.position_embeddings.weight": (
            "max_sequence_length",
            "hidden_dim",
        ),
        "distilbert.transformer.layer.{i}.ffn.lin1.weight": (
            "intermediate_dim",
            "hidden_dim",
        ),
    },
    head_prefixes=("vocab_", "pre_classifier.", "classifier.", "qa_outputs."),
)

# Keyed by the `model_type` of config.json.
WEIGHT_TABLES = {"bert": BERT, "distilbert": DISTILBERT}
