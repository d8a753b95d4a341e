"""The gate of exports: it fails on what is wrong, for every kind of output."""

import dataclasses
import types

import numpy as np
import pytest
from toy import convert_litert_here

from keras_distil import export, models
from keras_distil.export import distance, parity
from keras_distil.export.student import make_student

KINDS = {
    "masked_lm": {},
    "classification": {"outputs": 3},
    "regression": {"outputs": 1},
    "token_classification": {"outputs": 4},
    "span": {"outputs": 1},
    "embedding": {"normalize": False},
    "unit embedding": {"normalize": True},
}


def model_of(kind, student, task_student):
    options = KINDS[kind]
    if "normalize" in options:
        return models.embedding_model(student, **options)
    return task_student(kind, **options) if options else student


@pytest.fixture(scope="module")
def recorded(student, task_student, tokenizer):
    """Function of a kind to a student whose outputs are kept, and examples."""
    kept = {}

    def record(kind):
        if kind in kept:
            return kept[kind]
        plain = make_student(model_of(kind, student, task_student))
        examples = parity.make_examples(plain, tokenizer, None)
        outputs = {}
        for batch, _ in examples.batches:
            inputs = parity.full_inputs(plain, batch)
            outputs[inputs["token_ids"].tobytes()] = {
                name: np.array(value)
                for name, value in plain.outputs(inputs).items()
            }
        kept[kind] = (
            types.SimpleNamespace(
                kind=plain.kind,
                input_names=plain.input_names,
                outputs=lambda inputs: outputs[inputs["token_ids"].tobytes()],
            ),
            examples,
        )
        return kept[kind]

    return record


def mean_of(student, examples):
    """The constant that is nearest to all outputs."""
    rows = {}
    for batch, _ in examples.batches:
        real = batch["padding_mask"] > 0
        found = student.outputs(parity.full_inputs(student, batch))
        for name, values in found.items():
            if values.shape[:2] == real.shape:
                values = values[real]
            rows.setdefault(name, []).append(values)
    return {name: np.concatenate(each).mean(0) for name, each in rows.items()}


def zeros(student, examples):
    return lambda outputs: {k: 0 * v for k, v in outputs.items()}


def constant(student, examples):
    means = mean_of(student, examples)
    return lambda outputs: {k: 0 * v + means[k] for k, v in outputs.items()}


def negation(student, examples):
    return lambda outputs: {k: -v for k, v in outputs.items()}


def shuffled(student, examples):
    return lambda outputs: {k: np.roll(v, 1, 0) for k, v in outputs.items()}


def compared(recorded, kind, wrong):
    student, examples = recorded(kind)
    spoil = wrong(student, examples)
    return parity.compare(
        student, examples, lambda inputs: spoil(student.outputs(inputs))
    )


def check(comparison, tolerance):
    parity.check(comparison, tolerance, what="It", origin=lambda: "There.")


@pytest.mark.parametrize("wrong", [zeros, constant, negation, shuffled])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_wrong_fails_in_every_format(recorded, kind, wrong):
    comparison = compared(recorded, kind, wrong)
    for tolerance in parity.TOLERANCES.values():
        with pytest.raises(parity.ParityError, match="It is not the student"):
            check(comparison, tolerance)
    # Not by the choices alone, which a student may make all alike.
    assert comparison.spread_share > 0.9
    if kind.endswith("embedding") and wrong in (zeros, negation):
        expected = 0.0 if wrong is zeros else -1.0
        assert comparison.cosine == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_little_noise_passes(recorded, kind):
    def noise(student, examples):
        draw = np.random.default_rng(0).normal
        # Of 8 bits, near enough: a 150th of each output's size.
        return lambda outputs: {
            k: v + draw(0, v.std() / 150, v.shape) for k, v in outputs.items()
        }

    comparison = compared(recorded, kind, noise)
    check(comparison, parity.TOLERANCES["litert", "dynamic_int8"])
    assert 0.001 < comparison.spread_share < 0.1


@pytest.mark.parametrize(
    ("kind", "precision"),
    [
        ("regression", "dynamic_int8"),
        ("embedding", "dynamic_int8"),
        pytest.param("regression", "float16", marks=pytest.mark.slow),
        pytest.param("embedding", "float16", marks=pytest.mark.slow),
        pytest.param("unit embedding", "dynamic_int8", marks=pytest.mark.slow),
    ],
)
def test_honest_files_pass(
    kind, precision, student, task_student, tokenizer, tmp_path, monkeypatch
):
    convert_litert_here(monkeypatch)
    report = export.export_litert(
        model_of(kind, student, task_student),
        tmp_path / "out",
        tokenizer,
        precision=precision,
        lengths=[16],
    )
    expected = export.TOLERANCES["litert", precision]
    if "embedding" in kind and precision == "dynamic_int8":
        # 0.3 points of a correlation.
        expected = dataclasses.replace(expected, score_loss=0.003)
    assert report.tolerance == expected
    assert 0 < report.comparison.spread_share < 0.3


GOOD = parity.Comparison(0.0, 0.0, 1.0, 10, score=0.80, student_score=0.81)


