"""Faults in losses on attention, and in divergences of outputs."""

from faults.fault import Fault

_RELATION = ("tests/losses/test_attention_relation.py",)
_TRANSFER = ("tests/losses/test_attention_transfer.py",)
_OBJECTIVE = ("tests/training/objectives/test_attention_losses.py",)
_SOFT = ("tests/losses/test_soft_divergence.py",)

FAULTS = (
    Fault(
        "tables are not scaled by the size of a head",
        "_scale",
        "1.0 / math.sqrt(vectors.shape[-1])",
        "1.0",
        _RELATION,
    ),
    Fault(
        "padding has columns in a table",
        "_rows",
        "tf.where(real[:, tf.newaxis], scores, _NEVER)",
        "scores",
        _RELATION,
    ),
    Fault(
        "the gradient misses the side of the columns",
        "_few_tables",
        "slopes[table.right] += tf.matmul",
        "tf.matmul",
        _TRANSFER,
    ),
    Fault(
        "the gradient lacks the weights of the rows",
        "_few_tables",
        "(scale * rows)[:, :, tf.newaxis] * (q - p)",
        "scale * (q - p)",
        _RELATION,
    ),
    Fault(
        "heads of teacher and student are added, not averaged",
        "divergence_sum.divergence",
        "tf.repeat(weight, heads, axis=0) / heads",
        "tf.repeat(weight, heads, axis=0)",
        _RELATION,
    ),
    Fault(
        "the weights of relations are left out",
        "_few_tables",
        "rows = weight * table.weight",
        "rows = weight",
        _RELATION,
    ),
    Fault(
        "pairs of layers are added, not averaged",
        "AttentionLosses.add_up",
        "tf.add_n(parts) / len(parts)",
        "tf.add_n(parts)",
        _OBJECTIVE,
    ),
    Fault(
        "the attention of another layer is read",
        "_input_of",
        "number - 1 if number else EMBEDDINGS",
        "number",
        _OBJECTIVE,
    ),
    Fault(
        "masked language modelling leaves losses on attention out",
        "MaskedLMObjective._gradients",
        "self._hidden_losses.losses or self._attention_losses.losses",
        "self._hidden_losses.losses",
        _OBJECTIVE,
    ),
    Fault(
        "the reverse KL divergence is not reversed",
        "soft_target_reverse_kl_divergence.divergence",
        "divergence_of_softmaxes(q, p, -ratio)",
        "divergence_of_softmaxes(p, q, ratio)",
        _SOFT,
    ),
    Fault(
        "the Jensen-Shannon divergence lacks the student's part",
        "soft_target_jensen_shannon_divergence.divergence",
        "value += ours * divergence_of_softmaxes(q, m, to_q)",
        "pass",
        _SOFT,
    ),
    Fault(
        "a softened gradient is not centred",
        "_softened.softened.gradient",
        "slope - mean",
        "slope",
        _SOFT,
    ),
    Fault(
        "padding counts in the squared error of a span",
        "squared_error_of_outputs",
        "ops.divide_no_nan(error, share)",
        "error",
        _SOFT,
    ),
)
