"""Faults in data, checkpoints, evaluation and the gates of exports."""

from faults.fault import Fault

_MASK = ("tests/data/test_mask.py",)
_PIPELINE = ("tests/data/test_masked_batches.py",)
_PARITY = ("tests/export/test_parity.py",)
_SIGNIFICANCE = ("tests/evaluation/test_significance.py",)
_TABLE = ("tests/runs/test_score_table.py",)
_STUDENT = ("tests/models/test_initialize_student.py",)

FAULTS = (
    # === Data ===
    Fault(
        "chosen tokens are always hidden",
        "mask_tokens",
        "tf.where(action < 0.8, special.mask_id, token_ids)",
        "tf.where(action < 1.0, special.mask_id, token_ids)",
        _MASK,
    ),
    Fault(
        "a position that is not given is that of the next token",
        "_complete",
        "counted - 1",
        "counted % ops.shape(token_ids)[-1]",
        ("tests/models/architectures/test_all_positions.py",),
    ),
    Fault(
        "padding of encoded texts counts",
        "encode_texts",
        "np.zeros(shape, np.int32)",
        "np.ones(shape, np.int32)",
        ("tests/data/test_tokenize.py",),
    ),
    Fault(
        "special tokens are masked",
        "mask_tokens",
        "maskable &= token_ids != special_id",
        "maskable &= token_ids == token_ids",
        _MASK,
    ),
    Fault(
        "frequent tokens are favoured",
        "mask_tokens",
        "times /= tf.gather(tf.cast(token_weights, tf.float32), token_ids)",
        "times *= tf.gather(tf.cast(token_weights, tf.float32), token_ids)",
        _MASK,
    ),
    Fault(
        "a sequence has one mask for all epochs",
        "_find_masking",
        "epochs if maskings is None else epochs % maskings",
        "0 * epochs",
        _PIPELINE,
    ),
    Fault(
        "targets are the masked tokens",
        "_BatchMaker.__call__",
        "return x, token_ids, selected",
        "return x, masked_ids, selected",
        _PIPELINE,
    ),
    Fault(
        "a fit waits for the thread that tunes its pipeline",
        "Stream.dataset",
        "without_autotune(mapped.prefetch(tf.data.AUTOTUNE))",
        "mapped.prefetch(tf.data.AUTOTUNE)",
        (
            "tests/training/test_sources.py"
            "::test_no_pass_over_our_data_ends_late",
        ),
    ),
    Fault(
        "replicas see the same share",
        "Stream.dataset.share",
        "local[number % shares]",
        "local[0]",
        (
            "tests/data/test_masked_batches.py::test_replicas_read_consecutive_shares_of_each_batch",
        ),
    ),
    Fault(
        "pairs lose the second text first",
        "_truncate",
        "max(room - len(other), half)",
        "room",
        ("tests/data/tasks/test_batches.py",),
    ),
    Fault(
        "second texts are first segments",
        "padded",
        "place >= examples.first_lengths[rows][:, np.newaxis]",
        "place < 0",
        ("tests/data/tasks/test_batches.py",),
    ),
    Fault(
        "held-out text is trained on, too",
        "is_held_out",
        "return",
        "return False and",
        ("tests/data/corpus/test_split.py",),
    ),
    # === Models and checkpoints ===
    Fault(
        "a student takes the teacher's first layers",
        "student_layer_indices",
        "i * teacher_num_layers // num_layers",
        "i",
        ("tests/models/test_initialize_student.py::test_layer_indices",),
    ),
    Fault(
        "a student's positions lack the segment",
        "_copy_embeddings",
        "old.segments.embeddings[0]",
        "0.0 * old.segments.embeddings[0]",
        (
            "tests/models/test_initialize_student.py::test_segment_zero_is_folded_into_the_positions",
        ),
    ),
    Fault(
        "a student's head is new",
        "_copy_masked_lm_head",
        "assign(target.bias, source.bias)",
        "pass",
        (
            "tests/models/test_initialize_student.py::test_student_of_all_layers_equals_the_teacher",
        ),
    ),
    Fault(
        "a task's encoder keeps the dropout it had",
        "_copy_encoder",
        'config["dropout"] = dropout',
        "pass",
        (
            "tests/training/objectives/test_task_objective.py::test_the_encoder_that_was_given_is_not_changed",
        ),
    ),
    # === Scores ===
    Fault(
        "intervals are wider than their level",
        "interval",
        "(1 - level) / 2",
        "(1 - level) / 4",
        _SIGNIFICANCE,
    ),
    Fault(
        "a share is the teacher's of the student",
        "kept_percent",
        "100.0 * score / teacher",
        "100.0 * teacher / score",
        ("tests/evaluation/test_retention.py",),
    ),
    Fault(
        "a share is shown of a teacher that knows nothing",
        "kept_percent",
        "not teacher > max(chance, 0.0)",
        "not teacher > 0.0",
        ("tests/evaluation/test_retention.py",),
    ),
    Fault(
        "neighbouring seeds have one order",
        "shuffled",
        "parts = [seed * same, epochs",
        "parts = [seed // 2 * same, epochs",
        ("tests/data/test_order.py",),
    ),
    Fault(
        "a state of another order is continued",
        "TrainingState._check_same",
        "expected is not None and order != expected",
        "False",
        (
            "tests/training/test_resume.py::test_a_state_of_another_order_is_refused",
        ),
    ),
    Fault(
        "a softmax is taken for logits",
        "logits_of",
        "if _is_linear(layer.activation):",
        "if True:",
        ("tests/models/test_heads.py",),
    ),
    Fault(
        "a Distiller forgets what does not decay",
        "KerasMethods.compile_from_config",
        "if places:",
        "if False:",
        (
            "tests/training/test_saved_distiller.py::test_what_does_not_decay_is_saved",
        ),
    ),
    Fault(
        "GELU is computed in half precision",
        "gelu",
        "dtype = tf.float32 if half else values.dtype",
        "dtype = values.dtype",
        ("tests/models/test_compact_ops.py",),
    ),
    Fault(
        "an export is kept whatever the gate says",
        "BaseExporter.export",
        "parity.check( comparison,",
        "(lambda *_, **__: None)( comparison,",
        (
            "tests/export/test_formats.py::test_a_new_format_is_a_class_and_its_line",
        ),
    ),
    Fault(
        "a format takes another one's options in silence",
        "export",
        "if unknown:",
        "if False:",
        ("tests/export/test_formats.py::test_an_option_of_another_format",),
    ),
    Fault(
        "the gate does not look at the spread",
        "_is_within",
        "and comparison.spread_share <= tolerance.spread_share",
        "",
        ("tests/export/test_gate.py",),
    ),
    Fault(
        "the gate does not look at the cosine",
        "_is_within",
        "and (cosine is None or cosine >= tolerance.cosine)",
        "",
        ("tests/export/test_gate.py",),
    ),
    Fault(
        "a comparison is the wrong way round",
        "_compare",
        "one.score - other.score",
        "other.score - one.score",
        _TABLE,
    ),
    Fault(
        "F1 is that of class 0",
        "_f1",
        "pos_label=1",
        "pos_label=0",
        ("tests/evaluation/test_glue_metrics.py",),
    ),
    Fault(
        "predictions stay in the order of their lengths",
        "GLUEEvaluator._outputs",
        "in_order[np.concatenate([rows for rows, _ in outputs_by_batch])]",
        "in_order[:]",
        ("tests/evaluation/test_glue_evaluator.py",),
    ),
    Fault(
        "confidence alone makes the calibration error",
        "expected_calibration_error",
        "weights=right - probabilities",
        "weights=1.0 - probabilities",
        ("tests/evaluation/test_calibration.py",),
    ),
    # === Gates ===
    Fault(
        "the gate does not look at scores",
        "_shares",
        "comparison.score_loss,",
        "0.0,",
        _PARITY,
    ),
    Fault(
        "the gate does not look at single outputs",
        "_is_within",
        "comparison.max_difference <= largest and",
        "",
        _PARITY,
    ),
    Fault(
        "the gate does not look at first choices",
        "_shares",
        "if comparison.top1_agreement is not None:",
        "if False:",
        _PARITY,
    ),
    Fault(
        "the gate does not look at the spread of outputs",
        "_is_within",
        "and comparison.spread_share <= tolerance.spread_share",
        "",
        ("tests/export/test_gate.py",),
    ),
    Fault(
        "a constant has no distance in terms of the spread",
        "Distance.spread_share",
        "math.sqrt(self._errors / spread)",
        "0.1 * math.sqrt(self._errors / spread)",
        ("tests/export/test_gate.py",),
    ),
    Fault(
        "a score that rises is a loss",
        "Comparison.score_loss",
        "self.student_score - self.score",
        "self.score - self.student_score",
        _PARITY,
    ),
    Fault(
        "the export is compared with itself",
        "compare",
        "_rows(ours[real]), _rows(found[name][real])",
        "_rows(ours[real]), _rows(ours[real])",
        _PARITY,
    ),
    Fault(
        "the best trial is the worst",
        "collect",
        'sign = -1 if objective.direction == "min" else 1',
        'sign = 1 if objective.direction == "min" else -1',
        (
            "tests/wiring/test_every_key.py::test_it_reaches_what_it_is_for"
            "[search.objective]",
        ),
    ),
    Fault(
        "an unfinished run of another recipe goes on",
        "_check_same_run",
        "if fixed:",
        "if False:",
        ("tests/runs/test_run_folder.py",),
    ),
    # === Bugs fixed after users met them ===
    Fault(
        "all epochs have the order of the first",
        "shuffled",
        "seed * same, epochs,",
        "seed * same, 0 * epochs,",
        ("tests/data/test_order.py::test_epochs_do_not_repeat_batches",),
    ),
    Fault(
        "an order has two rounds",
        "_PAIRS",
        "6",
        "1",
        ("tests/data/test_order.py",),
    ),
    Fault(
        "most of a text may be lost",
        "LostText.check",
        "self.share >= max_fraction",
        "self.share > 1",
        ("tests/data/corpus/test_lost_text.py",),
    ),
    Fault(
        "nothing is said of a text that is lost in part",
        "LostText.warnings",
        "if self.share >= WARNED_SHARE:",
        "if False:",
        ("tests/data/corpus/test_lost_text.py",),
    ),
    Fault(
        "a table is taken for prose",
        "describe_form",
        "if count > 1:",
        "if False:",
        ("tests/data/corpus/test_lost_text.py",),
    ),
    Fault(
        "the first texts are drawn, and none after them",
        "Sample._has_room",
        "found < -self._heap[0][0]",
        "False",
        ("tests/data/corpus/test_sample.py",),
    ),
    Fault(
        "files are read as UTF-8, whatever a recipe says",
        "_decode",
        "raw.decode(encoding)",
        'raw.decode("utf-8")',
        ("tests/data/corpus/test_lost_text.py",),
    ),
    Fault(
        "folders that are no runs are moved",
        "open_run",
        "_check_is_a_run(run.folder)",
        "pass",
        ("tests/runs/test_run_folder.py",),
    ),
    Fault(
        "lengths beyond the teacher's positions are accepted",
        "check_lengths",
        "if length > positions:",
        "if False:",
        ("tests/runs/test_preflight.py",),
    ),
    Fault(
        "what only measures may not change",
        "MEASURING_KEYS",
        '"evaluate", ',
        "",
        ("tests/runs/test_preflight.py",),
    ),
    Fault(
        "a classifier's student lacks the shift of its pooler",
        "_copy_pooler",
        "bias + 1.0",
        "bias",
        ("tests/models/test_task_students.py",),
    ),
    Fault(
        "foreign heads are not dropped",
        "HuggingFaceCheckpoint._foreign_heads",
        "name.startswith(self.table.head_prefixes) and name not in own",
        "False",
        ("tests/models/test_foreign_heads.py",),
    ),
)
