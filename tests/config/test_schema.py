"""Every value that a recipe may not hold, by its message."""

import math

import pydantic
import pytest
import yaml

from keras_distil.config import RecipeError, dump_recipe, load_recipe

TRAIN = (
    "teacher.train={method: %s, steps: 1, batch_size: 1, learning_rate: 1%s}"
)
TEMPERATURE = "distill.schedules.soft_target.temperature="
WEIGHT = "distill.schedules.cosine.weight="


def errors_of(path, *overrides):
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    lines = str(caught.value).splitlines()
    prefix = f"{path}: "
    assert all(line.startswith(prefix) for line in lines)
    return [line.removeprefix(prefix) for line in lines]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        # Types are not converted.
        ("seed='1'", "seed: must be a valid integer. Received: '1'."),
        ("seed=true", "seed: must be a valid integer. Received: True."),
        ("seed=1.0", "seed: must be a valid integer. Received: 1.0."),
        ("name=3", "name: must be a valid string. Received: 3."),
        ("distill.baseline=1", "distill.baseline: must be a valid boolean. "),
        ("student.dropout=a", "student.dropout: must be a valid number. Rec"),
        ("student.dropout=true", "student.dropout: must be a valid number. "),
        ("distill.steps=1.5", "distill.steps: must be a valid integer. Rec"),
        ("data.sources=3", "data.sources: must be a valid list. Received: 3."),
        ("distill.losses=3", "distill.losses: must be a mapping of keys. Rec"),
        ("evaluate=", "evaluate: must be a mapping of keys. Received: None."),
        # Ranges.
        (
            "name=My Run",
            "name: may hold lower-case letters (a to z), digits, `_` and `-` "
            "only, such as my_run. Received: 'My Run'.",
        ),
        (
            "name='Ümlaut: 2!'",
            "name: may hold lower-case letters (a to z), digits, `_` and `-` "
            "only, such as mlaut_2. Received: 'Ümlaut: 2!'.",
        ),
        (
            "name='!'",
            "name: may hold lower-case letters (a to z), digits, `_` and `-` "
            "only. Received: '!'.",
        ),
        ("name=''", "name: may hold lower-case letters (a to z), digits, `_`"),
        ('name="a\\n"', "name: may hold lower-case letters (a to z), digits"),
        ("name=a\n", None),  # YAML trims the line break
        ("seed=-1", "seed: must be greater than or equal to 0. Received: -1."),
        ("seed=2147483648", "seed: must be less than 2147483648. Received"),
        ("teacher.source=''", "teacher.source: String should have at least 1"),
        ("student.dropout=1", "student.dropout: must be less than 1. Rec"),
        ("student.dropout=-0.1", "student.dropout: must be greater than or"),
        ("student.initialization=fresh", "student.initialization: must be 't"),
        ("student.num_layers=0", "student.num_layers: must be greater than or"),
        ("data.sources=[]", "distill: there is no text to train on"),
        ("data.sequence_length=7", "data.sequence_length: must be greater "),
        ("data.sequence_length=513", "data.sequence_length: must be less than"),
        ("data.held_out_fraction=0", "data.held_out_fraction: must be greater"),
        ("data.held_out_fraction=0.6", "data.held_out_fraction: must be less"),
        ("data.masking.rate=0", "data.masking.rate: must be greater than 0."),
        ("data.masking.rate=1", "data.masking.rate: must be less than 1. Rec"),
        (
            "data.masking.rare_token_exponent=1.1",
            "data.masking.rare_token_exponent: must be less than or equal to",
        ),
        (
            "data.sources.0.packages=[os.path]",
            "data.sources.0.packages.0: String should match pattern",
        ),
        (
            "data.sources.0.packages=[]",
            "data.sources.0.packages: List should have at least 1 item",
        ),
        ("distill.batch_size=0", "distill.batch_size: must be greater than or"),
        ("distill.learning_rate=0", "distill.learning_rate: must be greater "),
        ("distill.learning_rate=.inf", "distill.learning_rate: must be a fini"),
        ("distill.learning_rate=.nan", "distill.learning_rate: must be a fini"),
        ("distill.warmup_steps=-1", "distill.warmup_steps: must be greater "),
        ("distill.weight_decay=-1", "distill.weight_decay: must be greater "),
        ("distill.beta_2=1", "distill.beta_2: must be less than 1. Received"),
        ("distill.clip_norm=0", "distill.clip_norm: must be greater than 0."),
        (
            "distill.losses.soft_target.temperature=0",
            "distill.losses.soft_target.temperature: must be greater than 0. ",
        ),
        (
            "distill.losses.mlm.weight=-1",
            "distill.losses.mlm.weight: must be greater than or equal to 0. ",
        ),
        ("evaluate.sequences=0", "evaluate.sequences: must be greater than or"),
        ("evaluate.latency_length=513", "evaluate.latency_length: must be les"),
        # Choices.
        ("precision=fp16", "precision: must be 'auto', 'float32' or 'm"),
        (
            "precision=mixed_float16",
            "precision: needs loss scaling, which is not supported; use "
            "mixed_bfloat16. Received: 'mixed_float16'.",
        ),
        ("distill.decay=step", "distill.decay: must be 'linear', 'cosine' or "),
        (
            "distill.strategy=tpu",
            "distill.strategy: must be 'auto', 'none', 'm",
        ),
        (
            "distill.losses.soft_target.positions=some",
            "distill.losses.soft_target.positions: must be 'all' or 'masked'.",
        ),
        (
            TRAIN % ("lora", ""),
            "teacher.train.method: must be 'all_weights' or",
        ),
        # Unions.
        ("data.sources.0=text", "data.sources.0: must be a mapping of keys."),
        (
            "data.sources.0={pattern: a}",
            "data.sources.0.kind: required key is missing.",
        ),
        (
            "data.sources.0.kind=file",
            "data.sources.0.kind: must be one of 'documentation', 'files', "
            "'tfds'. Received: 'file'.",
        ),
        (
            "data.sources.0.kind=[files]",
            "data.sources.0.kind: must be one of 'documentation', 'files', ",
        ),
        (
            "data.sources.0={kind: files}",
            "data.sources.0.pattern: required key is missing.",
        ),
        (
            "data.sources.0={kind: files, pattern: 3}",
            "data.sources.0.pattern: must be a valid string. Received: 3.",
        ),
        # Checks across keys.
        (
            TRAIN % ("all_weights", ", rank: 4"),
            "teacher.train.rank: is for `method: adapter` only; remove it, or "
            "change the method. Received: method='all_weights', rank=4.",
        ),
        (
            "student.layers=alternte",
            "student.layers: must be one of alternate, paper_code, first, "
            "last, or a list of teacher layer indices counted from 0. "
            "Received: 'alternte'.",
        ),
        ("student.layers=[0, -1]", "student.layers: must be one of alternate"),
        ("student.layers=[true]", "student.layers: must be one of alternate"),
        ("student.layers=[0.0]", "student.layers: must be one of alternate"),
        (
            "student.layers=[]",
            "student.layers: must name at least one teacher layer, and each",
        ),
        (
            "student.layers=[1, 1]",
            "student.layers: must name at least one teacher layer, and each "
            "once. Received: [1, 1].",
        ),
        (
            "student={num_layers: 3, layers: [0, 1]}",
            "student.layers: must list `num_layers` indices, here 3; leave "
            "`num_layers` out to take the list's length. Received: 2 indices",
        ),
        (
            "student={hidden_dim: 10, num_heads: 4}",
            "student.num_heads: must divide `hidden_dim`. Received: "
            "num_heads=4, hidden_dim=10.",
        ),
        (
            "distill.losses={mlm: {weight: 0}, cosine: {weight: 0}}",
            "distill.losses: at least one loss needs a weight above 0. "
            "Received: mlm, cosine with weight 0.",
        ),
        (
            "distill.losses={}",
            "distill.losses: at least one loss needs a weight above 0. "
            "Received: no loss.",
        ),
        (
            "distill.losses.mlm=null",
            "distill.losses.mlm: must be a mapping of settings: `{}` for the "
            "defaults. Leave the loss out to turn it off. Received: None.",
        ),
        (
            "distill.losses.mlm=2.0",
            "distill.losses.mlm: must be a mapping of keys. Received: 2.0.",
        ),
        (
            "distill.steps=null",
            "distill: set one of `steps`, `epochs` and `minutes` here, or "
            "`minutes` of the whole recipe. Received: none of them.",
        ),
        ("distill.minutes=0", "distill.minutes: must be greater than 0."),
        ("minutes=-1", "minutes: must be greater than 0."),
        (
            "distill.micro_batches=3",
            "distill.micro_batches: must divide `batch_size`. Received: "
            "micro_batches=3, batch_size=8.",
        ),
        # Schedules.
        (
            TEMPERATURE + "{kind: step}",
            "distill.schedules.soft_target.temperature.kind: must be one of "
            "'constant', 'linear', 'cosine', 'exponential', 'piecewise'. "
            "Received: 'step'.",
        ),
        (
            TEMPERATURE + "{kind: linear, start: 4, end: 0, steps: 2}",
            "distill.schedules.soft_target.temperature: must stay greater than "
            "0, as `temperature` must. Received: values [4.0, 0.0].",
        ),
        (
            TEMPERATURE + "{kind: piecewise, boundaries: [3], values: [1, -1]}",
            "distill.schedules.soft_target.temperature: must stay greater than",
        ),
        (
            WEIGHT + "{kind: constant, value: -1}",
            "distill.schedules.cosine.weight: must stay greater than or equal "
            "to 0, as `weight` must. Received: values [-1.0].",
        ),
        (
            WEIGHT + "{kind: exponential, start: 1, end: 0, steps: 2}",
            "distill.schedules.cosine.weight.end: must be greater than 0. Rec",
        ),
        (
            WEIGHT + "{kind: piecewise, boundaries: [3, 3], values: [1, 2, 3]}",
            "distill.schedules.cosine.weight.boundaries: must increase from "
            "step to step. Received: [3, 3].",
        ),
        (
            WEIGHT + "{kind: piecewise, boundaries: [3], values: [1]}",
            "distill.schedules.cosine.weight.values: must hold one value more "
            "than `boundaries`. Received: 1 values, 1 boundaries.",
        ),
        # Sections that need each other.
        (
            "distill=null",
            "finetune: this section or `distill` is required, unless "
            "`teacher.train` is given: this recipe would train nothing.",
        ),
    ],
)
def test_wrong_value_is_one_error(recipe_path, override, message):
    if message is None:
        load_recipe(recipe_path, [override])
        return
    (error,) = errors_of(recipe_path, override)
    assert error.startswith(message)


