"""Faults in what several teachers teach together."""

from faults.fault import Fault

_MIXTURES = ("tests/losses/test_mixtures.py",)
_OBJECTIVE = "tests/training/objectives/test_teachers.py"
_DISTILLER = "tests/training/test_several_teachers.py"
_RUN = "tests/runs/test_finetuning.py"

FAULTS = (
    Fault(
        "several teachers teach the mean of their logits",
        "mixture_logits",
        "ops.stop_gradient((largest + ops.log1p(mean)) * divisor)",
        "mean_outputs(teacher_logits)",
        _MIXTURES,
    ),
    Fault(
        "teachers whose logits are larger count more",
        "mixture_logits",
        "_log_ratio_to_uniform(x)",
        "x",
        _MIXTURES,
    ),
    Fault(
        "probabilities are averaged without the temperature",
        "SoftTargetKLDivergence.join_teachers",
        "self.token_temperature(student_logits)",
        "1.0",
        _MIXTURES,
    ),
    Fault(
        "the agreement is with the first of several teachers",
        "joint_logits",
        "mixture_logits(teacher_logits.logits, 1.0)",
        "teacher_logits.logits[0]",
        _MIXTURES,
    ),
    Fault(
        "the vocabulary's losses have only the first teacher",
        "_of_rows",
        "several = teacher",
        "several = teacher[:1]",
        (f"{_OBJECTIVE}::test_masked_lm",),
    ),
    Fault(
        "the losses of a task have only the first teacher",
        "TaskObjective._read_teachers",
        "for teacher in self.teachers:",
        "for teacher in self.teachers[:1]:",
        (f"{_OBJECTIVE}::test_tasks",),
    ),
    Fault(
        "the same projection is for the layers of all teachers",
        "_make_projections",
        "teacher = teachers[link[0]]",
        "teacher = teachers[0]",
        (f"{_OBJECTIVE}::test_each_teacher_has_its_projections",),
    ),
    Fault(
        "only the first teacher is checked",
        "check_each",
        "enumerate(teachers)",
        "enumerate(teachers[:1])",
        (f"{_OBJECTIVE}::test_models_that_do_not_fit",),
    ),
    Fault(
        "teachers may name their classes in another order",
        "share_labels",
        "if labels != theirs:",
        "if False:",
        (f"{_DISTILLER}::test_labels_are_those_of_all_teachers",),
    ),
    Fault(
        "the second teacher is trained",
        "KerasMethods._without_teacher",
        'live_teachers(getattr(self, "teacher", None))',
        'live_teachers(getattr(self, "teacher", None))[:1]',
        (f"{_DISTILLER}::test_teachers_are_not_changed_and_not_trained",),
    ),
    Fault(
        "students are trained before the teachers of later seeds",
        "_trainings_left",
        "each.row != score_table.TEACHER",
        "False",
        (f"{_RUN}::test_the_teachers_of_all_seeds_come_first",),
    ),
    Fault(
        "the teacher of a student's own seed is not its first",
        "plan_teachers",
        "seeds += [seed for seed in others if seed != planned.seed]",
        "seeds = others",
        (f"{_RUN}::test_the_teachers_of_all_seeds_come_first",),
    ),
    Fault(
        "a student of all teachers has only its own",
        "plan_teachers",
        'settings.teacher_seeds == "all"',
        "False",
        (f"{_RUN}::test_the_teachers_of_all_seeds_come_first",),
    ),
)
