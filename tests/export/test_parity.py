import re

import numpy as np
import pytest
from toy import dataset, make_batch

from keras_distil.export import gate, parity
from keras_distil.export.student import make_student

TOLERANCE = parity.Tolerance(0.1, 0.01, 0.9)


@pytest.fixture(scope="module")
def masked_lm(student):
    return make_student(student)


@pytest.fixture(scope="module")
def examples(masked_lm, tokenizer):
    return parity.make_examples(masked_lm, tokenizer, None)


def exact(student):
    return lambda inputs: {
        name: np.array(value) for name, value in student.outputs(inputs).items()
    }


def test_the_student_equals_itself(masked_lm, examples):
    found = parity.compare(masked_lm, examples, exact(masked_lm))
    masked = sum(int(places.sum()) for _, places in examples.batches)
    assert found == parity.Comparison(0.0, 0.0, 1.0, masked)


def test_differences_are_those_of_real_tokens(masked_lm, examples):
    def off(inputs):
        outputs = exact(masked_lm)(inputs)
        outputs["logits"][0, 0, 0] += 0.25
        outputs["logits"][inputs["padding_mask"] == 0] = np.nan
        return outputs

    found = parity.compare(masked_lm, examples, off)
    values = sum(
        int(batch["padding_mask"].sum()) for batch, _ in examples.batches
    )
    values *= masked_lm.model.backbone.vocabulary_size
    assert found.max_difference == pytest.approx(0.25, rel=1e-5)
    assert found.mean_difference == pytest.approx(
        0.25 * len(examples.batches) / values, rel=1e-3
    )


def test_agreement_is_that_of_masked_words(masked_lm, tokenizer):
    examples = parity.make_examples(
        masked_lm, tokenizer, ["a cafe", "fine a b c d e f g h a b c d e f g"]
    )
    examples = parity.Examples(examples.batches[:1])
    (_, places), *_ = examples.batches
    first = np.argwhere(places)[0]

    def off(inputs):
        outputs = exact(masked_lm)(inputs)
        # The worst word becomes the best; the words in between stay.
        row, place = first
        outputs["logits"][row, place] *= -1
        outputs["logits"][~places] *= -1
        return outputs

    found = parity.compare(masked_lm, examples, off)
    count = int(places.sum())
    assert found.decisions == count > 1
    assert found.top1_agreement == pytest.approx((count - 1) / count)


def test_masks_are_words_of_the_text(masked_lm, tokenizer):
    made = parity.make_examples(masked_lm, tokenizer, ["a b c d e f g h"])
    batch, places = made.batches[0]
    plain = tokenizer.encode("a b c d e f g h").ids
    changed = batch["token_ids"][0] != plain
    assert changed.any() and not (changed & ~places[0]).any()
    assert not places[0, 0] and not places[0, -1]


def test_the_longest_and_the_shortest_sequence_are_there(examples):
    lengths = [batch["token_ids"].shape[1] for batch, _ in examples.batches]
    assert lengths[-2:] == [2, 24]


def test_random_ids_without_a_tokenizer(masked_lm):
    made = parity.make_examples(masked_lm, None, None)
    words = masked_lm.model.backbone.vocabulary_size
    for batch, places in made.batches:
        assert batch["token_ids"].max() < words
        assert places.all()


@pytest.mark.parametrize(("kind", "outputs"), [("classification", 3)])
def test_classes_are_compared(task_student, kind, outputs, tokenizer):
    made = make_student(task_student(kind, outputs))
    examples = parity.make_examples(made, tokenizer, ["a", "b", "c d"])

    def off(inputs):
        found = exact(made)(inputs)
        found["logits"][0] *= -1
        return found

    found = parity.compare(made, examples, off)
    assert (found.decisions, found.top1_agreement) == (5, 0.4)


def test_starts_and_ends_are_compared_within_the_text(task_student, tokenizer):
    made = make_student(task_student("span"))
    examples = parity.make_examples(made, tokenizer, ["a", "b c d e"])

    def off(inputs):
        found = exact(made)(inputs)
        # At padding, where it must not count.
        found["end_logits"][inputs["padding_mask"] == 0] = 1e9
        return found

    found = parity.compare(made, examples, off)
    assert (found.decisions, found.top1_agreement) == (8, 1.0)


def test_nothing_is_chosen_in_a_regression(task_student, tokenizer):
    made = make_student(task_student("regression"))
    examples = parity.make_examples(made, tokenizer, ["a", "b c d e"])
    found = parity.compare(made, examples, exact(made))
    assert found.top1_agreement is None
    assert "agreement" not in str(found)


@pytest.mark.parametrize(
    "comparison",
    [
        parity.Comparison(0.2, 0.0, 1.0, 10),
        parity.Comparison(0.0, 0.02, 1.0, 10),
        parity.Comparison(0.0, 0.0, 0.8, 100),
        parity.Comparison(0.0, 0.0, 0.5, 10),
        parity.Comparison(np.nan, 0.0, 1.0, 10),
        parity.Comparison(0.0, np.nan, None, 0),
    ],
)
def test_the_gate_fails(comparison):
    with pytest.raises(parity.ParityError, match="thing is not the stud") as e:
        parity.check(
            comparison, TOLERANCE, what="The thing", origin=lambda: "There."
        )
    assert "(allowed: at most 0.1, mean 0.01" in str(e.value)
    assert "There. It is not kept" in str(e.value)
    assert "\n" not in str(e.value)
    assert e.value.comparison is comparison