TASKS = "finetune={tasks: [rte], rows: %s}"
GIVEN = ["distill=null", "teacher={task_source: x}"]
OWN = (
    "finetune={tasks: [{name: mine, kind: span, train: x.json}], rows: "
    "[teacher, student], %s}"
)
CUT = "finetune={tasks: [rte], rows: %s, by_task: {rte: {cut_student: true}}}"
UNLABELLED = (
    "finetune={tasks: [rte], rows: %s, by_task: {rte: {unlabelled: x.tsv}}"
)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([TASKS % "[teacher, student]"], None),
        (
            [TASKS % "[teacher, student, baseline]"],
            "finetune: the row 'baseline' has no model to start from: give "
            "`student.baseline_source`, or `distill.baseline: true`, or leave",
        ),
        ([TASKS % "[teacher, baseline]", "distill.baseline=true"], None),
        (
            [TASKS % "[student]"],
            "finetune.rows: must hold teacher with student",
        ),
        ([TASKS % "[teacher, teacher]"], "finetune.rows: must name each once"),
        (
            ["finetune={tasks: [rte], rows: [teacher], seeds: [1, 1]}"],
            "finetune.seeds: must name each once. Received: [1, 1]",
        ),
        (
            [
                "finetune={tasks: [rte], rows: [teacher], by_task: "
                "{rte: {seeds: [2, 2]}}}"
            ],
            "finetune.by_task.rte.seeds: must name each once. Received: [2, 2]",
        ),
        (
            [
                "finetune={tasks: [rte], rows: [teacher], by_task: "
                "{sst: {epochs: 1}}}"
            ],
            "finetune.by_task: must name tasks. Received: 'sst'; the nearest "
            "is 'sst2'",
        ),
        (
            [
                "finetune={tasks: [rte], rows: [teacher], by_task: "
                "{rte: {seds: [1]}}}"
            ],
            "finetune.by_task.rte.seds: unknown key; nearest valid key: "
            "finetune.by_task.rte.seeds",
        ),
        (["finetune={tasks: []}"], "finetune.tasks: "),
        (["finetune={tasks: [sst]}"], "finetune.tasks.0: "),
        (
            [
                "finetune={tasks: [rte], rows: [teacher], losses: {label: "
                "{weight: 0}}}"
            ],
            "finetune.losses: at least one loss needs a weight above 0. ",
        ),
        (
            [
                "finetune={tasks: [squad, rte], rows: [teacher], "
                "augment_copies: 1}"
            ],
            "finetune.augment_copies: is not for squad, whose answers",
        ),
        (
            ["finetune={tasks: [rte], rows: [teacher], augmented_share: 0.5}"],
            "finetune.augmented_share: needs `augment_copies`, whose share",
        ),
        (
            ["finetune={tasks: [rte], rows: [teacher], augmented_share: 1.0}"],
            "finetune.augmented_share: must be less than 1. Received: 1.0.",
        ),
        (
            ["finetune={tasks: [rte], rows: [teacher], unlabelled_share: 0.5}"],
            "finetune.unlabelled_share: needs `by_task.TASK.unlabelled`, whose",
        ),
        (
            [UNLABELLED % "[teacher]" + "}"],
            "finetune.by_task: `rte.unlabelled` is read by the student alone",
        ),
        (
            [
                UNLABELLED
                % "[teacher, student]"
                + ", augment_copies: 2, augmented_share: 0.5, "
                "unlabelled_share: 0.5}"
            ],
            "finetune.unlabelled_share: must leave something of a batch for "
            "the labelled examples: its sum with `augmented_share` must be "
            "below 1. Received: 0.5 and 0.5.",
        ),
        (
            [
                UNLABELLED % "[teacher, student]"
                + ", losses: {label: {}, soft_target: {weight: 0}}}"
            ],
            "finetune.losses: `by_task.rte.unlabelled` needs a loss besides "
            "label, because only the teacher labels it; add soft_target. "
            "Received: label, soft_target.",
        ),
        (
            [UNLABELLED % "[teacher, student]" + ", unlabelled_share: 0.9}"],
            None,
        ),
        (["data.sources=[]"], "distill: there is no text to train on"),
        (
            ["student={source: x.keras}"],
            "distill: would train a student that `student.source` says",
        ),
        (["distill=null", TASKS % "[teacher]", "data.sources=[]"], None),
        (
            ["distill=null", TASKS % "[teacher, student]"],
            "finetune: the row 'student' has no model to start from: give "
            "`student.num_layers`, to cut it from the fine-tuned teacher, `stu",
        ),
        (
            [
                "distill=null",
                TASKS % "[teacher, student]",
                "student={source: x.keras}",
            ],
            None,
        ),
        (
            [
                "distill=null",
                TASKS % "[teacher, student, baseline]",
                "student={num_layers: 2}",
            ],
            None,
        ),
        (
            [
                "distill=null",
                TASKS % "[baseline]",
                "student={num_layers: 2}",
            ],
            "finetune: the row 'baseline' is cut from the fine-tuned teacher: "
            "add teacher to `rows`",
        ),
        (
            [
                "distill=null",
                CUT % "[teacher, student, baseline]",
                "student={source: x.keras, baseline_source: y.keras}",
            ],
            None,
        ),
        (
            ["distill=null", CUT % "[teacher, baseline]", "student={}"],
            None,
        ),
        (
            [
                "distill=null",
                "finetune={tasks: [rte, cola], rows: [teacher, baseline], "
                "by_task: {rte: {cut_student: true}}}",
                "student={source: x.keras}",
            ],
            "finetune: the row 'baseline' has no model to start from: give "
            "`student.baseline_source`",
        ),
        (
            [
                "distill=null",
                CUT % "[baseline]",
                "student={baseline_source: y.keras}",
            ],
            "finetune: the row 'baseline' is cut from the fine-tuned teacher: "
            "add teacher to `rows`, or remove `by_task.rte.cut_student`.",
        ),
        (
            [
                "distill=null",
                CUT % "[teacher, student]",
                "student={num_layers: 2}",
                "teacher={source: x, predictions: y.jsonl}",
            ],
            "finetune: `by_task.rte.cut_student` needs a teacher's layers",
        ),
        (
            ["teacher={}"],
            "teacher.source: is required, unless `task_source` names",
        ),
        (
            ["teacher={task_source: x}"],
            "finetune: `teacher.task_source` is fine-tuned on a task and",
        ),
        (
            [*GIVEN, "finetune={tasks: [rte, cola], rows: [teacher]}"],
            "finetune: `tasks` must be the one task of `teacher.task_source`.",
        ),
        (
            [*GIVEN, "finetune={tasks: [rte], augment_copies: 2}"],
            "finetune: `augment_copies` asks an untuned teacher for words",
        ),
        (
            [*GIVEN, "finetune={tasks: [rte], teacher_seeds: all}"],
            "finetune: `teacher_seeds: all` is for teachers of several seeds",
        ),
        ([*GIVEN, "finetune={tasks: [rte]}", "student={}"], None),
        (
            ["teacher={source: x, task_source: y, predictions: z}"],
            "teacher.predictions: are those of a teacher that is not at hand",
        ),
        (
            ["teacher.predictions=x", "finetune={tasks: [rte]}"],
            "finetune: `tasks` must be a mapping with files, whose rows `teach",
        ),
        (
            ["teacher.predictions=x", OWN % "teacher_cache: true"],
            "finetune: `teacher_cache` keeps the outputs of a teacher, and `te",
        ),
        (
            ["teacher.predictions=x", OWN % "losses: {label: {}, cosine: {}}"],
            "finetune: the loss cosine reads states of the teacher, which `tea",
        ),
        (["teacher.predictions=x", OWN % "seeds: [1]"], None),
        (
            ["distill=null", TRAIN % ("adapter", ""), "data.sources=[]"],
            "finetune: there is no text to train on",
        ),
    ],
)
def test_tasks_need_models_and_models_need_text(
    recipe_path, overrides, message
):
    if message is None:
        load_recipe(recipe_path, overrides)
        return
    (error,) = errors_of(recipe_path, *overrides)
    assert error.startswith(message)


