"""Faults that undo fixes for bugs that users met."""

from faults.fault import Fault

_CHECKS = "tests/training/objectives/test_batch_checks.py"
_FOLDER = ("tests/data/test_tokenizer_folder.py",)

FAULTS = (
    # === Batches that do not fit together ===
    Fault(
        "ids beyond the vocabulary are clipped in silence",
        "BatchChecks.numbers",
        "tf.reduce_all((value >= 0) & (value <= highest))",
        "tf.reduce_all(value == value)",
        (f"{_CHECKS}::test_inputs_that_are_refused",),
    ),
    Fault(
        "the label 0.7 is class 0",
        "BatchChecks._check_whole",
        "tf.reduce_all(whole)",
        "tf.reduce_all(whole | True)",
        (f"{_CHECKS}::test_labels_that_are_refused",),
    ),
    Fault(
        "weights below 0 count",
        "BatchChecks.weights",
        "tf.math.is_finite(value) & (value >= 0.0)",
        "tf.math.is_finite(value)",
        (f"{_CHECKS}::test_weights_that_are_refused",),
    ),
    Fault(
        "soft labels need no sum of 1",
        "BatchChecks.probabilities",
        "tf.abs(total - 1.0) <= SUM_TOLERANCE",
        "tf.abs(total - 1.0) <= 9.0",
        (f"{_CHECKS}::test_labels_that_are_refused",),
    ),
    Fault(
        "an answer in the padding is learnt",
        "BatchChecks.span",
        "wrong = ~real & (weight > 0.0)",
        "wrong = ~real & (weight > 9.0)",
        (f"{_CHECKS}::test_spans_that_are_refused",),
    ),
    Fault(
        "a label of -100 has its weight",
        "_classes",
        "tf.where(ignored, 0.0, weight)",
        "weight",
        (f"{_CHECKS}::test_the_label_of_minus_100_is_a_weight_of_0",),
    ),
    Fault(
        "labels with an axis too many are spread out",
        "check_shape",
        "tf.squeeze(graph_checks.after(checks, value), axis=-1)",
        "value",
        (f"{_CHECKS}::test_labels_that_mean_the_same",),
    ),
    Fault(
        "a failed check lets the update pass",
        "require",
        "return [tf.cond(condition, lambda: tf.constant(True), fail)]",
        "return []",
        (
            "tests/training/test_unfit_batches.py::test_an_unfit_batch_changes_nothing",
        ),
    ),
    # === Texts and tokenizers ===
    Fault(
        "a corpus of unknown words is taken",
        "check_unknown",
        "if _share(unknown, total) >= _REFUSE_FROM:",
        "if False:",
        ("tests/data/corpus/test_preparation.py",),
    ),
    Fault(
        "nothing is said of unknown words",
        "unknown_warnings",
        "_WARN_FROM <= share",
        "1.0 <= share",
        ("tests/data/corpus/test_preparation.py",),
    ),
    Fault(
        "tokenizers of any class are read as WordPiece",
        "_open",
        "if short not in known:",
        "if False:",
        _FOLDER,
    ),
    Fault(
        "gaps of a vocabulary are not counted",
        "vocabulary_size",
        "1 + max((i for token, i in vocabulary.items() if token), default=-1)",
        "len(vocabulary)",
        _FOLDER,
    ),
)
