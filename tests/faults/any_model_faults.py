"""Faults in the distillation and the export of any Keras models."""

from faults.fault import Fault

_OBJECTIVE = "tests/training/objectives/test_any_model_objective.py"
_PAIR = "tests/training/objectives/test_any_model_pair.py"
_DISTILLER = "tests/training/test_any_distiller.py"
_EXPORT = "tests/export/test_any_model.py"

FAULTS = (
    Fault(
        "the teacher of any model runs in training mode",
        "AnyModelObjective._evaluate",
        "teacher(inputs, training=False)",
        "teacher(inputs, training=training)",
        (f"{_DISTILLER}::test_a_teacher_teaches_what_it_predicts",),
    ),
    Fault(
        "an example counts as often as it has positions",
        "_spread",
        "weight / tf.cast(count, tf.float32)",
        "weight",
        (f"{_OBJECTIVE}::test_positions_of_an_example",),
    ),
    Fault(
        "examples of any model all count",
        "make_batch",
        'checks.weights("sample_weight", weight)',
        "tf.ones_like(weight)",
        (f"{_OBJECTIVE}::test_a_weight_of_0_counts_nowhere",),
    ),
    Fault(
        "moving means of any model stay as they are",
        "AnyModelObjective.commit",
        "variable.assign(value)",
        "value",
        (f"{_DISTILLER}::test_without_a_teacher_it_is_keras_s_own_step",),
    ),
    Fault(
        "what a pass updates is assigned before the check",
        "AnyModelObjective._keep_updates",
        "batch.updates.extend(updates)",
        "[variable.assign(value) for variable, value in updates]",
        (f"{_DISTILLER}::test_a_loss_that_is_not_finite_changes_nothing",),
    ),
    Fault(
        "dropout is the same in all micro-batches",
        "AnyModelObjective._keep_updates",
        "variable.assign(value)",
        "value",
        (f"{_DISTILLER}::test_dropout_of_micro_batches_goes_on",),
    ),
    Fault(
        "statistics of parts of a batch are accepted",
        "AnyModelObjective._check_parts",
        "if id(v) in weights",
        "if id(v) not in weights and False",
        (f"{_DISTILLER}::test_statistics_of_batches_and_micro_batches",),
    ),
    Fault(
        "a softmax is read after it",
        "_split_activation",
        "return before, activation(before)",
        "return activation(before), activation(before)",
        (f"{_OBJECTIVE}::test_classes_with_losses_on_layers",),
    ),
    Fault(
        "layers keep what recorded them",
        "Taps._detach",
        "del vars(layer)[name]",
        "None",
        (f"{_DISTILLER}::test_the_teacher_is_not_changed",),
    ),
    Fault(
        "a layer may be called several times",
        "ModelPass._once",
        "if len(found) == 1",
        "if len(found) >= 1",
        (f"{_PAIR}::test_pairs_that_are_refused",),
    ),
    Fault(
        "probabilities are never checked",
        "ModelPass.check",
        "if off is None",
        "if True",
        (f"{_PAIR}::test_probabilities_are_said_in_vain",),
    ),
    Fault(
        "several numbers are summed up",
        "SoftTargetSquaredError.token_values",
        "functional.squared_error_of_outputs(teacher_logits, student_logits)",
        "ops.sum(ops.square(student_logits - teacher_logits), axis=-1)",
        (f"{_OBJECTIVE}::test_numbers",),
    ),
    Fault(
        "inputs that are too many are left out",
        "check_inputs",
        "if counts[0] != counts[1]",
        "if False",
        (f"{_PAIR}::test_unfit_batches",),
    ),
    Fault(
        "an export of any model is made in training mode",
        "AnyStudent.run",
        "training=False",
        "training=True",
        (f"{_EXPORT}::test_saved_model",),
    ),
)
