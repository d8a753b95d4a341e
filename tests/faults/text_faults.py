"""Faults in augmented and unlabelled text."""

from faults.fault import Fault

_AUGMENTED = ("tests/runs/test_augmented.py",)
_BATCHES = ("tests/data/tasks/test_training_batches.py",)
_CANDIDATES = ("tests/models/test_word_candidates.py",)
_COPIES = ("tests/models/test_augmentation.py",)
_MIXING = ("tests/data/tasks/test_mixing.py",)
_OBJECTIVE = ("tests/training/objectives/test_label_weight.py",)
_STORED = ("tests/data/tasks/test_stored_examples.py",)
_UNLABELLED = ("tests/data/tasks/test_unlabelled.py",)

FAULTS = (
    Fault(
        "an example without a label counts in losses on labels",
        "Objective._logits_sums",
        "of_labels if loss.reads_labels else weight",
        "weight",
        _OBJECTIVE,
    ),
    Fault(
        "an example without a label counts in no loss",
        "Objective._logits_sums",
        "of_labels if loss.reads_labels else weight",
        "of_labels",
        _OBJECTIVE,
    ),
    Fault(
        "losses on labels are divided by all examples",
        "TaskObjective.denominator_of",
        '"labelled" if loss.reads_labels else "examples"',
        '"examples"',
        _OBJECTIVE,
    ),
    Fault(
        "metrics of compile see examples without labels",
        "TaskObjective._show",
        "rows.targets, rows.labelled",
        "rows.targets, rows.weight",
        _OBJECTIVE,
    ),
    Fault(
        "unlabelled examples have labels",
        "_Reader._gather",
        "label_weight = np.zeros(len(rows), np.float32)",
        "label_weight = np.ones(len(rows), np.float32)",
        _BATCHES,
    ),
    Fault(
        "sets of a mixture share an order",
        "task_dataset",
        "_EXAMPLE_ORDERS[number]",
        "_EXAMPLE_ORDERS[0]",
        _BATCHES,
    ),
    Fault(
        "a batch of a mixture is not sorted by length",
        "_Reader._choose",
        'np.argsort(lengths, kind="stable")',
        "np.arange(len(lengths))",
        _BATCHES,
    ),
    Fault(
        "the share of a set is rounded anew in every batch",
        "_round_down",
        "rest * ratio.numerator // ratio.denominator",
        "0",
        _MIXING,
    ),
    Fault(
        "what a set leaves is not the next one's whole",
        "split_examples",
        "share / left)",
        "share)",
        _MIXING,
    ),
    Fault(
        "a share is the float next to it",
        "find_shares",
        "Fraction(str(x))",
        "Fraction(x)",
        _MIXING,
    ),
    Fault(
        "the baseline has fewer updates than the student",
        "count_epoch_steps",
        "score_table.STUDENT, score_table.BASELINE,",
        "score_table.STUDENT,",
        ("tests/runs/test_more_text.py",),
    ),
    Fault(
        "a word of several tokens keeps all but its first",
        "_replace",
        "kept[np.repeat(first, more) + 1 + number] = False",
        "",
        _COPIES,
    ),
    Fault(
        "the first segment keeps its length",
        "_replace",
        "(second - starts[:-1])",
        "examples.first_lengths",
        _COPIES,
    ),
    Fault(
        "all parts make the same random choices",
        "Augmenter.copies_of",
        "[self._seed, number]",
        "[self._seed]",
        _COPIES,
    ),
    Fault(
        "a word of several tokens is masked but for its end",
        "mask_words",
        "np.where(place > position, left_out, 0)",
        "0",
        _CANDIDATES,
    ),
    Fault(
        "a word may replace itself",
        "WordCandidates._run",
        "original[words.sizes[chosen] > 1] = self._mask_id",
        "original[:] = self._mask_id",
        _CANDIDATES,
    ),
    Fault(
        "a word with a number in it is replaced",
        "WordFinder.find",
        "words = begins & letters",
        "words = begins",
        ("tests/models/test_replaceable_words.py",),
    ),
    Fault(
        "what an interrupted writer left stays",
        "ExampleWriter._cut",
        "os.truncate(self._path(name), size)",
        "pass",
        _STORED,
    ),
    Fault(
        "complete shards are not checked",
        "ExampleWriter._find_complete",
        "found.shards[: _count_whole(self._folder, found)]",
        "found.shards",
        _STORED,
    ),
    Fault(
        "copies do not depend on the model",
        "write_copies",
        '"model": weights_digest(model),',
        "",
        _AUGMENTED,
    ),
    Fault(
        "copies do not depend on the labels",
        "_digest",
        "np.asarray(examples.labels),",
        "",
        _AUGMENTED,
    ),
    Fault(
        "a column of labels is left out silently",
        "_read_table",
        "if labels:",
        "if False:",
        _UNLABELLED,
    ),
)
