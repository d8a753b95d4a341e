"""Exporters, one per file, each checked by the gate of `parity`."""

from keras_distil.export.formats import export as export
from keras_distil.export.formats import find_exporter as find_exporter
from keras_distil.export.hugging_face import (
    export_hugging_face as export_hugging_face,
)
from keras_distil.export.litert.exporter import FITTED as FITTED
from keras_distil.export.litert.exporter import PRECISIONS as PRECISIONS
from keras_distil.export.litert.exporter import export_litert as export_litert
from keras_distil.export.onnx import export_onnx as export_onnx
from keras_distil.export.parity import TOLERANCES as TOLERANCES
from keras_distil.export.parity import Examples as Examples
from keras_distil.export.parity import ParityError as ParityError
from keras_distil.export.parity import Tolerance as Tolerance
from keras_distil.export.preset import export_preset as export_preset
from keras_distil.export.report import ExportReport as ExportReport
from keras_distil.export.saved_model import (
    export_saved_model as export_saved_model,
)
from keras_distil.export.static_table import (
    export_static_table as export_static_table,
)
