"""Runs that distil sentence embedders."""

import json
import math
import re

import numpy as np
import pytest
from commands import keras_distil, run_command

from keras_distil import callbacks, config, edge, evaluation, export, models
from keras_distil.config import load_recipe
from keras_distil.runs import preflight
from keras_distil.runs.embeddings.beside import list_missing, open_beside
from keras_distil.runs.embeddings.teacher import load_embedder
from keras_distil.runs.run_folder import check_report
from keras_distil.teachers import CachedEmbeddingTeacher
from keras_distil.teachers.store import writing

SCORES = (
    *("sts_spearman", "sts_pearson", "ndcg@10", "recall@1", "recall@10"),
    *("recall@100", "mrr@10"),
)


def report_of(folder):
    return json.loads((folder / "report.json").read_text())


def test_its_rows_are_scores_of_its_models(embed_run, embed_recipe):
    report = report_of(embed_run)
    check_report(embed_run / "report.json")
    assert list(report["rows"]) == ["teacher", "student before", "student"]
    root = embed_recipe.parent
    sts = evaluation.STSEvaluator(root / "sts.tsv")
    found = evaluation.RetrievalEvaluator(root / "found")
    for row, file in (
        ("teacher", root / "embedder.keras"),
        ("student", embed_run / "student.keras"),
    ):
        model = models.load_embedding_model(file)
        scores = {f"sts_{k}": x for k, x in sts.evaluate(model).items()}
        scores |= found.evaluate(model)
        given = report["rows"][row]
        assert {name: given[name] for name in SCORES} == pytest.approx(scores)
        assert given["parameters"] == model.count_params()
        assert given["texts_per_second"] > 1 / given["latency_ms"] > 0
    assert report["rows"]["teacher"]["teacher_agreement"] == 1.0
    before = report["rows"]["student before"]["teacher_agreement"]
    assert 0 < before < 1
    # It has read 4 batches of 8 texts.
    assert report["updates"] == 4
    assert report["corpus"]["train_texts"] == 32


def test_its_teacher_was_read_once(embed_run, embed_recipe):
    (folder,) = (embed_recipe.parent / "cache" / "teacher_vectors").glob("*/")
    assert len(CachedEmbeddingTeacher(folder)) == 32
    logged = (embed_run / "metrics.jsonl").read_text().splitlines()
    first = json.loads(logged[0])
    assert {"vector_cosine_loss", "similarity_kl_loss"} <= set(first)


def test_its_report_shows_neighbours(embed_run):
    kept = json.loads((embed_run / "neighbours.json").read_text())
    assert [len(x["teacher"]) for x in kept["samples"]] == [3, 3]
    page = (embed_run / "report.html").read_text()
    text = kept["samples"][1]["student"][0]["text"]
    assert "<h2>Nearest neighbours</h2>" in page and text in page
    assert "Correlation" in page or "STS, Spearman" in page
    assert "masked" not in re.sub(r"<pre>.*?</pre>", "", page, flags=re.S)


def test_its_card_says_what_it_is(embed_run):
    card = (embed_run / "MODEL_CARD.md").read_text()
    assert "A sentence embedder of 1 layers distilled from" in card
    assert "of the teacher's nDCG@10 in finding documents." in card
    assert "load_embedding_model" in card and "STS, Spearman, %" in card
    assert "masked" not in card and "Calibration" not in card


def test_it_is_shown_again(embed_run, embed_recipe, capsys):
    status, printed, _ = keras_distil(
        capsys, "run", embed_recipe, "--output", embed_run
    )
    assert status == 0
    assert "STS, Spearman, %" in printed and "Updates of the student: 4" in (
        printed
    )


