"""Keras finds the package's classes in a saved file once it is imported.

Keras looks up classes of a `.keras` file among those that were registered, and
the modules that register ours are imported only when they are first used. So
`import keras_distil` registers stand-ins, which import the real class when a
file asks for it, as soon as Keras itself is imported.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

_PACKAGE = "keras_distil"
_KERAS = "keras"
# Registered classes, by module.
CLASSES = {
    "losses.attention_relation": ("AttentionRelationKLDivergence",),
    "losses.attention_transfer": ("AttentionTransfer",),
    "losses.hidden_mse": ("HiddenStateMeanSquaredError",),
    "losses.hidden_state": ("HiddenStateCosineDistance",),
    "losses.label": (
        "LabelBinaryCrossentropy",
        "LabelCrossentropy",
        "LabelSquaredError",
    ),
    "losses.masked_lm": ("MaskedLMCrossentropy",),
    "losses.matryoshka": ("Matryoshka",),
    "losses.similarity": (
        "SimilarityKLDivergence",
        "SimilarityMeanSquaredError",
    ),
    "losses.soft_divergence": (
        "SoftTargetJensenShannonDivergence",
        "SoftTargetReverseKLDivergence",
    ),
    "losses.soft_labels": ("SoftTargetBinaryKLDivergence",),
    "losses.soft_target": ("SoftTargetKLDivergence", "SoftTargetSquaredError"),
    "losses.vector_distance": (
        "VectorCosineDistance",
        "VectorMeanSquaredError",
    ),
    "models.architectures.bert": (
        "ExactBertBackbone",
        "ExactBertMaskedLM",
        "ExactBertTextClassifier",
        "ExactBertTextEmbedder",
    ),
    "models.architectures.distil_bert": (
        "ExactDistilBertBackbone",
        "ExactDistilBertMaskedLM",
        "ExactDistilBertTextClassifier",
        "ExactDistilBertTextEmbedder",
    ),
    "models.architectures.roberta": (
        "ExactRobertaBackbone",
        "ExactRobertaMaskedLM",
        "ExactRobertaTextClassifier",
        "ExactRobertaTextEmbedder",
    ),
    "models.architectures.sentence_embedding": ("SentenceEmbedding",),
    "models.elmo.character_encoder": ("CharacterEncoder",),
    "models.elmo.language_model": (
        "ElmoClassifier",
        "ElmoEncoder",
        "MaximumOverWords",
        "ScalarMix",
    ),
    "models.elmo.projected_lstm": ("ProjectedLSTM", "ProjectedLSTMCell"),
    "models.static_embedding": (
        "StaticBackbone",
        "StaticTextEmbedder",
        "StaticTokens",
    ),
    "models.text_preprocessor": ("TextPreprocessor",),
    "models.token_models": ("SpanExtractor", "TokenClassifier"),
    "schedules": (
        "Constant",
        "Cosine",
        "Exponential",
        "Linear",
        "Piecewise",
        "Warmup",
    ),
    "teachers.embeddings.cached": ("CachedEmbeddingTeacher",),
    "teachers.masked_lm.cached": ("CachedTeacher",),
    "teachers.predictions.teacher": ("PredictedTeacher",),
    "teachers.tasks.cached": ("CachedTaskTeacher",),
    "training.distiller": ("Distiller",),
}


def register_with_keras() -> None:
    """Registers the stand-ins, now or when Keras is first imported."""
    if _KERAS in sys.modules:
        _register(sys.modules[_KERAS])
    else:
        sys.meta_path.insert(0, _KerasFinder())


class _KerasFinder(importlib.abc.MetaPathFinder):
    """Finds Keras as others do, and registers the stand-ins after it."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _KERAS:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _KerasLoader(spec.loader)
        return spec


class _KerasLoader(importlib.abc.Loader):
    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(
        self, spec: importlib.machinery.ModuleSpec
    ) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        _register(module)


def _register(keras: Any) -> None:
    for home, names in CLASSES.items():
        for name in names:
            registered = f"{_PACKAGE}>{name}"
            if keras.saving.get_registered_object(registered) is None:
                register = keras.saving.register_keras_serializable(
                    package=_PACKAGE, name=name
                )
                register(_make_stand_in(f"{_PACKAGE}.{home}", name))


def _make_stand_in(home: str, name: str) -> type:
    def from_config(cls: type, config: dict[str, Any]) -> Any:
        return getattr(importlib.import_module(home), name).from_config(config)

    def get_config(self: Any) -> dict[str, Any]:
        raise NotImplementedError(f"{name} is made by `from_config`.")

    return type(
        name,
        (),
        {"from_config": classmethod(from_config), "get_config": get_config},
    )
