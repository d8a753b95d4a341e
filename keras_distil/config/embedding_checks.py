"""Checks across the sections of a recipe for sentence embeddings."""

from keras_distil.config.data_section import DataSection
from keras_distil.config.distill_section import DistillSection
from keras_distil.config.model_sections import StudentSection, TeacherSection
from keras_distil.config.output_sections import EvaluateSection
from keras_distil.losses import registry
from keras_distil.losses.settings import AttentionSettings, HiddenStateSettings


def check_models(
    distill: DistillSection | None,
    teacher: TeacherSection | None,
    student: StudentSection | None,
) -> None:
    """Raises ValueError if a model has a key that is not for the task.

    Args:
        distill: the recipe's section.
        teacher: its teacher; None if that is invalid itself.
        student: its student, if it has one.
    """
    if distill is None or not distill.embeds:
        keys = [] if student is None else student.of_embeddings
        keys = [f"student.{name}" for name in keys]
        if teacher is not None and teacher.dimension is not None:
            keys.append("teacher.dimension")
        if keys:
            raise ValueError(
                f"`{keys[0]}` is for sentence embeddings: remove it, or set "
                f"`distill.task: {registry.EMBEDDING}`."
            )
        return
    if teacher is not None:
        for name in ("train", "cache", "allow_new_head"):
            if getattr(teacher, name):
                raise ValueError(
                    f"`teacher.{name}` is for masked language modelling: "
                    "remove it. A teacher of embeddings is taken as it is, and "
                    "its vectors are always kept on disk."
                )
    if student is not None and student.kind == "static":
        for name, settings in distill.losses.by_name.items():
            if isinstance(settings, HiddenStateSettings | AttentionSettings):
                raise ValueError(
                    f"`losses.{name}` reads the layers of an encoder, and "
                    "`student.kind: static` has none: remove it."
                )


def check_data(distill: DistillSection | None, data: DataSection) -> None:
    """Raises ValueError if the text has a key that is not for the task."""
    fields = DataSection.model_fields
    if distill is None or not distill.embeds:
        for name in ("texts", "max_texts"):
            if getattr(data, name) != fields[name].default:
                raise ValueError(
                    f"`data.{name}` is for sentence embeddings: remove it, or "
                    f"set `distill.task: {registry.EMBEDDING}`."
                )
        return
    for name in ("prepared", "layout", "masking"):
        if getattr(data, name) != fields[name].default:
            raise ValueError(
                f"`data.{name}` is for masked language modelling: remove it. "
                "Embeddings are learned from whole texts, each by itself."
            )


def check_evaluation(
    distill: DistillSection | None, evaluate: EvaluateSection
) -> None:
    """Raises ValueError if a measure is not for the task."""
    if distill is not None and distill.embeds:
        return
    for name in ("sts", "retrieval", "beside"):
        if getattr(evaluate, name):
            raise ValueError(
                f"`{name}` is for sentence embeddings: remove it, or set "
                f"`distill.task: {registry.EMBEDDING}`."
            )
