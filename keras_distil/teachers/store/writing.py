"""Writes a store: whole shards, going on where an earlier pass ended."""

import dataclasses
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from keras_distil import data
from keras_distil.data.corpus.shards import write_records
from keras_distil.teachers.store import manifest
from keras_distil.utils import disk
from keras_distil.utils.progress import duration

# The most bytes of a shard.
SHARD_BYTES = 2**26


@dataclasses.dataclass(frozen=True)
class ShardPlan:
    """A shard to write.

    Attributes:
        name: name of its file, without the ending.
        part: number of the part that it belongs to.
        rows: number of its records.
        size_bytes: its estimated size.
        make: makes the records; called with a function to which it says now
            and then how many are done.
    """

    name: str
    part: int
    rows: int
    size_bytes: int
    make: Callable[[Callable[[int], None]], Sequence[bytes]]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is written into a store.

    Attributes:
        parts: the parts, without their shards.
        shards: the shards, in the order in which they are written.
        describe: from the bytes of all shards to what they are, for the line
            that is said before the work.
        remedy: how to need less space.
        seconds: from the shards that are left to the seconds that they take;
            None if it is not known.
    """

    parts: Sequence[manifest.Part]
    shards: Sequence[ShardPlan]
    describe: Callable[[int], str]
    remedy: str
    seconds: Callable[[Sequence[ShardPlan]], float] | None = None


def make_store(
    folder: Path,
    settings: manifest.Settings,
    schema: type[manifest.Manifest],
    plan: Callable[[], Plan],
    *,
    say: Callable[[str], None] | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Writes a store, unless it exists.

    An interrupted pass continues with the shard it was writing. If several
    processes need the same store, one of them writes it.

    Args:
        folder: the folder of the finished store.
        settings: everything that its content depends on.
        schema: the manifest of its kind.
        plan: returns what to write; called if something is to be written.
        say: called with one line that states the size before the work begins.
        progress: called now and then with the number of records done and in
            total.

    Raises:
        CorpusError: if the folder holds another store.
        OSError: if the disk is too small, full or may not be written.
    """
    with disk.writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f".{folder.name}.lock")
    with disk.locked(lock, "caches this teacher"):
        if not _is_made(folder, settings, schema):
            job = _Job(folder, settings, plan())
            job.run(say or (lambda line: None), progress)


def _is_made(
    folder: Path, settings: manifest.Settings, schema: type[manifest.Manifest]
) -> bool:
    """Checks whether the store exists; raises if the folder holds another."""
    if not folder.exists():
        return False
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        return False
    existing = manifest.read_manifest(folder, schema).settings
    if existing != settings:
        raise data.CorpusError(
            f"{folder} holds another cache of a teacher: "
            f"{', '.join(manifest.differences(existing, settings))}. Give "
            "another folder, or remove it."
        )
    return True


class _Job:
    """The writing of one store, in a folder next to the final one."""

    def __init__(
        self, folder: Path, settings: manifest.Settings, plan: Plan
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._plan = plan
        self._scratch = folder.with_name(
            f".{folder.name}.{settings.digest[:16]}.partial"
        )

    def run(
        self,
        say: Callable[[str], None],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        """Writes the store and moves it to its folder."""
        plan = self._plan
        finished = {each.name: self._done(each) for each in plan.shards}
        self._report_size(finished, say)
        total = sum(each.rows for each in plan.shards)
        done = 0

        def count(rows: int) -> None:
            if progress is not None:
                progress(done + rows, total)

        for each in plan.shards:
            if finished[each.name] is None:
                finished[each.name] = self._write(each, count)
            done += each.rows
            count(0)
        parts = [
            part.model_copy(
                update={
                    "shards": [
                        finished[each.name]
                        for each in plan.shards
                        if each.part == number
                    ]
                }
            )
            for number, part in enumerate(plan.parts)
        ]
        manifest.write_manifest(self._scratch, self._settings, parts)
        for sidecar in self._scratch.glob("*.done"):
            sidecar.unlink()
        with disk.writing(self._folder):
            os.replace(self._scratch, self._folder)
            disk.flush(self._folder.parent)

    def _path(self, shard: ShardPlan) -> Path:
        return self._scratch / f"{shard.name}.array_record"

    def _sidecar(self, shard: ShardPlan) -> Path:
        """The file that marks a shard as complete and holds its hash."""
        return self._path(shard).with_suffix(".done")

    def _done(self, shard: ShardPlan) -> manifest.Shard | None:
        """Returns the shard's entry if it exists and is complete."""
        try:
            entry = manifest.Shard.model_validate_json(
                self._sidecar(shard).read_text("utf-8")
            )
            whole = disk.file_sha256(self._path(shard)) == entry.sha256
        except (OSError, ValueError):
            return None
        return entry if whole else None

    def _report_size(
        self,
        finished: dict[str, manifest.Shard | None],
        say: Callable[[str], None],
    ) -> None:
        """Reports the size, and raises OSError if the disk is too small."""
        plan = self._plan
        left = [each for each in plan.shards if finished[each.name] is None]
        size = sum(each.size_bytes for each in plan.shards)
        missing = sum(each.size_bytes for each in left)
        with disk.writing(self._scratch):
            self._scratch.mkdir(exist_ok=True)
            free = shutil.disk_usage(self._scratch).free
        line = (
            f"Teacher cache: {size_text(size)} for {plan.describe(size)}, in "
            f"{self._folder}; {size_text(missing)} to write, "
            f"{size_text(free)} free"
        )
        if missing > free:
            say(line)
            raise OSError(
                f"The teacher's cache needs {size_text(missing)} more, and "
                f"{self._folder.parent} has {size_text(free)} free. "
                f"{plan.remedy}"
            )
        if plan.seconds is not None and left:
            line += f"; about {duration(plan.seconds(left))} here"
        say(line)

    def _write(
        self, shard: ShardPlan, count: Callable[[int], None]
    ) -> manifest.Shard:
        entry = manifest.Shard(
            **write_records(self._path(shard), shard.make(count))
        )
        sidecar = self._sidecar(shard)
        partial = sidecar.with_name(f".{sidecar.name}.partial")
        with disk.replacing(sidecar, partial):
            partial.write_text(entry.model_dump_json(), "utf-8")
        return entry


def size_text(count: int) -> str:
    """Formats a number of bytes."""
    if count < 1e9:
        return f"{count / 1e6:.1f} MB"
    return f"{count / 1e9:.1f} GB"
