"""Faults in what chooses epochs of tasks, and in their stages."""

from faults.fault import Fault

_DATA = ("tests/data/tasks/test_selection.py",)
_RUN = "tests/runs/test_task_selection.py"
_STAGES = "tests/runs/test_task_stages.py"
_SECTION = ("tests/config/test_stages_section.py",)
_FOLLOW = (f"{_STAGES}::test_stages_follow_one_another",)
_KILLED = (f"{_STAGES}::test_a_student_killed_anywhere_ends_with_equal_bits",)
_UNREACHED = ("tests/training/objectives/test_unreached.py",)

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
    # === Stages ===
    Fault(
        "all stages have the losses of the section",
        "FineTuneSection.split_stages",
        '"losses": stage.losses',
        '"losses": self.losses',
        _SECTION,
    ),
    Fault(
        "a stage's learning rate is ignored",
        "FineTuneSection.split_stages",
        "stage.learning_rate or rate",
        "rate",
        _SECTION,
    ),
    Fault(
        "the other rows train for the last stage's epochs",
        "FineTuneSection.of_task",
        "sum(stage.epochs for stage in stages)",
        "stages[-1].epochs",
        _SECTION,
    ),
    Fault(
        "every stage begins with the first batch",
        "_fit_stage",
        "first_step=steps * stage.before",
        "first_step=0",
        _FOLLOW,
    ),
    Fault(
        "all stages are scored",
        "_fit",
        "first=[best] if stage.is_last else []",
        "first=[best]",
        _FOLLOW,
    ),
    Fault(
        "later stages do not count in estimates",
        "_fit_stage",
        "later + steps * stage.after",
        "later",
        _FOLLOW,
    ),
    Fault(
        "the steps of every stage begin at 1",
        "StepRecorder.step",
        "self._before + int",
        "int",
        ("tests/callbacks/test_recording.py",),
    ),
    Fault(
        "a training goes on in its first stage",
        "list_unfinished",
        "max(begun, default=0)",
        "0",
        _KILLED,
    ),
    Fault(
        "a training goes on in its last stage",
        "list_unfinished",
        "max(begun, default=0)",
        "max(begun, default=len(stages) - 1)",
        _KILLED,
    ),
    Fault(
        "what no loss reaches stays frozen",
        "unreached_frozen",
        "_set_trainable(frozen, True)",
        "pass",
        _UNREACHED,
    ),
    Fault(
        "looking for unreached variables draws dropout",
        "_find_unreached",
        "assign_all(random, kept)",
        "pass",
        _UNREACHED,
    ),
)
