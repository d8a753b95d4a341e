"""Exports of a distilled embedder, as a run makes them."""

import numpy as np
import pytest

from keras_distil import config, evaluation, export, models
from keras_distil.runs import exports
from keras_distil.runs.embeddings.texts import open_corpus
from keras_distil.utils.progress import Progress

QUIET = Progress(quiet=True)


def make(recipe, run, folder, *formats):
    return exports.export_file(
        recipe,
        run / "student.keras",
        folder,
        formats,
        overwrite=False,
        progress=QUIET,
    )


def test_a_folder_of_the_student(embed_recipe, embed_run, tmp_path, capsys):
    recipe = config.load_recipe(embed_recipe)
    [made] = make(recipe, embed_run, tmp_path, "hugging_face", "static_table")
    assert made.comparison.cosine > 0.9999
    # Only rounded weights are scored again.
    assert made.comparison.score is None
    ours, theirs = (
        models.load_embedding_model(path).encode_text(["line a tells of b."])
        for path in (embed_run / "student.keras", made.path)
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert [x.name for x in tmp_path.iterdir()] == ["hugging_face"]


def test_what_rounded_weights_are_fitted_to_and_scored_on(
    embed_recipe, embed_run, tmp_path, monkeypatch
):
    calls = []

    def record(model, folder, tokenizer, **options):
        calls.append((model, tokenizer, options))
        return export.ExportReport(folder, "litert", "x", None, None, 1.0)

    monkeypatch.setattr(export, "export", record)
    # Of different lengths, so that batches have another order.
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text(
        "sentence1\tsentence2\tscore\na b c d\te\t1\nf\tg h\t2\n"
        "i j k\tl m n\t3\no\tp q r s t\t0\n"
    )
    recipe = config.load_recipe(embed_recipe, [f"evaluate.sts={pairs}"])
    make(recipe, embed_run, tmp_path, "litert_dynamic_int8", "onnx")
    (model, tokenizer, options), (_, _, onnx) = calls
    assert tokenizer is None and options["lengths"] == [12]
    corpus = open_corpus(recipe, QUIET)
    assert options["held_out"].texts == list(corpus.held_out.spaced(64)[:])
    assert options["representative"].texts == list(corpus.train.spaced(128)[:])
    assert onnx["held_out"].score is None

    def run(inputs):
        return np.asarray(model({k: v for k, v in inputs.items()}))

    expected = evaluation.STSEvaluator(pairs).evaluate(model)
    assert options["held_out"].score(run) == pytest.approx(expected["spearman"])


@pytest.mark.slow
@pytest.mark.essential
def test_an_embedder_and_a_recipe_of_other_models(
    shared_toy_recipe, embed_run, tmp_path
):
    recipe = config.load_recipe(shared_toy_recipe)
    [made] = make(recipe, embed_run, tmp_path, "hugging_face")
    assert made.comparison.score is None
