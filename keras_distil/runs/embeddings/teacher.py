"""The teacher of a run of embeddings: loading it and keeping its vectors."""

import dataclasses
import json
import tempfile
from pathlib import Path

import keras_hub
import tokenizers
from keras_hub.models import TextEmbedder

from keras_distil import config, data, models, teachers
from keras_distil.config.distill_section import DistillSection
from keras_distil.losses.settings import MatryoshkaSettings
from keras_distil.models.architectures import family_of
from keras_distil.models.embedding_model import own_tokenizer
from keras_distil.runs.embeddings.preflight import check_length
from keras_distil.runs.embeddings.texts import RunTexts, encode
from keras_distil.runs.run_folder import Run
from keras_distil.runs.sections import distill_section
from keras_distil.runs.tasks import count_unknown
from keras_distil.runs.teacher import TeacherInMemory
from keras_distil.teachers.identity import weights_digest
from keras_distil.utils import disk
from keras_distil.utils.machine import cache_folder


def load_embedder(
    recipe: config.Recipe, *, dtype: str | None = None
) -> TextEmbedder:
    """Loads the teacher from its source, unchanged.

    Args:
        recipe: the recipe.
        dtype: Keras dtype policy; None uses the recipe's precision.

    Raises:
        ValueError: if it brings no tokenizer.
    """
    teacher = models.load_embedding_model(
        recipe.teacher.encoder_source,
        dtype=dtype or recipe.precision,
        seed=recipe.seed,
    )
    teacher = _read_by_library(teacher)
    tokenizer_of(teacher, recipe.teacher.encoder_source)
    return teacher


def _read_by_library(model: TextEmbedder) -> TextEmbedder:
    """Gives a KerasHub preset the library `tokenizers` for its vocabulary.

    Students, texts and exports are read by it. The two differ on odd
    characters only.
    """
    preprocessor = model.preprocessor
    own = getattr(preprocessor, "tokenizer", None)
    if not isinstance(own, keras_hub.tokenizers.WordPieceTokenizer):
        return model
    family = family_of(model)
    if family is None:
        raise ValueError(
            "A KerasHub tokenizer is read for the supported families alone. "
            f"Received: {type(model.backbone).__name__}. Give the model a "
            "tokenizer of the library `tokenizers`."
        )
    settings = {
        "tokenizer_class": family.tokenizer_class,
        "do_lower_case": own.lowercase,
        "strip_accents": own.strip_accents,
    }
    with tempfile.TemporaryDirectory() as scratch:
        words = "".join(f"{word}\n" for word in own.get_vocabulary())
        Path(scratch, "vocab.txt").write_text(words, "utf-8")
        text = json.dumps(settings)
        Path(scratch, "tokenizer_config.json").write_text(text, "utf-8")
        tokenizer = data.load_tokenizer(scratch)
    positions = model.backbone.max_sequence_length
    return models.embedding_model(
        model,
        model.pooling_mode,
        model.normalize,
        tokenizer=tokenizer,
        sequence_length=min(preprocessor.sequence_length, positions),
    )


def load_checked_embedder(run: Run) -> TextEmbedder:
    """Loads the teacher and checks it against the recipe."""
    recipe = run.recipe
    run.progress.say(f"Teacher: {recipe.teacher.encoder_source}")
    teacher = load_embedder(recipe)
    check_length(recipe, getattr(teacher.backbone, "max_sequence_length", None))
    return teacher


def tokenizer_of(model: TextEmbedder, source: str) -> tokenizers.Tokenizer:
    """Returns an embedder's tokenizer.

    Raises:
        ValueError: if it has none of the library `tokenizers`.
    """
    tokenizer = own_tokenizer(model)
    if tokenizer is None:
        raise ValueError(
            f"The teacher {source!r} brings no vocabulary to read texts with. "
            "Use a folder in the layout of sentence-transformers."
        )
    return tokenizer


def prompt_of(model: TextEmbedder) -> str:
    """Returns what an embedder puts before a text without another prompt."""
    name = getattr(model, "default_prompt_name", None)
    return model.prompts[name] if name is not None else ""


@dataclasses.dataclass(frozen=True)
class TaughtTexts:
    """The training texts with their teacher's vectors.

    Attributes:
        examples: the texts as the teacher reads them.
        cached: the teacher's vectors of them.
    """

    examples: data.EncodedExamples
    cached: teachers.CachedEmbeddingTeacher


def keep_vectors(
    run: Run, teacher: TeacherInMemory, texts: RunTexts
) -> TaughtTexts:
    """Writes the teacher's vectors of all training texts, or finds them.

    Raises:
        OSError: if the disk is too small, full or may not be written.
        ValueError: if half of the texts' tokens are unknown.
    """
    recipe = run.recipe
    model = teacher.model
    tokenizer = tokenizer_of(model, recipe.teacher.encoder_source)
    examples = encode(
        tokenizer,
        texts.train,
        prompt=prompt_of(model),
        max_length=recipe.data.sequence_length,
    )
    _check_unknown(run, examples, tokenizer)
    # Everything that the settings of the cache have.
    key = disk.sha256(
        disk.canonical(
            [
                weights_digest(model),
                model.backbone.dtype_policy.name,
                model.pooling_mode,
                model.normalize,
                data.tokenizer_hash(tokenizer),
                examples.fingerprint,
            ]
        )
    )
    folder = cache_folder() / "teacher_vectors" / key[:32]
    with run.progress.bar("Read the teacher once (texts)") as bar:
        cached = teachers.cache_embedding_teacher(
            model,
            examples,
            folder,
            tokenizer=tokenizer,
            say=run.progress.say,
            progress=bar.update_of,
        )
    if recipe.teacher.dimension is not None:
        if cuts := cut_sizes(distill_section(recipe)):
            run.progress.say(
                "Turn the teacher's vectors for being cut (about half a minute)"
            )
        cached = teachers.CachedEmbeddingTeacher(
            folder, recipe.teacher.dimension, cuts
        )
    return TaughtTexts(examples, cached)


def cut_sizes(settings: DistillSection) -> tuple[int, ...]:
    """Returns the numbers of coordinates that are to be enough."""
    return tuple(
        size
        for loss in settings.losses.by_name.values()
        if isinstance(loss, MatryoshkaSettings)
        for size in loss.dimensions
    )


def _check_unknown(
    run: Run, examples: data.EncodedExamples, tokenizer: tokenizers.Tokenizer
) -> None:
    unknown, total = count_unknown(examples.token_ids, tokenizer)
    token = data.unknown_token(tokenizer)
    data.check_unknown(unknown, total, "the corpus", token=token)
    for line in data.unknown_warnings(
        unknown, total, "the corpus", token=token
    ):
        run.progress.warn(line)