def test_student_needs_distill(recipe_path):
    (error,) = errors_of(
        recipe_path, TRAIN % ("adapter", ""), "distill=null", "student={}"
    )
    assert error == (
        "finetune: this section or `distill` is required with a `student`, "
        "which it trains; add it, or remove `student`."
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sed=1", "sed: unknown key; nearest valid key: seed."),
        (
            "distill.temprature=1",
            "distill.temprature: unknown key; nearest valid key: "
            "distill.losses.soft_target.temperature.",
        ),
        (
            "learning_rat=1",
            "learning_rat: unknown key; nearest valid key: "
            "distill.learning_rate.",
        ),
        (
            "distill.loses.temperature=1",
            "distill.loses: unknown key; nearest valid key: distill.losses.",
        ),
        (
            "evaluate.batchsize=1",
            "evaluate.batchsize: unknown key; nearest valid key: "
            "evaluate.batch_size.",
        ),
        (
            "data.sources.0.package=1",
            "data.sources.0.package: unknown key; nearest valid key: "
            "data.sources.0.packages.",
        ),
        (
            "data.patern=1",
            "data.patern: unknown key; nearest valid key: "
            "data.sources.N.pattern.",
        ),
        # The section's own key comes first, even if another has the name.
        (
            "evaluate.sequence_length=1",
            "evaluate.sequence_length: unknown key; nearest valid key: "
            "evaluate.latency_length, or data.sequence_length.",
        ),
        (
            "distill.weights=1",
            "distill.weights: unknown key; nearest valid key: "
            "distill.weight_decay, or distill.losses.mlm.weight.",
        ),
        (
            "teacher.layers=[1]",
            "teacher.layers: unknown key; nearest valid key: student.layers.",
        ),
        (
            "finetune={tasks: [rte], batchsize: 1}",
            "finetune.batchsize: unknown key; nearest valid key: "
            "finetune.batch_size.",
        ),
        ("step=1", "step: unknown key; nearest valid key: distill.steps."),
        (
            "distill.losses.soft_target.temp=1",
            "distill.losses.soft_target.temp: unknown key; nearest valid key: "
            "distill.losses.soft_target.temperature.",
        ),
        (
            "data.length=64",
            "data.length: unknown key; nearest valid key: "
            "data.sequence_length, or export.lengths.",
        ),
        (
            "student.layer_count=1",
            "student.layer_count: unknown key; valid keys here: kind, source, "
            "baseline_source, num_layers, layers, initialization, hidden_dim, "
            "intermediate_dim, num_heads, dropout, pooling_mode, normalize, "
            "dimension, vocabulary.",
        ),
        (
            "evaluate.qqqqq=1",
            "evaluate.qqqqq: unknown key; valid keys here: sequences, "
            "batch_size, latency_length, samples, sts, retrieval, beside.",
        ),
        (
            TEMPERATURE + "{kind: constant, value: 1, start: 1}",
            "distill.schedules.soft_target.temperature.start: unknown key; "
            "valid keys for this kind: kind, value.",
        ),
        (
            "data.sources.0.field=text",
            "data.sources.0.field: unknown key; valid keys for this kind: "
            "kind, packages.",
        ),
    ],
)
def test_unknown_key_names_the_nearest(recipe_path, override, message):
    assert errors_of(recipe_path, override) == [message]


