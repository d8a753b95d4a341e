"""What must be said of a results table."""

from collections.abc import Iterator

from keras_distil.runs.score_table import (
    BASELINE,
    NGRAMS,
    TEACHER,
    ResultTable,
)

DAGGER = "\N{DAGGER}"
_TAUGHT_BY_LABELS = (BASELINE, NGRAMS)


def describe_table(table: ResultTable) -> list[str]:
    """Returns the notes needed to read the table, one paragraph each."""
    level = f"{100 * table.level:g}%"
    means = "Mean is that of all tasks. " if table.shows_mean else ""
    means += (
        "Kept is the share of the teacher's score, where that is above a "
        "constant answer's. "
    )
    if table.errors:
        means = (
            f"The score of {', '.join(table.errors)} is an error: less is "
            "better, and there is no mean over the tasks. "
        )
    notes = [
        "Scores are percent on the development sets: the median over the "
        f"training seeds. {means}CPU ms is "
        "the time of one input, CPU ratio that of the teacher's. Bold is the "
        "best model of the student's size."
    ]
    if table.selection == "train":
        notes.append(
            "A tenth of every training set, on which no model trained, chose "
            "the epochs. The development sets chose nothing: they were read "
            "once, with the chosen epoch."
        )
    if table.cut:
        notes.append(_note_on_cut(table))
    notes += _notes_on_weak_teachers(table)
    if table.comparisons:
        notes.append(
            f"{DAGGER} The difference to the teacher is inside the noise: "
            f"its {level} interval contains 0. Intervals are of "
            f"{table.resamples:,} draws of the development examples; they do "
            "not cover training with other seeds. Of many differences that "
            f"are none, {100 * (1 - table.level):.3g}% look significant."
        )
    for source in dict.fromkeys(row.source for row in table.published):
        names = [r.name for r in table.published if r.source == source]
        notes.append(
            f"Published figures of {', '.join(names)}: {source}. Their tasks "
            "and machine are not ours; compare ratios alone."
        )
    return notes


def describe_comparisons(table: ResultTable) -> list[str]:
    """Returns the comparisons in words, means first."""
    means = [c.sentence for c in table.comparisons if c.task is None]
    tasks = [
        c.sentence_of_errors if c.task in table.errors else c.sentence
        for c in table.comparisons
        if c.task is not None
    ]
    return means + tasks if table.has_mean else tasks


def _note_on_cut(table: ResultTable) -> str:
    where = ""
    if 0 < len(table.cut_tasks) < len(table.tasks):
        where = f" on {' and '.join(table.cut_tasks)}"
    note = (
        f"Rows that began{where} as layers of the fine-tuned teacher, with its "
        f"output layer: {', '.join(table.cut)}."
    )
    if BASELINE in table.cut:
        note += (
            " So the baseline, which then learned from the labels alone, has "
            "something of the teacher as well."
        )
    return note


def _notes_on_weak_teachers(table: ResultTable) -> Iterator[str]:
    """Yields a note on each task that the teacher knows worse than others."""
    for task in table.tasks:
        found = {
            x: table.comparison(x, TEACHER, task) for x in _TAUGHT_BY_LABELS
        }
        better = [
            row
            for row, each in found.items()
            if each and each.significant and each.difference > 0.0
        ]
        if better:
            yield (
                f"On {task}, the teacher is worse than {' and '.join(better)}, "
                "which learned from the labels alone, and its student learns "
                "that from it. Give it more `finetune.epochs`, or take another "
                "teacher."
            )
