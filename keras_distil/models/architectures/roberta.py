"""RoBERTa: all that is particular to the family.

Liu et al. 2019, arXiv:1907.11692. Its students are shaped as DistilRoBERTa is
(Sanh et al. 2019, arXiv:1910.01108).
"""

import dataclasses
import re

import keras
import keras_hub
from keras_hub.models import Task

from keras_distil.models.architectures.bert import BERT, layer_rules
from keras_distil.models.architectures.exact import (
    ExactEncoder,
    ExactMaskedLM,
    ExactTextClassifier,
    copy_layers,
)
from keras_distil.models.architectures.family import (
    Family,
    KerasHubClasses,
)
from keras_distil.models.architectures.text_embedder import (
    ExactTextEmbedder,
)
from keras_distil.models.architectures.weight_table import (
    Rule,
    WeightTable,
    after_rows,
    dense,
    masked_lm_head,
    norm,
    shown_sizes,
)

_EPSILON = 1e-5
# Positions are counted from the id of padding plus 1.
_PAD_ID = 1
_UNUSED_POSITIONS = _PAD_ID + 1


@keras.saving.register_keras_serializable(package="keras_distil")
class ExactRobertaBackbone(ExactEncoder, keras_hub.models.RobertaBackbone):
    """KerasHub's RoBERTa encoder with activation and epsilon as settings.

    Args:
        *args: see `keras_hub.models.RobertaBackbone`.
        activation: name of the activation, as in Hugging Face's
            configurations. Defaults to "gelu", exact.
        layer_norm_epsilon: float, epsilon of all layer normalisations.
            Defaults to 1e-5.
        **kwargs: see `keras_hub.models.RobertaBackbone`.

    Example:
        >>> from keras_distil import models
        >>> backbone = models.ExactRobertaBackbone(
        ...     vocabulary_size=32, num_layers=1, num_heads=2,
        ...     hidden_dim=8, intermediate_dim=16, max_sequence_length=12,
        ... )
        >>> backbone.count_params()
        968
    """

    default_epsilon = _EPSILON


@keras.saving.register_keras_serializable(package="keras_distil")
class ExactRobertaMaskedLM(ExactMaskedLM, keras_hub.models.RobertaMaskedLM):
    """KerasHub's RoBERTa for masked-LM, with the encoder's epsilon.

    The activation of the head is always the exact GELU. "mask_positions" may
    be left out, see `ExactMaskedLM`.

    Args:
        *args: see `keras_hub.models.RobertaMaskedLM`.
        compile: bool, whether to compile with KerasHub's defaults. Defaults
            to False, as for `ExactBertMaskedLM`.
        **kwargs: see `keras_hub.models.RobertaMaskedLM`.
    """

    backbone_cls = ExactRobertaBackbone
    default_epsilon = _EPSILON
    has_own_activation = True


@keras.saving.register_keras_serializable(package="keras_distil")
class ExactRobertaTextClassifier(
    ExactTextClassifier, keras_hub.models.RobertaTextClassifier
):
    """KerasHub's RoBERTa for text classification, not compiled.

    It keeps the names of its classes, see `Labelled`.

    Args:
        *args: see `keras_hub.models.RobertaTextClassifier`.
        compile: bool, whether to compile with KerasHub's defaults. Defaults
            to False, as for `ExactBertMaskedLM`.
        **kwargs: see `keras_hub.models.RobertaTextClassifier`.
    """

    backbone_cls = ExactRobertaBackbone


@keras.saving.register_keras_serializable(package="keras_distil")
class ExactRobertaTextEmbedder(
    ExactTextEmbedder, keras_hub.models.TextEmbedder
):
    """RoBERTa for sentence embeddings, which KerasHub lacks.

    See `ExactTextEmbedder`.

    Args:
        *args: see `ExactTextEmbedder`.
        **kwargs: see `ExactTextEmbedder`.
    """

    backbone_cls = ExactRobertaBackbone


def _pooler(model: Task) -> list[keras.layers.Layer]:
    return [model.pooled_dropout, model.pooled_dense]


def _copy_pooler(teacher: Task, student: Task) -> None:
    copy_layers([teacher.pooled_dense], [student.pooled_dense])


