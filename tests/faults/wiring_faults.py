"""Faults between a recipe and what is built and trained from it."""

from faults.fault import Fault

_WHOLE = "tests/wiring/test_whole_run.py"
_KEY = "tests/wiring/test_every_key.py::test_it_reaches_what_it_is_for"


def _key(*keys: str) -> tuple[str, ...]:
    return tuple(f"{_KEY}[{key}]" for key in keys)


FAULTS = (
    # === Models and batches ===
    Fault(
        "a student is fine-tuned without its teacher",
        "_train",
        "if planned.row == score_table.STUDENT:",
        "if False:",
        (
            f"{_WHOLE}::test_students_learn_from_their_teachers_and_no_other_"
            "from_any",
        ),
    ),
    Fault(
        "the baseline starts from the distilled student",
        "load_students_of_run",
        "score_table.BASELINE: BASELINE_FILE",
        "score_table.BASELINE: STUDENT_FILE",
        (f"{_WHOLE}::test_tasks_start_from_what_came_before",),
    ),
    Fault(
        "the baseline goes on from the student",
        "train_baseline",
        "baseline = make_student(run.recipe, teacher)",
        "baseline = keras.saving.load_model(run.folder / STUDENT_FILE)",
        (
            f"{_WHOLE}::test_the_baseline_differs_from_the_student_by_its_"
            "teacher_alone",
        ),
    ),
    Fault(
        "the baseline sees another seed's batches",
        "distill",
        "train_baseline(run, prepared, teacher.model, batches)",
        "train_baseline(run, prepared, teacher.model, make_training_batches("
        'recipe.model_copy(update={"seed": 1}), prepared, '
        "batch_size=settings.batch_size))",
        (
            f"{_WHOLE}::test_the_baseline_differs_from_the_student_by_its_"
            "teacher_alone",
        ),
    ),
    Fault(
        "the baseline is not clipped",
        "train_baseline",
        "clip_norm=settings.clip_norm",
        "clip_norm=None",
        (
            f"{_WHOLE}::test_the_baseline_differs_from_the_student_by_its_"
            "teacher_alone",
        ),
    ),
    Fault(
        "a student learns from the teacher of another seed",
        "plan_teachers",
        "seeds = [planned.seed]",
        "seeds = settings.of_task(planned.task).seeds[:1]",
        (
            f"{_WHOLE}::test_students_learn_from_their_teachers_and_no_other_"
            "from_any",
        ),
    ),
    Fault(
        "the order of a task's examples ignores the seed",
        "_fit_stage",
        "batch_size=batch_size, seed=planned.seed",
        "batch_size=batch_size, seed=0",
        (f"{_WHOLE}::test_the_order_of_examples_is_the_seeds_own",),
    ),
    Fault(
        "every epoch of a task has the same order",
        "task_dataset",
        "seed, place // count,",
        "seed, 0 * place,",
        (
            f"{_WHOLE}::test_every_epoch_has_all_examples_in_an_order_of_its_"
            "own",
            "tests/data/test_order.py",
        ),
    ),
    Fault(
        "the teacher sees augmented examples, too",
        "train_rows",
        "more if planned.row == score_table.STUDENT else task.train",
        "more",
        _key("finetune.augment_copies"),
    ),
    Fault(
        "a command takes the first of several tasks unasked",
        "find_student",
        "len(tasks) > 1",
        "False",
        (
            "tests/runs/test_task_results.py"
            "::test_which_student_is_asked_where_there_are_several",
        ),
    ),
    Fault(
        "a command takes a task's student before that of text",
        "find_student",
        "run.recipe.distill is not None or not tasks",
        "not tasks",
        (
            "tests/runs/test_task_results.py"
            "::test_a_student_of_text_comes_before_those_of_tasks",
        ),
    ),
    Fault(
        "the best student is that of the first seed",
        "find_best_student",
        "if score > best[0]:",
        "if best[0] == float('-inf'):",
        (f"{_WHOLE}::test_what_is_exported_is_the_best_seed_s",),
    ),
    Fault(
        "the best student is the worst",
        "find_best_student",
        "if score > best[0]:",
        "if score < best[0] or best[0] == float('-inf'):",
        (f"{_WHOLE}::test_what_is_exported_is_the_best_seed_s",),
    ),
    # === Settings of the distillation ===
    Fault(
        "the weights of mlm and cosine are swapped",
        "make_losses",
        "settings[name].model_dump",
        "settings[{'mlm': 'cosine', 'cosine': 'mlm'}.get(name, name)]"
        ".model_dump",
        _key("distill.losses.mlm.weight"),
    ),
    Fault(
        "the temperature is ignored",
        "make_losses",
        "include=set(rows[name].settings.model_fields)",
        "include={'weight'}",
        _key("distill.losses.soft_target.temperature"),
    ),
    Fault(
        "weight decay is ignored",
        "make_student_optimizer",
        "weight_decay=settings.weight_decay",
        "weight_decay=0.01",
        _key("distill.weight_decay"),
    ),
    Fault(
        "weight decay does not reach the optimizer",
        "make_optimizer",
        "weight_decay=weight_decay",
        "weight_decay=0.01",
        _key("distill.weight_decay"),
    ),
    Fault(
        "beta_2 is ignored",
        "make_student_optimizer",
        "beta_2=settings.beta_2",
        "beta_2=0.999",
        _key("distill.beta_2"),
    ),
    Fault(
        "the decay of the learning rate is ignored",
        "make_student_optimizer",
        "decay=settings.decay",
        "decay='linear'",
        _key("distill.decay"),
    ),
    Fault(
        "the warm-up is ignored",
        "make_student_optimizer",
        "warmup_steps=settings.warmup_steps",
        "warmup_steps=0",
        _key("distill.warmup_steps"),
    ),
    Fault(
        "clip_norm is ignored",
        "make_distiller",
        "clip_norm=settings.clip_norm",
        "clip_norm=1.0",
        _key("distill.clip_norm"),
    ),
    Fault(
        "dropout is ignored",
        "make_student",
        "dropout=settings.dropout",
        "dropout=0.1",
        _key("student.dropout"),
    ),
    Fault(
        "the rare-token exponent is ignored",
        "make_training_batches",
        "if exponent:",
        "if False:",
        _key("data.masking.rare_token_exponent"),
    ),
    Fault(
        "the masking rate is ignored",
        "make_training_batches",
        "rate=recipe.data.masking.rate",
        "rate=0.15",
        _key("data.masking.rate"),
    ),
    Fault(
        "held-out text is masked at the recipe's rate",
        "make_held_out_batches",
        "rate=0.15",
        "rate=recipe.data.masking.rate",
        _key("data.masking.rate"),
    ),
    Fault(
        "held-out text is masked by the recipe's seed",
        "make_held_out_batches",
        "seed=0",
        "seed=recipe.seed",
        _key("seed"),
    ),
    Fault(
        "epochs are counted from held-out sequences",
        "count_steps",
        "prepared.train_sequences",
        "len(prepared.held_out)",
        _key("distill.epochs"),
    ),
    Fault(
        "a schedule of a weight goes to another loss",
        "make_schedulers",
        "LossWeightScheduler(name, schedule)",
        "LossWeightScheduler('mlm', schedule)",
        _key("distill.schedules.cosine.weight"),
    ),
    Fault(
        "the balance has equal shares",
        "make_balancer",
        "settings.balance.ratios(settings.losses)",
        "dict.fromkeys(settings.balance.ratios(settings.losses), 1.0)",
        _key("distill.balance.cosine"),
    ),
    Fault(
        "a task's student learns from the live teacher, whatever the recipe",
        "open_teacher",
        "if not settings.teacher_cache:",
        "if True:",
        _key("finetune.teacher_cache"),
    ),
    Fault(
        "a task's cache lacks the augmented examples",
        "train_rows",
        "_train(run, planned, encoder, task, train, later)",
        "_train(run, planned, encoder, task, task.train, later)",
        _key("finetune.teacher_cache"),
    ),
    Fault(
        "the cache has one masking",
        "cache_teacher",
        "maskings = min(maskings, passes)",
        "maskings = 1",
        _key("teacher.cache.maskings"),
    ),
    Fault(
        "the teacher's training has no clipping",
        "_fit_teacher",
        "clip_norm=settings.clip_norm",
        "clip_norm=None",
        _key("teacher.train.clip_norm"),
    ),
    Fault(
        "a new adapter is trained in place of the initial one",
        "_fit_teacher",
        "if settings.initial_adapter is not None:",
        "if False:",
        _key("teacher.train.initial_adapter"),
    ),
    Fault(
        "training states are written as often as by default",
        "fit_steps",
        "states, every_steps=run.recipe.checkpoint_steps",
        "states",
        _key("checkpoint_steps"),
    ),
    # === Settings of tasks ===
    Fault(
        "the weights of a task's losses are ignored",
        "make_task_trainer",
        "settings.losses.by_name",
        '{"label": LossSettings()}',
        _key("finetune.losses.label.weight"),
    ),
    Fault(
        "the warm-up of a task is ignored",
        "make_task_trainer",
        "warmup_steps=round(settings.warmup_fraction * steps)",
        "warmup_steps=0",
        _key("finetune.warmup_fraction"),
    ),
    Fault(
        "the learning rate of a task does not decay",
        "make_task_trainer",
        "steps=steps",
        "steps=10**9",
        _key("finetune.warmup_fraction"),
    ),
    Fault(
        "a task's weight decay is ignored",
        "make_task_trainer",
        "weight_decay=settings.weight_decay",
        "weight_decay=0.01",
        _key("finetune.weight_decay"),
    ),
    Fault(
        "a task's dropout is ignored",
        "make_task_model",
        "dropout = finetune_section(run.recipe).dropout",
        "dropout = 0.1",
        _key("finetune.dropout"),
    ),
    Fault(
        "what a recipe says of a task alone is ignored",
        "task_settings",
        "finetune_section(recipe).of_task(task)",
        "finetune_section(recipe)",
        _key("TaskOverrides.epochs"),
    ),
    Fault(
        "a task ends when its patience by default is over",
        "_fit",
        "patience=settings.patience",
        "patience=2",
        _key("finetune.patience"),
    ),
    Fault(
        "training windows of SQuAD do not overlap as the recipe says",
        "_squad_task",
        "data.make_squad_windows(train, tokenizer, **lengths)",
        "data.make_squad_windows(train, tokenizer, **{**lengths, 'stride': 1})",
        _key("finetune.stride"),
    ),
    # === The table and the report ===
    Fault(
        "MNLI is scored by F1, too",
        "_glue_task",
        'significance.ACCURACY if name == "mnli" else None',
        "significance.mean_of(significance.ACCURACY, significance.F1) "
        'if name == "mnli" else None',
        (f"{_WHOLE}::test_a_task_s_scores_are_those_of_its_predictions",),
    ),
    Fault(
        "all tasks are scored by accuracy",
        "_mean_metric",
        "mean_of(*(COUNTED_METRICS[name] for name in names))",
        "COUNTED_METRICS[names[0]]",
        (f"{_WHOLE}::test_a_task_s_scores_are_those_of_its_predictions",),
    ),
    Fault(
        "SQuAD is scored by exact match",
        "mean_f1",
        "predictions[:, 1]",
        "predictions[:, 0]",
        (
            "tests/evaluation/test_spans.py",
            f"{_WHOLE}::test_a_task_s_scores_are_those_of_its_predictions",
        ),
    ),
    Fault(
        "every row of a task has the teacher's calibration",
        "describe_task",
        "row: _answers_of(task, finished[row])",
        "row: _answers_of(task, finished[TEACHER])",
        (
            f"{_WHOLE}::test_calibration_is_the_best_student_s_and_its_teacher_s",
        ),
    ),
    Fault(
        "every row of text has the teacher's calibration",
        "score_on_text",
        "evaluation.masked_lm_calibration(model,",
        "evaluation.masked_lm_calibration(teacher,",
        (f"{_WHOLE}::test_scores_on_held_out_text_are_each_model_s",),
    ),
    Fault(
        "costs of teacher and student are swapped",
        "_run_on_text",
        '"teacher" if name == "teacher" else "student"',
        '"student" if name == "teacher" else "teacher"',
        (f"{_WHOLE}::test_costs_are_each_model_s",),
    ),
    Fault(
        "all rows of the tasks have the first one's latency",
        "measure_costs",
        "milliseconds[row]",
        "milliseconds[rows[0]]",
        (f"{_WHOLE}::test_costs_are_each_model_s",),
    ),
    Fault(
        "all rows of the tasks have the teacher's size",
        "measure_costs",
        "size.size_mb(measured[row])",
        "size.size_mb(measured[rows[0]])",
        (f"{_WHOLE}::test_costs_are_each_model_s",),
    ),
    Fault(
        "every row agrees with the teacher",
        "score_masked_lm",
        '1.0 if itself else logs["teacher_agreement"]',
        "1.0",
        (f"{_WHOLE}::test_scores_on_held_out_text_are_each_model_s",),
    ),
    Fault(
        "a score is that of the last seed",
        "_measure",
        "statistics.median(seeds)",
        "seeds[-1]",
        (f"{_WHOLE}::test_a_task_s_scores_are_those_of_its_predictions",),
    ),
    Fault(
        "the card swaps the costs of teacher and student",
        "_costs",
        "for name in (score_table.TEACHER, score_table.STUDENT)",
        "for name in (score_table.STUDENT, score_table.TEACHER)",
        (f"{_WHOLE}::test_the_card_tells_the_student_s_costs",),
    ),
)
