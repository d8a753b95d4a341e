"""The sections of the report that hold text and numbers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_distil.runs.comparison import Choice, Guess, SideBySide
from keras_distil.runs.report import embedding_text
from keras_distil.runs.report.html_page import (
    ReportSection,
    escape,
    escape_lines,
    make_table,
)
from keras_distil.runs.run_folder import read_text
from keras_distil.training.metrics import TABLE, find_metric

_SAMPLES = 12


def held_out(rows: Mapping[str, Mapping[str, float]]) -> ReportSection:
    """The table of scores on held-out text.

    Args:
        rows: by model name; each row has the keys of the first.
    """
    first = next(iter(rows.values()))
    shown = [find_metric(name) for name in TABLE if name in first]
    lines = []
    for model, row in rows.items():
        cells = "".join(
            f"<td>{metric.format(row[metric.name])}</td>" for metric in shown
        )
        lines.append(f'<th scope="row">{escape(model)}</th>{cells}')
    headers = ["Model", *(metric.title for metric in shown)]
    notes = (
        "Accuracy is the share of masked words whose first choice is right; "
        "the loss is in nats; agreement is the share of first choices that "
        "are the teacher's."
    )
    if "mlm_accuracy" not in first:
        notes = embedding_text.NOTES
    elif "latency_ms" in first:
        notes += (
            " The size is that of the weights in float32, the latency the "
            "time of one input."
        )
    return ReportSection(
        "Held-out text",
        make_table("Held-out text: scores and costs", headers, lines)
        + f'\n<div class="notes">\n<p>{notes}</p>\n</div>',
    )


def samples(compared: SideBySide | None) -> ReportSection | None:
    """Masked words with both models' first choices.

    Args:
        compared: the run's comparison; None if it has none.
    """
    if compared is None or not compared.guesses:
        return None
    every = -(-len(compared.guesses) // _SAMPLES)
    shown = compared.guesses[::every]
    items = "\n".join(f"<li>{_sample(guess)}</li>" for guess in shown)
    return ReportSection(
        "Sample predictions",
        '<p class="notes">Held-out text as both models read it, but for the '
        "marked word, which they do not see; and their first choices for it. "
        "Bold is right; ## goes on with a word.</p>\n"
        f'<ul class="samples">\n{items}\n</ul>',
    )


def _sample(guess: Guess) -> str:
    text = (
        f"{escape(guess.before)} <mark>{escape(guess.word)}</mark> "
        f"{escape(guess.after)}"
    )
    pairs = zip(guess.teacher, guess.student, strict=False)
    lines = "\n".join(
        f"<tr><td>{_choice(one, guess.word)}</td>"
        f"<td>{_choice(other, guess.word)}</td></tr>"
        for one, other in pairs
    )
    return (
        f"<p>{text.strip()}</p>\n<table>\n<thead>\n"
        '<tr><th scope="col">Teacher</th><th scope="col">Student</th></tr>\n'
        f"</thead>\n<tbody>\n{lines}\n</tbody>\n</table>"
    )


def _choice(choice: Choice, word: str) -> str:
    shown = escape(choice.word)
    if choice.word == word:
        shown = f"<strong>{shown}</strong>"
    return f"{shown} {choice.probability:.0%}"


def environment(path: Path) -> ReportSection | None:
    """Versions, hardware, seed and commit.

    Args:
        path: the run's `environment.json`.

    Returns:
        The section; None if the file is missing or damaged.
    """
    try:
        found = json.loads(read_text(path))
        facts = {
            "Processor": found["hardware"]["processor"],
            "Machine": found["hardware"]["machine"],
            "CPU cores": found["hardware"]["cpu_cores"],
            "Memory": f"{found['hardware']['memory_gb']} GB",
            **found["versions"],
            "Seed": found["seed"],
            "Commit": found["commit"] or "not known: installed",
        }
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return ReportSection("Environment", _facts(facts))


def _facts(facts: Mapping[str, Any]) -> str:
    lines = "\n".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>"
        for name, value in facts.items()
    )
    return f'<dl class="facts">\n{lines}\n</dl>'


def origin(commands: Sequence[str], recipe: str) -> ReportSection:
    """The commands that made a run, and its recipe.

    Args:
        commands: as typed; empty if they are not known.
        recipe: YAML; "" if it is missing.
    """
    parts = []
    if commands:
        lines = "\n".join(map(escape_lines, commands))
        parts.append(f"<pre><code>{lines}</code></pre>")
    if recipe:
        parts.append(
            "<details>\n<summary>The recipe with all its defaults</summary>\n"
            f"<pre><code>{escape_lines(recipe)}</code></pre>\n</details>"
        )
    return ReportSection("Command and recipe", "\n".join(parts))
