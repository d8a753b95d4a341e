"""Pairs of Keras variables and Hugging Face tensors, with their layouts.

One `WeightTable` per family serves both directions: reading a checkpoint
applies a rule from right to left, exporting applies it from left to right.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class Layout:
    """A reversible change of layout between the two libraries.

    Args:
        to_keras: function of the tensor and of the variable's shape.
        to_hugging_face: function of the variable's value.
        unused_rows: number of rows that only the tensor has.
    """

    to_keras: Callable[[np.ndarray, tuple[int, ...]], np.ndarray]
    to_hugging_face: Callable[[np.ndarray], np.ndarray]
    unused_rows: int = 0

    def hugging_face_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the tensor's shape for a Keras variable of `shape`."""
        if self.unused_rows:
            return (shape[0] + self.unused_rows, *shape[1:])
        # An array without memory of its own: sizes may be damaged.
        return self.to_hugging_face(np.broadcast_to(False, shape)).shape


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


def after_rows(count: int) -> Layout:
    """Returns the layout of a table whose first rows are never read.

    They are left out in Keras, and zero in an export.
    """
    return Layout(
        lambda tensor, _: tensor[count:],
        lambda array: np.pad(array, ((count, 0), (0, 0))),
        count,
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
    """Every weight of one family.

    Args:
        prefix: what a task model's checkpoint adds before the encoder's names
            and a bare encoder's checkpoint does not.
        embeddings: rules before the encoder's layers.
        layer: rules of one encoder layer, with `{i}` for its index.
        pooler: rules of the encoder's pooler; empty if it has none.
        masked_lm: rules of the masked-LM head.
        tasks: rules of the head of each kind of task. A regression uses those
            of "classification".
        tasks_with_pooler: the kinds whose head reads the pooler.
        duplicates: tensor name -> the name of the tensor it must equal. A
            duplicate alone can replace the original.
        ignored: pattern of the names of tensors that are not weights.
        sizes: the variables whose shapes show every size of a configuration,
            by path, with the names of the sizes in their shape. `{i}` is the
            last layer's index.
        head_prefixes: how the names of heads start, the longest first.
        usual_heads: those that most checkpoints hold, so that leaving them
            out tells nothing about one.
        added_rows: names of a table -> of a tensor of one row that is added
            to all rows of the table.
        unread: tensors of the encoder's width that Hugging Face's bare
            encoder has, and none here: name -> number of dimensions. They
            are written as zeros.
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
    usual_heads: frozenset[str] = frozenset()
    added_rows: dict[str, str] = dataclasses.field(default_factory=dict)
    unread: dict[str, int] = dataclasses.field(default_factory=dict)

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

    def expected_sizes(
        self, sizes: Mapping[str, int]
    ) -> dict[str, tuple[int, ...]]:
        """Returns the shapes of some tensors, by a configuration's sizes."""
        last = sizes["num_layers"] - 1
        rules = (*self.embeddings, *self.layer)
        return {
            rule.for_layer(last).hugging_face: rule.layout.hugging_face_shape(
                tuple(sizes[name] for name in self.sizes[rule.keras])
            )
            for rule in rules
            if rule.keras in self.sizes
        }

    def head_of(self, name: str) -> str:
        """Names the head that a tensor belongs to: "cls.predictions.*"."""
        prefixes = (p for p in self.head_prefixes if name.startswith(p))
        return next(prefixes) + "*"

    def canonical_name(self, name: str) -> str:
        """Returns `name` with the prefix and with current norm names."""
        for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
            if name.endswith(old):
                name = name.removesuffix(old) + new
        if name.startswith((self.prefix, *self.head_prefixes)):
            return name
        return self.prefix + name


def dense(keras: str, hugging_face: str) -> tuple[Rule, Rule]:
    """Rules of a dense layer."""
    return (
        Rule(f"{keras}/kernel", f"{hugging_face}.weight", DENSE_KERNEL),
        Rule(f"{keras}/bias", f"{hugging_face}.bias"),
    )


def norm(keras: str, hugging_face: str) -> tuple[Rule, Rule]:
    """Rules of a layer normalisation."""
    return (
        Rule(f"{keras}/gamma", f"{hugging_face}.weight"),
        Rule(f"{keras}/beta", f"{hugging_face}.bias"),
    )


def split(keras: str, hugging_face: str) -> tuple[Rule, Rule]:
    """Rules of a projection to queries, keys or values."""
    return (
        Rule(f"{keras}/kernel", f"{hugging_face}.weight", SPLIT_KERNEL),
        Rule(f"{keras}/bias", f"{hugging_face}.bias", SPLIT_BIAS),
    )


def merge(keras: str, hugging_face: str) -> tuple[Rule, Rule]:
    """Rules of the projection after attention."""
    return (
        Rule(f"{keras}/kernel", f"{hugging_face}.weight", MERGE_KERNEL),
        Rule(f"{keras}/bias", f"{hugging_face}.bias"),
    )


# KerasHub's names of a transformer layer, whatever the family.
_LAYER = "transformer_layer_{i}"
_ATTENTION = f"{_LAYER}/self_attention_layer"


def transformer_layer(
    *,
    query: str,
    key: str,
    value: str,
    attention_output: str,
    attention_norm: str,
    inner: str,
    outer: str,
    feedforward_norm: str,
) -> tuple[Rule, ...]:
    """Rules of one transformer layer, with `{i}` for its index.

    Args:
        query: Hugging Face's name of the projection to queries.
        key: the projection to keys.
        value: the projection to values.
        attention_output: the projection after attention.
        attention_norm: the normalisation after attention.
        inner: the first product of the feed-forward part.
        outer: the second product.
        feedforward_norm: the normalisation after the feed-forward part.
    """
    return (
        *split(f"{_ATTENTION}/query", query),
        *split(f"{_ATTENTION}/key", key),
        *split(f"{_ATTENTION}/value", value),
        *merge(f"{_ATTENTION}/attention_output", attention_output),
        *norm(f"{_LAYER}/self_attention_layer_norm", attention_norm),
        *dense(f"{_LAYER}/feedforward_intermediate_dense", inner),
        *dense(f"{_LAYER}/feedforward_output_dense", outer),
        *norm(f"{_LAYER}/feedforward_layer_norm", feedforward_norm),
    )


def masked_lm_head(
    *, product: str, product_norm: str, bias: str
) -> tuple[Rule, ...]:
    """Rules of a masked-LM head.

    Args:
        product: Hugging Face's name of the product before the decoder.
        product_norm: the normalisation after it.
        bias: the bias of the logits.
    """
    return (
        *dense("mlm_head/intermediate_dense", product),
        *norm("mlm_head/intermediate_layer_norm", product_norm),
        Rule("mlm_head/output_bias", bias),
    )


def shown_sizes(*, tokens: str, positions: str) -> dict[str, tuple[str, ...]]:
    """Returns `WeightTable.sizes` for these two embeddings.

    Args:
        tokens: path of the token embedding.
        positions: path of the position embedding.
    """
    return {
        tokens: ("vocabulary_size", "hidden_dim"),
        positions: ("max_sequence_length", "hidden_dim"),
        f"{_LAYER}/feedforward_intermediate_dense/kernel": (
            "hidden_dim",
            "intermediate_dim",
        ),
    }
