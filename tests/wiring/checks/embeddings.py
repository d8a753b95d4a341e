"""Checks of what only sentence embeddings have."""

from runs import EMBEDDING_LOSSES, scheduled

from checks.schedules import of_curve
from checks.table import of_fit, of_others, seen
from keras_distil import callbacks, teachers
from keras_distil.losses import registry

of_fit(
    "student.",
    "embedding",
    "distill",
    pooling_mode=lambda fit: fit.student.pooling_mode,
    normalize=lambda fit: fit.student.normalize,
    dimension=lambda fit: fit.student.dimension,
)
of_fit(
    "teacher.",
    "embedding",
    "distill",
    dimension=lambda fit: fit.batches[0][1].shape[1],
)
of_others(
    "distill.losses.",
    "embedding",
    "distill",
    EMBEDDING_LOSSES,
    [registry.EMBEDDING],
)
of_fit(
    "distill.balance.",
    "static",
    "distill",
    **{
        name: lambda fit, name=name: fit.callback(
            callbacks.GradientBalancer
        ).ratios[name]
        for name in EMBEDDING_LOSSES
    },
)
for other in EMBEDDING_LOSSES:
    for setting in scheduled(other):
        of_curve(
            f"distill.schedules.{other}.{setting}",
            "embedding",
            f"{other}.{setting}",
            other if setting == "weight" else f"{other}.{setting}",
            {0: 0.375, 50: 0.375},
        )


@seen("distill.task", "embedding", wanted=teachers.CachedEmbeddingTeacher)
def _(runs, made):
    return type(made.fit("distill").distiller.teacher)


@seen("student.kind", "static", wanted="StaticBackbone")
def _(runs, made):
    return type(made.fit("distill").student.backbone).__name__


@seen("student.vocabulary", "static")
def _(runs, made):
    """The toy vocabulary of 64 has all words of the texts already."""
    (call,) = made.calls["static_embedding_model"]
    return 64 + call["added_words"]


@seen("data.max_texts", "embedding")
def _(runs, made):
    return len(made.fit("distill").distiller.teacher)


@seen("data.texts", "embedding")
def _(runs, made):
    (call,) = made.calls["prepare_texts"]
    return call["kind"]


for measure, evaluator in (
    ("sts", "STSEvaluator"),
    ("retrieval", "RetrievalEvaluator"),
):

    @seen(f"evaluate.{measure}", "embedding")
    def _(runs, made, evaluator=evaluator):
        (call,) = made.calls[evaluator]
        return call[""][0].name


@seen("evaluate.beside", "embedding")
def _(runs, made):
    (row,) = made.calls["open_beside"][-1]["returned"]
    return {row: made.calls["_open"][-1][""][0]}