@pytest.mark.slow
def test_a_static_table_of_its_own_vocabulary(
    embed_recipe, tmp_path, quick_runs, capsys
):
    status, printed, errors = keras_distil(
        capsys,
        *["run", embed_recipe, "--output", tmp_path / "run"],
        *["--set", "student={kind: static, vocabulary: 66, dimension: 12}"],
        *["--set", "teacher.dimension=12", "--set", "evaluate.sts=none.tsv"],
        *["--set", "data.texts=both", "--set", "evaluate.retrieval=null"],
    )
    assert status == 0, errors
    assert "`evaluate.sts` is" in errors and "is not there" in errors
    model = models.load_embedding_model(tmp_path / "run" / "student.keras")
    start = models.load_embedding_model(tmp_path / "run" / "initial.keras")
    tables = [x.backbone.token_embedding.embeddings for x in (model, start)]
    assert tables[0].shape == (66, 12)
    assert not np.array_equal(*(x.numpy() for x in tables))
    # Whole words that the toy teacher reads letter by letter.
    assert model.preprocessor.tokenizer.encode("tells line").tokens
    rows = report_of(tmp_path / "run")["rows"]
    row = rows["student"]
    assert "sts_spearman" not in row and row["teacher_agreement"] > 0.2
    # As shipped: 12 bytes and a scale for each of 66 tokens.
    table = rows["student, int8"]
    assert table["teacher_agreement"] == pytest.approx(
        row["teacher_agreement"], abs=0.05
    )
    assert table["texts_per_second"] > 0


def test_other_models_get_rows(embed_run, embed_recipe, tmp_path):
    root = embed_recipe.parent
    table = models.static_embedding_model(
        models.load_embedding_model(root / "embedder.keras"), ["is a"], 8
    )
    export.export(table, tmp_path / "table", format="static_table")
    recipe = load_recipe(
        embed_recipe,
        [
            f"evaluate.beside.trained={embed_run / 'student.keras'}",
            f"evaluate.beside.table={tmp_path / 'table'}",
            f"evaluate.beside.gone={tmp_path / 'gone.keras'}",
        ],
    )
    (line,) = list_missing(recipe)
    assert "gone.keras for 'gone', which is not there" in line
    found = open_beside(recipe)
    assert list(found) == ["trained", "table"]
    trained = models.load_embedding_model(embed_run / "student.keras")
    texts = ["is a", "tells of b"]
    for given in (
        found["trained"].scored.encode_text,
        found["trained"].contestant.embed,
    ):
        np.testing.assert_allclose(
            given(texts), trained.encode_text(texts), rtol=1e-5, atol=1e-6
        )
    shipped = edge.StaticStudent(tmp_path / "table")
    np.testing.assert_array_equal(
        found["table"].scored(texts), shipped.embed(texts)
    )
    numbers = table.backbone.token_embedding.embeddings.shape
    assert found["table"].contestant.parameters == math.prod(numbers)
    assert found["table"].contestant.size_mb == pytest.approx(
        numbers[0] * (numbers[1] + 4) / 1e6
    )


@pytest.mark.slow
def test_other_models_are_in_the_table(
    embed_run, embed_recipe, tmp_path, quick_runs
):
    status = run_command(
        *["run", embed_recipe, "--output", tmp_path / "run", "--quiet"],
        *["--set", f"evaluate.beside.same={embed_run / 'student.keras'}"],
    )
    rows = report_of(tmp_path / "run")["rows"]
    assert status in (0, None) and list(rows)[-1] == "same"
    # Both runs train alike, and this one has measured the other's student.
    for name in SCORES:
        assert rows["same"][name] == pytest.approx(rows["student"][name])
    assert rows["same"]["parameters"] == rows["student"]["parameters"]


