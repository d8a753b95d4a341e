"""`finetune.stages`: what each row of the table gets, and what is refused."""

import pytest

from keras_distil import config

STATES = "{losses: {cosine: {}, attention_relation: {}}, epochs: 3}"
OUTPUTS = (
    "{losses: {label: {}, soft_target: {temperature: 3.0}}, epochs: 2, "
    "learning_rate: 0.002}"
)
BOTH = f"stages: [{STATES}, {OUTPUTS}]"


def section(more, tasks="rte, cola"):
    return f"finetune={{tasks: [{tasks}], rows: [teacher, student], {more}}}"


def load(path, more, *overrides, **options):
    recipe = config.load_recipe(path, [section(more, **options), *overrides])
    return recipe.finetune


def error_of(path, more, *overrides, **options):
    with pytest.raises(config.RecipeError) as caught:
        load(path, more, *overrides, **options)
    (line,) = str(caught.value).splitlines()
    return line.removeprefix(f"{path}: ")


def described(sections):
    return [
        (list(each.losses.by_name), each.epochs, each.learning_rate)
        for each in sections
    ]


def test_without_stages_there_is_one(recipe_path):
    settings = load(recipe_path, "epochs: 4, learning_rate: 0.01").of_task(
        "rte"
    )
    assert settings.split_stages() == [settings]
    assert described([settings]) == [
        (["label", "soft_target", "cosine"], 4, 0.01)
    ]


def test_stages_have_losses_epochs_and_rates_of_their_own(recipe_path):
    settings = load(recipe_path, f"{BOTH}, learning_rate: 0.01").of_task("rte")
    first, second = settings.split_stages()
    assert described([first, second]) == [
        (["cosine", "attention_relation"], 3, 0.01),
        (["label", "soft_target"], 2, 0.002),
    ]
    assert second.losses.soft_target.temperature == 3.0
    # The other rows train for as long.
    assert settings.epochs == 5
    default = load(recipe_path, BOTH).of_task("rte").split_stages()
    assert [stage.learning_rate for stage in default] == [None, 0.002]


def test_a_task_has_stages_of_its_own(recipe_path):
    own = f"by_task: {{cola: {{stages: [{OUTPUTS}], learning_rate: 0.3}}}}"
    settings = load(recipe_path, f"{BOTH}, {own}")
    assert len(settings.of_task("rte").split_stages()) == 2
    (stage,) = settings.of_task("cola").split_stages()
    assert described([stage]) == [(["label", "soft_target"], 2, 0.002)]
    assert settings.of_task("cola").epochs == 2
    # Other tasks keep the losses and epochs of the section.
    settings = load(recipe_path, f"epochs: 9, losses: {{label: {{}}}}, {own}")
    assert settings.of_task("cola").epochs == 2
    assert described(settings.of_task("rte").split_stages()) == [
        (["label"], 9, None)
    ]


def test_a_written_recipe_is_read_back(recipe_path):
    own = f"by_task: {{cola: {{stages: [{OUTPUTS}]}}}}"
    for more in (BOTH, f"{BOTH}, {own}", own):
        recipe = config.load_recipe(recipe_path, [section(more)])
        copy = recipe_path.with_name("copy.yaml")
        copy.write_text(config.dump_recipe(recipe))
        assert config.load_recipe(copy) == recipe


