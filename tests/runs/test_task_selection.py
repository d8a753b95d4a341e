"""`finetune.selection: train` chooses epochs without the development set."""

import json

import numpy as np
import pytest

from keras_distil import config, evaluation, models
from keras_distil.runs import run_folder, stages, task_results, tasks
from keras_distil.runs.report import model_card
from keras_distil.utils.progress import Progress

SQUAD = (
    "{tasks: [squad], source: files, rows: [teacher], selection: train, "
    "max_length: 12, max_question: 4, stride: 2}"
)


@pytest.fixture
def recipe_path(toy_teacher, toy_glue, tmp_path):
    path = tmp_path / "tasks.yaml"
    path.write_text(
        f"""
name: tasks
teacher: {{source: {toy_teacher}}}
data: {{root: {toy_glue}}}
finetune:
  tasks: [rte]
  source: files
  rows: [teacher]
  selection: train
  max_length: 12
  epochs: 3
  patience: 3
  batch_size: 2
  learning_rate: 0.01
  jit_compile: false
evaluate: {{latency_length: 8}}
"""
    )
    return path


@pytest.mark.slow
@pytest.mark.essential
@pytest.mark.usefixtures("quick_runs")
def test_the_development_set_is_read_once_at_the_end(
    recipe_path, tmp_path, monkeypatch, capsys
):
    read = []
    outputs = evaluation.GLUEEvaluator.outputs

    def watched(self, model):
        read.append(next(iter(self.examples)))
        return outputs(self, model)

    monkeypatch.setattr(evaluation.GLUEEvaluator, "outputs", watched)
    recipe = config.load_recipe(recipe_path)
    run = run_folder.open_run(recipe, tmp_path / "run", Progress())
    report = stages.run_recipe(run)
    assert read == ["selection"] * 3 + ["dev"]
    kept = tmp_path / "run" / "tasks" / "rte" / "teacher" / "seed_0"
    result = json.loads((kept / "result.json").read_text())
    scores = result["selection_scores"]
    assert len(scores) == 3 and "dev_scores" not in result
    assert result["best_epoch"] == 1 + int(np.argmax(scores))
    model = models.load_task_model(kept / "model.keras")
    task = tasks.load_task(recipe, "rte")
    assert task.selection.score(model) == max(scores)
    assert result["metrics"] == task.evaluator.evaluate(model)
    # A tenth of each of two classes of 4, whose texts come in pairs.
    printed = capsys.readouterr().err
    assert "rte: 4 training examples, and 4 more that choose" in printed
    assert "the development set is read once, at the end" in printed
    accuracy = result["metrics"]["dev"]["accuracy"]
    assert (
        f"rte/teacher/seed_0: {100 * max(scores):.1f} in epoch "
        f"{result['best_epoch']} on the part of the training set that chooses, "
        f"{100 * accuracy:.1f} on the development set"
    ) in " ".join(printed.split())
    assert report["tasks"]["selection"] == "train"
    assert (
        "The development sets chose nothing"
        in (tmp_path / "run" / "report.md").read_text()
    )
    card = model_card.model_card(recipe, run.folder)
    assert "was chosen on a tenth of the training set, on which no" in card


@pytest.mark.slow
@pytest.mark.usefixtures("quick_runs")
def test_epoch_and_patience_go_by_the_selected_part(
    recipe_path, tmp_path, monkeypatch
):
    """Its scores fall while those of the development set rise."""
    scores = {"selection": iter([0.5, 0.4, 0.3]), "dev": iter([0.1, 0.9, 1.0])}
    monkeypatch.setattr(
        evaluation.GLUEEvaluator,
        "score",
        lambda self, model: next(scores[next(iter(self.examples))]),
    )
    for name, best, epochs in (("train", 1, 2), ("dev", 3, 3)):
        recipe = config.load_recipe(
            recipe_path,
            [f"finetune.selection={name}", "finetune.patience=1"],
        )
        folder = tmp_path / name
        run = run_folder.open_run(recipe, folder, Progress(quiet=True))
        stages.run_recipe(run)
        kept = folder / "tasks" / "rte" / "teacher" / "seed_0" / "result.json"
        result = json.loads(kept.read_text())
        assert result["best_epoch"] == best
        key = {"train": "selection_scores", "dev": "dev_scores"}[name]
        assert len(result[key]) == epochs


