"""BERT: all that is particular to the family.

Devlin et al. 2019, arXiv:1810.04805.
"""

import re
from typing import Any

import keras
import keras_hub
from keras_hub.models import Task

from keras_distil.models.architectures.distil_bert import DISTIL_BERT
from keras_distil.models.architectures.exact import (
    ExactEncoder,
    ExactMaskedLM,
    ExactTextClassifier,
)
from keras_distil.models.architectures.family import (
    ConfigKeys,
    Family,
    KerasHubClasses,
)
from keras_distil.models.architectures.text_embedder import (
    ExactTextEmbedder,
)
from keras_distil.models.architectures.weight_table import (
    Rule,
    WeightTable,
    dense,
    masked_lm_head,
    norm,
    shown_sizes,
    transformer_layer,
)
from keras_distil.models.weights import assign, merged_weights

_EPSILON = 1e-12


@keras.saving.register_keras_serializable(package="keras_distil")
class ExactBertBackbone(ExactEncoder, keras_hub.models.BertBackbone):
    """KerasHub's BERT encoder with the exact GELU.

    KerasHub computes the tanh approximation of GELU, while BERT checkpoints
    were trained with the exact function. The difference reaches the third
    decimal of the last hidden states. Arguments, inputs, outputs and weights
    are those of `keras_hub.models.BertBackbone`; activation and epsilon can
    be chosen, too.

    Args:
        *args: see `keras_hub.models.BertBackbone`.
        activation: name of the activation, as in Hugging Face's
            configurations. Defaults to "gelu", exact.
        layer_norm_epsilon: float, epsilon of all layer normalisations.
            Defaults to 1e-12.
        **kwargs: see `keras_hub.models.BertBackbone`.

    Example:
        >>> from keras_distil import models
        >>> backbone = models.ExactBertBackbone(
        ...     vocabulary_size=32, num_layers=1, num_heads=2,
        ...     hidden_dim=8, intermediate_dim=16, max_sequence_length=12,
        ... )
        >>> backbone.count_params()
        1056

    Reference:
        Hendrycks and Gimpel 2016, arXiv:1606.08415.
        Differs: none.
    """

    default_epsilon = _EPSILON


@keras.saving.register_keras_serializable(package="keras_distil")
class ExactBertMaskedLM(ExactMaskedLM, keras_hub.models.BertMaskedLM):
    """KerasHub's BERT for masked-LM with the head of its checkpoints.

    The layer normalisation of the head has an epsilon of 1e-12 instead of
    KerasHub's 1e-5, or the encoder's; so has the head the encoder's
    activation. "mask_positions" and "segment_ids" may be left out, see
    `ExactMaskedLM`. All else is as in `keras_hub.models.BertMaskedLM`.

    Args:
        *args: see `keras_hub.models.BertMaskedLM`.
        compile: bool, whether to compile with KerasHub's defaults. Defaults
            to False: KerasHub's classes compile, and then warn when a model
            saved without an optimizer is loaded.
        **kwargs: see `keras_hub.models.BertMaskedLM`.
    """

    backbone_cls = ExactBertBackbone
    default_epsilon = _EPSILON


@keras.saving.register_keras_serializable(package="keras_distil")
class ExactBertTextClassifier(
    ExactTextClassifier, keras_hub.models.BertTextClassifier
):
    """KerasHub's BERT for text classification, on the exact encoder.

    It keeps the names of its classes, see `Labelled`.

    Args:
        *args: see `keras_hub.models.BertTextClassifier`.
        compile: bool, whether to compile with KerasHub's defaults. Defaults
            to False, as for `ExactBertMaskedLM`.
        **kwargs: see `keras_hub.models.BertTextClassifier`.
    """

    backbone_cls = ExactBertBackbone


@keras.saving.register_keras_serializable(package="keras_distil")
class ExactBertTextEmbedder(
    ExactTextEmbedder, keras_hub.models.BertTextEmbedder
):
    """KerasHub's BERT for sentence embeddings, with what folders add to it.

    See `ExactTextEmbedder`: a dense layer, prompts, exact tokenizers.

    Args:
        *args: see `ExactTextEmbedder`.
        **kwargs: see `ExactTextEmbedder`.
    """

    backbone_cls = ExactBertBackbone


def _pooler(model: Task) -> list[keras.layers.Layer]:
    return [model.backbone.pooled_dense]


def _copy_pooler(teacher: Task, student: Task) -> None:
    """Turns tanh(z) into max(z, -1) for DistilBERT, whose pooler has ReLU."""
    kernel, bias = map(_array, merged_weights(teacher.backbone.pooled_dense))
    (pooler,) = DISTIL_BERT.pooler(student)
    assign(pooler.kernel, kernel)
    assign(pooler.bias, bias + 1.0)
    output, output_bias = map(_array, student.output_dense.weights)
    # ReLU(z + 1) - 1 = max(z, -1).
    assign(student.output_dense.bias, output_bias - output.sum(axis=0))


