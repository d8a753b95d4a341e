"""Faults in what chooses epochs of tasks."""

from faults.fault import Fault

_DATA = ("tests/data/tasks/test_selection.py",)
_RUN = "tests/runs/test_task_selection.py"

FAULTS = (
    # === The part of a training set that chooses ===
    Fault(
        "the part that chooses is trained on, too",
        "_read_examples",
        "return rest, taken",
        "return examples, taken",
        (f"{_RUN}::test_the_development_set_is_read_once_at_the_end",),
    ),
    Fault(
        "the part of SQuAD that chooses is trained on, too",
        "_read_questions",
        "return rest, taken",
        "return questions, taken",
        (f"{_RUN}::test_no_paragraph_of_squad_is_on_both_sides",),
    ),
    Fault(
        "the development set chooses in any case",
        "_fit",
        "task.chooser.score",
        "task.evaluator.score",
        (f"{_RUN}::test_epoch_and_patience_go_by_the_selected_part",),
    ),
    Fault(
        "equal texts are parted",
        "_choose",
        "groups.setdefault(key, [])",
        "groups.setdefault((key, row), [])",
        _DATA,
    ),
    Fault(
        "a tenth of all is taken, whatever the class",
        "_choose",
        "int(classes[rows].min())",
        "0",
        _DATA,
    ),
    Fault(
        "questions of an article are parted",
        "split_questions",
        "keys = [article[context] for context in contexts]",
        "pass",
        _DATA,
    ),
)
