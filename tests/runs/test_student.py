import numpy as np
import pytest

from keras_distil import config, models
from keras_distil.runs.student import make_student


@pytest.mark.parametrize("initialization", ["teacher", "random"])
def test_student_starts_as_the_recipe_says(
    toy_recipe, toy_teacher, initialization
):
    teacher = models.load_teacher(toy_teacher)
    recipe = config.load_recipe(
        toy_recipe, [f"student.initialization={initialization}"]
    )
    student = make_student(recipe, teacher)
    same = np.array_equal(
        student.backbone.token_embedding.embeddings,
        teacher.backbone.token_embedding.embeddings,
    )
    assert same == (initialization == "teacher")