def _published(num_layers: int, width: int) -> dict[str, int]:
    return {
        "vocabulary_size": 50265,
        "num_layers": num_layers,
        "num_heads": width // 64,
        "hidden_dim": width,
        "intermediate_dim": 4 * width,
        "max_sequence_length": 512,
    }


_TOKENS = "embeddings/token_embedding/embeddings"
_POSITIONS = "embeddings/position_embedding/embeddings"
_EMBEDDINGS = "roberta.embeddings"
_POSITION_TABLE = f"{_EMBEDDINGS}.position_embeddings.weight"

ROBERTA = Family(
    name="roberta",
    title="RoBERTa",
    hub=KerasHubClasses(
        keras_hub.models.RobertaBackbone,
        keras_hub.models.RobertaTokenizer,
        keras_hub.models.RobertaMaskedLM,
        keras_hub.models.RobertaMaskedLMPreprocessor,
        keras_hub.models.RobertaTextClassifier,
        keras_hub.models.RobertaTextClassifierPreprocessor,
    ),
    make_encoder=ExactRobertaBackbone,
    encoders=(keras_hub.models.RobertaBackbone, ExactRobertaBackbone),
    epsilon=_EPSILON,
    masked_lm=ExactRobertaMaskedLM,
    text_classifier=ExactRobertaTextClassifier,
    text_embedder=ExactRobertaTextEmbedder,
    pooler=_pooler,
    # In all else its config.json is BERT's.
    config=dataclasses.replace(
        BERT.config,
        class_stem="Roberta",
        sizes={
            theirs: ours
            for theirs, ours in BERT.config.sizes.items()
            if ours != "num_segments"
        },
        unused_positions=_UNUSED_POSITIONS,
        required={"type_vocab_size": (1,), "pad_token_id": (_PAD_ID,)},
        constants={"type_vocab_size": 1},
    ),
    weights=WeightTable(
        prefix="roberta.",
        embeddings=(
            Rule(_TOKENS, f"{_EMBEDDINGS}.word_embeddings.weight"),
            Rule(_POSITIONS, _POSITION_TABLE, after_rows(_UNUSED_POSITIONS)),
            *norm("embeddings_layer_norm", f"{_EMBEDDINGS}.LayerNorm"),
        ),
        layer=layer_rules("roberta"),
        # The encoder's own is read by none of its heads.
        pooler=(),
        masked_lm=masked_lm_head(
            product="lm_head.dense",
            product_norm="lm_head.layer_norm",
            bias="lm_head.bias",
        ),
        tasks={
            "classification": (
                *dense("pooled_dense", "classifier.dense"),
                *dense("logits", "classifier.out_proj"),
            ),
            "token_classification": dense("logits", "classifier"),
            "span": dense("logits", "qa_outputs"),
        },
        tasks_with_pooler=frozenset(),
        duplicates={
            "lm_head.decoder.weight": f"{_EMBEDDINGS}.word_embeddings.weight",
            "lm_head.decoder.bias": "lm_head.bias",
        },
        ignored=re.compile(
            r"roberta\.embeddings\.(position_ids|token_type_ids)"
        ),
        sizes=shown_sizes(tokens=_TOKENS, positions=_POSITIONS),
        head_prefixes=(
            "roberta.pooler.",
            "lm_head.",
            "classifier.",
            "qa_outputs.",
        ),
        usual_heads=frozenset({"roberta.pooler.*"}),
        unread={
            "roberta.pooler.dense.weight": 2,
            "roberta.pooler.dense.bias": 1,
        },
        # All tokens are of one type.
        added_rows={
            _POSITION_TABLE: f"{_EMBEDDINGS}.token_type_embeddings.weight"
        },
    ),
    tokenizer_class="RobertaTokenizer",
    student=None,
    copy_pooler=_copy_pooler,
    example_preset="roberta_base_en",
    published={
        "roberta-base": _published(12, 768),
        "roberta-large": _published(24, 1024),
        "distilroberta-base": _published(6, 768),
    },
    publishers=("FacebookAI/", "distilbert/"),
)
