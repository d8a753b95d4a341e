"""By what a file of predictions names the rows of a task."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

# A hash as a file of predictions writes it.
HASH_DIGITS = 16


@dataclasses.dataclass(frozen=True, eq=False)
class RowKeys:
    """The rows of a part of a task, and which examples are made of each.

    Attributes:
        name: the part, such as "train", for messages.
        hashes: uint64, (rows,), of the texts; see `text_digests`.
        ids: uint64, (rows,), hashes of the rows' ids; None without ids.
        owners: int, (examples,), ascending, the row of each example; None if
            every example is a row.
        places: int, (3, pieces), for words: the word, counted through all
            rows, the example and the position of a first piece; or a function
            that returns this. None for others.
        counts: int, (rows,), the words of each row; None for others.
    """

    name: str
    hashes: npt.NDArray[np.uint64]
    ids: npt.NDArray[np.uint64] | None = None
    owners: np.ndarray | None = None
    places: np.ndarray | Callable[[], np.ndarray] | None = None
    counts: np.ndarray | None = None

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.hashes)

    def find_places(self) -> np.ndarray:
        """Returns `places`.

        Raises:
            ValueError: if the rows are not of words.
        """
        if self.places is None or self.counts is None:
            raise ValueError(
                f"The part {self.name} must say where its words are to be "
                "given predictions of words. Received: rows of texts."
            )
        return self.places() if callable(self.places) else self.places

    def windows(self, examples: int) -> np.ndarray:
        """Returns the first example of each row, and their number.

        Args:
            examples: the number of examples.
        """
        owners = np.arange(examples) if self.owners is None else self.owners
        return np.searchsorted(owners, np.arange(len(self) + 1))

    def chosen(self, rows: np.ndarray, name: str) -> "RowKeys":
        """Returns the keys of some rows, without their examples.

        Args:
            rows: bool, (rows,).
            name: name of the part.
        """
        ids = None if self.ids is None else self.ids[rows]
        return RowKeys(name, self.hashes[rows], ids)


def written_hashes(hashes: Sequence[int] | np.ndarray) -> list[str]:
    """Returns hashes as a file of predictions writes them."""
    return [f"{int(each):0{HASH_DIGITS}x}" for each in hashes]
