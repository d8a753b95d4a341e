"""The sizes of teachers' outputs on disk, before there are any."""

from pathlib import Path
from typing import Any

from keras_distil import data
from keras_distil.config import Recipe
from keras_distil.config.distill_section import DistillSection
from keras_distil.config.model_sections import TeacherCache
from keras_distil.losses import registry
from keras_distil.losses.top_logits import tail_temperatures
from keras_distil.models.shape import EncoderShape
from keras_distil.teachers.masked_lm.settings import record_layout
from keras_distil.teachers.masked_lm.writing import sequence_slots
from keras_distil.teachers.store.records import shard_bytes


def text_cache(
    recipe: Recipe,
    settings: TeacherCache,
    distill: DistillSection,
    teacher: EncoderShape,
) -> dict[str, Any]:
    """Returns the size of a teacher's outputs for a corpus.

    Args:
        recipe: a checked recipe.
        settings: its `teacher.cache`.
        distill: its `distill`.
        teacher: the teacher's shape.

    Returns:
        Names and values, to be displayed.

    Raises:
        ValueError: if `top_k` exceeds the teacher's vocabulary.
    """
    if settings.top_k > teacher.vocabulary_size:
        raise ValueError(
            f"`teacher.cache.top_k` must be at most {teacher.vocabulary_size},"
            f" the teacher's vocabulary. Received: {settings.top_k}."
        )
    length = recipe.data.sequence_length
    positions = distill.positions
    reads_states = registry.read_hidden_states(
        distill.weighted_losses, registry.MASKED_LM
    )
    reads_attention = registry.read_attention(
        distill.weighted_losses, registry.MASKED_LM
    )
    tails = len(tail_temperatures(*distill.temperature_range))

    def size_of(length: int) -> int:
        """Returns the bytes of a record of some tokens."""
        return record_layout(
            slots=sequence_slots(length, recipe.data.masking.rate, positions),
            top_k=settings.top_k,
            temperatures=(
                tails if settings.top_k < teacher.vocabulary_size else 0
            ),
            vocabulary_size=teacher.vocabulary_size,
            hidden_dim=teacher.hidden_dim if reads_states else 0,
            attention=(1, teacher.hidden_dim) if reads_attention else (0, 0),
        ).record_bytes(length)

    a_token = size_of(length) / length
    found: dict[str, Any] = {
        "top_k": settings.top_k,
        "maskings": settings.maskings,
        "hidden_states": reads_states,
        "attention": reads_attention,
        "bytes_per_token": round(a_token, 1),
        "gb_per_million_tokens_of_text": round(
            settings.maskings * a_token / 1e3, 3
        ),
    }
    if recipe.data.prepared is None:
        found["total_gb"] = "known once the corpus is prepared"
        return found
    folder = Path(recipe.data.root or ".") / recipe.data.prepared
    corpus = data.open_corpus(folder)
    maskings = settings.maskings
    if distill.steps is not None:
        read = distill.steps * distill.batch_size
        maskings = min(maskings, -(-read // corpus.train_sequences))
    train = corpus.train
    total = 0
    for part in train if isinstance(train, list) else [train]:
        size = len(part) * size_of(part.shape[1])
        total += maskings * shard_bytes(len(part), size)
    found["total_gb"] = round(total / 1e9, 3)
    return found


def task_caches(
    recipe: Recipe, teacher: EncoderShape, student: EncoderShape
) -> dict[str, dict[str, Any]]:
    """Returns the sizes of fine-tuned teachers' outputs for their tasks.

    Args:
        recipe: a checked recipe.
        teacher: the teacher's shape.
        student: the student's shape.

    Returns:
        "task_teacher_cache" with names and values, to be displayed; nothing
        without `finetune.teacher_cache`.

    Raises:
        ValueError: if a loss pairs layers that do not exist.
    """
    settings = recipe.finetune
    if settings is None or not settings.teacher_cache:
        return {}
    states, attention = registry.read_teacher_layers(
        [
            each
            for task in settings.task_names
            for stage in settings.of_task(task).split_stages()
            for each in stage.losses.by_name.values()
        ],
        teacher.num_layers,
        student.num_layers,
    )
    a_token = teacher.hidden_dim * (2 * len(states) + 6 * len(attention))
    return {
        "task_teacher_cache": {
            "layers_of_hidden_states": len(states),
            "layers_of_attention": len(attention),
            "bytes_per_token": a_token,
            "outputs": "4 bytes per class and example; spans: 8 per token",
            "total_gb": "said once the tasks are read",
        }
    }
