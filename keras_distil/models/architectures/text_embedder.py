"""Sentence embedders: an encoder, its sentence embedding, and texts."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import keras_hub
import numpy as np
import tensorflow as tf
from keras import ops
from keras_hub.models import Backbone

from keras_distil.data import EncodedExamples, padded_batches
from keras_distil.models.architectures.exact import (
    OptionalInputs,
    check_not_cloned,
)
from keras_distil.models.architectures.sentence_embedding import (
    SentenceEmbedding,
)
from keras_distil.models.text_preprocessor import TextPreprocessor
from keras_distil.utils.checks import check_count

Tensor = Any

_INPUTS = ("token_ids", "padding_mask", "segment_ids")
# Prompts by the names that sentence-transformers looks for, in this order.
_QUERY_PROMPTS = ("query",)
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")


class ExactTextEmbedder(OptionalInputs):
    """A KerasHub `TextEmbedder` with the words of `BertTextEmbedder`.

    Vectors are float32 in any precision of the encoder. KerasHub's classes
    compile by default, this one only on demand.

    Args:
        backbone: the encoder.
        preprocessor: a `TextPreprocessor` or one of KerasHub's; None if the
            model will not read texts.
        pooling_mode: "mean", "cls" or "max"; see `SentenceEmbedding`.
        normalize: bool, whether vectors are scaled to length 1.
        *others: none.
        dimension: int >= 1, size of the vectors by a dense layer; None for
            the encoder's width.
        activation: "linear" or "tanh", of that layer.
        prompts: by name, what is put before a text: "query" for
            `encode_query`; "document", "passage" or "corpus" for
            `encode_documents`.
        default_prompt_name: the prompt of texts without another; None for
            none.
        compile: bool, whether to compile with KerasHub's defaults.
        **kwargs: arguments of `keras_hub.models.Task`.

    Call arguments:
        inputs: the encoder's inputs, (batch, length) each; "segment_ids" may
            be left out.

    Returns:
        Vectors, float32, (batch, dimension or width).

    Raises:
        TypeError: if prompts are not strings, or there are other arguments.
        ValueError: if a name is unknown.
    """

    def __init__(
        self,
        backbone: Backbone,
        preprocessor: Any = None,
        pooling_mode: str = "mean",
        normalize: bool = True,
        *others: Any,
        dimension: int | None = None,
        activation: str = "linear",
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        compile: bool = False,
        **kwargs: Any,
    ) -> None:
        check_not_cloned(type(self), (backbone,))
        if others:
            raise TypeError(
                f"{type(self).__name__} takes further arguments by keyword "
                f"only. Received: {others!r:.80}."
            )
        # === Layers ===
        self.backbone = backbone
        self.preprocessor = preprocessor
        self.sentence_embedding = SentenceEmbedding(
            pooling_mode,
            normalize,
            dimension,
            activation,
            dtype=backbone.dtype_policy,
            name="sentence_embedding",
        )

        # === Functional Model ===
        inputs = backbone.input
        states = backbone(inputs)
        if isinstance(states, dict):
            states = states["sequence_output"]
        vectors = self.sentence_embedding(states, inputs["padding_mask"])
        # Not `super`: a family's class in KerasHub would pool once more.
        keras_hub.models.TextEmbedder.__init__(
            self, inputs=inputs, outputs=vectors, compile=compile, **kwargs
        )

        # === Config ===
        self.pooling_mode = pooling_mode
        self.normalize = bool(normalize)
        self.dimension = dimension
        self.activation = activation
        self.prompts = check_prompts(prompts, default_prompt_name)
        self.default_prompt_name = default_prompt_name

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild the model."""
        return {
            **super().get_config(),  # type: ignore[misc]
            "pooling_mode": self.pooling_mode,
            "normalize": self.normalize,
            "dimension": self.dimension,
            "activation": self.activation,
            "prompts": dict(self.prompts),
            "default_prompt_name": self.default_prompt_name,
        }

    # === Texts ===

    def encode_text(
        self,
        text: str | Sequence[str],
        prompt_name: str | None = None,
        *,
        batch_size: int = 32,
        verbose: int = 0,
    ) -> np.ndarray:
        """Returns the vectors of texts.

        Args:
            text: a text, or a list of them.
            prompt_name: which of `prompts` is put before each; None for the
                default prompt, if there is one.
            batch_size: int >= 1, texts per batch, which have similar lengths.
            verbose: int, 1 for a progress bar, as in `predict`.

        Returns:
            float32, (texts, dimension or width).

        Raises:
            TypeError: if a text is not a string.
            ValueError: if a text is empty, there are none, the prompt is
                unknown, or the model has no tokenizer.
        """
        prompt = self._prompt(prompt_name or self.default_prompt_name)
        return self._encode(
            text, prompt, batch_size=batch_size, verbose=verbose
        )

    def encode_query(
        self,
        query: str | Sequence[str],
        prompt_name: str | None = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """Returns vectors of texts to search for, with the prompt "query".

        A model without it puts nothing before them, not even its default.

        Args:
            query: a text, or a list of them.
            prompt_name: another prompt.
            **kwargs: batch_size and verbose, as for `encode_text`.
        """
        prompt = self._prompt(prompt_name, _QUERY_PROMPTS)
        return self._encode(query, prompt, **kwargs)

    def encode_documents(
        self,
        documents: str | Sequence[str],
        prompt_name: str | None = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """Returns vectors of texts to be found.

        The prompt is the first of "document", "passage" and "corpus" that the
        model has; a model without them puts nothing before the texts.

        Args:
            documents: a text, or a list of them.
            prompt_name: another prompt.
            **kwargs: batch_size and verbose, as for `encode_text`.
        """
        prompt = self._prompt(prompt_name, _DOCUMENT_PROMPTS)
        return self._encode(documents, prompt, **kwargs)

    def similarity(
        self, query_embeddings: Tensor, document_embeddings: Tensor
    ) -> Tensor:
        """Returns dot products, which are cosines with `normalize`.

        Args:
            query_embeddings: float, (queries, dimension).
            document_embeddings: float, (documents, dimension).

        Returns:
            float, (queries, documents).
        """
        documents = ops.convert_to_tensor(document_embeddings)
        return ops.matmul(
            ops.convert_to_tensor(query_embeddings), ops.transpose(documents)
        )

    def usual_prompts(self) -> dict[str, str]:
        """Returns what is put before texts, queries and documents."""
        return {
            "texts": self._prompt(self.default_prompt_name),
            "queries": self._prompt(None, _QUERY_PROMPTS),
            "documents": self._prompt(None, _DOCUMENT_PROMPTS),
        }

    def encode_tokens(
        self, examples: EncodedExamples, *, batch_size: int, verbose: int = 0
    ) -> np.ndarray:
        """Returns the vectors of texts that are token ids already.

        Args:
            examples: the texts, as from `data.encode_examples`.
            batch_size: int >= 1, texts per batch, which have similar lengths.
            verbose: int, 1 for a progress bar, as in `predict`.

        Returns:
            float32, (texts, dimension or width), in the order of the texts.
        """
        batch_size = check_count("batch_size", batch_size)
        bar = keras.utils.Progbar(
            -(-len(examples) // batch_size), verbose=verbose
        )
        run = self._vector_function()
        places, vectors = [], []
        for rows, inputs in padded_batches(examples, batch_size=batch_size):
            found = run(tf.nest.map_structure(tf.constant, inputs))
            places.append(rows)
            vectors.append(found.numpy())
            bar.add(1)
        found = np.concatenate(vectors)
        in_order = np.empty_like(found)
        in_order[np.concatenate(places)] = found
        return in_order

    def _encode(
        self,
        text: str | Sequence[str],
        prompt: str,
        *,
        batch_size: int = 32,
        verbose: int = 0,
    ) -> np.ndarray:
        texts = [text] if isinstance(text, str) else list(text)
        preprocessor = self.preprocessor or TextPreprocessor()
        if isinstance(preprocessor, TextPreprocessor):
            return self.encode_tokens(
                preprocessor.encode(texts, prompt=prompt),
                batch_size=batch_size,
                verbose=verbose,
            )
        return self.predict(  # type: ignore[attr-defined]
            [f"{prompt}{each}" for each in texts],
            batch_size=batch_size,
            verbose=verbose,
        )

    def _vector_function(self) -> Any:
        """Returns the model as a function that is traced for all shapes."""
        # Others, once the model was quantised or a layer was changed.
        variables = [id(v) for v in self.variables]  # type: ignore[attr-defined]
        kept = getattr(self, "_kept_function", None)
        if kept is None or kept[0] != variables:
            matrix = tf.TensorSpec([None, None], tf.int32)

            @tf.function(
                autograph=False,
                input_signature=[dict.fromkeys(_INPUTS, matrix)],
            )
            def run(inputs: dict[str, Tensor]) -> Tensor:
                return _vectors(self, inputs)

            kept = variables, run
            # Keras would track it and save it with the model.
            object.__setattr__(self, "_kept_function", kept)
        return kept[1]

    def _prompt(self, name: str | None, usual: Sequence[str] = ()) -> str:
        """Returns the prompt of a name, or else the first usual one."""
        if name is None:
            found = [self.prompts[key] for key in usual if key in self.prompts]
            return found[0] if found else ""
        if name not in self.prompts:
            raise ValueError(
                f"`prompt_name` must be one of {sorted(self.prompts)}, the "
                f"model's prompts. Received: prompt_name={name!r:.60}."
            )
        return self.prompts[name]


def _vectors(model: ExactTextEmbedder, inputs: dict[str, Tensor]) -> Tensor:
    """Returns an embedder's vectors, without reading padding if it can."""
    # They import the families, and with them this module.
    from keras_distil.models import encoder_pass, forward

    if not encoder_pass.is_supported(model.backbone):
        return model(inputs, training=False)
    states = forward.encode(model, inputs, training=False)
    return model.sentence_embedding(states, inputs["padding_mask"])


def check_prompts(
    prompts: Mapping[str, str] | None, default: str | None
) -> dict[str, str]:
    """Returns prompts by name, after checking them.

    Raises:
        TypeError: if they are not strings.
        ValueError: if the default is not one of them.
    """
    checked = dict(prompts or {})
    if not all(isinstance(x, str) for pair in checked.items() for x in pair):
        raise TypeError(
            "`prompts` must be strings by name, such as {'query': 'query: '}. "
            f"Received: prompts={checked!r:.80}."
        )
    if default is not None and default not in checked:
        raise ValueError(
            f"`default_prompt_name` must be one of {sorted(checked)}, the "
            f"prompts. Received: default_prompt_name={default!r:.60}."
        )
    return checked
