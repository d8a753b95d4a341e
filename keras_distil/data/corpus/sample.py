"""Some of more texts than fit into memory."""

import hashlib
import heapq


class Sample:
    """The texts with the smallest hashes of all that are added.

    Which ones they are depends on the texts and the seed, and not on the order
    in which they come or on how often. Memory grows with what is kept.

    Args:
        count: int >= 0, the most texts to keep.
        seed: int, determines the hashes.

    Example:
        >>> sample = Sample(2, seed=0)
        >>> for text in ("one", "two", "one", "three", "four"):
        ...     sample.add(text)
        >>> len(sample), sample.wants("one")
        (2, False)
    """

    def __init__(self, count: int, *, seed: int) -> None:
        self._count = count
        self._key = str(seed).encode()
        # The largest hash first, as a heap has the smallest first.
        self._heap: list[tuple[int, str]] = []
        self._kept: set[int] = set()

    def __len__(self) -> int:
        """The number of texts that are kept."""
        return len(self._heap)

    def wants(self, text: str) -> bool:
        """Whether a text would be kept if it were added, and is not yet."""
        return self._has_room(self._hash(text))

    def add(self, text: str) -> None:
        """Adds a text, in the place of another if there is no more room."""
        found = self._hash(text)
        if not self._has_room(found):
            return
        self._kept.add(found)
        if len(self._heap) < self._count:
            heapq.heappush(self._heap, (-found, text))
        else:
            largest, _ = heapq.heapreplace(self._heap, (-found, text))
            self._kept.remove(-largest)

    def texts(self) -> list[str]:
        """Returns the texts that are kept, in the order of their hashes."""
        return [text for _, text in sorted(self._heap, reverse=True)]

    def _hash(self, text: str) -> int:
        digest = hashlib.blake2b(text.encode(), digest_size=8, key=self._key)
        return int.from_bytes(digest.digest(), "little")

    def _has_room(self, found: int) -> bool:
        if found in self._kept or not self._count:
            return False
        return len(self._heap) < self._count or found < -self._heap[0][0]
