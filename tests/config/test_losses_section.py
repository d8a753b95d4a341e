"""Losses, schedules and shares by name; the keys they had before."""

import pytest
import yaml

from keras_distil import config
from keras_distil.config import earlier_form
from keras_distil.losses.settings import MaskedLMSoftTargetSettings

RAMP = "{kind: linear, start: 4, end: 1, steps: 9}"


def load(path, *overrides):
    return config.load_recipe(path, overrides)


def error_of(path, *overrides):
    with pytest.raises(config.RecipeError) as caught:
        load(path, *overrides)
    (line,) = str(caught.value).splitlines()
    return line.removeprefix(f"{path}: ")


def weights(losses):
    return {name: each.weight for name, each in losses.by_name.items()}


def test_without_the_key_there_are_three(recipe_path):
    recipe = load(recipe_path, "finetune={tasks: [rte], rows: [teacher]}")
    names = ["mlm", "soft_target", "cosine"]
    assert weights(recipe.distill.losses) == dict.fromkeys(names, 1.0)
    assert recipe.distill.losses.by_name["soft_target"] == (
        MaskedLMSoftTargetSettings(
            temperature=2.0, confidence_slope=0.0, positions="all"
        )
    )
    names[0] = "label"
    assert weights(recipe.finetune.losses) == dict.fromkeys(names, 1.0)


def test_a_given_map_is_complete(recipe_path):
    recipe = load(
        recipe_path,
        "distill.losses={cosine: {}, mlm: {weight: 3.0}}",
        "finetune={tasks: [rte], rows: [teacher], losses: {label: {}}}",
    )
    # In the order of the registry.
    assert list(weights(recipe.distill.losses).items()) == [
        ("mlm", 3.0),
        ("cosine", 1.0),
    ]
    assert weights(recipe.finetune.losses) == {"label": 1.0}
    copy = recipe_path.with_name("copy.yaml")
    copy.write_text(config.dump_recipe(recipe))
    assert config.load_recipe(copy) == recipe


def test_one_setting_of_the_default_is_changed_alone(recipe_path):
    recipe = load(
        recipe_path,
        "distill.losses.soft_target.temperature=3",
        "finetune={tasks: [rte], rows: [teacher]}",
        "finetune.losses.cosine.weight=5",
    )
    assert len(recipe.distill.losses.by_name) == 3
    assert recipe.distill.losses.soft_target.temperature == 3.0
    assert weights(recipe.finetune.losses) == {
        "label": 1.0,
        "soft_target": 1.0,
        "cosine": 5.0,
    }


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "distill.losses.cosin.weight=1",
            "distill.losses.cosin: unknown key; nearest valid key: "
            "distill.losses.cosine.",
        ),
        (
            "distill.losses.cosine.wieght=1",
            "distill.losses.cosine.wieght: unknown key; nearest valid key: "
            "distill.losses.cosine.weight.",
        ),
        (
            "distill.losses.label.weight=1",
            "distill.losses.label: unknown key; nearest valid key: "
            "finetune.losses.label.",
        ),
        (
            "distill={steps: 1, batch_size: 1, learning_rate: 1, losses: "
            f"{{mlm: {{}}}}, schedules: {{cosine: {{weight: {RAMP}}}}}}}",
            "distill.schedules: cosine is not in `distill.losses`: add it "
            "there, or remove `distill.schedules.cosine`.",
        ),
        (
            "distill.losses={cosine: {weight: 2}}",
            "distill.losses: needs a loss on the outputs, such as soft_target, "
            "or the output layer would not be trained. Received: cosine.",
        ),
        (
            "distill.schedules.mlm.temperature=1",
            "distill.schedules.mlm.temperature: unknown key; nearest valid "
            "key: distill.schedules.soft_target.temperature.",
        ),
        (
            "distill={steps: 1, batch_size: 1, learning_rate: 1, losses: "
            "{mlm: {}, cosine: {}}, balance: {soft_target: 2}}",
            "distill.balance: soft_target has no weight in `distill.losses`: "
            "give it one, or remove `distill.balance.soft_target`.",
        ),
        (
            "distill={steps: 1, batch_size: 1, learning_rate: 1, losses: "
            "{mlm: {}, cosine: {weight: 0}}, balance: {mlm: 2}}",
            "distill.balance: needs at least two losses with a weight above 0.",
        ),
        (
            "distill={steps: 1, batch_size: 1, learning_rate: 1, "
            f"balance: {{}}, schedules: {{mlm: {{weight: {RAMP}}}}}}}",
            "distill.balance: sets the weights itself; remove "
            "`distill.schedules.mlm.weight`.",
        ),
    ],
)
def test_a_wrong_map_is_one_line(recipe_path, override, message):
    assert error_of(recipe_path, override) == message


