"""Sets for retrieval: queries, documents, and which of these answer which."""

import dataclasses
import json
import math
import os
import reprlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from keras_distil.data.tasks.squad import read_squad
from keras_distil.utils import disk

DOCUMENTS_FILE = "corpus.jsonl"
QUERIES_FILE = "queries.jsonl"
QRELS_FILE = "qrels.tsv"
_QRELS_COLUMNS = 3


@dataclasses.dataclass(frozen=True)
class RetrievalSet:
    """Queries with the documents that are relevant to them.

    Attributes:
        documents: the text of each document, by its id.
        queries: the text of each query that has a relevant document, by id.
        relevant: by query, the relevance of documents, above 0, by their ids.

    Raises:
        ValueError: if there are no queries, a text is empty, or a document or
            query that is named does not exist.
    """

    documents: dict[str, str]
    queries: dict[str, str]
    relevant: dict[str, dict[str, float]]

    def __post_init__(self) -> None:
        """Checks that the three fit each other."""
        if not self.queries:
            raise ValueError(
                "There must be a query with a relevant document. "
                "Received: none."
            )
        if self.queries.keys() != self.relevant.keys():
            raise ValueError(
                "`queries` and `relevant` must have the same keys. Received: "
                f"{len(self.queries)} and {len(self.relevant)}."
            )
        for what, texts in (
            ("document", self.documents),
            ("query", self.queries),
        ):
            for key, text in texts.items():
                if not text.strip():
                    raise ValueError(
                        f"The {what} {key!r:.60} has no text. Remove it."
                    )
        for query, documents in self.relevant.items():
            for document in documents:
                if document not in self.documents:
                    raise ValueError(
                        f"The query {query!r:.60} names a document that does "
                        f"not exist: {document!r:.60}."
                    )


def load_retrieval(
    folder: str | os.PathLike, *, qrels: str = QRELS_FILE
) -> RetrievalSet:
    """Reads a folder in the layout of BEIR.

    `corpus.jsonl` has "_id", "text" and perhaps "title", which is put before
    the text; `queries.jsonl` has "_id" and "text". The relevance is a TSV file
    of query, document and score, with a header line or without. Scores of 0
    and below mean not relevant. Queries without a relevant document are left
    out.

    Args:
        folder: the folder.
        qrels: the file of relevances in it, such as "qrels/test.tsv".

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if one is damaged, an id is repeated, or the relevances
            name a query or a document that does not exist.

    Reference:
        Thakur et al. 2021, arXiv:2104.08663.
    """
    folder = Path(folder)
    for name in (DOCUMENTS_FILE, QUERIES_FILE, qrels):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"There is no file '{folder / name}'. A folder of retrieval "
                f"holds {DOCUMENTS_FILE}, {QUERIES_FILE} and {QRELS_FILE}."
            )
    documents = _read_texts(folder / DOCUMENTS_FILE)
    queries = _read_texts(folder / QUERIES_FILE)
    relevant: dict[str, dict[str, float]] = {}
    for where, query, document, score in _read_qrels(folder / qrels):
        for what, key, known in (
            ("query", query, queries),
            ("document", document, documents),
        ):
            if key not in known:
                raise ValueError(
                    f"{where} names a {what} that does not exist: {key!r:.60}."
                )
        if score > 0:
            relevant.setdefault(query, {})[document] = score
    return RetrievalSet(
        documents, {query: queries[query] for query in relevant}, relevant
    )


def squad_retrieval(
    questions: str | os.PathLike,
    paragraphs: Sequence[str | os.PathLike] = (),
) -> RetrievalSet:
    """Makes a retrieval set of SQuAD: from a question to its paragraph.

    Args:
        questions: file whose answerable questions are the queries, and its
            paragraphs documents.
        paragraphs: files whose paragraphs are documents, too.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: as for `read_squad`.
    """
    examples = read_squad(questions)
    others = [each for path in paragraphs for each in read_squad(path)]
    texts = dict.fromkeys(each.context for each in [*examples, *others])
    ids = {text: str(number) for number, text in enumerate(texts)}
    asked = [each for each in examples if not each.is_impossible]
    return RetrievalSet(
        documents={key: text for text, key in ids.items()},
        queries={each.id: each.question for each in asked},
        relevant={each.id: {ids[each.context]: 1.0} for each in asked},
    )


def save_retrieval(texts: RetrievalSet, folder: str | os.PathLike) -> None:
    """Writes a retrieval set in the layout of BEIR.

    Args:
        texts: the set.
        folder: the folder, which must not exist yet, or be empty.

    Raises:
        FileExistsError: if the folder holds something.
        OSError: if it cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(
            f"'{folder}' must be an empty folder. Received: one with files. "
            "Give another one, or remove them."
        )
    files = {
        DOCUMENTS_FILE: (_as_record(*x) for x in texts.documents.items()),
        QUERIES_FILE: (_as_record(*x) for x in texts.queries.items()),
        QRELS_FILE: (
            f"{query}\t{document}\t{score:g}"
            for query, documents in texts.relevant.items()
            for document, score in documents.items()
        ),
    }
    for name, lines in files.items():
        disk.write_text(folder / name, "".join(f"{x}\n" for x in lines))


def _as_record(key: str, text: str) -> str:
    return json.dumps({"_id": key, "text": text}, ensure_ascii=False)


def _read_texts(path: Path) -> dict[str, str]:
    texts: dict[str, str] = {}
    for where, line in _lines(path):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where} is not JSON: {error!s:.100}.") from None
        key = entry.get("_id") if isinstance(entry, dict) else None
        parts: list[Any] = []
        if isinstance(entry, dict):
            parts = [entry.get("title") or "", entry.get("text")]
        if not isinstance(key, str) or not all(
            isinstance(part, str) for part in parts
        ):
            raise ValueError(
                f'{where} must have the strings "_id" and "text". Received: '
                f"{reprlib.repr(entry)}."
            )
        if key in texts:
            raise ValueError(f"{where} repeats the id {key!r:.60}.")
        texts[key] = " ".join(parts).strip()
    return texts


def _read_qrels(path: Path) -> Iterator[tuple[str, str, str, float]]:
    """Yields where a line is, its query, its document and its score."""
    for number, (where, line) in enumerate(_lines(path)):
        fields = line.split("\t")
        if len(fields) != _QRELS_COLUMNS:
            raise ValueError(
                f"{where} must have {_QRELS_COLUMNS} columns: query, document "
                f"and score. Received: {len(fields)}."
            )
        try:
            score = float(fields[2])
        except ValueError:
            score = math.nan
        if math.isfinite(score):
            yield where, fields[0], fields[1], score
        elif number:
            raise ValueError(
                f"{where}: the score must be a number. Received: "
                f"{fields[2]!r:.60}."
            )


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yields where a line is, and the line, without empty ones."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            where = f"'{path}', line {number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise ValueError(f"{where} is not UTF-8.") from None
            text = text.rstrip("\r\n")
            if text:
                yield where, text
