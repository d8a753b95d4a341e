"""What an export returns."""

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
        path: what was written, a folder or a file.
        format: such as "saved_model".
        precision: of its weights.
        comparison: how far it is from the student.
        tolerance: how far it might have been.
        size_mb: float, 1e6 bytes.
        operators: names of those that its runtime must have, where it says.
        note: what must be known before it is used; None if nothing must.
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
        """The same as data that fits JSON; the path by its name alone."""
        return {
            **dataclasses.asdict(self),
            "path": self.path.name,
            "operators": list(self.operators),
        }

    def write(self, folder: Path) -> None:
        """Keeps it beside what was written, as `parity.json`."""
        text = json.dumps(self.to_json(), indent=2) + "\n"
        (folder / REPORT_FILE).write_text(text, "utf-8")

    def __str__(self) -> str:
        """Returns a line for the terminal."""
        return f"{self.path} ({self.size_mb:.1f} MB): {self.comparison}"
