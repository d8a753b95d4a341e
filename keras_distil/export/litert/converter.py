"""Converts a SavedModel to a LiteRT file, in a separate process.

TensorFlow's converter leaks memory with every conversion, so the exporter runs

    python -m keras_distil.export.litert.converter SPEC

SPEC is the JSON of a `Conversion`. The last line of the output is JSON: the
file's operators, or the error.
"""

import collections
import dataclasses
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from keras_distil.export.litert.graph import DECODER, HEAD
from keras_distil.utils import disk

PRECISIONS = ("float32", "float16", "dynamic_int8", "full_int8", "int4")

_IDENTIFIER = b"TFL3"
# Bits of the weights, and the granularity of their scales.
_DYNAMIC = {
    "dynamic_int8": (8, "CHANNELWISE"),
    "int4": (4, "BLOCKWISE_32"),
}
# The operators that "full_int8" computes in integers: all products and what
# stands between them. Normalisation and softmax in 8 bits would ruin the model
# (see docs/export/litert.md).
_STATIC_OPERATORS = (
    "FULLY_CONNECTED",
    "BATCH_MATMUL",
    "GELU",
    "RESHAPE",
    "TRANSPOSE",
)
# The converter's name for a graph's outputs.
_OUTPUT = "StatefulPartitionedCall"
# Prefix of TensorFlow operators that LiteRT lacks, as do most phones.
_FLEX = "Flex"


@dataclasses.dataclass(frozen=True)
class Conversion:
    """The settings of one conversion.

    Attributes:
        saved_model: folder of the SavedModel.
        signatures: the names of its signatures, all of which are converted.
        precision: one of `PRECISIONS`.
        target: the file to write.
        inputs: for "full_int8", a folder with the inputs of each
            signature, `NAME_INDEX.safetensors`.
        by_tensorflow: whether TensorFlow's converter makes the weights
            smaller, which knows the operators of any model.
    """

    saved_model: str
    signatures: list[str]
    precision: str
    target: str
    inputs: str | None = None
    by_tensorflow: bool = False


class ConversionError(RuntimeError):
    """LiteRT cannot run the model as it is."""


def convert(conversion: Conversion) -> list[str]:
    """Writes the LiteRT file.

    Returns:
        The names of its operators, sorted.

    Raises:
        ConversionError: if an operator is not built into LiteRT.
        OSError: if the file cannot be written.
    """
    content = _float_model(conversion)
    content, operators = _look_up_embeddings(content)
    check_operators(operators)
    if conversion.precision != "float32" and not conversion.by_tensorflow:
        content = _quantized(conversion, content)
    Path(conversion.target).write_bytes(content)
    return sorted(operators)


def check_operators(operators: collections.Counter[str]) -> None:
    """Raises ConversionError if operators are not built into LiteRT."""
    foreign = sorted(
        name
        for name in operators
        if name.startswith(_FLEX) or name.startswith("CUSTOM")
    )
    if foreign:
        raise ConversionError(
            f"needs {', '.join(foreign)}, which LiteRT has not built in"
        )


