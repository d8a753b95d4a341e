"""The evaluator against predictions made one example at a time."""

import numpy as np
import pytest

from keras_distil import data, models
from keras_distil.evaluation import GLUEEvaluator
from keras_distil.models import forward


@pytest.fixture
def tokenizer(toy_teacher):
    return data.load_tokenizer(toy_teacher)


def make_model(toy_teacher, kind, outputs):
    model = models.task_model(
        models.load_teacher(toy_teacher), kind, outputs, dropout=0.1
    )
    kernel = model.output_dense.kernel
    noise = np.random.default_rng(0).normal(0.0, 2.0, kernel.shape)
    kernel.assign(noise.astype("float32"))
    if kind == "regression":
        model.output_dense.bias.assign([2.5])
    return model


@pytest.mark.parametrize(
    ("task", "kind", "outputs"),
    [
        ("cola", "classification", 2),
        ("rte", "classification", 2),
        ("stsb", "regression", 1),
    ],
)
def test_predictions_are_those_of_single_examples(
    toy_teacher, toy_glue, tokenizer, task, kind, outputs
):
    model = make_model(toy_teacher, kind, outputs)
    evaluator = GLUEEvaluator(
        task, tokenizer, root=toy_glue, max_length=12, batch_size=3
    )
    (found,) = evaluator.predictions(model).values()
    examples = evaluator.examples["dev"]
    for number, first in enumerate(examples.first):
        pair = [first]
        if examples.second is not None:
            pair.append(examples.second[number])
        # The tokenizer's framing of a pair.
        encoding = tokenizer.encode(*pair)
        ids = encoding.ids
        if ids[0] != 2:
            ids = [2, *tokenizer.encode(first).ids, 3]
            segments = [0] * len(ids)
            if len(pair) == 2:
                more = [*tokenizer.encode(pair[1]).ids, 3]
                ids, segments = ids + more, segments + [1] * len(more)
        else:
            segments = encoding.type_ids
        ids, segments = ids[:12], segments[:12]
        inputs = {
            "token_ids": np.array([ids], "int32"),
            "padding_mask": np.ones((1, len(ids)), "int32"),
            "segment_ids": np.array([segments], "int32"),
        }
        output = forward.encode_task(model, inputs, training=False)[1][0]
        expected = (
            np.clip(output[0], 0, 5) if outputs == 1 else np.argmax(output)
        )
        np.testing.assert_allclose(found[number], expected, rtol=1e-5)


def test_outputs_are_in_the_order_of_the_examples(toy_glue, tokenizer):
    """Batches are sorted by length; the output here is the length itself."""
    evaluator = GLUEEvaluator(
        "stsb", tokenizer, root=toy_glue, max_length=12, batch_size=3
    )

    def lengths(inputs):
        counts = inputs["padding_mask"].sum(axis=1)
        return counts[:, np.newaxis].astype("float32")

    (found,) = evaluator.outputs(lengths).values()
    examples = evaluator.examples["dev"]
    words = [
        len(first.split()) + len(second.split()) + 3
        for first, second in zip(examples.first, examples.second, strict=True)
    ]
    assert sorted(words) != words
    assert found[:, 0].tolist() == words


def test_scores_are_means_of_metrics(toy_teacher, toy_glue, tokenizer):
    model = make_model(toy_teacher, "regression", 1)
    evaluator = GLUEEvaluator("stsb", tokenizer, root=toy_glue, max_length=12)
    scores = evaluator.evaluate(model)["dev"]
    assert set(scores) == {"pearson", "spearman"}
    assert evaluator.score(model) == pytest.approx(sum(scores.values()) / 2)


def test_a_submission_is_written(toy_teacher, toy_glue, tokenizer, tmp_path):
    model = make_model(toy_teacher, "classification", 2)
    evaluator = GLUEEvaluator("rte", tokenizer, root=toy_glue, max_length=12)
    lines = (toy_glue / "RTE" / "dev.tsv").read_text().splitlines()
    unlabelled = [line.rpartition("\t")[0] for line in lines]
    (toy_glue / "RTE" / "test.tsv").write_text("\n".join(unlabelled) + "\n")
    (path,) = evaluator.write_submission(model, tmp_path / "new" / "folder")
    assert path.name == "RTE.tsv"
    (found,) = evaluator.predictions(model).values()
    words = ["entailment", "not_entailment"]
    assert path.read_text().splitlines() == [
        "index\tprediction",
        *(f"{i}\t{words[label]}" for i, label in enumerate(found)),
    ]
