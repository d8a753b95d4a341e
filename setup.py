"""Packaging of keras_distil."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def read_version() -> str:
    """Returns the version without importing the package."""
    text = (ROOT / "keras_distil" / "utils" / "version.py").read_text("utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if match is None:
        raise RuntimeError(
            "`keras_distil/utils/version.py` must hold a line like "
            '__version__ = "0.1.0".'
        )
    return match.group(1)


setup(
    name="keras-distil",
    version=read_version(),
    description="Distil a BERT encoder into a small, fast one, in Keras.",
    long_description=(ROOT / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["keras_distil", "keras_distil.*"]),
    # `keras_distil/recipes` is a link to `recipes/`; an archive has its files.
    package_data={"keras_distil": ["assets/*", "recipes/*.yaml"]},
    install_requires=[
        # Runs exported students; the quantiser makes them small.
        "ai-edge-litert>=2.1",
        "ai-edge-quantizer>=0.6",
        "array_record>=0.8",
        "filelock>=4.2.1",
        "huggingface_hub>=0.34",
        # TFDS 4.9.10 imports it and declares it for Python 3.8 only.
        "importlib_resources>=6.0",
        "keras>=3.15.1",
        "keras-hub>=0.32",
        "keras-nlp>=0.32",
        "keras-tuner>=1.4.8",
        "matplotlib>=3.10",
        "numpy>=2.0",
        "pydantic>=2.11",
        "pyyaml>=6.0.2",
        "rich>=14.0",
        "safetensors>=0.6",
        "scikit-learn>=1.5",
        # Its docstrings are part of the corpus that needs no download.
        "scipy>=1.14",
        "tensorboard>=2.20",
        "tensorflow>=2.21,<2.22",
        "tensorflow-datasets>=4.9.9",
        # Its compiled ops fit one TensorFlow minor version only.
        "tensorflow-text>=2.21,<2.22",
        "tokenizers>=0.21",
        "typer>=0.16",
    ],
    extras_require={
        "beam": ["apache-beam>=2.77"],
        # Builds the site of the docs.
        "docs": ["mkdocs-material>=9.7", "mkdocstrings[python]>=1.0"],
        "hf": ["transformers>=4.57"],
        "onnx": ["onnx>=1.17", "onnxruntime>=1.20"],
        # What benchmarks/train_step.py measures beside keras_distil.
        "peers": ["torch>=2.8", "transformers>=4.57"],
        "test": [
            # Its local runner; the tests compare what it writes.
            "apache-beam>=2.77",
            # They run the notebook of the docs.
            "ipykernel>=6.29",
            "mypy>=1.18",
            "nbclient>=0.10",
            "packaging>=24.0",
            # The extra `onnx`.
            "onnx>=1.17",
            "onnxruntime>=1.20",
            "pytest>=8.4",
            "pytest-xdist>=3.8",
            "ruff>=0.14",
            "types-PyYAML>=6.0.12",
        ],
    },
    entry_points={
        "console_scripts": ["keras-distil = keras_distil.__main__:main"]
    },
    classifiers=[
        "Intended Audience :: Developers",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
