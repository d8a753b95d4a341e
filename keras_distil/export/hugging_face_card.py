"""The README.md of a Hugging Face folder."""

from collections.abc import Sequence

from keras_distil.export.student import (
    MASKED_LM,
    SENTENCE_EMBEDDING,
    Student,
)
from keras_distil.models.embedding_model import (
    embedding_settings,
    vector_width,
)
from keras_distil.utils.markdown import escape

_PIPELINES = {
    MASKED_LM: "fill-mask",
    "classification": "text-classification",
    "multi_label": "text-classification",
    "regression": "text-classification",
    "token_classification": "token-classification",
    "span": "question-answering",
    SENTENCE_EMBEDDING: "sentence-similarity",
}
_AUTO_CLASSES = {
    MASKED_LM: "AutoModelForMaskedLM",
    "classification": "AutoModelForSequenceClassification",
    "multi_label": "AutoModelForSequenceClassification",
    "regression": "AutoModelForSequenceClassification",
    "token_classification": "AutoModelForTokenClassification",
    "span": "AutoModelForQuestionAnswering",
}
_CARD = """---
library_name: {library}
pipeline_tag: {pipeline}
---

# {title}

{what} with {parameters:,} weights in float32, exported by
keras_distil.

```python
{program}
```

| | |
| --- | --- |
| task | {kind} |
| vocabulary | {vocabulary:,} |
| longest sequence | {positions} tokens |{outputs}
"""
_LOAD = """from transformers import AutoTokenizer, {auto_class}

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
model = {auto_class}.from_pretrained("FOLDER")"""
_EMBED = """from sentence_transformers import SentenceTransformer

model = SentenceTransformer("FOLDER")
vectors = model.encode(["The cat sat on the mat."])"""


def make_card(student: Student, title: str, labels: Sequence[str]) -> str:
    """Returns the text of a README.md.

    Args:
        student: the model.
        title: name of the folder.
        labels: names of the classes; empty if there are none.
    """
    backbone = student.model.backbone
    embeds = student.kind == SENTENCE_EMBEDDING
    program = _EMBED
    if not embeds:
        program = _LOAD.format(auto_class=_AUTO_CLASSES[student.kind])
    names = ", ".join(map(escape, labels))
    outputs = f"\n| classes | {names} |" if labels else ""
    return _CARD.format(
        library="sentence-transformers" if embeds else "transformers",
        pipeline=_PIPELINES[student.kind],
        title=escape(title),
        what=_what(student),
        parameters=student.model.count_params(),
        program=program,
        kind=student.kind.replace("_", " "),
        vocabulary=backbone.vocabulary_size,
        positions=student.max_length,
        outputs=_vectors(student) if embeds else outputs,
    )


def _vectors(student: Student) -> str:
    """Rows about the vectors of an embedder."""
    settings = embedding_settings(student.model)
    length = "of length 1" if settings["normalize"] else "of any length"
    prompts = settings["prompts"] or {}
    shown = ", ".join(
        f"{escape(name)}: {escape(repr(prompt))}"
        for name, prompt in prompts.items()
    )
    return (
        f"\n| vectors | {vector_width(student.model)} numbers, {length} |"
        f"\n| pooling | {settings['pooling_mode']} |"
        f"\n| prompts | {shown or 'none'} |"
    )


def _what(student: Student) -> str:
    backbone = student.model.backbone
    if student.is_static:
        return f"A table of one vector of width {backbone.hidden_dim} per token"
    return (
        f"A {student.family.title} of {backbone.num_layers} layers and width "
        f"{backbone.hidden_dim}"
    )
