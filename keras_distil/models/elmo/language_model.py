"""ELMo with the classifier of the GLUE baseline, an LSTM for comparison."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_distil.data.characters import MAX_CHARACTERS, character_ids
from keras_distil.models.elmo.character_encoder import FILTERS, CharacterEncoder
from keras_distil.models.elmo.projected_lstm import (
    ProjectedLSTM,
    check_positive,
)

Tensor = Any
Shape = tuple[int | None, ...]

_BOUNDARIES = character_ids(["<S>", "</S>"])


@keras.saving.register_keras_serializable(package="keras_distil")
class ScalarMix(keras.layers.Layer):
    """A learned mean of layers, times a learned scale.

    Formula:
        scale * sum(softmax(logits)_k * layer_k)

    Call arguments:
        layers: list of tensors of one shape.

    Returns:
        A tensor of that shape.

    Example:
        >>> mix = ScalarMix()
        >>> mix([ops.convert_to_tensor([2.0]), ops.convert_to_tensor([4.0])])
        <tf.Tensor: shape=(1,), dtype=float32, numpy=array([3.], \
dtype=float32)>

    Reference:
        Peters et al. 2018, arXiv:1802.05365, equation 1.
        Differs: none.
    """

    def build(self, layers_shape: Sequence[Shape]) -> None:
        """Builds one weight per layer, and the scale."""
        self.logits = self.add_weight(
            (len(layers_shape),), initializer="zeros", name="logits"
        )
        self.scale = self.add_weight((), initializer="ones", name="scale")

    def call(self, layers: Sequence[Tensor]) -> Tensor:
        """Returns the scaled mean."""
        weights = self.scale * ops.softmax(self.logits)
        return sum(weights[k] * layer for k, layer in enumerate(layers))


@keras.saving.register_keras_serializable(package="keras_distil")
class ElmoEncoder(keras.layers.Layer):
    """ELMo: words from characters, then LSTMs in both directions, mixed.

    The begin and the end of the sentence are added before the LSTMs and
    removed after them, as in the released models. Weights are new: the
    released ones are not loaded.

    Formula:
        w = CharacterEncoder(character_ids)
        f_k, b_k: layer k of the forward and of the backward LSTM over w;
        each reads its own direction's layer below, which from the second
        layer on is added to its output.
        ScalarMix([w, w], [f_1, b_1], [f_2, b_2], ...)

    Parameters of the published sizes, which are the defaults:
        262 * 16                            character embeddings      4,192
        sum((16 * width + 1) * number)      convolutions            199,168
        2 * (2048 * 4096 + 4096)            highways             16,785,408
        2048 * 512 + 512                    projection            1,049,088
        4 * (512 * 16384 + 16384            the gates of the input
             + 512 * 16384                  and of the output
             + 4096 * 512)                  projection: LSTMs    75,563,008
        3 + 1                               mix                           4
        total                                                    93,600,868
        The authors' page (https://allennlp.org/elmo) says 93.6 million.
        262 is the 261 released embeddings plus one for padding.

    Args:
        character_dim: see `CharacterEncoder`.
        filters: see `CharacterEncoder`.
        num_highways: see `CharacterEncoder`.
        num_layers: int >= 1, LSTM layers.
        units: see `ProjectedLSTMCell`.
        projection_units: int >= 1, width of a word and of each direction.
        clip: float > 0, for the cells and the outputs of the LSTMs.
        dropout: float in [0, 1), rate for the output.
        **kwargs: see `keras.layers.Layer`.

    Call arguments:
        character_ids: int, (batch, words, 50); see `data.character_inputs`.
        padding_mask: int or bool, (batch, words); padding follows the words.

    Returns:
        (batch, words, 2 * projection_units); padding has no meaning.

    Raises:
        ValueError: if a size or a clip is not positive, or for `filters`.

    Example:
        >>> from keras_distil import data
        >>> encoder = ElmoEncoder(
        ...     filters=[(1, 4), (2, 4)], units=16, projection_units=8
        ... )
        >>> words = data.character_inputs([["ELMo", "reads", "bytes"]])
        >>> tuple(encoder(**words).shape)
        (1, 3, 16)

    Reference:
        Peters et al. 2018, arXiv:1802.05365, section 3, with the sizes of
        elmo_2x4096_512_2048cnn_2xhighway_options.json.
        Differs: states are not carried from one batch to the next; all
        weights can be trained, where the authors trained the mix alone.
    """

    def __init__(
        self,
        character_dim: int = 16,
        filters: Sequence[Sequence[int]] = FILTERS,
        num_highways: int = 2,
        num_layers: int = 2,
        units: int = 4096,
        projection_units: int = 512,
        clip: float | None = 3.0,
        dropout: float = 0.5,
        **kwargs: Any,
    ) -> None:
        check_positive(num_layers=num_layers, projection_units=projection_units)
        super().__init__(**kwargs)
        self.num_layers = num_layers
        self.units = units
        self.projection_units = projection_units
        self.clip = clip
        policy = self.dtype_policy
        self.characters = CharacterEncoder(
            character_dim,
            filters,
            num_highways,
            projection_units,
            dtype=policy,
            name="characters",
        )
        self.forward_layers, self.backward_layers = (
            [
                ProjectedLSTM(
                    units,
                    projection_units,
                    clip,
                    clip,
                    go_backwards=direction == "backward",
                    dtype=policy,
                    name=f"{direction}_{k}",
                )
                for k in range(num_layers)
            ]
            for direction in ("forward", "backward")
        )
        self.mix = ScalarMix(dtype=policy, name="mix")
        self.dropout = keras.layers.Dropout(dropout, dtype=policy)

    def build(self, character_ids_shape: Shape) -> None:
        """Builds the weights, whose shapes follow from the arguments."""
        self.characters.build(character_ids_shape)
        word = (None, None, self.projection_units)
        for layer in [*self.forward_layers, *self.backward_layers]:
            layer.build(word)
        self.mix.build([word] * (1 + self.num_layers))

    def call(
        self,
        character_ids: Tensor,
        padding_mask: Tensor,
        training: bool | None = None,
    ) -> Tensor:
        """Returns one vector per word."""
        ids, mask = _add_boundaries(character_ids, padding_mask)
        forward = backward = self.characters(ids)
        layers = [ops.concatenate([forward, backward], axis=-1)]
        for k in range(self.num_layers):
            forward_in, backward_in = forward, backward
            forward = self.forward_layers[k](forward_in, mask=mask)
            backward = self.backward_layers[k](backward_in, mask=mask)
            if k > 0:
                forward = forward + forward_in
                backward = backward + backward_in
            layers.append(ops.concatenate([forward, backward], axis=-1))
        # For a shorter sentence, the end mark replaces its first padding.
        words = self.mix(layers)[:, 1:-1]
        return self.dropout(words, training=training)

    def compute_output_shape(self, character_ids_shape: Shape) -> Shape:
        """Returns (batch, words, 2 * projection_units)."""
        return (*character_ids_shape[:2], 2 * self.projection_units)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild the layer."""
        return {
            **super().get_config(),
            "character_dim": self.characters.character_dim,
            "filters": self.characters.filters,
            "num_highways": self.characters.num_highways,
            "num_layers": self.num_layers,
            "units": self.units,
            "projection_units": self.projection_units,
            "clip": self.clip,
            "dropout": self.dropout.rate,
        }


