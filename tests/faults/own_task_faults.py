"""Faults in tasks from files: rows, words, windows, several labels."""

from faults.fault import Fault

_ROWS = ("tests/data/tasks/test_text_rows.py",)
_WORDS = ("tests/data/tasks/test_word_rows.py",)
_RUN = "tests/runs/own_tasks/test_own_tasks.py"
_FEATURES = "tests/runs/own_tasks/test_features.py"
_WINDOWS = (f"{_RUN}::test_windows_of_a_text_are_one_example",)
_METRICS = ("tests/evaluation/test_task_metrics.py",)
_SEVERAL = ("tests/losses/test_binary.py",)
_CUT = "tests/runs/test_cut_students.py"
_GIVEN = "tests/runs/test_given_teacher.py"
_PROPOSAL = "tests/planning/proposal/test_proposal.py"
_RECORDS = "tests/teachers/predictions/test_prediction_records.py"

FAULTS = (
    Fault(
        "the letter case of a text makes it another one",
        "text_digests",
        "text.strip().casefold() for text in first",
        "text.strip() for text in first",
        _ROWS,
    ),
    Fault(
        "development rows are not chosen by class",
        "choose_dev",
        "np.minimum.at(classes, group_of, strata.astype(np.int64))",
        "classes[:] = 0",
        _ROWS,
    ),
    Fault(
        "half of the development rows may be training rows",
        "MOST_SHARED",
        "0.05",
        "0.5",
        _ROWS,
    ),
    Fault(
        "a search takes an error for a score",
        "counts_errors",
        "task is not None and task.metric in ERRORS",
        "False",
        ("tests/search/test_results.py",),
    ),
    Fault(
        "the gate shows errors as scores",
        "_task_examples",
        "is_error=task.counts_errors,",
        "",
        (f"{_RUN}::test_errors_are_positive_wherever_they_are_seen",),
    ),
    Fault(
        "predictions of words are given to the wrong sentences",
        "_answers_of",
        "np.split(kept, examples.starts[1:-1])",
        "np.split(kept[::-1], examples.starts[1:-1])",
        ("tests/runs/test_predictions.py",),
    ),
    Fault(
        "words are counted anew in each part",
        "WordLoader._parts",
        "words[examples.starts[window] + position] = word + before",
        "words[examples.starts[window] + position] = word",
        (_FEATURES,),
    ),
    Fault(
        "ids may be repeated in another part of a file of questions",
        "scan_span_files",
        "if len(repeated):",
        "if False:",
        ("tests/data/tasks/test_span_rows.py",),
    ),
    Fault(
        "a preset's classes have no names",
        "_read_labels",
        "return check_labels(found, model.num_classes)",
        "return None",
        ("tests/models/test_task_presets.py",),
    ),
    Fault(
        "sigmoids at the end of a preset exclude each other",
        "_with_labels",
        'del options["activation"]',
        "return model",
        ("tests/models/test_task_presets.py",),
    ),
    Fault(
        "a row that is too short is taken",
        "_records",
        "len(row) != width or ended",
        "len(row) > width or ended",
        ("tests/data/tasks/test_tables.py",),
    ),
    Fault(
        "the texts of rows that are left out are encoded",
        "TextRows.texts",
        "np.flatnonzero(used[begin : begin + len(places)])",
        "np.arange(len(places))",
        _ROWS,
    ),
    Fault(
        "a word is read at the piece before it",
        "_Builder._add_window",
        "np.stack([inside + self._words, window, position + 1, nearest])",
        "np.stack([inside + self._words, window, position, nearest])",
        _WORDS,
    ),
    Fault(
        "every piece of a word but the first has its label",
        "_first_pieces",
        'np.searchsorted(offsets[:, 1], begins, side="right")',
        'np.searchsorted(offsets[:, 1], begins, side="right") + 1',
        _WORDS,
    ),
    Fault(
        "each window counts as a text",
        "TextLoader._with_labels",
        "labels[owners], (weights / counts)[owners]",
        "labels[owners], weights[owners]",
        _WINDOWS,
    ),
    Fault(
        "the last window of a text decides",
        "pool_windows",
        "sums / counts[:, np.newaxis]",
        "outputs[starts + counts - 1]",
        ("tests/evaluation/test_task_files.py",),
    ),
    Fault(
        "an entity goes on where its type changes",
        "_goes_on",
        "and type_ == type_before",
        "",
        _METRICS,
    ),
    Fault(
        "a class that a draw lacks counts",
        "_f1_by_label",
        "np.ones_like(either) if labels.ndim == 2 else either > 0",
        "np.ones_like(either)",
        _METRICS,
    ),
    Fault(
        "soft targets of several labels are summed",
        "binary_kl_divergence",
        "return ops.mean(values, axis=-1)",
        "return ops.sum(values, axis=-1)",
        _SEVERAL,
    ),
    Fault(
        "labels exclude each other",
        "kind_of",
        'return "multi_label"',
        'return "classification"',
        ("tests/training/objectives/test_task_objective.py",),
    ),
    Fault(
        "a student is cut from the teacher of another seed",
        "make_task_model",
        "score_table.TEACHER, planned.seed",
        "score_table.TEACHER, 3",
        (
            f"{_CUT}::test_student_and_baseline_begin_as_the_teacher_of_their_seed",
        ),
    ),
    Fault(
        "rows are trained in the order of the recipe",
        "_trainings_left",
        "key=lambda row: row != score_table.TEACHER",
        "key=lambda row: False",
        (f"{_CUT}::test_teachers_come_first_whatever_the_order_of_rows",),
    ),
    Fault(
        "both texts of a pair have the same n-grams",
        "_ngrams",
        'yield f"{number} {word}"',
        'yield f"0 {word}"',
        ("tests/runs/test_ngrams.py",),
    ),
    Fault(
        "a given teacher's classes stay in its own order",
        "load_given_teacher",
        "reorder_outputs(teacher, columns, task.labels)",
        "reorder_outputs(teacher, None, task.labels)",
        (f"{_GIVEN}::test_outputs_are_put_into_the_order_of_the_data",),
    ),
    Fault(
        "a teacher as good as a constant answer teaches",
        "check_score",
        "if score > constant:",
        "if True:",
        (f"{_GIVEN}::test_a_teacher_no_better_than_a_constant_stops_the_run",),
    ),
    Fault(
        "the predictions of words stand a piece too early",
        "_Pieces.spread",
        "spread[self._positions[begin:end]]",
        "spread[self._positions[begin:end] - 1]",
        (f"{_RECORDS}::test_words_are_at_their_first_pieces",),
    ),
    Fault(
        "predictions lose digits",
        "_number",
        "float(str(np.float32(value)))",
        'float(f"{value:.6g}")',
        (f"{_RECORDS}::test_what_is_written_is_read_back_to_the_last_digit",),
    ),
    Fault(
        "an id of two parts is that of both",
        "_Finder.find",
        "return name, places[:1]",
        "return name, places",
        (f"{_RECORDS}::test_an_id_of_several_parts_is_that_of_the_first",),
    ),
    Fault(
        "lengths are those of the longest texts",
        "_find_lengths",
        "np.percentile(counts, 99)",
        "max(counts)",
        (f"{_PROPOSAL}::test_the_length_is_that_of_nearly_all_texts",),
    ),
    Fault(
        "only the first rows of a file are looked at",
        "_sample",
        "kept, step = kept[::2], 2 * step",
        "step = 2**60",
        (f"{_PROPOSAL}::test_all_rows_are_counted_and_few_looked_at",),
    ),
    Fault(
        "a teacher's labels stay in the order of the file",
        "match_labels",
        "dataclasses.replace(found, labels=labels)",
        "found",
        (f"{_PROPOSAL}::test_a_fine_tuned_teacher_brings_its_labels",),
    ),
    Fault(
        "ids that repeat are taken",
        "_repeats_ids",
        "if len(seen) < before + len(values):",
        "if False:",
        (f"{_PROPOSAL}::test_what_a_file_holds_is_found",),
    ),
)