def test_the_best_seed_goes_by_the_selected_part(recipe_path, tmp_path):
    recipe = config.load_recipe(recipe_path, ["finetune.seeds=[0, 1]"])
    run = run_folder.Run(recipe, tmp_path / "run", Progress(quiet=True))
    for seed, result in (
        (0, {"selection_scores": [0.1, 0.7], "metrics": {"dev": 1.0}}),
        (1, {"selection_scores": [0.8], "metrics": {"dev": 0.0}}),
    ):
        planned = task_results.plan_training(run, "rte", "student", seed)
        planned.folder.mkdir(parents=True)
        (planned.folder / "result.json").write_text(json.dumps(result))
    found = task_results.read_best_scores(run, "rte", "student")
    assert found == [0.7, 0.8]
    best = task_results.find_best_student(run, "rte")
    assert best.parent.name == "seed_1"


def squad_folder(folder, articles):
    """SQuAD's files with two letters' paragraphs of 4 questions each."""
    folder.mkdir()
    made = []
    for number in range(articles):
        words = ["abcdefghijklmnopqrstuvwx"[number + i] for i in range(4)]
        questions = [
            {
                "id": f"{number}-{place}",
                "question": word,
                "answers": [{"text": word, "answer_start": 2 * place}],
            }
            for place, word in enumerate(words)
        ]
        paragraph = {"context": " ".join(words), "qas": questions}
        made.append({"title": f"title {number}", "paragraphs": [paragraph]})
    for split in ("train", "dev"):
        content = {"version": "1.1", "data": made}
        (folder / f"{split}-v1.1.json").write_text(json.dumps(content))
    return folder


def test_no_paragraph_of_squad_is_on_both_sides(recipe_path, tmp_path):
    root = squad_folder(tmp_path / "squad", articles=20)
    recipe = config.load_recipe(
        recipe_path, [f"finetune={SQUAD}", f"data.root={root}"]
    )
    task = tasks.load_task(recipe, "squad")
    assert isinstance(task.selection, evaluation.SpanEvaluator)

    def contexts(rows):
        return {tuple(row[3:7]) for row in rows}

    train = task.train
    kept = contexts(
        np.split(train.token_ids, train.starts[1:-1])  # [CLS] q [SEP] context
    )
    taken = contexts(
        row for x in task.selection.inputs() for row in x["token_ids"]
    )
    assert len(train) == 72 and len(task.selection.labels["dev"]) == 8
    assert (len(kept), len(taken)) == (18, 2) and not kept & taken
    # Without it, all are trained on.
    whole = tasks.load_task(
        config.load_recipe(
            recipe_path,
            [
                f"finetune={SQUAD}",
                f"data.root={root}",
                "finetune.selection=dev",
            ],
        ),
        "squad",
    )
    assert len(whole.train) == 80 and whole.selection is None
    assert whole.chooser is whole.evaluator


def test_what_cannot_be_parted_is_refused(recipe_path, toy_glue, toy_squad):
    squad = [f"finetune={SQUAD}", f"data.root={toy_squad}"]
    recipe = config.load_recipe(recipe_path, squad)
    for check in (tasks.load_task, tasks.read_task):
        with pytest.raises(
            ValueError,
            match="`finetune.selection: train` takes a tenth out of .* squad, "
            "with more than one text and label. Received: 8 questions on one "
            "paragraph. Add some, or use `selection: dev`.",
        ):
            check(recipe, "squad")
    path = toy_glue / "RTE" / "train.tsv"
    lines = path.read_text().splitlines()
    # One class of two pairs of texts, and one text in two classes.
    for chosen in ([1, 3], [1, 2]):
        kept = [lines[0], *(lines[i] for i in chosen)]
        if chosen == [1, 2]:
            kept[2] = kept[1].replace("entailment", "not_entailment")
        path.write_text("\n".join(kept) + "\n")
        with pytest.raises(ValueError, match="Received: 2 examples. Add some"):
            tasks.read_task(config.load_recipe(recipe_path), "rte")
