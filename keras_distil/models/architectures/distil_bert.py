"""DistilBERT as its checkpoints were trained, on KerasHub's classes."""

import keras
import keras_hub

from keras_distil.models.architectures.bert import (
    check_not_cloned,
    set_head_epsilon,
)
from keras_distil.models.labels import Labelled


@keras.saving.register_keras_serializable(package="keras_distil")
class ExactDistilBertMaskedLM(keras_hub.models.DistilBertMaskedLM):
    """KerasHub's DistilBERT for masked-LM with the head of its checkpoints.

    The layer normalisation of the head has an epsilon of 1e-12 instead of
    KerasHub's 1e-5. All else is as in `keras_hub.models.DistilBertMaskedLM`,
    whose encoder already has the exact GELU.

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

    def __init__(self, *args, compile: bool = False, **kwargs) -> None:
        check_not_cloned(type(self), args)
        super().__init__(*args, compile=compile, **kwargs)
        set_head_epsilon(self)


@keras.saving.register_keras_serializable(package="keras_distil")
class ExactDistilBertTextClassifier(
    Labelled, keras_hub.models.DistilBertTextClassifier
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

    def __init__(self, *args, compile: bool = False, **kwargs) -> None:
        check_not_cloned(type(self), args)
        super().__init__(*args, compile=compile, **kwargs)
