"""The student of a run of embeddings: fewer layers, or a static table."""

import dataclasses

from keras_hub.models import TextEmbedder

from keras_distil import data, models
from keras_distil.config.model_sections import StudentSection
from keras_distil.models.embedding_model import (
    embedding_settings,
    put_embedding,
    vector_width,
    with_directions,
)
from keras_distil.models.weights import assign, seeded_build
from keras_distil.runs.checks import check_layers
from keras_distil.runs.embeddings.teacher import (
    TaughtTexts,
    prompt_of,
    tokenizer_of,
)
from keras_distil.runs.embeddings.texts import RunTexts, encode
from keras_distil.runs.run_folder import Run

# The size of static vectors, if the recipe does not say it: 30,522 tokens then
# take less than 8 MB in 8 bits.
_STATIC_DIMENSION = 256
# A static table before its training, which takes a while to make.
INITIAL_FILE = "initial.keras"


def reduce_teacher(teacher: TextEmbedder, taught: TaughtTexts) -> TextEmbedder:
    """Returns the teacher with the vectors that the student learns."""
    directions = taught.cached.directions
    return (
        teacher if directions is None else with_directions(teacher, directions)
    )


def make_embedder(
    run: Run, teacher: TextEmbedder, texts: RunTexts, taught: TaughtTexts
) -> TextEmbedder:
    """Makes the untrained student, identical on every call.

    Args:
        run: the run, in whose folder a static table is kept.
        teacher: the teacher, with the vectors that the student learns.
        texts: the run's texts, in which a static table's tokens are counted.
        taught: the same texts as the teacher reads them.

    Raises:
        ValueError: if the sizes do not fit the teacher.
    """
    settings = run.recipe.student or StudentSection()
    if settings.kind == "static":
        return _make_static(run, settings, teacher, texts)
    student = models.initialize_student(
        teacher,
        **settings.shape(),
        initialization=settings.initialization,
        dropout=settings.dropout,
        dtype=run.recipe.precision,
        seed=run.recipe.seed,
    )
    check_layers(run.recipe, teacher.backbone, student.backbone)
    return _with_embedding(settings, student, run.recipe.seed)


def _with_embedding(
    settings: StudentSection, student: TextEmbedder, seed: int
) -> TextEmbedder:
    """Gives a student another pooling, another size or another scale."""
    own = embedding_settings(student)
    asked = {
        name: getattr(settings, name)
        for name in ("pooling_mode", "normalize", "dimension")
        if getattr(settings, name) is not None
    }
    wanted = {**own, **asked}
    if wanted == own:
        return student
    with seeded_build(seed):
        made = put_embedding(student.backbone, student.preprocessor, **wanted)
    if own["dimension"] == wanted["dimension"] is not None:
        for one, other in zip(
            student.sentence_embedding.weights,
            made.sentence_embedding.weights,
            strict=True,
        ):
            assign(other, one.numpy())
    return made


def _make_static(
    run: Run, settings: StudentSection, teacher: TextEmbedder, texts: RunTexts
) -> TextEmbedder:
    path = run.folder / INITIAL_FILE
    if path.is_file():
        return models.load_embedding_model(path)
    run.progress.say("Make the static table from the teacher's tokens")
    made = models.static_embedding_model(
        teacher,
        texts.train,
        settings.dimension or min(_STATIC_DIMENSION, vector_width(teacher)),
        added_words=_added_words(settings, teacher),
        seed=run.recipe.seed,
    )
    rows = made.backbone.vocabulary_size
    if settings.vocabulary is not None and rows < settings.vocabulary:
        run.progress.warn(
            f"`student.vocabulary` is {settings.vocabulary:,}, but the corpus "
            f"has words for {rows:,} entries only."
        )
    if run.writes:
        partial = path.with_name(f".{INITIAL_FILE}.partial.keras")
        made.save(partial)
        partial.replace(path)
    return made


def _added_words(settings: StudentSection, teacher: TextEmbedder) -> int:
    if settings.vocabulary is None:
        return 0
    tokenizer = tokenizer_of(teacher, "the teacher")
    known = tokenizer.get_vocab_size(with_added_tokens=True)
    if settings.vocabulary < known:
        raise ValueError(
            f"`student.vocabulary` must be at least {known}, the teacher's. "
            f"Received: {settings.vocabulary}."
        )
    return settings.vocabulary - known


def read_as_student(
    run: Run, student: TextEmbedder, texts: RunTexts, taught: TaughtTexts
) -> data.EncodedExamples | None:
    """Encodes the texts for a student with a vocabulary of its own.

    Returns:
        The texts, in the same order; None if it reads what its teacher reads.
    """
    settings = run.recipe.student
    if settings is None or not settings.vocabulary:
        return None
    found = encode(
        tokenizer_of(student, "the student"),
        texts.train,
        prompt=prompt_of(student),
        max_length=run.recipe.data.sequence_length,
    )
    return dataclasses.replace(found, max_length=taught.examples.max_length)
