import pytest

from keras_distil.config import RecipeError, load_recipe

ALL = ["saved_model", "litert_float32", "hugging_face", "preset"]
TEACHER_ONLY = (
    "distill=null",
    "teacher.train={method: adapter, steps: 1, batch_size: 1, "
    "learning_rate: 1}",
)
TASKS = ("distill=null", "student.source=a.keras", "finetune.tasks=[rte]")


def error(path, *overrides):
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return str(caught.value).removeprefix(f"{path}: ")


def test_a_recipe_exports_nothing_unless_asked(recipe_path):
    assert load_recipe(recipe_path).export is None


def test_formats(recipe_path):
    made = load_recipe(recipe_path, ["export={}"]).export
    assert made.formats == ["saved_model", "hugging_face", "preset"]
    assert made.max_length is None
    made = load_recipe(
        recipe_path, [f"export.formats=[{', '.join(ALL)}]"]
    ).export
    assert made.formats == ALL


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "export.formats=[sentence_embedding]",
            "export.formats: must not be 'sentence_embedding' any more: name "
            "'saved_model'",
        ),
        ("export.formats=[onyx]", "export.formats.0: must be 'saved_m"),
        ("export.formats=[]", "export.formats: "),
        ("export.formats=[preset, preset]", "export.formats: must name each o"),
        ("export.max_length=513", "export.max_length: must be less than"),
        ("export.format=[preset]", "export.format: "),
    ],
)
def test_mistakes(recipe_path, override, message):
    assert error(recipe_path, override).startswith(message)


def test_a_teacher_alone_is_not_exported(recipe_path):
    found = error(recipe_path, *TEACHER_ONLY, "export={}")
    assert found.startswith("export: there is no student to export: add `dis")


def test_students_of_tasks_are_exported(recipe_path):
    rows = "finetune.rows=[teacher, student]"
    assert load_recipe(recipe_path, [*TASKS, rows, "export={}"]).export
    rows = "finetune.rows=[teacher]"
    assert "no student" in error(recipe_path, *TASKS, rows, "export={}")


def test_other_mistakes_are_told_alone(recipe_path):
    found = error(recipe_path, "distill.steps=-1", "export={}")
    assert "export" not in found
