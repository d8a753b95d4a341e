"""Files, YAML and overrides."""

import re

import pytest
import yaml

from keras_distil.config import (
    Recipe,
    RecipeError,
    dump_recipe,
    load_recipe,
)


def refused(path, overrides=()):
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return str(caught.value)


def write(tmp_path, content):
    path = tmp_path / "bad.yaml"
    if isinstance(content, str):
        content = content.encode()
    path.write_bytes(content)
    return path


def test_returns_a_recipe_with_defaults(recipe_path):
    recipe = load_recipe(str(recipe_path))
    assert isinstance(recipe, Recipe)
    assert recipe.seed == 0
    assert recipe.precision == "float32"
    assert recipe.data.sequence_length == 128
    assert recipe.data.sources[0].packages[0] == "tensorflow"
    assert recipe.student.layers == "alternate"
    assert recipe.distill.learning_rate == 1e-3
    assert recipe.distill.losses.soft_target.temperature == 2.0
    assert recipe.evaluate.sequences is None


def test_recipe_error_is_a_value_error():
    assert issubclass(RecipeError, ValueError)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("5E4", 5e4),
        ("2.5e2", 250.0),
        ("+.5e1", 5.0),
        ("0.001", 0.001),
        ("1", 1.0),
    ],
)
def test_exponents_are_numbers(recipe_path, text, value):
    recipe = load_recipe(recipe_path, [f"distill.learning_rate={text}"])
    assert recipe.distill.learning_rate == value


@pytest.mark.parametrize("text", ["1e", "e3", "1e3x", "hf://1e3", "v1e3"])
def test_other_text_stays_text(recipe_path, text):
    recipe = load_recipe(recipe_path, [f"teacher.source={text}"])
    assert recipe.teacher.source == text


@pytest.mark.parametrize("value", [1e-5, 5e-324, 1.5e300, 3.0])
def test_dump_keeps_every_digit(recipe_path, tmp_path, value):
    recipe = load_recipe(recipe_path, [f"distill.learning_rate={value!r}"])
    copy = write(tmp_path, dump_recipe(recipe))
    assert load_recipe(copy).distill.learning_rate == value


@pytest.mark.parametrize(
    "name", ["1e3", "5e-4", "12", "on", "null", "2024-01-01", "0x1f", "-"]
)
def test_dump_keeps_text_that_looks_like_something_else(
    recipe_path, tmp_path, name
):
    recipe = load_recipe(recipe_path, [f"name='{name}'"])
    copy = write(tmp_path, dump_recipe(recipe))
    assert load_recipe(copy).name == name


def test_dump_writes_defaults_in_the_order_of_the_schema(recipe_path):
    values = yaml.safe_load(dump_recipe(load_recipe(recipe_path)))
    assert list(values) == list(Recipe.model_fields)
    assert values["distill"]["clip_norm"] == 1.0
    assert values["student"]["num_layers"] is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("# nothing\n", "the file is empty"),
        ("- name: a\n", "must be a mapping .* Received: a list"),
        ("just text\n", "must be a mapping .* Received: a str"),
        ("name: a\nname: b\n", "line 2: the key `name` is given twice"),
        (
            "data:\n  root: a\n  root: b\n",
            "line 3: the key `root` is given twice",
        ),
        ("name: [a\n", "line 2: expected ',' or ']'"),
        ("a: b: c\n", "line 1: mapping values are not allowed here"),
        ("\tname: a\n", r"line 1: found character '\\t'"),
        (
            "name: !!python/object/apply:os.getcwd []\n",
            "line 1: could not determine a constructor for the tag "
            ".*python/object.*; a recipe holds plain data only",
        ),
        ("name: a\n---\nname: b\n", "line 2: but found another document"),
        ("? [a]\n: b\n", "line 1: found unhashable key"),
        ("name: *unknown\n", "line 1: found undefined alias 'unknown'"),
        ("name: 2024-99-99\n", "is not valid YAML: month must be in 1"),
        ("name: a\x00\n", "is not valid YAML: unacceptable character"),
        (b"name: \xff\n", r"is not UTF-8 text \(byte 6\); save it as UTF-8"),
        ("[" * 20_000, "is nested too deeply"),
    ],
)
def test_unreadable_content_is_one_line(tmp_path, content, message):
    path = write(tmp_path, content)
    error = refused(path)
    assert error.startswith(f"{path}: ")
    assert re.search(message, error)
    assert "\n" not in error


