"""From texts to the inputs of an encoder, as a layer that is saved with it."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tokenizers

from keras_distil.data import EncodedExamples, SpecialTokens, encode_examples
from keras_distil.utils import disk, private_api
from keras_distil.utils.checks import check_count

Tensor = Any

_FILE = "tokenizer.json"
# In a preset, where KerasHub's own tokenizers have the other name.
_PRESET_FILE = "assets/text_tokenizer.json"
# Room for the two tokens that frame a text, and as `encode_examples` asks.
_LEAST_LENGTH = 8


@keras.saving.register_keras_serializable(package="keras_distil")
class TextPreprocessor(keras.layers.Layer):
    """Encodes texts with a tokenizer of Hugging Face's library.

    White space around a text is dropped, as sentence-transformers does. A
    saved model holds the tokenizer.

    Args:
        tokenizer: as from `data.load_tokenizer`; None if a saved one follows.
        sequence_length: int >= 8, tokens at which a text is cut, with those
            that frame it. Defaults to 256.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        x: strings, (batch,), or inputs of an encoder, which are returned
            unchanged.

    Returns:
        "token_ids" and "padding_mask", int32, (batch, length).

    Raises:
        TypeError: if `sequence_length` is not an integer.
        ValueError: if it is too small.
    """

    def __init__(
        self,
        tokenizer: tokenizers.Tokenizer | None = None,
        *,
        sequence_length: int = 256,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.tokenizer = tokenizer
        self.sequence_length = check_count(
            "sequence_length", sequence_length, _LEAST_LENGTH
        )
        self.built = True

    def __call__(self, x: Any) -> dict[str, Tensor]:
        """Returns the inputs of an encoder; see the class."""
        # Keras's own `__call__` takes no strings.
        if isinstance(x, dict):
            return x
        if tf.is_symbolic_tensor(x):
            token_ids, padding_mask = tf.numpy_function(
                self._encode_batch, [x], [tf.int32, tf.int32]
            )
        else:
            token_ids, padding_mask = map(
                tf.constant, self._encode_batch(np.array(x, object))
            )
        return {
            "token_ids": tf.ensure_shape(token_ids, [None, None]),
            "padding_mask": tf.ensure_shape(padding_mask, [None, None]),
        }

    def encode(
        self, texts: Sequence[str], *, prompt: str = ""
    ) -> EncodedExamples:
        """Encodes texts of any length.

        Args:
            texts: the texts.
            prompt: what is put before each text.

        Raises:
            TypeError: if one is not a string.
            ValueError: if one is empty, there are none, or the tokenizer is
                missing.
        """
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(
                    "Texts must be strings. Received: "
                    f"{type(text).__name__} as text {number} (from 0)."
                )
            if not text.strip():
                raise ValueError(
                    "A text must have a character that is not white space. "
                    f"Received: {text!r:.40} as text {number} (from 0). "
                    "Leave it out."
                )
        return encode_examples(
            self._tokenizer(),
            [f"{prompt}{text}".strip() for text in texts],
            max_length=self.sequence_length,
        )

    def _tokenizer(self) -> tokenizers.Tokenizer:
        if self.tokenizer is None:
            raise ValueError(
                "The model has no tokenizer to read texts with. Give "
                "`models.embedding_model` one: "
                "tokenizer=data.load_tokenizer(FOLDER)."
            )
        return self.tokenizer

    def _encode_batch(self, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns ids and mask of a batch, padded to the longest."""
        examples = self.encode(
            [x.decode() if isinstance(x, bytes) else x for x in texts.ravel()]
        )
        lengths = examples.lengths[:, np.newaxis]
        real = np.arange(lengths.max())[np.newaxis] < lengths
        token_ids = np.full(real.shape, examples.pad_id, np.int32)
        token_ids[real] = examples.token_ids
        return token_ids, real.astype(np.int32)

    # === Saving ===

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild the layer, but the tokenizer."""
        # Without a precision, which has no meaning here.
        return {"name": self.name, "sequence_length": self.sequence_length}

    def save_assets(self, dir_path: str) -> None:
        """Writes the tokenizer into a folder of a saved model."""
        if self.tokenizer is not None:
            self.tokenizer.save(os.path.join(dir_path, _FILE))

    def save_to_preset(self, preset_dir: str) -> None:
        """Writes the tokenizer into a KerasHub preset; `save_task` calls it."""
        if self.tokenizer is not None:
            path = Path(preset_dir) / _PRESET_FILE
            path.parent.mkdir(exist_ok=True)
            self.tokenizer.save(str(path))

    def load_preset_assets(self, preset: str) -> None:
        """Reads the tokenizer from a preset; KerasHub's loader calls it.

        Raises:
            ValueError: if the file is damaged.
        """
        files = private_api.preset_files()
        if files.check_file_exists(preset, _PRESET_FILE):
            self.tokenizer = read_tokenizer(
                Path(files.get_file(preset, _PRESET_FILE))
            )

    def load_assets(self, dir_path: str) -> None:
        """Reads the tokenizer from a folder of a saved model.

        Raises:
            ValueError: if the file is damaged.
        """
        path = Path(dir_path) / _FILE
        if path.is_file():
            self.tokenizer = read_tokenizer(
                path, f"`{_FILE}` of the saved model"
            )


def read_tokenizer(
    path: Path, shown: str | None = None
) -> tokenizers.Tokenizer:
    """Reads a tokenizer's own file.

    Args:
        path: the file.
        shown: what it is in messages; its path if None.

    Raises:
        ValueError: if it is damaged, too large, or lacks a special token.
    """
    shown = f"`{path}`" if shown is None else shown
    disk.check_size(path, disk.VOCABULARY_BYTES)
    # The library raises no narrower class.
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
        SpecialTokens.from_tokenizer(tokenizer)
    except Exception as error:
        raise ValueError(f"{shown} is damaged: {error!s:.200}.") from error
    return tokenizer
