"""Paragraphs of a TensorFlow Datasets (TFDS) data set, streamed."""

import contextlib
import dataclasses
import difflib
import logging
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

from keras_distil.data.corpus.lost_text import Place
from keras_distil.data.corpus.text_files import (
    MAX_LINE_CHARACTERS,
    UNIT_BYTES,
    CorpusReport,
)
from keras_distil.utils.checks import check_tfds_name
from keras_distil.utils.error_text import first_line
from keras_distil.utils.extras import names_package

_MIN_WORDS = 5
# Books of PG-19 have wrapped lines: only a blank line ends a paragraph.
_BLANK_LINES = re.compile(r"\n[ \t\r]*\n")


@dataclasses.dataclass(frozen=True)
class TfdsText:
    """A text feature of a TFDS data set, split into paragraphs at blank lines.

    A data set that is not on this machine is downloaded and prepared first.
    Examples are read one by one, in storage order. Paragraphs of fewer than
    5 words (headings, list items) or of more than 1,000,000 characters are
    skipped and counted, as are examples that are not UTF-8.

    Attributes:
        name: in TFDS's form, `name[/config][:version]`.
        split: a split, or a part of one such as `train[:1%]`.
        field: the feature that holds the text.
        data_dir: folder of prepared data sets. Defaults to TFDS's own.

    Raises:
        ValueError: if the name does not have that form. A name with a
            namespace would make TFDS download and run code.

    Example:
        >>> TfdsText("wikipedia/20230601.en", split="train[:1%]")
        TfdsText(name='wikipedia/20230601.en', split='train[:1%]', \
field='text', data_dir=None)
    """

    name: str
    split: str = "train"
    field: str = "text"
    data_dir: str | os.PathLike | None = None

    def __post_init__(self) -> None:
        """Checks that the name cannot make TFDS run foreign code."""
        check_tfds_name(self.name)

    def describe(self) -> dict[str, Any]:
        """Returns the version and the sizes of the data to read.

        Raises:
            ValueError: if the data set, the split or the field is unknown, or
                the field does not hold text.
            ImportError: if TFDS, or a package that the data set needs, is not
                installed.
            ConnectionError: if the data set cannot be downloaded.
        """
        builder = self._get_prepared()
        split = builder.info.splits[self.split]
        return {
            "type": "tfds_text",
            "name": builder.info.full_name,
            "split": self.split,
            "field": self.field,
            # (file, first example, examples): these differ between two
            # preparations where the examples differ.
            "files": [
                [os.path.basename(part.filename), part.skip, part.take]
                for part in split.file_instructions
            ],
            "bytes": sum(s.num_bytes for s in builder.info.splits.values()),
        }

    def units(self) -> list["TfdsRange"]:
        """Returns ranges of examples, each of about 4 MB of the data set.

        Raises:
            ValueError: as for `describe`.
            ImportError: as for `describe`.
            ConnectionError: as for `describe`.
        """
        splits = self._get_prepared().info.splits
        files = len(splits[self.split].file_instructions)
        instruction = _import_tfds().core.ReadInstruction.from_spec(self.split)
        units = []
        for part in instruction.to_absolute(splits):
            split = splits[part.splitname]
            bytes_each = max(split.num_bytes // max(split.num_examples, 1), 1)
            step = max(UNIT_BYTES // bytes_each, 1)
            first, last = part.from_ or 0, part.to or split.num_examples
            for start in range(first, last, step):
                end = min(start + step, last)
                spec = f"{part.splitname}[{start}:{end}]"
                units.append(TfdsRange(self, spec, files))
                files = 0
        return units

    def paragraphs(self, report: CorpusReport) -> Iterator[str]:
        """Yields the paragraphs of all examples.

        Args:
            report: receives counts of files and skips.

        Raises:
            ValueError: as for `describe`.
            ImportError: as for `describe`.
            ConnectionError: as for `describe`.
        """
        for unit in self.units():
            yield from unit.paragraphs(report)

    def examples(self, split: str) -> Iterator[Any]:
        """Yields the field of the examples of a split, one by one."""
        tfds = _import_tfds()
        examples = self._get_prepared().as_dataset(
            split=split,
            shuffle_files=False,
            # Other features, such as images, are not even decoded.
            decoders=tfds.decode.PartialDecoding({self.field: True}),
            read_config=tfds.ReadConfig(try_autocache=False),
        )
        for example in tfds.as_numpy(examples):
            yield example[self.field]

    def is_prepared(self) -> bool:
        """Checks whether the data set is on this machine; downloads nothing.

        Raises:
            ValueError: if there is no such data set.
            ImportError: as for `describe`.
        """
        return self._get_builder().is_prepared()

    def _get_prepared(self) -> Any:
        """Returns the data set's builder, with its data on this machine."""
        builder = self._prepared_builder()
        self._check_field(builder.info.features)
        return builder

    def _prepared_builder(self) -> Any:
        builder = self._get_builder()
        if not builder.is_prepared():
            self._prepare(builder)
        try:
            _ = builder.info.splits[self.split]
        except ValueError as error:
            raise ValueError(
                f"`split` must be one of {sorted(builder.info.splits)} of "
                f"'{self.name}', or a part of one such as 'train[:1%]'. "
                f"Received: split={self.split!r}."
            ) from error
        return builder

    def _get_builder(self) -> Any:
        tfds = _import_tfds()
        try:
            return tfds.builder(self.name, data_dir=self.data_dir)
        except tfds.core.registered.DatasetNotFoundError as error:
            name = re.split("[/:]", self.name)[0]
            raise ValueError(
                f"TFDS has no data set '{self.name}', and there is none with "
                f"this name in data_dir={_format(self.data_dir)}. "
                f"Nearest name: {_find_nearest(name, tfds.list_builders())}."
            ) from error
        except ImportError as error:
            raise _import_error(self.name, error) from error
        # TFDS asserts that a version exists.
        except (ValueError, AssertionError) as error:
            # TFDS first repeats the call, then may announce a list.
            reason = first_line(error).rpartition('": ')[2]
            reason = reason.partition(" Here are ")[0]
            raise ValueError(
                "`name` must be the name of a TFDS data set, "
                f"'name[/config][:version]'. Received: name={self.name!r}. "
                f"{reason}{_suggest_config(self.name)}"
            ) from error

    def _prepare(self, builder: Any) -> None:
        try:
            with _quiet_retries():
                builder.download_and_prepare()
        except ImportError as error:
            raise _import_error(self.name, error) from error
        # Servers, checksums and the code of data sets fail with errors that
        # share no class.
        except Exception as error:
            raise ConnectionError(
                f"'{self.name}' is not in data_dir={_format(self.data_dir)} "
                "and could not be downloaded and prepared: "
                f"{first_line(error)} "
                "Check the network and the disk, or prepare it elsewhere "
                f"with `tfds build {self.name}` and set its `data_dir`."
            ) from error

    def _check_field(self, features: Any) -> None:
        names = sorted(features) if hasattr(features, "keys") else []
        if self.field not in names:
            raise ValueError(
                f"`field` must be one of the features {names} of "
                f"'{self.name}'. Received: field={self.field!r}."
            )
        feature = features[self.field]
        dtype = getattr(feature.tf_dtype, "name", "nested")
        if dtype != "string" or feature.shape:
            raise ValueError(
                f"`field` must name a feature of '{self.name}' that holds a "
                f"single text. Received: field={self.field!r}, which is "
                f"{feature}."
            )


def prepared_builder(name: str, split: str) -> Any:
    """Returns TFDS's builder of a data set, downloaded and prepared.

    Args:
        name: as for `TfdsText`.
        split: a split that must exist, or a part of one.

    Raises:
        ValueError: if the data set or the split is unknown.
        ImportError: as for `TfdsText.describe`.
        ConnectionError: as for `TfdsText.describe`.
    """
    return TfdsText(name, split)._prepared_builder()


@dataclasses.dataclass(frozen=True)
class TfdsRange:
    """Consecutive examples of a TFDS data set.

    Attributes:
        source: the data set.
        split: a split with its range, `name[start:end]`.
        files: int, files that this range adds to the report.
    """

    source: TfdsText
    split: str
    files: int

    def paragraphs(self, report: CorpusReport) -> Iterator[str]:
        """Yields the paragraphs of the examples."""
        report.files += self.files
        examples = self.source.examples(self.split)
        for number, text in enumerate(examples, 1):
            place = Place(
                f"{self.source.name} {self.split}", 0, "example", number, ""
            )
            yield from _split_paragraphs(text, report, place)


@contextlib.contextmanager
def _quiet_retries() -> Iterator[None]:
    """Silences retries, which would break TFDS's progress bars."""
    logger = logging.getLogger("urllib3.connectionpool")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _import_tfds() -> Any:
    # Imported late because it imports TensorFlow.
    try:
        import tensorflow_datasets
    except ImportError as error:
        if not names_package(error, "tensorflow_datasets"):
            raise
        raise ImportError(
            "A source of kind tfds needs the package tensorflow-datasets. "
            "Install it with: pip install tensorflow-datasets."
        ) from error
    return tensorflow_datasets


def _import_error(name: str, error: ImportError) -> ImportError:
    return ImportError(
        f"Preparing '{name}' needs a package that is not installed: "
        f"{first_line(error)} Install it with pip."
    )


def _format(data_dir: str | os.PathLike | None) -> str:
    return "None" if data_dir is None else repr(os.fspath(data_dir))


def _find_nearest(name: str, names: Iterable[str]) -> str:
    return difflib.get_close_matches(name, list(names), n=1, cutoff=0.0)[0]


def _suggest_config(name: str) -> str:
    """Suggests the config nearest to an unknown one; "" if none."""
    match = re.fullmatch(r"(\w+)/([^:/]+)(:.*)?", name)
    if match is None:
        return ""
    configs = _import_tfds().builder_cls(match[1]).builder_configs
    if not configs or match[2] in configs:
        return ""
    return f" Nearest config: {_find_nearest(match[2], configs)}."


def _split_paragraphs(
    text: bytes, report: CorpusReport, place: Place
) -> Iterator[str]:
    """Yields the usable paragraphs of one example, with single spaces."""
    report.lost.read(len(text))
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError:
        report.skipped["example not UTF-8"] += 1
        problem = "its text is not UTF-8"
        report.lost.lose(len(text), dataclasses.replace(place, problem=problem))
        return
    for paragraph in _BLANK_LINES.split(decoded):
        words = paragraph.split()
        if len(paragraph) > MAX_LINE_CHARACTERS:
            report.skipped["paragraph too long"] += 1
            report.lost.lose(
                len(paragraph.encode()),
                dataclasses.replace(place, problem="paragraph too long"),
            )
        elif not words:
            report.skipped["empty paragraph"] += 1
        elif len(words) < _MIN_WORDS:
            report.skipped[f"paragraph of fewer than {_MIN_WORDS} words"] += 1
        else:
            yield " ".join(words)