def test_missing_file(tmp_path):
    error = refused(tmp_path / "none.yaml")
    assert error.endswith(
        "none.yaml: cannot be read: No such file or directory."
    )


def test_folder_instead_of_file(tmp_path):
    assert refused(tmp_path).endswith("cannot be read: Is a directory.")


@pytest.mark.parametrize(
    "bomb",
    [
        "a: &a [*a]\n",
        "a: &a {x: &b [1, 1], y: [*b, *b]}\nseed: *a\n",
        "name: &n [&m [x, x, x, x, x, x, x, x, x], *m, *m, *m, *m, *m, *m]\n"
        "seed: [*n, *n, *n, *n, *n, *n, *n, *n, *n, *n, *n, *n, *n, *n, *n]\n",
    ],
)
def test_aliases_do_not_blow_up_the_message(tmp_path, bomb):
    assert len(refused(write(tmp_path, bomb))) < 2000


def test_overrides_are_yaml_and_the_last_one_wins(recipe_path):
    recipe = load_recipe(
        recipe_path,
        [
            "distill.steps=2",
            "distill.steps=3",
            "student.layers=[0, 2]",
            "data.root=/text=files",
            "data.sources.0.packages=[numpy]",
            "distill.clip_norm=null",
            "distill.weight_decay=1e-2",
            "distill.baseline=true",
            "teacher.train={method: adapter, steps: 1, batch_size: 1,"
            " learning_rate: 1}",
            "teacher.train.steps=5",
            "distill.schedules.soft_target.temperature.kind=constant",
            "distill.schedules.soft_target.temperature.value=3",
        ],
    )
    assert recipe.distill.steps == 3
    assert recipe.student.layers == [0, 2]
    assert recipe.data.root == "/text=files"
    assert recipe.data.sources[0].packages == ["numpy"]
    assert recipe.distill.clip_norm is None
    assert recipe.distill.weight_decay == 0.01
    assert recipe.distill.baseline is True
    assert recipe.teacher.train.steps == 5
    assert recipe.distill.schedules.soft_target.temperature.value == 3.0


def test_empty_override_is_null(recipe_path):
    overrides = ["data.root=x", "data.root="]
    assert load_recipe(recipe_path, overrides).data.root is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("distill.steps", "--set: must have the form key.path=value. Received"),
        ("=3", "--set: must have the form key.path=value. Received: '=3'"),
        ("a..b=3", "--set: must have the form key.path=value. Received"),
        (
            "data.root=*.txt",
            "--set data.root: line 1: .* Quote text .* 'data.root=\"...\"'",
        ),
        ("data.sources.1.kind=files", "`1` must be an index below 1"),
        ("data.sources.x=1", "`x` must be an index below 1"),
        ("seed.value=1", "`value` cannot be set inside 0, which"),
        ("name.x=1", "`x` cannot be set inside 'toy', which is neither"),
    ],
)
def test_bad_override_is_one_line(recipe_path, override, message):
    with recipe_path.open("a") as file:
        file.write("seed: 0\n")
    error = refused(recipe_path, [override])
    assert re.search(message, error)
    assert "\n" not in error


def test_misspelt_override_is_an_unknown_key(recipe_path):
    error = refused(recipe_path, ["distil.steps=2"])
    assert "distil: unknown key; nearest valid key: distill." in error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extra: &a [*a]", "line 1: an alias stands for what it is part of"),
        (f"seed: 0x{'f' * 5000}", "an integer does not fit 64 bits"),
        (f"seed: {2**63}", "an integer does not fit 64 bits"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, text, message):
    assert message in refused(write(tmp_path, text))


def test_aliases_of_aliases_are_refused_at_once(tmp_path):
    lines = ["a0: &a0 [x]"]
    for i in range(1, 40):
        lines.append(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]")
    message = refused(write(tmp_path, "\n".join(lines)))
    assert "aliases stand for more than 10,000 values" in message


def test_long_keys_are_cut(recipe_path):
    assert len(refused(recipe_path, [f"{'x' * 3000}=1"])) < 500
    assert len(refused(recipe_path, ["x" * 3000])) < 500


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "finetune={tasks: [rtee]}",
            "finetune.tasks.0: must be 'cola', .* Received: 'rtee'; "
            "the nearest is 'rte'.",
        ),
        ("precision=float16", "Received: 'float16'; the nearest is 'float32'."),
        ("precision=int8", "Received: 'int8'.$"),
        ("precision=3", "Received: 3.$"),
    ],
)
def test_the_nearest_of_several_values_is_named(recipe_path, override, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(recipe_path, [override])
