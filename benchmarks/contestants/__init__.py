"""Training steps to compare, each in a separate process.

`process.Contestant` starts one of `NAMES`, or the products of one of
`PRODUCTS`, and lets it take turns.
"""

# For each name: a description, and packages needed beyond keras_distil's.
NAMES = {
    "keras_distil": ("keras_distil", ()),
    "pytorch": ("PyTorch, the authors' method", ("torch", "transformers")),
    "keras_distiller": ("keras.distillation.Distiller", ()),
    "plain_keras": ("plain Keras step", ()),
}
PEERS = tuple(name for name in NAMES if name != "keras_distil")
PRECISIONS = ("float32", "mixed_bfloat16")
# Libraries whose matrix products are the peak: packages beyond keras_distil's.
PRODUCTS = {
    "numpy": ("threadpoolctl",),
    "tensorflow": (),
    "xla": (),
    "pytorch": ("torch",),
}

# The same for all contestants.
MLM_WEIGHT, SOFT_TARGET_WEIGHT, COSINE_WEIGHT = 2.0, 5.0, 1.0
TEMPERATURE = 2.0
LEARNING_RATE = 5e-4
CLIP_NORM = 5.0
