"""Model families, one module each."""

from typing import Any

from keras_hub.models import TextClassifier

from keras_distil.models.architectures.bert import BERT
from keras_distil.models.architectures.distil_bert import DISTIL_BERT
from keras_distil.models.architectures.family import Family as Family
from keras_distil.models.architectures.roberta import ROBERTA

# A new family is a module and its entry here.
FAMILIES = {family.name: family for family in (BERT, DISTIL_BERT, ROBERTA)}


def family_of(model: Any) -> Family | None:
    """Returns the family of an encoder or of a task model; None if unknown."""
    backbone = getattr(model, "backbone", model)
    for family in FAMILIES.values():
        if isinstance(backbone, family.hub.encoder):
            return family
    return None


def is_text_classifier(model: Any) -> bool:
    """Checks whether a model is a known family's classifier of texts."""
    classes = tuple(x.hub.text_classifier for x in FAMILIES.values())
    return isinstance(model, classes)


def pooler_of(model: TextClassifier) -> list[Any]:
    """Returns the layers from the first token's state to the output's dropout.

    Args:
        model: a known family's classifier of texts.
    """
    (family,) = (
        x for x in FAMILIES.values() if isinstance(model, x.hub.text_classifier)
    )
    return family.pooler(model)


def check_padding(model: Any, pad_id: int) -> None:
    """Raises ValueError if a model's family pads with another id.

    Args:
        model: an encoder or a task model.
        pad_id: int, the id of padding in the model's tokenizer.
    """
    family = family_of(model)
    if family is None:
        return
    allowed = family.config.required.get("pad_token_id", (pad_id,))
    if pad_id not in allowed:
        raise ValueError(
            f"The tokenizer pads with the id {pad_id}, but a {family.title} "
            f"counts its positions from {allowed[0]}, its own id of padding: "
            "the tokenizer belongs to another family of models."
        )


def titles() -> str:
    """Names the supported families in a message: "BERT and DistilBERT"."""
    *others, last = (family.title for family in FAMILIES.values())
    return f"{', '.join(others)} and {last}"