def test_shares_are_one_unless_they_are_given(recipe_path):
    settings = load(recipe_path, "distill.balance={cosine: 4}").distill
    assert settings.balance.ratios(settings.losses) == {
        "mlm": 1.0,
        "soft_target": 1.0,
        "cosine": 4.0,
    }
    settings = load(
        recipe_path, "distill.balance={}", "distill.losses.mlm.weight=0"
    ).distill
    assert list(settings.balance.ratios(settings.losses)) == [
        "soft_target",
        "cosine",
    ]


@pytest.mark.parametrize(
    ("overrides", "temperatures", "positions", "weighted"),
    [
        ([], (2.0, 2.0), "all", ["mlm", "soft_target", "cosine"]),
        (["distill.losses={mlm: {}}"], (1.0, 1.0), "masked", ["mlm"]),
        (
            [
                "distill.losses.soft_target={positions: masked, weight: 0}",
                f"distill.schedules.soft_target.temperature={RAMP}",
            ],
            (1.0, 4.0),
            "masked",
            ["mlm", "cosine"],
        ),
        (
            [
                "distill.losses.cosine.weight=0",
                f"distill.schedules.cosine.weight={RAMP}",
            ],
            (2.0, 2.0),
            "all",
            ["mlm", "soft_target", "cosine"],
        ),
    ],
)
def test_what_a_cache_needs(
    recipe_path, overrides, temperatures, positions, weighted
):
    settings = load(recipe_path, *overrides).distill
    assert settings.temperature_range == temperatures
    assert settings.positions == positions
    assert settings.weighted_losses == weighted


def test_a_confidence_needs_the_teacher(recipe_path):
    assert error_of(
        recipe_path,
        "teacher.cache={}",
        "distill.losses.soft_target.confidence_slope=0.5",
    ).startswith("distill: `losses.soft_target.confidence_slope` needs the")


def test_layers_of_hidden_states(recipe_path):
    settings = load(
        recipe_path, "distill.losses={mlm: {}, cosine: {layers: [[1, 0]]}}"
    ).distill.losses
    assert settings.cosine.layers == ((1, 0),)
    assert error_of(
        recipe_path, "distill.losses.cosine.layers=[[1, 0], [1, 0]]"
    ) == (
        "distill.losses.cosine.layers: `layers` must list each pair once. "
        "Received: (1, 0) twice."
    )
    assert error_of(
        recipe_path,
        "teacher.cache={}",
        "distill.losses.cosine.layers=uniform",
    ).startswith("distill: `losses.cosine.layers` needs the teacher itself")


@pytest.mark.parametrize(
    ("losses", "key"),
    [
        ("attention_relation: {layers: [[1, 0]]}", "attention_relation.layers"),
        ("attention_transfer: {layers: uniform}", "attention_transfer.layers"),
        ("reverse_kl: {}", "reverse_kl"),
        ("jensen_shannon: {}", "jensen_shannon"),
        ("output_mse: {}", "output_mse"),
    ],
)
def test_what_a_cache_lacks(recipe_path, losses, key):
    found = error_of(
        recipe_path,
        "teacher.cache={}",
        f"distill.losses={{soft_target: {{}}, {losses}}}",
    )
    assert found == (
        f"distill: `losses.{key}` needs the teacher itself; remove it, or "
        "`teacher.cache`."
    )