@pytest.mark.parametrize(
    ("section", "keys"),
    [
        ("", ["name", "teacher"]),
        ("distill", ["batch_size", "learning_rate"]),
        ("teacher.train", ["method", "steps", "batch_size", "learning_rate"]),
    ],
)
def test_required_keys_are_all_reported(recipe_path, section, keys):
    if section:
        errors = errors_of(recipe_path, f"{section}={{}}")
    else:
        recipe_path.write_text("seed: 0\n")
        errors = errors_of(recipe_path)
    missing = [error for error in errors if "required key" in error]
    prefix = f"{section}." if section else ""
    assert missing == [
        f"{prefix}{key}: required key is missing." for key in keys
    ]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["distill.steps=4", "distill.epochs=1"],
            "distill.minutes: set only one of `steps`, `epochs` and "
            "`minutes`, the others to null. Received: steps=4, epochs=1.0.",
        ),
        (
            ["distill.minutes=4", "minutes=5"],
            "distill: remove `minutes`, or the `minutes` of the whole recipe, "
            "which are in place of it.",
        ),
    ],
)
def test_one_key_says_how_long(overrides, message, recipe_path):
    assert errors_of(recipe_path, *overrides) == [message]


@pytest.mark.parametrize(
    ("override", "given"),
    [
        ("distill.epochs=2", (None, 2.0, None, None)),
        ("distill.minutes=3", (None, None, 3.0, None)),
        ("minutes=1.5", (None, None, None, 1.5)),
        ("distill.steps=7", (7, None, None, None)),
    ],
)
def test_an_override_of_the_duration_replaces_it(override, given, recipe_path):
    for before in ("distill.steps=4", "distill.minutes=9", "minutes=8"):
        path = recipe_path.with_name("before.yaml")
        path.write_text(dump_recipe(load_recipe(recipe_path, [before])))
        recipe = load_recipe(path, [override])
        distill = recipe.distill
        assert given == (
            *(distill.steps, distill.epochs, distill.minutes),
            recipe.minutes,
        )