def test_a_lost_score_fails():
    tolerance = parity.TOLERANCES["litert", "dynamic_int8"]
    assert tolerance.score_loss == 0.01
    check(dataclasses.replace(GOOD, score=0.8001), tolerance)
    check(dataclasses.replace(GOOD, score=0.95), tolerance)
    for score in (0.799, np.nan):
        with pytest.raises(parity.ParityError, match="1 points less"):
            check(dataclasses.replace(GOOD, score=score), tolerance)


def test_errors_are_shown_as_they_are():
    """They count negative, so that less is better."""
    tolerance = parity.TOLERANCES["litert", "dynamic_int8"]
    found = dataclasses.replace(
        GOOD, score=-0.693, student_score=-0.69, is_error=True
    )
    assert str(found).endswith(", error 0.693 of the student's 0.690")
    check(found, tolerance)
    lost = dataclasses.replace(found, score=-0.75)
    with pytest.raises(parity.ParityError) as caught:
        check(lost, tolerance)
    said = str(caught.value)
    assert "error 0.750 of the student's 0.690, " in said
    assert "an error larger by 0.01)" in said
    assert "points" not in said and "-0" not in said


def test_the_score_is_that_of_the_artifact(recorded):
    """On the development set an artifact may be worse than on the batches."""
    student, examples = recorded("classification")
    inputs = {"token_ids": examples.batches[0][0]["token_ids"]}

    def score(run):
        return 0.5 + 0.1 * float(run(inputs)[0, 0] > 0)

    scored = dataclasses.replace(examples, score=score)
    first = student.outputs(inputs)["logits"][0, 0]
    calls = []

    def artifact(batch):
        calls.append(batch)
        found = student.outputs(batch)
        # The batches come first, then the development set.
        flip = -1 if len(calls) > len(examples.batches) else 1
        return {"logits": flip * found["logits"]}

    found = parity.compare(student, scored, artifact)
    assert found.spread_share == 0.0 and found.top1_agreement == 1.0
    assert not found.is_error
    errors = dataclasses.replace(scored, is_error=True)
    assert parity.compare(student, errors, student.outputs).is_error
    assert found.student_score == pytest.approx(0.6 if first > 0 else 0.5)
    assert found.score == pytest.approx(0.5 if first > 0 else 0.6)
    lost = dataclasses.replace(found, score=0.5, student_score=0.6)
    with pytest.raises(parity.ParityError, match="score 50.0 of the student's"):
        check(lost, parity.TOLERANCES["litert", "int4"])


def test_shares_of_the_spread_by_hand():
    ours = np.array([[1.0, 10.0], [3.0, 10.0], [5.0, 10.0]], np.float32)
    # Squares around the means: 4 + 0 + 4; of the differences: 1 + 1 + 0.
    theirs = ours + np.array([[1.0, 0.0], [0.0, -1.0], [0.0, 0.0]], np.float32)
    found = distance.Distance()
    found.add(ours[:2], theirs[:2])
    found.add(ours[2:], theirs[2:])
    assert found.spread_share == pytest.approx(0.5)
    assert (found.largest, found.total, found.values) == (1.0, 2.0, 6)
    # (2, 10) with (1, 10).
    assert found.lowest_cosine == pytest.approx(102 / (104 * 101) ** 0.5)


def test_a_single_row_is_measured_by_its_size():
    found = distance.Distance()
    found.add(np.array([[3.0, 4.0]]), np.array([[3.0, 4.5]]))
    assert found.spread_share == pytest.approx(0.1)


def test_outputs_that_are_all_alike_have_the_spread_of_rounding():
    found = distance.Distance()
    ours = np.full((4, 2), 7.0)
    found.add(ours, ours + 7e-7)
    assert 0 < found.spread_share < 0.02
    found.add(ours, ours + 0.1)
    assert found.spread_share > 100


def test_nan_is_no_share():
    found = distance.Distance()
    found.add(np.eye(3), np.full((3, 3), np.nan))
    assert np.isnan(found.spread_share)
    assert np.isnan(found.lowest_cosine)


def test_scores_and_embeddings_have_no_absolute_bound():
    """A regression from 0 to 1,000 may be off by 3, and not by its spread."""
    tolerance = parity.TOLERANCES["litert", "dynamic_int8"]
    off = parity.Comparison(9.0, 3.0, None, 0, spread_share=0.02)
    check(dataclasses.replace(off, are_logits=False), tolerance)
    with pytest.raises(parity.ParityError, match="at most 3, mean 0.3, 30% of"):
        check(off, tolerance)
    far = dataclasses.replace(off, are_logits=False, spread_share=0.31)
    with pytest.raises(
        parity.ParityError, match=r"31% of their spread \(allow"
    ):
        check(far, tolerance)
    turned = dataclasses.replace(off, are_logits=False, cosine=0.9)
    with pytest.raises(parity.ParityError, match=r"cosine at least 0.97, 30%"):
        check(turned, tolerance)


def test_what_was_not_judged_is_noted(
    task_student, tokenizer, tmp_path, caplog
):
    model = task_student("classification", 3)
    scores = iter([0.75, 0.8])
    examples = dataclasses.replace(
        parity.make_examples(make_student(model), tokenizer, None),
        score=lambda run: next(scores),
        scored=20,
    )
    report = export.export_saved_model(
        model, tmp_path / "made", held_out=examples
    )
    assert "5% of 20 examples of the development set" in report.note
    assert report.note in caplog.text
