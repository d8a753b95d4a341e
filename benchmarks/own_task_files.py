"""Known tasks as somebody's own files, with other columns and labels.

Writes six folders, one for each kind of task, as they would lie on a user's
disk: three tasks of GLUE and SQuAD, whose scores are known, and topics and
names found in prose by simple rules, whose labels a model can learn. Then

    keras-distil init FOLDER/reviews/train.csv
    keras-distil run reviews.yaml

is all that is typed for a table, a report and a file for a phone.

| folder | from | columns |
| --- | --- | --- |
| reviews | SST-2 | remark, mood (glad, sad) |
| follows | RTE | premise_text, claim, verdict (yes, no) |
| close | STS-B | left, right, closeness (0 to 5) |
| answers | SQuAD | SQuAD's JSON |
| topics | prose | passage, themes (any of seven, separated by bars) |
| names | prose | words, marks (lower-case words; NAME, YEAR) |

Command: python benchmarks/own_task_files.py --glue GLUE --squad SQUAD \
             --prose PROSE --output FOLDER
Duration: some seconds.
"""

import argparse
import csv
import json
import random
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

PARTS = ("train", "dev")
MOODS = {"0": "sad", "1": "glad"}
VERDICTS = {"entailment": "yes", "not_entailment": "no"}
# By theme, what a passage of it contains.
THEMES = {
    "year": re.compile(r"\b(1[5-9]|20)\d\d\b"),
    "person": re.compile(r"\b(he|she|his|her)\b"),
    "war": re.compile(r"\b(war|army|battle|military|soldiers?)\b", re.I),
    "place": re.compile(r"\b(city|town|river|county|village|country)\b", re.I),
}
# By kind of prose, which is a theme, too, a part of its file's name.
SOURCES = {"tale": "fairy_tales", "speech": "speeches", "news": "news"}
LENGTHS = range(80, 500)  # Characters of a passage.
PASSAGES, SENTENCES, MOST_WORDS = 1000, 800, 60
_WORD = re.compile(r"\w+(?:[-']\w+)*|[^\w\s]")
_YEAR = re.compile(r"(1[5-9]|20)\d\d")


def read_glue(path: Path) -> list[dict[str, str]]:
    """Reads a file of GLUE, which has no quoting."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        head = next(rows)
        return [dict(zip(head, row, strict=True)) for row in rows]


def write_table(
    path: Path, head: Sequence[str], rows: Iterable[Sequence[str]]
) -> None:
    """Writes a CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)


def write_known_tasks(glue: Path, squad: Path, output: Path) -> None:
    """Writes GLUE's and SQuAD's tasks under other names."""
    for part in PARTS:
        rows = read_glue(glue / "SST-2" / f"{part}.tsv")
        write_table(
            output / "reviews" / f"{part}.csv",
            ["remark", "mood"],
            [(row["sentence"], MOODS[row["label"]]) for row in rows],
        )
        rows = read_glue(glue / "RTE" / f"{part}.tsv")
        write_table(
            output / "follows" / f"{part}.csv",
            ["premise_text", "claim", "verdict"],
            [
                (row["sentence1"], row["sentence2"], VERDICTS[row["label"]])
                for row in rows
            ],
        )
        rows = read_glue(glue / "STS-B" / f"{part}.tsv")
        write_table(
            output / "close" / f"{part}.csv",
            ["left", "right", "closeness"],
            [
                (row["sentence1"], row["sentence2"], row["score"])
                for row in rows
            ],
        )
        (output / "answers").mkdir(parents=True, exist_ok=True)
        shutil.copy(squad / f"{part}.json", output / "answers")


def themes_of(text: str, source: str) -> list[str]:
    """Returns the themes of a passage of a kind of prose."""
    found = [name for name, part in SOURCES.items() if part in source]
    return found + [name for name, rule in THEMES.items() if rule.search(text)]


def mark_words(text: str) -> tuple[list[str], list[str]]:
    """Returns a passage's words, in lower case, and a tag for each.

    A name is a stretch of capitalised words inside a sentence, of which the
    lower-case words keep no trace.
    """
    words = _WORD.findall(text)[:MOST_WORDS]
    tags: list[str] = []
    for place, word in enumerate(words):
        before = words[place - 1] if place else "."
        in_name = bool(tags) and tags[-1].endswith("NAME")
        if _YEAR.fullmatch(word):
            tags.append("B-YEAR")
        elif in_name and word[0].isupper():
            tags.append("I-NAME")
        elif word[0].isupper() and len(word) > 1 and before not in ".!?\"'":
            tags.append("B-NAME")
        else:
            tags.append("O")
    return [word.lower() for word in words], tags


def write_tasks_of_prose(prose: Path, output: Path) -> None:
    """Writes passages with themes, and words with names and years."""
    generator = random.Random(0)
    passages, sentences = [], []
    for path in sorted(prose.glob("*.txt")):
        lines = [
            line
            for line in path.read_text("utf-8").splitlines()
            if len(line) in LENGTHS
        ]
        generator.shuffle(lines)
        for text in lines[:PASSAGES]:
            passages.append((text, "|".join(themes_of(text, path.name))))
        for text in lines[PASSAGES : PASSAGES + SENTENCES]:
            words, marks = mark_words(text)
            if words:
                sentences.append({"words": words, "marks": marks})
    generator.shuffle(passages)
    generator.shuffle(sentences)
    write_table(output / "topics" / "all.csv", ["passage", "themes"], passages)
    path = output / "names" / "all.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in sentences))
    print(f"{len(passages):,} passages, {len(sentences):,} lines of words")


def main() -> None:
    """Writes the six folders."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("glue", "squad", "prose", "output"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    given = parser.parse_args()
    write_known_tasks(given.glue, given.squad, given.output)
    write_tasks_of_prose(given.prose, given.output)


if __name__ == "__main__":
    main()
