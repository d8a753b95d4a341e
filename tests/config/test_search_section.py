"""`search` in a recipe: what it may say, and what is said otherwise."""

import pytest

from keras_distil import config

TEMPERATURE = "distill.losses.soft_target.temperature"


def load(recipe, search, *more):
    return config.load_recipe(recipe, [f"search={search}", *more])


def space(text):
    return f"{{space: {{{text}}}}}"


@pytest.mark.parametrize(
    "text",
    [
        f"{TEMPERATURE}: {{min: 1, max: 8}}",
        f"{TEMPERATURE}: {{min: 0.5, max: 8.0, scale: log}}",
        f"{TEMPERATURE}: {{choices: [1.0, 2.0]}}",
        "student.num_layers: {min: 1, max: 3}",
        "student.layers: {choices: [alternate, first]}",
        "student.hidden_dim: {choices: [null, 192]}",
        "distill.schedules.soft_target.temperature: {choices: [null, "
        "{kind: linear, start: 4.0, end: 1.0, steps: 30}]}",
        "distill.balance: {choices: [null, {mlm: 2.0}]}",
    ],
)
def test_a_space(recipe_path, text):
    found = load(recipe_path, space(text))
    again = config.dump_recipe(found)
    (recipe_path.parent / "again.yaml").write_text(again)
    assert config.load_recipe(recipe_path.parent / "again.yaml") == found
    assert found.search.trials == 12


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "distill.losses.soft_target.temperatur: {min: 1, max: 8}",
            "distill.losses.soft_target.temperatur is not a key to search; the "
            f"nearest is {TEMPERATURE}.",
        ),
        (
            "distill.losses.temperature: {min: 1, max: 8}",
            f"distill.losses.temperature is now {TEMPERATURE}; write that.",
        ),
        ("data.layout: {choices: [a, b]}", "is not a key to search"),
        ("distill.steps: {min: 1, max: 8}", "is the same in all trials"),
        (f"{TEMPERATURE}: {{min: 8, max: 8}}", "the range is empty"),
        (f"{TEMPERATURE}: {{min: 9, max: 8}}", "min=9.0, max=8.0"),
        (f"{TEMPERATURE}: {{min: 1}}", "`min` and `max` need each other"),
        (f"{TEMPERATURE}: {{max: 1}}", "`min` and `max` need each other"),
        (f"{TEMPERATURE}: {{}}", "`min` and `max` in its place"),
        (f"{TEMPERATURE}: {{choices: []}}", "at least two values"),
        (f"{TEMPERATURE}: {{choices: [2.0, 2.0]}}", "each of them once"),
        (
            f"{TEMPERATURE}: {{choices: [1.0, 2.0], min: 1, max: 2}}",
            "has no use for `min` and `max`",
        ),
        (
            f"{TEMPERATURE}: {{min: 0, max: 8, scale: log}}",
            "log needs a `min` above 0",
        ),
        (
            f"{TEMPERATURE}: {{min: 0, max: 8}}",
            f"{TEMPERATURE} may not be 0.0: must be greater than 0.",
        ),
        (
            f"{TEMPERATURE}: {{choices: [2.0, hot]}}",
            f"{TEMPERATURE} may not be hot: must be a valid number.",
        ),
        (
            "student.num_layers: {min: 1.5, max: 3}",
            "student.num_layers may not be 1.5",
        ),
        (
            "distill.losses.soft_target.positions: {choices: [all, none]}",
            "may not be none",
        ),
        ("", "search.space"),
    ],
)
def test_a_wrong_space(recipe_path, text, message):
    with pytest.raises(config.RecipeError) as error:
        load(recipe_path, space(text))
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ("objective: rte", "must be what this recipe computes"),
        ("objective: agreement", "teacher_agreement, mlm_loss"),
        ("tuner: hyperband", "must be at least 3 with `tuner: hyperband`"),
        ("tuner: grid", "`tuner: grid` goes through `choices`"),
        ("tuner: best", "search.tuner"),
        ("trials: 0", "search.trials"),
        ("trails: 5", "nearest valid key: search.trials"),
    ],
)
def test_a_wrong_search(recipe_path, search, message):
    text = f"{{{search}, space: {{{TEMPERATURE}: {{min: 1, max: 8}}}}}}"
    with pytest.raises(config.RecipeError) as error:
        load(recipe_path, text)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["distill=null", "teacher.train.steps=1"], "needs `distill`"),
        (["teacher.cache={}"], "remove `teacher.cache`"),
    ],
)
def test_a_recipe_that_cannot_be_searched(recipe_path, more, message):
    more = [*more, "student=null"] if "null" in more[0] else more
    if "distill=null" in more:
        more[1] = (
            "teacher.train={method: all_weights, steps: 1, batch_size: 1, "
            "learning_rate: 1.0}"
        )
    with pytest.raises(config.RecipeError) as error:
        load(recipe_path, space(f"{TEMPERATURE}: {{min: 1, max: 8}}"), *more)
    assert message in str(error.value)


def test_a_trial_is_a_recipe_without_the_search(recipe_path):
    found = load(recipe_path, space(f"{TEMPERATURE}: {{min: 1, max: 8}}"))
    trial = config.with_values(
        found, {TEMPERATURE: 3.0, "student.layers": "last"}
    )
    assert trial.search is None
    assert trial.distill.losses.soft_target.temperature == 3.0
    assert trial.student.layers == "last"
    assert trial.data == found.data
    with pytest.raises(config.RecipeError, match="must be greater than 0"):
        config.with_values(found, {TEMPERATURE: 0.0})


def test_a_recipe_from_values():
    with pytest.raises(config.RecipeError, match="^the recipe: teacher: req"):
        config.make_recipe({"name": "x"})
