"""Recipes for sentence embeddings: what fits together and what does not."""

import pytest

from keras_distil.config import RecipeError, load_recipe

RECIPE = """
name: embed
teacher: {source: embedded}
data: {sources: [{kind: documentation}]}
distill: {task: embedding, steps: 2, batch_size: 4, learning_rate: 1e-3}
"""
MASKED = ("distill.task=masked_lm",)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "embed.yaml"
    path.write_text(RECIPE)
    return path


def test_its_losses_by_default(path):
    assert list(load_recipe(path).distill.losses.by_name) == [
        "vector_cosine",
        "similarity_kl",
    ]
    # One setting leaves the other loss on.
    changed = ["distill.losses.similarity_kl.temperature=0.1"]
    losses = load_recipe(path, changed).distill.losses.by_name
    assert losses["similarity_kl"].temperature == 0.1
    assert losses["vector_cosine"].weight == 1.0
    assert "mlm" in load_recipe(path, MASKED).distill.losses.by_name


def test_a_student_of_both_kinds(path):
    shape = "student={num_layers: 3, pooling_mode: cls, normalize: false}"
    assert load_recipe(path, [shape]).student.pooling_mode == "cls"
    table = "student={kind: static, dimension: 64, vocabulary: 40000}"
    assert load_recipe(path, [table]).student.vocabulary == 40000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["distill.losses={mlm: {}}"], "mlm is not for `task: embedding`. L"),
        ([*MASKED, "distill.losses={vector_mse: {}}"], "vector_mse is not for"),
        (["distill.losses={matryoshka: {}}"], "needs a loss on the vectors be"),
        (["distill.losses={cosine: {}}"], "needs a loss on the vectors besid"),
        (["distill.baseline=true"], "must be false with `task: embedding`"),
        (["finetune={tasks: [rte]}"], "tasks take a student of masked langua"),
        (["teacher.cache={top_k: 4}"], "`teacher.cache` is for masked langua"),
        (["teacher.allow_new_head=true"], "`teacher.allow_new_head` is for m"),
        (["data.layout=bucketed"], "`data.layout` is for masked language mod"),
        (["data.prepared=corpus"], "`data.prepared` is for masked language m"),
        ([*MASKED, "data.texts=both"], "`data.texts` is for sentence embeddi"),
        ([*MASKED, "teacher.dimension=9"], "`teacher.dimension` is for senten"),
        ([*MASKED, "student={kind: static}"], "`student.kind` is for sentence"),
        ([*MASKED, "student={normalize: true}"], "`student.normalize` is for"),
        ([*MASKED, "evaluate.sts=x.tsv"], "`sts` is for sentence embeddings"),
        (
            [*MASKED, "evaluate.beside.other=x.keras"],
            "`beside` is for sentence embeddings",
        ),
        (
            ["evaluate.beside.student=x.keras"],
            "evaluate.beside: names a row 'student': choose another name",
        ),
        (
            ["student={kind: static, num_layers: 2}"],
            "`num_layers` is for `kind: encoder`; remove it, or change the ki",
        ),
        (["student={vocabulary: 9}"], "`vocabulary` is for `kind: static`; re"),
        (
            [
                "student={kind: static}",
                "distill.losses={vector_mse: {}, hidden_mse: {}}",
            ],
            "`losses.hidden_mse` reads the layers of an encoder, and `student",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(path, changes, message):
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, changes)
    (line,) = str(caught.value).splitlines()
    assert message in line
