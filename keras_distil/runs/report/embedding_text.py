"""What report and model card say of a student of sentence embeddings."""

from collections.abc import Mapping
from typing import Any

from keras_distil.config.model_sections import StudentSection
from keras_distil.runs import score_table
from keras_distil.runs.embeddings.neighbours import Neighbour, Neighbours
from keras_distil.runs.report.html_page import ReportSection, escape
from keras_distil.training.metrics import find_metric

# Scores of which a student keeps a share, each with its words.
_KEPT = {
    "sts_spearman": "Spearman correlation with human scores of sentence pairs",
    "ndcg@10": "nDCG@10 in finding documents",
}
NOTES = (
    "STS: correlation of cosines with human scores of sentence pairs. nDCG, "
    "recall and MRR: of the documents nearest to a query. Agreement with the "
    "teacher: how many of a held-out text's ten nearest others by the "
    "teacher's vectors are so by the model's. Size: of the weights in float32, "
    "and of the file of a table in int8. Latency: of one text, its "
    "tokenization included. Texts per second: in batches of 64, likewise."
)


def describe_student(student: StudentSection | None, teacher: str) -> str:
    """Says how the student was made.

    Args:
        student: its section of the recipe.
        teacher: the teacher's name, marked up.
    """
    if student is not None and student.kind == "static":
        return f"A table of token vectors distilled from {teacher}"
    layers = student.num_layers if student else None
    depth = f" of {layers} layers" if layers else ""
    return f"A sentence embedder{depth} distilled from {teacher}"


def describe_kept(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Says how much of its teacher's scores the student keeps."""
    teacher, student = rows[score_table.TEACHER], rows[score_table.STUDENT]
    shares = [
        f"{100 * student[name] / teacher[name]:.1f}% of the teacher's {what}"
        for name, what in _KEPT.items()
        if teacher.get(name, 0.0) > 0.0
    ]
    if shares:
        return f"It keeps {' and '.join(shares)}."
    metric = find_metric("teacher_agreement")
    agreed = metric.format(student[metric.name])
    return (
        f"Of ten held-out texts nearest to another by the teacher, {agreed}% "
        "are so by the student, too."
    )


USE = (
    "```python",
    "from keras_distil import models",
    "",
    'student = models.load_embedding_model("student.keras")',
    'vectors = student.encode_text(["A text.", "Another one."])',
    "student.similarity(vectors, vectors)",
    "```",
)
LIMIT = (
    "Its vectors are for comparing texts with one another by their cosine. A "
    "threshold for what is alike must be found on data of one's own."
)


def neighbours(found: Neighbours | None) -> ReportSection | None:
    """Held-out texts with their nearest others by both models.

    Args:
        found: the run's neighbours; None if it has none.
    """
    if found is None or not found.samples:
        return None
    items = "\n".join(
        f"<li>\n<p>{escape(sample.text)}</p>\n"
        f"{_table(sample.teacher, sample.student)}\n</li>"
        for sample in found.samples
    )
    return ReportSection(
        "Nearest neighbours",
        f'<p class="notes">Of some held-out texts, out of {found.texts:,}: '
        "the nearest others by the vectors of teacher and student, with the "
        "cosine. Bold is among the nearest of both.</p>\n"
        f'<ul class="samples">\n{items}\n</ul>',
    )


def _table(teacher: list[Neighbour], student: list[Neighbour]) -> str:
    both = {x.text for x in teacher} & {x.text for x in student}
    lines = "\n".join(
        f"<tr><td>{_cell(one, both)}</td><td>{_cell(other, both)}</td></tr>"
        for one, other in zip(teacher, student, strict=False)
    )
    return (
        '<table>\n<thead>\n<tr><th scope="col">Teacher</th>'
        '<th scope="col">Student</th></tr>\n</thead>\n'
        f"<tbody>\n{lines}\n</tbody>\n</table>"
    )


def _cell(neighbour: Neighbour, both: set[str]) -> str:
    shown: Any = escape(neighbour.text)
    if neighbour.text in both:
        shown = f"<strong>{shown}</strong>"
    return f"{neighbour.cosine:.2f} {shown}"