def test_a_setting_of_a_stage_is_changed_by_its_number(recipe_path):
    settings = load(recipe_path, BOTH, "finetune.stages.1.epochs=7")
    assert settings.of_task("rte").epochs == 10


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            "stages: []",
            "finetune.stages: List should have at least 1 item",
        ),
        ("stages: 2", "finetune.stages: must be a valid list. Received: 2."),
        (
            "stages: [{epochs: 2}]",
            "finetune.stages.0.losses: required key is missing.",
        ),
        (
            "stages: [{losses: {label: {}}}]",
            "finetune.stages.0.epochs: required key is missing.",
        ),
        (
            "stages: [{losses: {label: {}}, epochs: 0}]",
            "finetune.stages.0.epochs: must be greater than or equal to 1.",
        ),
        (
            "stages: [{losses: {labels: {}}, epochs: 1}]",
            "finetune.stages.0.losses.labels: unknown key; nearest valid key: "
            "finetune.stages.0.losses.label, or finetune.tasks.N.labels.",
        ),
        (
            "stages: [{losses: {mlm: {}}, epochs: 1}]",
            "finetune.stages.0.losses.mlm: unknown key; nearest valid key: ",
        ),
        (
            "stages: [{losses: {}, epochs: 1}]",
            "finetune.stages.0.losses: at least one loss needs a weight above "
            "0. Received: no loss.",
        ),
        (
            "stages: [{losses: {cosine: {weight: 0}}, epochs: 1}]",
            "finetune.stages.0.losses: at least one loss needs a weight above "
            "0. Received: cosine with weight 0.",
        ),
        (
            f"stages: [{OUTPUTS}, {STATES}]",
            "finetune.stages: the last stage, `stages.1.losses`, needs a loss "
            "on the outputs, such as soft_target: its epochs are scored. "
            "Received: cosine, attention_relation.",
        ),
        (
            f"by_task: {{rte: {{stages: [{STATES}]}}}}",
            "finetune.by_task.rte.stages: the last stage, `stages.0.losses`, ",
        ),
        (
            f"{BOTH}, epochs: 3",
            "finetune.stages: every stage has its own epochs, and all rows "
            "train for their sum; remove `epochs`. Received: epochs: 3.",
        ),
        (
            f"by_task: {{rte: {{stages: [{OUTPUTS}], epochs: 3}}}}",
            "finetune.by_task.rte.stages: every stage has its own epochs, and "
            "all rows train for their sum; remove `epochs`. Received: epochs: "
            "3.",
        ),
        (
            f"{BOTH}, by_task: {{rte: {{epochs: 3}}}}",
            "finetune.stages: every stage has its own epochs, and all rows "
            "train for their sum; remove `by_task.rte.epochs`, or give "
            "`by_task.rte.stages`. Received: 3.",
        ),
        (
            f"{BOTH}, losses: {{label: {{}}}}",
            "finetune.stages: every stage has its own losses; remove "
            "`losses`. Received: losses: label.",
        ),
    ],
)
def test_wrong_stages_are_one_line(recipe_path, more, message):
    assert error_of(recipe_path, more).startswith(message)


def test_losses_of_classes_are_not_for_a_number(recipe_path):
    classes = (
        "[{losses: {label: {}}, epochs: 1}, {losses: {%s: {}}, epochs: 1}]"
    )
    wrong = classes % "reverse_kl"
    for more, key in (
        (f"stages: {wrong}", "stages.1.losses.reverse_kl"),
        (
            f"by_task: {{stsb: {{stages: {wrong}}}}}",
            "by_task.stsb.stages.1.losses.reverse_kl",
        ),
    ):
        assert error_of(recipe_path, more, tasks="rte, stsb").startswith(
            f"finetune.stages: {key} is for classes, and the task stsb "
            "predicts a number; leave one of them out. Received: reverse_kl."
        )
    # It has stages of its own, or it is not among the tasks.
    own = f"by_task: {{stsb: {{stages: {classes % 'output_mse'}}}}}"
    load(recipe_path, f"stages: {wrong}, {own}", tasks="rte, stsb")
    load(recipe_path, f"stages: {wrong}", tasks="rte")


def test_every_stage_learns_from_unlabelled_text(recipe_path):
    text = "by_task: {rte: {unlabelled: more.txt}}"
    label = "{losses: {label: {}}, epochs: 1}"
    load(recipe_path, f"{BOTH}, {text}")
    found = error_of(recipe_path, f"stages: [{label}, {OUTPUTS}], {text}")
    assert found == (
        "finetune.stages: `by_task.rte.unlabelled` needs a loss besides label "
        "in `stages.0.losses`, because only the teacher labels it; add "
        "soft_target. Received: label."
    )
    # A task with text and stages of its own.
    own = f"by_task: {{rte: {{unlabelled: x.txt, stages: [{OUTPUTS}]}}}}"
    settings = load(recipe_path, f"stages: [{label}], {own}")
    assert len(settings.of_task("rte").split_stages()) == 1
    assert settings.unlabelled_of("rte") == "x.txt"
