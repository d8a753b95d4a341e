"""Small Keras models that are no transformers, for several test modules."""

import keras
import numpy as np
import toy

CLASSES = 3


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    """Two dense layers with a method of its own in place of a graph."""

    def __init__(self, width, activation=None, times=1, **kwargs):
        super().__init__(**kwargs)
        self.width, self.activation, self.times = width, activation, times
        self.hidden = keras.layers.Dense(width, "tanh", name="hidden")
        self.unused = keras.layers.Dense(2, name="unused")
        self.unused.trainable = False
        self.last = keras.layers.Dense(CLASSES, activation, name="last")

    def build(self, shape):
        self.hidden.build(shape)
        self.unused.build(shape)
        self.last.build((None, self.width))

    def call(self, x):
        for _ in range(self.times):
            states = self.hidden(x)
        return self.last(states)

    def get_config(self):
        config = {"width": self.width, "activation": self.activation}
        return {**super().get_config(), **config, "times": self.times}


def make_mlp(
    width, *, seed, outputs=CLASSES, last=None, dtype=None, shape=(5,)
):
    """A dense layer "hidden" and one "last", with weights that matter."""
    model = keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Dense(width, "tanh", dtype=dtype, name="hidden"),
            keras.layers.Dense(outputs, last, dtype=dtype, name="last"),
        ],
        name=f"mlp_{width}",
    )
    return toy.randomize(model, seed, scale=0.7)


def make_convnet(width, *, seed, norm=False, dropout=0.0):
    """A convolution "conv" on images of 4 x 4 pixels."""
    layers = [
        keras.Input((4, 4, 2)),
        keras.layers.Conv2D(width, 3, padding="same", name="conv"),
    ]
    if norm:
        layers.append(keras.layers.BatchNormalization(name="norm"))
    layers += [
        keras.layers.Activation("relu"),
        keras.layers.Dropout(dropout, seed=seed),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(CLASSES, name="last"),
    ]
    model = keras.Sequential(layers, name=f"convnet_{width}")
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            toy.randomize(layer, seed, scale=0.7)
    return model


def make_subclassed(width, *, seed, activation=None, **options):
    model = Subclassed(width, activation, **options)
    model.build((None, 5))
    return toy.randomize(model, seed, scale=0.7)


def make_batch(count=6, shape=(5,), seed=3, targets=None):
    """A Keras triple of NumPy arrays; the third example has no weight."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(count, *shape)).astype("float32")
    if targets is None:
        targets = generator.integers(0, CLASSES, count).astype("int32")
    weight = generator.uniform(0.2, 2.0, count).astype("float32")
    weight[2] = 0.0
    return x, targets, weight