def test_all_errors_come_together(recipe_path):
    errors = errors_of(
        recipe_path,
        "seed=-1",
        "student.dropout=2",
        "distill.batch_size=x",
        "distill.steps=1",
        "distill.epochs=1",
        "distill.temprature=1",
        "distill.losses.cosine.weight=-1",
        "data.sources.0.packages=[1]",
        "evaluate.sequences=0",
    )
    paths = [error.partition(":")[0] for error in errors]
    assert sorted(paths) == [
        "data.sources.0.packages.0",
        "distill.batch_size",
        "distill.losses.cosine.weight",
        "distill.minutes",
        "distill.temprature",
        "evaluate.sequences",
        "seed",
        "student.dropout",
    ]


def test_key_that_is_no_text(recipe_path):
    with recipe_path.open("a", encoding="utf-8") as file:
        file.write("1: 2\n")
    assert errors_of(recipe_path) == ["1: Keys should be strings. Received: 1."]


def test_a_key_named_as_a_kind_keeps_its_path(recipe_path):
    errors = errors_of(recipe_path, "data.sources.0={kind: files, files: 1}")
    assert [error.partition(" ")[0] for error in errors] == [
        "data.sources.0.pattern:",
        "data.sources.0.files:",
    ]


def test_recipe_is_frozen(recipe_path):
    recipe = load_recipe(recipe_path)
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        recipe.seed = 1


