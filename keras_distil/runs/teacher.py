"""The teacher of a run: loading, training and caching it."""

import gc
import hashlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from keras_hub.models import MaskedLM

from keras_distil import config, data, models, teachers
from keras_distil.losses import registry
from keras_distil.models import adapters, embedded
from keras_distil.models.architectures import check_padding
from keras_distil.models.hub import HUB_SCHEME
from keras_distil.models.keras_archive import load_archive
from keras_distil.models.task_model import masked_lm_of
from keras_distil.runs import trainers
from keras_distil.runs.checks import check_lengths, check_tokenizer_lengths
from keras_distil.runs.corpus import load_tokenizer, make_training_batches
from keras_distil.runs.fit import fit_on_text
from keras_distil.runs.run_folder import Run, read_text
from keras_distil.runs.sections import distill_section
from keras_distil.training import distribution
from keras_distil.utils import disk
from keras_distil.utils.machine import cache_folder

ADAPTER_FILE = "adapter.safetensors"
TEACHER_FILE = "teacher.keras"


class TeacherInMemory:
    """The teacher, which leaves memory while its cached outputs are used.

    Args:
        load: loads the teacher.
    """

    def __init__(self, load: Callable[[], MaskedLM]) -> None:
        self._load = load
        self._model: MaskedLM | None = load()

    @property
    def model(self) -> MaskedLM:
        """The teacher; loads it again if it was released."""
        if self._model is None:
            self._model = self._load()
        return self._model

    def release(self) -> None:
        """Frees the teacher's memory until it is needed again."""
        self._model = None
        # Keras models contain reference cycles.
        gc.collect()

    def in_compute_precision(self, recipe: config.Recipe) -> MaskedLM:
        """The teacher in the precision of the steps; frees any float32 copy."""
        converted = freeze_teacher(recipe, self.model)
        if converted is not self._model:
            self.release()
        return converted

    def train(self, run: Run, prepared: data.PreparedCorpus) -> None:
        """Trains the teacher, or reuses a trained one."""
        load = self._load
        self._model = train_teacher(run, self.model, prepared)
        self._load = lambda: train_teacher(run, load(), prepared)


def load_teacher(
    recipe: config.Recipe, *, dtype: str | None = None
) -> MaskedLM:
    """Loads the teacher from its source, unchanged.

    Of a teacher that is fine-tuned already, it is the encoder, with a new
    masked-LM head that nothing reads.

    Args:
        recipe: the recipe.
        dtype: replaces the recipe's precision.

    Returns:
        A masked-LM task model.
    """
    dtype = dtype or recipe.precision
    if recipe.teacher.task_source is not None:
        return masked_lm_of(
            models.load_task_model(recipe.teacher.task_source),
            dtype=dtype,
            seed=recipe.seed,
        )
    return models.load_teacher(
        recipe.teacher.encoder_source,
        allow_new_head=recipe.teacher.allow_new_head or _head_is_unread(recipe),
        dtype=dtype,
        seed=recipe.seed,
    )


def _head_is_unread(recipe: config.Recipe) -> bool:
    """Whether the teacher is there for its encoder alone."""
    reads_text = recipe.distill is not None or recipe.teacher.train is not None
    augments = recipe.finetune is not None and recipe.finetune.augment_copies
    return not (reads_text or augments)


def load_checked_teacher(run: Run) -> MaskedLM:
    """Loads the teacher and checks it against the data."""
    run.progress.say(f"Teacher: {run.recipe.teacher.encoder_source}")
    teacher = load_teacher(run.recipe)
    _check_fit(run.recipe, teacher)
    return teacher


def _check_fit(recipe: config.Recipe, teacher: MaskedLM) -> None:
    """Raises ValueError if the data does not fit the teacher."""
    check_lengths(recipe, teacher.backbone.max_sequence_length)
    check_tokenizer_lengths(recipe)
    tokenizer = load_tokenizer(recipe)
    special = data.SpecialTokens.from_tokenizer(tokenizer)
    check_padding(teacher, special.pad_id)
    words = data.vocabulary_size(tokenizer)
    if words > teacher.backbone.vocabulary_size:
        raise ValueError(
            f"The tokenizer of {recipe.teacher.tokenizer_source!r} has "
            f"{words} entries, "
            f"but the teacher's vocabulary {teacher.backbone.vocabulary_size}."
            " They do not belong together."
        )