@pytest.mark.slow
@pytest.mark.essential
def test_losses_on_layers_run_the_teacher(embed_recipe, tmp_path, quick_runs):
    recipe = load_recipe(
        embed_recipe,
        [
            "distill.losses={vector_mse: {}, hidden_mse: {layers: [[1, 0]]}}",
            "evaluate={samples: 0}",
            "teacher.dimension=8",
            "student={num_layers: 1, pooling_mode: max, normalize: false}",
        ],
    )
    path = tmp_path / "recipe.yaml"
    path.write_text(config.dump_recipe(recipe))
    command = ["run", path, "--output", tmp_path / "run", "--quiet"]
    assert run_command(*command) == 0
    student = models.load_embedding_model(tmp_path / "run" / "student.keras")
    assert (student.pooling_mode, student.normalize) == ("max", False)
    assert student.dimension == 8
    assert (
        json.loads((tmp_path / "run" / "neighbours.json").read_text())[
            "samples"
        ]
        == []
    )


def test_a_length_that_is_advised_passes(embed_recipe):
    change = ["data.sequence_length=16"]
    with pytest.raises(ValueError, match="the teacher has 12 positions") as it:
        preflight.open_inputs(load_recipe(embed_recipe, change))
    [advice] = re.findall(r"--set (\S+)\.$", str(it.value))
    lines = preflight.open_inputs(load_recipe(embed_recipe, [*change, advice]))
    assert lines == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("student={kind: static, dimension: 17}", "at most 16, the size"),
        ("student={kind: static, vocabulary: 9}", "at least 64, the teacher's"),
        ("teacher.dimension=17", "`dimension` must be at most 16"),
        ("student.dimension=9", "compares vectors of one size"),
        ("data.held_out_fraction=1e-9", "At least two held-out texts"),
        ("evaluate.sts=text.txt", "must have the columns"),
        ("evaluate.retrieval=run", "There is no file"),
        (
            "evaluate.beside.other=no_preset",
            "which is neither an existing path",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(
    embed_run, embed_recipe, tmp_path, capsys, quick_runs, change, message
):
    status, _, errors = keras_distil(
        capsys,
        *["run", embed_recipe, "--output", tmp_path / "run", "--quiet"],
        *["--set", change],
    )
    assert status == 1
    (line,) = (x for x in errors.splitlines() if x.startswith("keras-distil:"))
    assert message in line


@pytest.mark.slow
# What is interrupted leaves its log open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "student",
    ["{num_layers: 1, dropout: 0.2}", "{kind: static, dimension: 16}"],
)
def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    embed_recipe, tmp_path, monkeypatch, quick_runs, student
):
    def command(folder):
        return [
            *["run", embed_recipe, "--output", tmp_path / folder, "--quiet"],
            *["--set", f"student={student}", "--set", "checkpoint_steps=2"],
            *["--set", "distill.steps=9", "--set", "evaluate={samples: 0}"],
        ]

    assert run_command(*command("whole")) == 0
    log = callbacks.MetricsLog.on_train_batch_end

    def stop(self, batch, logs=None):
        log(self, batch, logs)
        if batch == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.MetricsLog, "on_train_batch_end", stop)
        assert run_command(*command("parts")) != 0
    # The teacher is not read again.
    with monkeypatch.context() as patch:
        patch.setattr(writing._Job, "run", None)
        assert run_command(*command("parts")) == 0
    ends = [
        models.load_embedding_model(tmp_path / folder / "student.keras")
        for folder in ("whole", "parts")
    ]
    for one, other in zip(*(x.weights for x in ends), strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    steps = (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(x)["step"] for x in steps] == list(range(1, 10))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prepare"], "need no preparation: a run reads them."),
        (["plan", "--calibrate"], "A measured plan is for masked language"),
        (["benchmark"], "`benchmark` measures masked-LM models and models"),
    ],
)
def test_commands_that_are_not_for_it(embed_recipe, capsys, words, message):
    command, *options = words
    status, _, errors = keras_distil(capsys, command, embed_recipe, *options)
    assert status == 1
    assert message in errors.splitlines()[-1]


