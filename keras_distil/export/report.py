"""The report that an export returns."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from keras_distil.export.parity import Comparison, Tolerance

REPORT_FILE = "parity.json"


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """An export that passed its gate.

    Attributes:
        path: the folder or file that was written.
        format: the format, such as "saved_model".
        precision: precision of its weights.
        comparison: how far it differs from the student.
        tolerance: how far it was allowed to differ.
        size_mb: float, size in units of 1e6 bytes.
        operators: names of the operators that its runtime needs, if known.
        note: a caveat for users of the export, or None.
    """

    path: Path
    format: str
    precision: str
    comparison: Comparison
    tolerance: Tolerance
    size_mb: float
    operators: tuple[str, ...] = ()
    note: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the report as JSON data; of the path, only the name."""
        return {
            **dataclasses.asdict(self),
            "path": self.path.name,
            "operators": list(self.operators),
        }

    def write(self, folder: Path) -> None:
        """Writes it into the export's folder, as `parity.json`."""
        text = json.dumps(self.to_json(), indent=2) + "\n"
        (folder / REPORT_FILE).write_text(text, "utf-8")

    def __str__(self) -> str:
        """Returns one line for the terminal."""
        return f"{self.path} ({self.size_mb:.1f} MB): {self.comparison}"