@pytest.mark.parametrize("name", ["reverse_kl", "jensen_shannon"])
def test_a_regression_has_no_classes(recipe_path, name):
    def section(tasks):
        return (
            f"finetune={{tasks: [{tasks}], rows: [teacher], losses: "
            f"{{label: {{}}, {name}: {{}}}}}}"
        )

    assert error_of(recipe_path, section("rte, stsb")).startswith(
        f"finetune.losses: {name} is for classes, and the task stsb predicts "
        f"a number; leave one of them out. Received: {name}. Losses for all "
        "tasks: label, soft_target, cosine,"
    )
    load(recipe_path, section("rte"))


def test_losses_on_attention_alone(recipe_path):
    found = error_of(recipe_path, "distill.losses={attention_relation: {}}")
    assert "needs a loss on the outputs, such as soft_target" in found


# === Keys of earlier recipes ===


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "distill.losses.mlm_weight=2.0",
            "distill.losses.mlm_weight: write `distill.losses: {mlm: {weight: "
            "2.0}}`; what the map does not name is off.",
        ),
        (
            "distill.losses.soft_target_positions=all",
            "distill.losses.soft_target_positions: write `distill.losses: "
            "{soft_target: {positions: all}}`; what the map does not name is "
            "off.",
        ),
        (
            "distill.losses.temperature=3",
            "distill.losses.temperature: write `distill.losses: {soft_target: "
            "{temperature: 3}}`; what the map does not name is off.",
        ),
        (
            f"distill.schedules.temperature={RAMP}",
            "distill.schedules.temperature: write `distill.schedules: "
            "{soft_target: {temperature: {kind: linear, start: 4, end: 1, "
            "steps: 9}}}`.",
        ),
        (
            "distill.schedules.mlm_weight={kind: constant, value: 1}",
            "distill.schedules.mlm_weight: write `distill.schedules: {mlm: "
            "{weight: {kind: constant, value: 1}}}`.",
        ),
        ("distill.twin=true", "distill.twin: write `distill.baseline: true`."),
        (
            "student.undistilled_source=a.keras",
            "student.undistilled_source: write `student.baseline_source: "
            "a.keras`.",
        ),
        (
            "finetune={tasks: [rte], rows: [teacher, undistilled]}",
            "finetune.rows.1: write `baseline`. Received: 'undistilled'.",
        ),
        (
            "finetune={tasks: [rte], rows: [teacher], losses: {label_weight: "
            "1}}",
            "finetune.losses.label_weight: write `finetune.losses: {label: "
            "{weight: 1}}`; what the map does not name is off.",
        ),
    ],
)
def test_an_earlier_key_shows_its_present_form(recipe_path, override, message):
    assert error_of(recipe_path, override) == message


def test_a_long_value_is_cut(recipe_path):
    values = list(range(200))
    message = error_of(recipe_path, f"distill.schedules.temperature={values}")
    assert len(message) < 300


def test_the_present_forms_are_keys(recipe_path):
    """Each of them can be written."""
    values = {"distill.schedules": "{kind: constant, value: 1}"}
    others = {
        "student.baseline_source": "a.keras",
        "distill.baseline": "true",
        "distill.losses.soft_target.positions": "all",
    }
    for key in earlier_form.MOVED.values():
        section = key.rpartition(".")[0].rpartition(".")[0]
        given = others.get(key, values.get(section, "1"))
        overrides = [f"{key}={given}"]
        if key.startswith("finetune."):
            overrides[:0] = ["finetune={tasks: [rte], rows: [teacher]}"]
        load(recipe_path, *overrides)


def earlier_values(recipe_path, **distill):
    """A recipe with all defaults, as they were written down."""
    recipe = load(
        recipe_path, "finetune={tasks: [rte], rows: [teacher, student]}"
    )
    values = yaml.safe_load(config.dump_recipe(recipe))
    soft = {"temperature": 2.0, "confidence_slope": 0.0}
    weights = {"soft_target_weight": 1.0, "cosine_weight": 1.0}
    del values["distill"]["baseline"], values["student"]["baseline_source"]
    values["student"]["undistilled_source"] = None
    values["distill"] |= {
        "losses": {
            "mlm_weight": 1.0,
            **weights,
            **soft,
            "soft_target_positions": "all",
        },
        "schedules": dict.fromkeys(
            ("temperature", "mlm_weight", "soft_target_weight", "cosine_weight")
        ),
        "twin": False,
        **distill,
    }
    values["finetune"]["losses"] = {"label_weight": 1.0, **weights, **soft}
    return values, recipe