@keras.saving.register_keras_serializable(package="keras_distil")
class MaximumOverWords(keras.layers.Layer):
    """The maximum of each feature over the words of a sentence.

    Call arguments:
        inputs: float, (batch, words, features).
        padding_mask: int or bool, (batch, words).

    Returns:
        (batch, features); 0 for a sentence without words.
    """

    def call(self, inputs: Tensor, padding_mask: Tensor) -> Tensor:
        """Returns the maxima."""
        mask = ops.expand_dims(ops.cast(padding_mask, "bool"), -1)
        # Far below the outputs of an LSTM, and within the range of float16.
        maxima = ops.max(ops.where(mask, inputs, -1e4), axis=1)
        return ops.where(ops.any(mask, axis=1), maxima, 0.0)

    def compute_output_shape(self, inputs_shape: Shape) -> Shape:
        """Returns (batch, features)."""
        return (inputs_shape[0], inputs_shape[-1])


@keras.saving.register_keras_serializable(package="keras_distil")
class ElmoClassifier(keras.Model):
    """The LSTM baseline of GLUE on ELMo, for single sentences or pairs.

    Formula:
        u = max over words(BiLSTM(...BiLSTM(ELMo(sentence))))
        x = u, or [u, v, |u - v|, u * v] with v of the second sentence
        logits = tanh(x W + b) W' + b'

    Parameters of the published sizes, which are the defaults:
        ELMo                                see there            93,600,868
        2 * 6000 * (1024 + 1500 + 1)        first BiLSTM         30,300,000
        2 * 6000 * (3000 + 1500 + 1)        second BiLSTM        54,012,000
        so far                                                  177,912,868
        3000 * 512 + 512 + 512 * 2 + 2      classifier            1,537,538
        total for one sentence, two classes                     179,450,406
        12000 * 512 + 512 + 512 * 2 + 2     for pairs instead     6,145,538
        total for pairs, two classes                            184,058,406
        The paper of DistilBERT counts 180 million, in its table 3.

    Args:
        num_outputs: int >= 1, classes, or 1 for a regression.
        encoder: the ELMo to use. Defaults to one with the published sizes.
        pair: bool, whether the inputs are two sentences.
        num_layers: int >= 1, BiLSTM layers.
        units: int >= 1, width of a direction of a BiLSTM.
        hidden_units: int >= 1, width of the classifier.
        dropout: float in [0, 1), rate for the inputs and outputs of the
            BiLSTMs and of the classifier's hidden layer.
        **kwargs: see `keras.Model`.

    Call arguments:
        inputs: `{"character_ids": (batch, words, 50), "padding_mask":
            (batch, words)}`, int32, as from `data.character_inputs`; for
            pairs also "second_character_ids" and "second_padding_mask".

    Returns:
        float32 (batch, num_outputs), unnormalised.

    Raises:
        ValueError: if a size is not positive.

    Example:
        >>> from keras_distil import data
        >>> elmo = ElmoEncoder(filters=[(1, 4)], units=16, projection_units=8)
        >>> model = ElmoClassifier(2, encoder=elmo, units=8, hidden_units=4)
        >>> tuple(model(data.character_inputs([["good"], ["bad"]])).shape)
        (2, 2)

    Reference:
        Wang et al. 2018, arXiv:1804.07461, section 5, without attention;
        dropout and activation of https://github.com/nyu-mll/GLUE-baselines.
        Differs: one bias per gate, where PyTorch's LSTM adds two, 24,000 more
        in total; their regression task has no hidden layer.
    """

    def __init__(
        self,
        num_outputs: int,
        encoder: ElmoEncoder | None = None,
        pair: bool = False,
        num_layers: int = 2,
        units: int = 1500,
        hidden_units: int = 512,
        dropout: float = 0.2,
        **kwargs: Any,
    ) -> None:
        check_positive(
            num_outputs=num_outputs,
            num_layers=num_layers,
            units=units,
            hidden_units=hidden_units,
        )
        # === Layers ===
        self.encoder = encoder or ElmoEncoder(name="elmo")
        self.sentence_layers = [
            [
                ProjectedLSTM(units, name=f"forward_{k}"),
                ProjectedLSTM(units, go_backwards=True, name=f"backward_{k}"),
            ]
            for k in range(num_layers)
        ]
        self.pooler = MaximumOverWords(name="pooler")
        self.dropout = keras.layers.Dropout(dropout, name="dropout")
        self.hidden = keras.layers.Dense(
            hidden_units, activation="tanh", name="hidden"
        )
        self.logits = keras.layers.Dense(
            num_outputs, dtype="float32", name="logits"
        )
        # === Functional model ===
        inputs = _sentence_inputs("")
        x = self._sentence(*inputs.values())
        if pair:
            second = _sentence_inputs("second_")
            y = self._sentence(*second.values())
            inputs |= second
            x = ops.concatenate([x, y, ops.abs(x - y), x * y], axis=-1)
        x = self.hidden(self.dropout(x))
        outputs = self.logits(self.dropout(x))
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)
        # === Config ===
        self.num_outputs = num_outputs
        self.pair = pair
        self.num_layers = num_layers
        self.units = units
        self.hidden_units = hidden_units

    def _sentence(self, character_ids: Tensor, padding_mask: Tensor) -> Tensor:
        """Returns the vector of a sentence."""
        x = self.dropout(self.encoder(character_ids, padding_mask))
        for directions in self.sentence_layers:
            x = ops.concatenate(
                [layer(x, mask=padding_mask) for layer in directions], axis=-1
            )
        return self.pooler(self.dropout(x), padding_mask)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild the model."""
        return {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
            "num_outputs": self.num_outputs,
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "pair": self.pair,
            "num_layers": self.num_layers,
            "units": self.units,
            "hidden_units": self.hidden_units,
            "dropout": self.dropout.rate,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict | None = None
    ) -> "ElmoClassifier":
        """Builds the model that `get_config` describes."""
        encoder = keras.saving.deserialize_keras_object(
            config["encoder"], custom_objects=custom_objects
        )
        return cls(**{**config, "encoder": encoder})


def _sentence_inputs(prefix: str) -> dict[str, Tensor]:
    shapes = {"character_ids": (None, MAX_CHARACTERS), "padding_mask": (None,)}
    return {
        prefix + name: keras.Input(shape, dtype="int32", name=prefix + name)
        for name, shape in shapes.items()
    }


def _add_boundaries(
    character_ids: Tensor, padding_mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Adds begin and end marks to each sentence."""
    begin, end = _BOUNDARIES
    padding_mask = ops.cast(padding_mask, "int32")
    num_words = ops.sum(padding_mask, axis=1, keepdims=True)
    ids = ops.pad(ops.cast(character_ids, "int32"), ((0, 0), (1, 1), (0, 0)))
    # 0 for the begin, 1 for the first word.
    ones = ops.ones_like(ids[:, :, 0])
    position = ops.cumsum(ones, axis=1) - 1
    is_end = ops.equal(position, num_words + 1)
    ids = ops.where(ops.expand_dims(is_end, -1), end, ids)
    ids = ops.where(ops.expand_dims(ops.equal(position, 0), -1), begin, ids)
    return ids, position <= num_words + 1