def test_the_gate_lets_pass():
    for found in (
        parity.Comparison(0.1, 0.01, 0.9, 10),
        parity.Comparison(0.0, 0.0, None, 0),
    ):
        parity.check(found, TOLERANCE, what="", origin=lambda: "")


def test_a_lower_score_is_refused_whatever_else_is_equal():
    tolerance = parity.Tolerance(0.1, 0.01, 0.9, score_loss=0.01)

    def check(score, student_score):
        found = parity.Comparison(0.0, 0.0, 1.0, 10, score, student_score)
        parity.check(found, tolerance, what="It", origin=lambda: "")

    check(0.795, 0.8)
    check(0.9, 0.8)
    with pytest.raises(parity.ParityError, match="score 78.0 of the student's"):
        check(0.78, 0.8)
    with pytest.raises(parity.ParityError, match="1 points less"):
        check(float("nan"), 0.8)


def test_nan_is_no_agreement(masked_lm, examples):
    def broken(inputs):
        outputs = exact(masked_lm)(inputs)
        outputs["logits"][0, 0, 0] = np.nan
        return outputs

    found = parity.compare(masked_lm, examples, broken)
    assert np.isnan(found.max_difference)


def test_a_student_of_nan_is_refused(masked_lm, examples):
    broken = type(masked_lm.model).from_config(masked_lm.model.get_config())
    broken.masked_lm_head._bias.assign(
        broken.masked_lm_head._bias * 0 + np.float32("nan")
    )
    with pytest.raises(ValueError, match="own logits are not finite"):
        parity.compare(make_student(broken), examples, exact(masked_lm))


@pytest.mark.parametrize("name", ["student", "bert"])
def test_where_it_starts(name, tokenizer, request):
    made = make_student(request.getfixturevalue(name))
    examples = parity.make_examples(made, tokenizer, None)

    def off_from(layer):
        def layers(inputs):
            found = {k: np.array(v) for k, v in made.layers(inputs).items()}
            names = list(found)
            for later in names[names.index(layer) :]:
                found[later] += 0.5
            return found

        return parity.first_difference(made, examples, layers, TOLERANCE)

    assert off_from("embeddings").startswith("It starts at `embeddings`, whos")
    assert (
        "`transformer_layer_1`, whose output is off by 0.5; before, by at most"
    ) in off_from("transformer_layer_1")
    head = parity.first_difference(made, examples, made.layers, TOLERANCE)
    assert head.startswith("It starts in the head")


def test_layers_end_in_the_last_hidden_states(student, examples):
    made = make_student(student)
    batch, _ = examples.batches[0]
    found = made.layers(parity.full_inputs(made, batch))
    assert list(found) == [
        "embeddings",
        "transformer_layer_0",
        "transformer_layer_1",
    ]
    np.testing.assert_array_equal(
        found["transformer_layer_1"], student.backbone(batch, training=False)
    )


def test_held_out_text_is_cut_to_size():
    x, y, sample_weight = make_batch(lengths=(7, 4, 2, 6) * 3)
    made = parity.Examples.from_dataset(
        dataset((x, y, sample_weight), (x, y, sample_weight)), 14
    )
    rows = [len(places) for _, places in made.batches]
    assert rows == [8, 4, 2]
    np.testing.assert_array_equal(
        made.batches[2][0]["token_ids"], x["token_ids"][:2]
    )
    np.testing.assert_array_equal(made.batches[0][1], sample_weight[:8] > 0)


def test_texts_need_a_tokenizer(masked_lm, tokenizer):
    for held_out, given in ((["a"], None), ([], tokenizer)):
        with pytest.raises(ValueError, match="`held_out` must hold texts"):
            parity.make_examples(masked_lm, given, held_out)


def test_examples_are_taken_as_they_are(masked_lm, examples):
    assert parity.make_examples(masked_lm, None, examples) is examples


def binomial_tail(changed, count, share):
    """How often so many change, drawn."""
    draws = np.random.default_rng(0).binomial(count, share, 400_000)
    return (draws >= changed).mean()


@pytest.mark.parametrize(
    ("changed", "count", "share"),
    [(1, 16, 0.035), (3, 16, 0.035), (2, 20, 0.1)],
)
def test_chance_is_that_of_independent_choices(changed, count, share):
    found = gate._chance_of(changed, count, share)
    assert found == pytest.approx(
        binomial_tail(changed, count, share), abs=2e-3
    )


def test_too_few_examples_are_no_reason_to_refuse_an_export():
    """But to say so; and what no chance explains is still refused."""
    tolerance = parity.TOLERANCES["litert", "dynamic_int8"]

    def found(changed, choices, lost=0.0, scored=None):
        return parity.Comparison(
            0.0,
            0.0,
            1 - changed / choices,
            choices,
            0.8 - lost,
            0.8,
            scored=scored,
        )

    def check(comparison):
        parity.check(comparison, tolerance, what="It", origin=lambda: "")
        return parity.find_unjudged(comparison, tolerance)

    assert check(found(0, 16)) is None
    assert re.search(
        r"changes 6.2% of 16 choices \(allowed: 3.5%\), which may be chance",
        check(found(1, 16)),
    )
    assert "5% of 20 examples of the dev" in check(found(0, 16, 0.05, 20))
    for refused in (
        found(4, 16),
        # As many as the bound is for.
        found(6, 143),
        found(0, 16, 0.10, 20),
        found(0, 16, 0.02, 600),
        # Nothing is known of what it is a share of.
        found(0, 16, 0.05),
    ):
        with pytest.raises(parity.ParityError):
            check(refused)