def test_an_earlier_recipe_is_translated(recipe_path):
    values, recipe = earlier_values(recipe_path)
    found = config.make_recipe(earlier_form.translate(values))
    assert found == recipe
    # What is in the present form stays as it is.
    present = yaml.safe_load(config.dump_recipe(recipe))
    assert earlier_form.translate(present) == present


def test_an_earlier_map_is_completed():
    """What it did not say had a default, and was not off."""
    values = {"distill": {"losses": {"mlm_weight": 2.0}}}
    assert earlier_form.translate(values) == {
        "distill": {
            "losses": {
                "mlm": {"weight": 2.0},
                "soft_target": {},
                "cosine": {},
            }
        }
    }


def test_a_weight_of_zero_is_translated_to_what_it_did(recipe_path):
    values, _ = earlier_values(
        recipe_path, balance={"mlm": 1.0, "cosine": 1.0, "every_steps": 5}
    )
    values["distill"]["losses"]["cosine_weight"] = 0.0
    values["finetune"]["losses"]["cosine_weight"] = 0.0
    values["finetune"]["rows"] = ["teacher", "undistilled"]
    values["distill"]["twin"] = True
    values["search"] = {
        "space": {"distill.losses.temperature": {"min": 1.0, "max": 2.0}}
    }
    found = config.make_recipe(earlier_form.translate(values))
    assert weights(found.distill.losses)["cosine"] == 0.0
    assert "cosine" not in weights(found.finetune.losses)
    assert found.distill.balance.by_name == {"mlm": 1.0, "every_steps": 5}
    assert found.distill.baseline is True
    assert found.finetune.rows == ["teacher", "baseline"]
    (key,) = found.search.space
    assert key == "distill.losses.soft_target.temperature"


# === Several teachers of a task ===


def finetune(*settings):
    keys = ", ".join(["tasks: [rte, cola]", "rows: [teacher]", *settings])
    return f"finetune={{{keys}}}"


def test_a_loss_names_one_of_the_teachers(recipe_path):
    losses = "losses: {label: {}, cosine: {teacher: 1}, hidden_mse: {}}"
    seeds = ["seeds: [4, 2, 7]", "teacher_seeds: all"]
    section = load(recipe_path, finetune(*seeds, losses)).finetune
    assert section.teacher_seeds == "all"
    assert section.losses.cosine.teacher == 1
    assert section.losses.hidden_mse.teacher == 0
    assert load(recipe_path, finetune()).finetune.teacher_seeds == "own"
    load(recipe_path, finetune(*seeds, losses.replace("1", "2")))


@pytest.mark.parametrize(
    ("settings", "name", "number", "count"),
    [
        ("seeds: [4, 2, 7]", "cosine", 1, 1),
        ("seeds: [4, 2], teacher_seeds: all", "hidden_mse", 2, 2),
        (
            "seeds: [4, 2], teacher_seeds: all, by_task: {cola: {seeds: [1]}}",
            "attention_relation",
            1,
            1,
        ),
        (
            "by_task: {rte: {seeds: [1, 2]}, cola: {seeds: [4, 2, 1]}}, "
            "teacher_seeds: all",
            "attention_transfer",
            3,
            2,
        ),
    ],
)
def test_a_teacher_that_is_not_there(
    recipe_path, settings, name, number, count
):
    losses = f"losses: {{label: {{}}, {name}: {{teacher: {number}}}}}"
    assert error_of(recipe_path, finetune(settings, losses)) == (
        f"finetune.losses: {name}.teacher must be below {count}, the number "
        "of a student's teachers: one, or with `teacher_seeds: all` one for "
        f"each of the task's seeds. Received: {name}.teacher={number}."
    )


def test_general_text_has_one_teacher(recipe_path):
    found = error_of(recipe_path, "distill.losses.cosine.teacher=1")
    assert found.startswith(
        "distill.losses.cosine.teacher: unknown key; nearest valid key: "
    )
    found = error_of(recipe_path, finetune("teacher_seeds: each"))
    assert found.startswith("finetune.teacher_seeds: ")
