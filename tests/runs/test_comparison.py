"""Teacher and student on the same text: what is kept of it, and read again."""

import json

import numpy as np
import pytest
import tokenizers
from toy import make_batch, make_student, make_teacher

from keras_distil.callbacks import insights
from keras_distil.runs import comparison


@pytest.fixture(scope="module")
def compared():
    teacher = make_teacher()
    student = make_student(teacher)
    triple = make_batch()
    words = {f"w{n}": n for n in range(teacher.backbone.vocabulary_size)}
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel(words, unk_token="w0")
    )
    made = comparison.compare(teacher, student, triple, tokenizer)
    return made, insights.Examples(teacher, student, triple, tokenizer)


def test_what_is_kept(compared):
    made, examples = compared
    np.testing.assert_allclose(
        made.similarity, examples.similarities(), atol=5.1e-5
    )
    words = examples.masked_words()
    assert len(made.guesses) == len(words) > 0
    for guess, word in zip(made.guesses, words, strict=True):
        assert (guess.before, guess.word) == (word.before, word.word)
        for one, other in (
            (guess.teacher, word.teacher),
            (guess.student, word.student),
        ):
            assert [x.word for x in one] == [name for name, _ in other]
            np.testing.assert_allclose(
                [x.probability for x in one], [p for _, p in other], atol=5.1e-5
            )


def test_it_is_read_again(compared, tmp_path):
    made, _ = compared
    path = tmp_path / "side_by_side.json"
    assert comparison.read(path) is None
    path.write_text(json.dumps(made.model_dump()))
    assert comparison.read(path) == made


@pytest.mark.parametrize(
    "change",
    [
        {"sequences": 0},
        {"similarity": []},
        {"similarity": [[]]},
        {"similarity": [[0.5], [0.5, 0.5]]},
        {"similarity": [[1.5]]},
        {"similarity": [["0.5"]]},
        {"similarity": [[float("nan")]]},
        {"similarity": [[0.5]] * 65},
        {"guesses": [{}]},
        {"guesses": None},
        {"more": 1},
    ],
)
def test_damage(compared, tmp_path, change):
    path = tmp_path / "side_by_side.json"
    path.write_text(json.dumps(compared[0].model_dump() | change))
    assert comparison.read(path) is None