def test_teacher_only_recipe(recipe_path):
    values = yaml.safe_load(recipe_path.read_text())
    del values["distill"]
    recipe_path.write_text(yaml.safe_dump(values))
    recipe = load_recipe(recipe_path, [TRAIN % ("adapter", "")])
    assert recipe.distill is None
    assert recipe.student is None
    assert recipe.teacher.train.rank == 16


def test_rank_is_the_adapters_only(recipe_path):
    recipe = load_recipe(recipe_path, [TRAIN % ("all_weights", "")])
    assert recipe.teacher.train.rank is None
    recipe = load_recipe(recipe_path, [TRAIN % ("adapter", ", rank: 4")])
    assert recipe.teacher.train.rank == 4


def test_distill_without_student_takes_the_default(recipe_path):
    recipe = load_recipe(recipe_path)
    assert recipe.student == load_recipe(recipe_path, ["student={}"]).student
    assert recipe.student.dropout == 0.1


@pytest.mark.parametrize(
    ("schedule", "extremes"),
    [
        ("{kind: constant, value: 2}", [2.0]),
        ("{kind: linear, start: 4, end: 1, steps: 9}", [4.0, 1.0]),
        ("{kind: cosine, start: 4, end: 1, steps: 9}", [4.0, 1.0]),
        ("{kind: exponential, start: 4, end: 1, steps: 9}", [4.0, 1.0]),
        ("{kind: piecewise, boundaries: [5], values: [3, 1]}", [3.0, 1.0]),
    ],
)
def test_schedules(recipe_path, schedule, extremes):
    recipe = load_recipe(recipe_path, [TEMPERATURE + schedule])
    (schedules,) = recipe.distill.schedules.by_name.values()
    assert schedules["temperature"].extremes() == extremes


def test_weight_schedule_may_reach_zero(recipe_path):
    load_recipe(
        recipe_path, [WEIGHT + "{kind: linear, start: 1, end: 0, steps: 2}"]
    )


def test_bounds_are_inclusive_where_stated(recipe_path):
    recipe = load_recipe(
        recipe_path,
        [
            "student.dropout=0",
            "data.sequence_length=512",
            "data.held_out_fraction=0.5",
            "data.masking.rare_token_exponent=1",
            "evaluate.latency_length=8",
            "distill.losses={mlm: {weight: 0}, cosine: {weight: 1}}",
        ],
    )
    assert math.isclose(recipe.data.held_out_fraction, 0.5)
    assert recipe.distill.losses.cosine.weight == 1.0