def find_hub_commits(recipe: config.Recipe) -> dict[str, str]:
    """Finds the commits of the recipe's downloads from the Hugging Face Hub.

    Returns:
        Commits by source; unknown ones are left out.
    """
    sources = [recipe.teacher.source or "", recipe.teacher.task_source or ""]
    if recipe.student is not None:
        sources += [
            recipe.student.source or "",
            recipe.student.baseline_source or "",
        ]
    commits = {}
    for source in sources:
        if source.startswith(HUB_SCHEME):
            directory = models.checkpoint_directory(source)
            commit = models.commit_of(directory) if directory else None
            if commit is not None:
                commits[source] = commit
    return commits


def freeze_teacher(recipe: config.Recipe, teacher: MaskedLM) -> MaskedLM:
    """Converts the teacher to the form that the training steps run.

    Under mixed precision the teacher, which is not trained, needs no float32
    weights, which every step would have to copy. In float32 it is returned
    unchanged, and so it is for several workers: TensorFlow cannot send them
    weights in bfloat16.
    """
    policy = keras.dtype_policies.get(recipe.precision)
    several = distribution.worker_index()[1] > 1
    if several or policy.compute_dtype == policy.variable_dtype:
        return teacher
    return models.with_dtype(teacher, policy.compute_dtype)


def train_teacher(
    run: Run, teacher: MaskedLM, prepared: data.PreparedCorpus
) -> MaskedLM:
    """Trains the teacher as the recipe asks, or reuses a trained one.

    A trained teacher is cached by the content of its weights, the corpus and
    the settings.
    """
    settings = run.recipe.teacher.train
    if settings is None:
        return teacher
    folder = _teacher_cache(run, teacher, prepared)
    adapter = settings.method == "adapter"
    result = folder / (ADAPTER_FILE if adapter else TEACHER_FILE)
    if _is_whole(run, result):
        run.progress.say(f"Teacher training: found done in {folder}")
    else:
        _fit_teacher(run, teacher, prepared, result)
        checksum = result.with_suffix(".sha256")
        disk.write_text(checksum, disk.file_sha256(result))
    if not adapter:
        return load_archive(result, MaskedLM)
    # The adapter is merged into fresh weights, so that the model that is scored
    # is the one in the file.
    fresh = load_teacher(run.recipe)
    adapters.merge_adapter(
        fresh, result, base_sha256=_base_sha256(run.recipe, fresh)
    )
    if run.writes:
        target = run.folder / ADAPTER_FILE
        partial = target.with_name(f"{ADAPTER_FILE}.partial")
        with disk.replacing(target, partial):
            partial.write_bytes(result.read_bytes())
    return fresh


def _is_whole(run: Run, result: Path) -> bool:
    """Whether a trained teacher exists and is intact.

    Those of earlier versions have no checksum.
    """
    if not result.is_file():
        return False
    checksum = read_text(result.with_suffix(".sha256"))
    if checksum in ("", disk.file_sha256(result)):
        return True
    run.progress.warn(f"{result} has been altered: the teacher is made again.")
    return False