def _float_model(conversion: Conversion) -> bytes:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(
        conversion.saved_model, signature_keys=conversion.signatures
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if conversion.by_tensorflow and conversion.precision != "float32":
        # 8 bits for weights, unless another type is named.
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if conversion.precision == "float16":
            converter.target_spec.supported_types = [tf.float16]
    try:
        return converter.convert()
    except (tf.errors.OpError, MemoryError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise ConversionError(
            f"failed in the converter: {said:.300}"
        ) from error
    except OSError:
        raise
    except Exception as error:
        # The lines after the first name what cannot be converted.
        said = " ".join(str(error).split())
        raise ConversionError(
            f"cannot be converted by built-in operators alone: {said:.500}"
        ) from error


def _look_up_embeddings(
    content: bytes,
) -> tuple[bytes, collections.Counter[str]]:
    """Replaces GATHER of a constant's rows by EMBEDDING_LOOKUP.

    The result is the same, but EMBEDDING_LOOKUP also reads a quantised table:
    the table is then stored once for the embeddings and the decoder, and only
    the rows that are read are converted to floats.

    Returns:
        The changed model, and the count of each operator in it.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    names = {
        value: name
        for name, value in vars(schema.BuiltinOperator).items()
        if isinstance(value, int)
    }
    # Codes above 127 are in the newer of two fields.
    codes = [
        max(code.builtinCode, code.deprecatedBuiltinCode)
        for code in model.operatorCodes
    ]
    lookup = len(codes)
    found: collections.Counter[str] = collections.Counter()
    for graph, operator in _operators(model):
        code = codes[operator.opcodeIndex]
        if code == schema.BuiltinOperator.GATHER and _is_table_lookup(
            model, graph, operator
        ):
            table, indices = operator.inputs
            operator.inputs = [indices, table]
            operator.opcodeIndex = lookup
            operator.builtinOptionsType = schema.BuiltinOptions.NONE
            operator.builtinOptions = None
            found["EMBEDDING_LOOKUP"] += 1
        elif code == schema.BuiltinOperator.CUSTOM:
            custom = model.operatorCodes[operator.opcodeIndex].customCode
            name = custom.decode()
            found[name if name.startswith(_FLEX) else f"CUSTOM {name}"] += 1
        else:
            found[names[code]] += 1
    if not found["EMBEDDING_LOOKUP"]:
        return content, +found
    added = schema.OperatorCodeT()
    added.builtinCode = schema.BuiltinOperator.EMBEDDING_LOOKUP
    added.deprecatedBuiltinCode = schema.BuiltinOperator.EMBEDDING_LOOKUP
    added.version = 1
    model.operatorCodes.append(added)
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output()), found


def _operators(model: Any) -> Iterator[tuple[Any, Any]]:
    for graph in model.subgraphs:
        for operator in graph.operators:
            yield graph, operator


def _is_table_lookup(model: Any, graph: Any, operator: Any) -> bool:
    """Whether an operator looks up rows of a constant by a list of indices."""
    table, indices = (graph.tensors[index] for index in operator.inputs[:2])
    options = operator.builtinOptions
    return (
        len(operator.inputs) == 2
        and options.axis == 0
        and options.batchDims == 0
        and len(indices.shape) == 1
        and model.buffers[table.buffer].data is not None
    )


def _quantized(conversion: Conversion, content: bytes) -> bytes:
    from ai_edge_quantizer import quantizer

    made = quantizer.Quantizer(
        bytearray(content), _recipe(conversion.precision)
    )
    with warnings.catch_warnings():
        # The quantiser keeps all tensors on purpose, but its runtime warns.
        warnings.filterwarnings("ignore", ".*preserve_all_tensors")
        scales = None
        if conversion.precision == "full_int8":
            scales = made.calibrate(
                {
                    name: list(_read_inputs(conversion, name))
                    for name in conversion.signatures
                }
            )
        result = made.quantize(
            scales, enable_progress_bar=False, enable_progress_report=False
        )
    return bytes(result.quantized_model)


def _read_inputs(
    conversion: Conversion, name: str
) -> Iterator[dict[str, np.ndarray]]:
    folder = Path(conversion.inputs or "")
    for path in sorted(folder.glob(f"{name}_*.safetensors")):
        yield load_file(path)


def _recipe(precision: str) -> Any:
    """The quantiser's recipe: how to treat each operator."""
    from ai_edge_quantizer import qtyping, recipe, recipe_manager

    manager = recipe_manager.RecipeManager()
    operators = qtyping.TFLOperationName
    if precision == "float16":
        manager.add_quantization_config(
            regex=".*",
            operation_name=operators.ALL_SUPPORTED,
            algorithm_key=recipe.AlgorithmName.FLOAT_CASTING,
            op_config=qtyping.OpQuantizationConfig(
                weight_tensor_config=qtyping.TensorQuantizationConfig(
                    num_bits=16, dtype=qtyping.TensorDataType.FLOAT
                ),
                compute_precision=qtyping.ComputePrecision.FLOAT,
                explicit_dequantize=True,
            ),
        )
        return manager.get_quantization_recipe()
    if precision in _DYNAMIC:
        bits, granularity = _DYNAMIC[precision]
        for operator in ("EMBEDDING_LOOKUP", "FULLY_CONNECTED"):
            manager.add_dynamic_config(
                regex=".*",
                operation_name=operators[operator],
                num_bits=bits,
                granularity=recipe.QuantGranularity[granularity],
            )
        _leave_head(manager, operators.FULLY_CONNECTED)
        return manager.get_quantization_recipe()
    for operator in _STATIC_OPERATORS:
        manager.add_static_config(
            regex=".*",
            operation_name=operators[operator],
            activation_num_bits=8,
            weight_num_bits=8,
        )
    manager.add_dynamic_config(
        regex=".*", operation_name=operators.EMBEDDING_LOOKUP, num_bits=8
    )
    _leave_head(manager, operators.FULLY_CONNECTED)
    return manager.get_quantization_recipe()


def _leave_head(manager: Any, operation_name: Any) -> None:
    """Keeps the head's layers, except a decoder, in float32.

    They are small, and read the last hidden states, whose outliers do not fit
    one common scale (for measurements see
    docs/export/litert.md).
    """
    from ai_edge_quantizer import recipe

    manager.add_quantization_config(
        # Fused operators have joined names; the last one has the name of the
        # graph's output.
        regex=f"^(?!.*{DECODER}/).*{HEAD}/.*|^{_OUTPUT}.*",
        operation_name=operation_name,
        algorithm_key=recipe.AlgorithmName.NO_QUANTIZE,
    )


def main(path: str) -> int:
    """Converts the model and prints one line of JSON."""
    conversion = Conversion(**json.loads(Path(path).read_text("utf-8")))
    try:
        said: dict[str, Any] = {"operators": convert(conversion)}
    except ConversionError as error:
        said = {"error": str(error)}
    except OSError as error:
        what = "unwritten" if disk.is_of_disk(error) else "error"
        said = {what: disk.reason(error)}
    print(json.dumps(said))
    return 0 if "operators" in said else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