def test_what_it_will_cost(embed_recipe, capsys):
    """Sizes by hand: the toy encoder is of width 16, with 64 words."""
    status, printed, errors = keras_distil(
        capsys, "run", embed_recipe, "--dry-run", "--json"
    )
    assert status == 0, errors
    found = json.loads(printed)
    assert found["teacher_vectors"]["bytes_per_text"] == 32
    assert found["teacher_vectors"]["texts_at_most"] == 32
    student = models.initialize_student(
        models.load_embedding_model(embed_recipe.parent / "embedder.keras"), 1
    )
    assert found["student"]["parameters"] == student.count_params()
    assert found["memory_gb_per_device"]["teacher_weights"] == 0.0
    table = ["--set", "student={kind: static, vocabulary: 70, dimension: 9}"]
    _, printed, _ = keras_distil(
        capsys, "run", embed_recipe, "--dry-run", "--json", *table
    )
    assert json.loads(printed)["student"]["parameters"] == 630


@pytest.mark.slow
def test_a_search_of_its_settings(embed_recipe, tmp_path, capsys, quick_runs):
    space = {
        "distill.learning_rate": {"min": 1e-6, "max": 1e-1, "scale": "log"},
        "distill.losses.similarity_kl.temperature": {"choices": [0.05, 0.5]},
    }
    search = {"tuner": "random", "trials": 2, "space": space}
    status, printed, errors = keras_distil(
        capsys,
        *["search", embed_recipe, "--output", tmp_path / "search", "--quiet"],
        *["--set", f"search={json.dumps(search)}", "--set", "data.texts=both"],
        *["--set", "student={kind: static, dimension: 16}"],
        *["--set", "evaluate={}"],
    )
    assert status == 0, errors
    found = json.loads((tmp_path / "search" / "search.json").read_text())
    assert found["metric"] == "held_out_teacher_agreement"
    assert [row["name"] for row in found["trials"]][0] == "recipe"
    assert all(0 < row["score"] < 1 for row in found["trials"])
    best = load_recipe(tmp_path / "search" / "best.yaml")
    assert best.distill.embeds


@pytest.mark.slow
def test_a_preset_is_read_by_its_vocabulary(embed_recipe, tmp_path):
    teacher = models.load_embedding_model(
        embed_recipe.parent / "embedder.keras"
    )
    export.export(teacher, tmp_path / "preset", format="preset")
    change = [f"teacher.source={tmp_path / 'preset'}"]
    recipe = load_recipe(embed_recipe, change)
    assert preflight.open_inputs(recipe) == []
    loaded = load_embedder(recipe)
    texts = ["Line A tells of \u00dc.", "so c is (b)"]
    # KerasHub's GELU is another one.
    np.testing.assert_allclose(
        loaded.encode_text(texts), teacher.encode_text(texts), atol=2e-3
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["minilm_to_3_layers", "static"])
def test_the_recipe_that_ships_trains(name, embed_recipe, tmp_path):
    folder = embed_recipe.parent
    status = run_command(
        *("run", f"embeddings_{name}", "--output", str(tmp_path / "run")),
        *("--quiet", "--set", f"teacher.source={folder / 'embedder.keras'}"),
        *("--set", f"data.root={folder}", "--set", "data.sequence_length=12"),
        *("--set", "data.sources=[{kind: files, pattern: '*.txt'}]"),
        *("--set", "data.held_out_fraction=0.3"),
        *("--set", "distill.batch_size=4", "--set", "distill.warmup_steps=1"),
        *("--set", "evaluate={sts: sts.tsv, retrieval: found, samples: 2}"),
        *(
            ("--set", "student.num_layers=1", "--set", "student.layers=[0]")
            + ("--set", "distill.steps=2", "--set", "teacher.dimension=8")
            + ("--set", "distill.losses.matryoshka.dimensions=[4]")
            if name == "minilm_to_3_layers"
            else ("--set", "teacher.dimension=8", "--set", "distill.epochs=1")
            + ("--set", "student.dimension=8")
        ),
    )
    assert status == 0
    rows = json.loads((tmp_path / "run" / "report.json").read_text())["rows"]
    assert set(rows) > {"teacher", "student"}
