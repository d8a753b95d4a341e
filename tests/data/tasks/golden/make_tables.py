"""Makes `tables.json`: how pandas 2 and 3 read odd CSV and TSV files.

Run it with pandas installed: `python make_tables.py > tables.json`.
"""

import io
import json
import random
import sys

import pandas

PIECES = ("a", "b c", '""', ",", "\t", "\n", "\r\n", "é", " ", "NA", "'", "|")


def field(generator, delimiter):
    """A field as it may stand in a file, quoted where it must be."""
    pieces = generator.choices(PIECES, k=generator.randint(0, 4))
    text = "".join(pieces)
    if any(x in text for x in ('"', delimiter, "\n")):
        return f'"{text}"'
    # pandas leaves out lines of spaces alone.
    return generator.choice([text, f'"{text}"']) if text.strip() else "x"


def case(seed):
    generator = random.Random(seed)
    delimiter = generator.choice(",\t")
    ending = generator.choice(["\n", "\r\n"])
    lines = [delimiter.join(("one", "two", "three"))]
    for _ in range(6):
        lines.append(delimiter.join(field(generator, delimiter) for _ in "abc"))
        if generator.random() < 0.2:
            lines.append("")
    # After a closing quote, and a quote inside of a field without any.
    lines += [delimiter.join(('"a"b', 'c"d"', "e"))]
    text = ending.join(lines)
    table = pandas.read_csv(
        io.StringIO(text, newline=""),
        sep=delimiter,
        dtype=str,
        keep_default_na=False,
        encoding="utf-8",
    )
    return {
        "suffix": ".csv" if delimiter == "," else ".tsv",
        "text": text,
        "rows": table.to_numpy().tolist(),
    }


json.dump({"cases": [case(seed) for seed in range(24)]}, sys.stdout)
print()
