"""Instructions for folders whose weights are in an unsupported format."""

import shlex
from pathlib import Path

from keras_distil.utils.disk import read_json

_PICKLE = "pytorch_model.bin"
# Tensor by tensor, so neither heads nor config.json can change. `weights_only`
# refuses to run anything that a pickle holds besides tensors.
_CONVERT_PICKLE = (
    "import pathlib, sys, torch; from safetensors.torch import save_file; "
    "p = pathlib.Path(sys.argv[1]); "
    "d = [torch.load(f, map_location='cpu', weights_only=True) "
    "for f in sorted(p.glob('pytorch_model*.bin'))]; "
    "save_file({k: v.clone().contiguous() for s in d for k, v in s.items()}, "
    "p / 'model.safetensors', metadata={'format': 'pt'})"
)
# The class is the one that wrote the weights. Weights that the file lacks stay
# "not a number", and the script stops rather than write a random head.
_CONVERT_OTHER = (
    "import sys, transformers as t; "
    "from transformers.modeling_{0}_pytorch_utils import load_{1}_checkpoint_"
    "in_pytorch_model as load; from safetensors.torch import save_file; "
    "p = sys.argv[1]; c = t.AutoConfig.from_pretrained(p); "
    "m = getattr(t, c.architectures[0])(c); "
    "[w.data.fill_(float('nan')) for w in m.parameters()]; "
    "load(m, p + '/{2}'{3}); "
    "d = {{k: v.clone().contiguous() for k, v in m.state_dict().items()}}; "
    "no = [k for k, v in d.items() if v.isnan().any()]; "
    "no and sys.exit('the file lacks ' + ', '.join(no)); "
    "save_file(d, p + '/model.safetensors', metadata={{'format': 'pt'}})"
)
# For each file of weights: its library, the name that the last `transformers`
# to support it has for that library, and the packages needed.
_OTHERS = {
    "tf_model.h5": (
        "TensorFlow's",
        ("tf", "tf2", "tf_model.h5", ", allow_missing_keys=True"),
        "tensorflow tf-keras",
    ),
    "flax_model.msgpack": (
        "Flax's",
        ("flax", "flax", "flax_model.msgpack", ""),
        "flax",
    ),
}
_MOST_NAMES = 5


def describe_missing_weights(directory: Path, expected: str) -> str:
    """Says what a folder holds instead of safetensors, and what to do.

    Args:
        directory: a folder without safetensors.
        expected: the files that would be read.

    Returns:
        One line. A command in it writes `model.safetensors` into the folder
        and leaves all other files unchanged.
    """
    for name in (_PICKLE, f"{_PICKLE}.index.json"):
        if (directory / name).is_file():
            return _describe_pickle(directory, name)
    for name, details in _OTHERS.items():
        if (directory / name).is_file():
            return _describe_other(directory, name, *details)
    names = sorted(path.name for path in directory.iterdir())
    shown = ", ".join(names[:_MOST_NAMES]) or "nothing"
    more = ", ..." if len(names) > _MOST_NAMES else ""
    return f"`{directory}` has neither {expected}. It has: {shown}{more}."


def _describe_pickle(directory: Path, name: str) -> str:
    if name != _PICKLE:
        weight_map = read_json(directory / name).get("weight_map")
        shards = weight_map.values() if isinstance(weight_map, dict) else []
        for shard in sorted(set(map(str, shards))):
            if not (directory / shard).is_file():
                return (
                    f"`{directory / name}` names `{shard[:80]}`, which is "
                    "missing. Copy or download it again."
                )
    return (
        f"`{directory}` has only `{name}`, a pickle, which is never loaded. "
        "Convert it once, if you trust it, where PyTorch is installed: "
        + _python(_CONVERT_PICKLE, directory)
    )


def _describe_other(
    directory: Path,
    name: str,
    whose: str,
    names: tuple[str, ...],
    packages: str,
) -> str:
    start = f"`{directory}` has only {whose} `{name}`, which is not read."
    config = directory / "config.json"
    classes = read_json(config).get("architectures") if config.is_file() else 0
    if not classes:
        return (
            f"{start} To convert it, `architectures` in `{config}` must name "
            'the class that wrote it: add for example "architectures": '
            '["BertForMaskedLM"].'
        )
    return (
        f"{start} Convert it once, in an environment of its own: pip install "
        f"torch 'transformers<5' {packages} && "
        + _python(_CONVERT_OTHER.format(*names), directory)
    )


def _python(code: str, directory: Path) -> str:
    return f'python -c "{code}" {shlex.quote(str(directory))}'