def _array(variable: Any) -> Any:
    return keras.ops.convert_to_numpy(variable).astype("float32")


def _published(num_layers: int, width: int, **more: int) -> dict[str, int]:
    return {
        "vocabulary_size": 30522,
        "num_layers": num_layers,
        "num_heads": width // 64,
        "hidden_dim": width,
        "intermediate_dim": 4 * width,
        "max_sequence_length": 512,
        "num_segments": 2,
    } | more


_TOKENS = "token_embedding/embeddings"
_POSITIONS = "position_embedding/embeddings"
_SEGMENTS = "segment_embedding/embeddings"


def layer_rules(prefix: str) -> tuple[Rule, ...]:
    """Rules of one layer, as BERT and those after it name its parts.

    Args:
        prefix: what stands before "encoder": "bert".
    """
    layer = f"{prefix}.encoder.layer.{{i}}"
    return transformer_layer(
        query=f"{layer}.attention.self.query",
        key=f"{layer}.attention.self.key",
        value=f"{layer}.attention.self.value",
        attention_output=f"{layer}.attention.output.dense",
        attention_norm=f"{layer}.attention.output.LayerNorm",
        inner=f"{layer}.intermediate.dense",
        outer=f"{layer}.output.dense",
        feedforward_norm=f"{layer}.output.LayerNorm",
    )


BERT = Family(
    name="bert",
    title="BERT",
    hub=KerasHubClasses(
        keras_hub.models.BertBackbone,
        keras_hub.models.BertTokenizer,
        keras_hub.models.BertMaskedLM,
        keras_hub.models.BertMaskedLMPreprocessor,
        keras_hub.models.BertTextClassifier,
        keras_hub.models.BertTextClassifierPreprocessor,
        keras_hub.models.BertTextEmbedder,
        keras_hub.models.BertTextEmbedderPreprocessor,
        # Its GELU is the approximate one.
        computes_alike=False,
    ),
    make_encoder=ExactBertBackbone,
    encoders=(keras_hub.models.BertBackbone, ExactBertBackbone),
    epsilon=_EPSILON,
    masked_lm=ExactBertMaskedLM,
    text_classifier=ExactBertTextClassifier,
    text_embedder=ExactBertTextEmbedder,
    pooler=_pooler,
    config=ConfigKeys(
        class_stem="Bert",
        sizes={
            "vocab_size": "vocabulary_size",
            "num_hidden_layers": "num_layers",
            "num_attention_heads": "num_heads",
            "hidden_size": "hidden_dim",
            "intermediate_size": "intermediate_dim",
            "max_position_embeddings": "max_sequence_length",
            "type_vocab_size": "num_segments",
        },
        activation="hidden_act",
        dropout="hidden_dropout_prob",
        attention_dropout="attention_probs_dropout_prob",
        epsilon="layer_norm_eps",
        head_dropouts={
            "classification": ("classifier_dropout", None),
            "token_classification": ("classifier_dropout", None),
        },
        kinds_without_dropout=frozenset({"span"}),
    ),
    weights=WeightTable(
        prefix="bert.",
        embeddings=(
            Rule(_TOKENS, "bert.embeddings.word_embeddings.weight"),
            Rule(_POSITIONS, "bert.embeddings.position_embeddings.weight"),
            Rule(_SEGMENTS, "bert.embeddings.token_type_embeddings.weight"),
            *norm("embeddings_layer_norm", "bert.embeddings.LayerNorm"),
        ),
        layer=layer_rules("bert"),
        pooler=dense("pooled_dense", "bert.pooler.dense"),
        masked_lm=masked_lm_head(
            product="cls.predictions.transform.dense",
            product_norm="cls.predictions.transform.LayerNorm",
            bias="cls.predictions.bias",
        ),
        tasks={
            "classification": dense("logits", "classifier"),
            "token_classification": dense("logits", "classifier"),
            "span": dense("logits", "qa_outputs"),
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
            **shown_sizes(tokens=_TOKENS, positions=_POSITIONS),
            _SEGMENTS: ("num_segments", "hidden_dim"),
        },
        head_prefixes=(
            "cls.predictions.",
            "cls.seq_relationship.",
            "cls.",
            "classifier.",
            "qa_outputs.",
        ),
        # Next-sentence prediction, part of every published BERT.
        usual_heads=frozenset({"cls.seq_relationship.*"}),
    ),
    tokenizer_class="BertTokenizer",
    student=DISTIL_BERT,
    copy_pooler=_copy_pooler,
    example_preset="bert_base_en_uncased",
    published={
        "bert-base-uncased": _published(12, 768),
        "bert-base-cased": _published(12, 768, vocabulary_size=28996),
        "bert-large-uncased": _published(24, 1024),
    },
    publishers=("google-bert/",),
)