def _fit_teacher(
    run: Run,
    teacher: MaskedLM,
    prepared: data.PreparedCorpus,
    result: Path,
) -> None:
    settings = run.recipe.teacher.train
    if settings is None:
        return
    base_sha256 = _base_sha256(run.recipe, teacher)
    trainers.prepare_teacher_training(
        teacher, method=settings.method, rank=settings.rank
    )
    if settings.initial_adapter is not None:
        adapters.restore_adapter(
            teacher, settings.initial_adapter, base_sha256=base_sha256
        )
    trainer = trainers.masked_lm_trainer(
        teacher,
        trainers.make_optimizer(
            learning_rate=settings.learning_rate,
            steps=settings.steps,
            warmup_steps=settings.warmup_steps,
            weight_decay=settings.weight_decay,
        ),
        clip_norm=settings.clip_norm,
    )
    batches = make_training_batches(
        run.recipe, prepared, batch_size=settings.batch_size
    )
    fit_on_text(run, "teacher", trainer, batches, settings, settings.steps)
    if settings.method == "adapter":
        adapters.save_adapter(teacher, result, base_sha256=base_sha256)
    else:
        # Every worker keeps its own copy, so each needs its own file name.
        partial = result.with_name(f".{os.getpid()}-{result.name}")
        with disk.replacing(result, partial):
            teacher.save(partial)


def _teacher_cache(
    run: Run, teacher: MaskedLM, prepared: data.PreparedCorpus
) -> Path:
    """Folder of a trained teacher, by its weights, corpus and settings."""
    settings = run.recipe.teacher.train
    key = {
        "weights": _weights_sha256(teacher),
        "corpus": prepared.fingerprint,
        "settings": settings.model_dump() if settings else None,
        "initial_adapter": (
            disk.file_sha256(Path(settings.initial_adapter))
            if settings and settings.initial_adapter
            else None
        ),
        "masking": run.recipe.data.masking.model_dump(),
        "precision": run.recipe.precision,
        "seed": run.recipe.seed,
    }
    text = json.dumps(key, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return cache_folder() / "teachers" / digest[:32]


def _base_sha256(recipe: config.Recipe, teacher: MaskedLM) -> str:
    """Hash that ties an adapter to its base weights."""
    if recipe.teacher.source == embedded.EMBEDDED_BASE:
        return embedded.EMBEDDED_SHA256
    return _weights_sha256(teacher)


def _weights_sha256(model: MaskedLM) -> str:
    digest = hashlib.sha256()
    for variable in sorted(model.weights, key=lambda v: v.path):
        digest.update(variable.path.encode())
        digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return digest.hexdigest()


def keep_adapter_scores(run: Run, scores: dict[str, float]) -> None:
    """Writes the scores of a trained adapter into its metadata."""
    path = run.folder / ADAPTER_FILE
    if run.writes and path.is_file():
        adapters.annotate_adapter(path, {"held_out": scores})


def cache_teacher(
    run: Run,
    teacher: TeacherInMemory,
    prepared: data.PreparedCorpus,
    steps: int | None,
) -> teachers.CachedTeacher | None:
    """Writes the teacher's outputs to disk, or finds them there.

    The teacher is then released from memory.

    Args:
        run: the run.
        teacher: the teacher.
        prepared: the corpus.
        steps: updates of the student, so that only as many maskings are
            written as it will see; None if they are not known.

    Returns:
        The cached teacher; None if the recipe asks for a live one.
    """
    recipe = run.recipe
    settings = recipe.teacher.cache
    if settings is None:
        return None
    wanted = distill_section(recipe)
    maskings = settings.maskings
    if steps is not None:
        sequences = steps * wanted.batch_size
        passes = math.ceil(sequences / prepared.train_sequences)
        maskings = min(maskings, passes)
    with run.progress.bar("Cache teacher (sequences)") as bar:
        cached = teachers.cache_teacher(
            teacher.model,
            prepared,
            load_tokenizer(recipe),
            cache_dir=cache_folder() / "teacher_outputs",
            top_k=settings.top_k,
            maskings=maskings,
            positions=wanted.positions,
            temperature=wanted.temperature_range,
            hidden_states=registry.read_hidden_states(
                wanted.weighted_losses, registry.MASKED_LM
            ),
            attention=registry.read_attention(
                wanted.weighted_losses, registry.MASKED_LM
            ),
            seed=recipe.seed,
            rate=recipe.data.masking.rate,
            rare_token_exponent=recipe.data.masking.rare_token_exponent,
            say=run.progress.say,
            progress=bar.update_of,
        )
    teacher.release()
    return cached
