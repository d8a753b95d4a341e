"""DistilBERT: all that is particular to the family.

Sanh et al. 2019, arXiv:1910.01108.
"""

import re
from typing import Any

import keras
import keras_hub
from keras_hub.models import Backbone, Task

from keras_distil.models.architectures.activations import DEFAULT
from keras_distil.models.architectures.exact import (
    ExactEncoder,
    ExactMaskedLM,
    ExactTextClassifier,
    copy_layers,
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

_EPSILON = 1e-12


@keras.saving.register_keras_serializable(package="keras_distil")
class ExactDistilBertBackbone(
    ExactEncoder, keras_hub.models.DistilBertBackbone
):
    """KerasHub's DistilBERT encoder with another activation.

    With the exact GELU, KerasHub's own class is exact.

    Args:
        *args: see `keras_hub.models.DistilBertBackbone`.
        activation: name of the activation, as in Hugging Face's
            configurations.
        **kwargs: see `keras_hub.models.DistilBertBackbone`.
    """

    default_epsilon = _EPSILON


def _make_encoder(*, activation: str = DEFAULT, **settings: Any) -> Backbone:
    if activation == DEFAULT:
        return keras_hub.models.DistilBertBackbone(**settings)
    return ExactDistilBertBackbone(activation=activation, **settings)


@keras.saving.register_keras_serializable(package="keras_distil")
class ExactDistilBertMaskedLM(
    ExactMaskedLM, keras_hub.models.DistilBertMaskedLM
):
    """KerasHub's DistilBERT for masked-LM with the head of its checkpoints.

    The layer normalisation of the head has an epsilon of 1e-12 instead of
    KerasHub's 1e-5, and the head has the encoder's activation.
    "mask_positions" may be left out, see `ExactMaskedLM`. All else is as in
    `keras_hub.models.DistilBertMaskedLM`, whose encoder already has the exact
    GELU.

    Args:
        *args: see `keras_hub.models.DistilBertMaskedLM`.
        compile: bool, whether to compile with KerasHub's defaults. Defaults
            to False, as for `ExactBertMaskedLM`.
        **kwargs: see `keras_hub.models.DistilBertMaskedLM`.
    """

    # KerasHub uses this attribute to find a preset's task class among all
    # registered ones, in no fixed order. The backbone is KerasHub's, so
    # KerasHub's task class must remain the only match.
    backbone_cls = None
    default_epsilon = _EPSILON


@keras.saving.register_keras_serializable(package="keras_distil")
class ExactDistilBertTextClassifier(
    ExactTextClassifier, keras_hub.models.DistilBertTextClassifier
):
    """KerasHub's DistilBERT for text classification, not compiled.

    It keeps the names of its classes, see `Labelled`.

    Args:
        *args: see `keras_hub.models.DistilBertTextClassifier`.
        compile: bool, whether to compile with KerasHub's defaults. Defaults
            to False, as for `ExactBertMaskedLM`.
        **kwargs: see `keras_hub.models.DistilBertTextClassifier`.
    """

    # As for `ExactDistilBertMaskedLM`.
    backbone_cls = None


@keras.saving.register_keras_serializable(package="keras_distil")
class ExactDistilBertTextEmbedder(
    ExactTextEmbedder, keras_hub.models.TextEmbedder
):
    """DistilBERT for sentence embeddings, which KerasHub lacks.

    See `ExactTextEmbedder`.

    Args:
        *args: see `ExactTextEmbedder`.
        **kwargs: see `ExactTextEmbedder`.
    """

    # KerasHub has no other class for this encoder's presets.
    backbone_cls = keras_hub.models.DistilBertBackbone


def _pooler(model: Task) -> list[keras.layers.Layer]:
    return [model.pooled_dense]


def _copy_pooler(teacher: Task, student: Task) -> None:
    copy_layers(_pooler(teacher), _pooler(student))


_TOKENS = "token_and_position_embedding/token_embedding/embeddings"
_POSITIONS = "token_and_position_embedding/position_embedding/embeddings"
_LAYER = "distilbert.transformer.layer.{i}"

DISTIL_BERT = Family(
    name="distilbert",
    title="DistilBERT",
    hub=KerasHubClasses(
        keras_hub.models.DistilBertBackbone,
        keras_hub.models.DistilBertTokenizer,
        keras_hub.models.DistilBertMaskedLM,
        keras_hub.models.DistilBertMaskedLMPreprocessor,
        keras_hub.models.DistilBertTextClassifier,
        keras_hub.models.DistilBertTextClassifierPreprocessor,
    ),
    make_encoder=_make_encoder,
    encoders=(keras_hub.models.DistilBertBackbone, ExactDistilBertBackbone),
    epsilon=_EPSILON,
    masked_lm=ExactDistilBertMaskedLM,
    text_classifier=ExactDistilBertTextClassifier,
    text_embedder=ExactDistilBertTextEmbedder,
    pooler=_pooler,
    config=ConfigKeys(
        class_stem="DistilBert",
        sizes={
            "vocab_size": "vocabulary_size",
            "n_layers": "num_layers",
            "n_heads": "num_heads",
            "dim": "hidden_dim",
            "hidden_dim": "intermediate_dim",
            "max_position_embeddings": "max_sequence_length",
        },
        activation="activation",
        dropout="dropout",
        attention_dropout="attention_dropout",
        head_dropouts={
            "classification": ("seq_classif_dropout", 0.2),
            "span": ("qa_dropout", 0.1),
        },
        required={"layer_norm_eps": (_EPSILON,)},
        constants={"sinusoidal_pos_embds": False},
    ),
    weights=WeightTable(
        prefix="distilbert.",
        embeddings=(
            Rule(_TOKENS, "distilbert.embeddings.word_embeddings.weight"),
            Rule(
                _POSITIONS, "distilbert.embeddings.position_embeddings.weight"
            ),
            *norm("embeddings_layer_norm", "distilbert.embeddings.LayerNorm"),
        ),
        layer=transformer_layer(
            query=f"{_LAYER}.attention.q_lin",
            key=f"{_LAYER}.attention.k_lin",
            value=f"{_LAYER}.attention.v_lin",
            attention_output=f"{_LAYER}.attention.out_lin",
            attention_norm=f"{_LAYER}.sa_layer_norm",
            inner=f"{_LAYER}.ffn.lin1",
            outer=f"{_LAYER}.ffn.lin2",
            feedforward_norm=f"{_LAYER}.output_layer_norm",
        ),
        pooler=(),
        masked_lm=masked_lm_head(
            product="vocab_transform",
            product_norm="vocab_layer_norm",
            bias="vocab_projector.bias",
        ),
        tasks={
            "classification": (
                *dense("pooled_dense", "pre_classifier"),
                *dense("logits", "classifier"),
            ),
            "token_classification": dense("logits", "classifier"),
            "span": dense("logits", "qa_outputs"),
        },
        tasks_with_pooler=frozenset(),
        duplicates={
            "vocab_projector.weight": (
                "distilbert.embeddings.word_embeddings.weight"
            ),
        },
        ignored=re.compile(r"distilbert\.embeddings\.position_ids"),
        sizes=shown_sizes(tokens=_TOKENS, positions=_POSITIONS),
        head_prefixes=(
            "vocab_transform.",
            "vocab_layer_norm.",
            "vocab_projector.",
            "vocab_",
            "pre_classifier.",
            "classifier.",
            "qa_outputs.",
        ),
    ),
    tokenizer_class="DistilBertTokenizer",
    student=None,
    copy_pooler=_copy_pooler,
    example_preset="distil_bert_base_en_uncased",
    published={
        "distilbert-base-uncased": {
            "vocabulary_size": 30522,
            "num_layers": 6,
            "num_heads": 12,
            "hidden_dim": 768,
            "intermediate_dim": 3072,
            "max_sequence_length": 512,
        },
    },
    publishers=("distilbert/",),
)
