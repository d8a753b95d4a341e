"""The warning for encoders exported as sentence embedders."""

import logging

from keras_distil.export.student import SENTENCE_EMBEDDING, Student
from keras_distil.models.embedded import is_embedded_encoder
from keras_distil.models.task_model import kind_of

_LOGGER = logging.getLogger("keras_distil")
_PURPOSES = {
    None: "masked language modelling",
    "classification": "the classification of texts",
    "multi_label": "the classification of texts",
    "regression": "a regression",
    "token_classification": "the classification of tokens",
    "span": "finding answers in texts",
}


def embedding_note(student: Student) -> str | None:
    """Warns if an exported encoder was not trained to embed sentences.

    The only encoder known to be trained for it is the embedded MiniLM as
    loaded (`load_teacher("embedded_base")`). The weights are compared, so a
    copy that was trained further does not count.

    Args:
        student: the model to export.

    Returns:
        The note, which is also logged as a warning; None if there is none.
    """
    if student.kind != SENTENCE_EMBEDDING:
        return None
    if is_embedded_encoder(student.model.backbone):
        return None
    purpose = _PURPOSES[kind_of(student.model)]
    note = (
        f"The encoder of this sentence embedding was trained for {purpose}, "
        "not to embed sentences: texts that mean the same need not be near "
        "each other. Score it on pairs of sentences before you use it."
    )
    _LOGGER.warning(note)
    return note
