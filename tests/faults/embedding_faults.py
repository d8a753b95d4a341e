"""Faults in sentence embedders, their losses and their scores."""

from faults.fault import Fault

_MODELS = "tests/models/test_embedding_model.py"
_LOADED = "tests/models/test_load_embedding_model.py"
_STATIC = "tests/models/test_static_embedding.py"
_LOSSES = ("tests/losses/test_vector_losses.py",)
_OBJECTIVE = "tests/training/objectives/test_embedding_objective.py"
_LOGS = (f"{_OBJECTIVE}::test_logs_are_those_of_numpy",)
_SEARCH = ("tests/evaluation/test_vector_search.py",)
_RETRIEVAL = ("tests/evaluation/test_retrieval.py",)

FAULTS = (
    Fault(
        "the mean of states counts padding",
        "pool",
        "ops.maximum(count, 1.0)",
        "ops.cast(ops.shape(states)[1], 'float32')",
        (f"{_MODELS}::test_vectors_are_those_of_numpy",),
    ),
    Fault(
        "vectors are never scaled",
        "SentenceEmbedding.call",
        "functional.unit(vectors) if self.normalize else vectors",
        "vectors",
        (f"{_MODELS}::test_a_dense_layer_by_hand",),
    ),
    Fault(
        "vectors come back in the order of length",
        "ExactTextEmbedder.encode_tokens",
        "in_order[np.concatenate(places)] = found",
        "in_order[:] = found",
        (f"{_MODELS}::test_texts_become_their_vectors_in_order",),
    ),
    Fault(
        "prompts are left out",
        "TextPreprocessor.encode",
        'f"{prompt}{text}".strip()',
        "text.strip()",
        (f"{_MODELS}::test_prompts_are_put_before_texts",),
    ),
    Fault(
        "the smallest components are kept",
        "principal_directions",
        "directions[:, ::-1]",
        "directions",
        (f"{_MODELS}::test_principal_components_keep_dot_products_best",),
    ),
    Fault(
        "the bias of a folder's dense layer is left out",
        "_load_folder",
        "assign(model.sentence_embedding.bias, dense.bias)",
        "pass",
        (f"{_LOADED}::test_a_dense_layer_and_prompts",),
    ),
    Fault(
        "special tokens have a part in a static vector",
        "StaticTokens.call",
        "ops.logical_and(real, token_ids != special)",
        "real",
        (f"{_STATIC}::test_a_vector_is_the_mean_of_its_tokens",),
    ),
    Fault(
        "a text is paired with itself",
        "similarity_kl_divergence",
        "ops.where(itself, functional.NEVER, cosines(vectors) / temperature)",
        "cosines(vectors) / temperature",
        _LOSSES,
    ),
    Fault(
        "texts of weight 0 are in pairs",
        "EmbeddingObjective._compare_pairs",
        "rows[2] > 0.0",
        "rows[2] > -1.0",
        _LOGS,
    ),
    Fault(
        "losses on pairs have no gradient",
        "EmbeddingObjective.compute_gradients",
        "total += _times(pairs.gradient, ours)",
        "total += 0.0",
        (f"{_OBJECTIVE}::test_gradients_are_those_of_finite_differences",),
    ),
    Fault(
        "micro-batches compare the pairs of their part alone",
        "EmbeddingObjective.before_parts",
        "not self._vector_losses.has_pairs",
        "True",
        (
            f"{_OBJECTIVE}"
            "::test_micro_batches_and_graph_give_the_update_of_the_whole",
        ),
    ),
    Fault(
        "dropout differs between the two passes of a micro-batch",
        "EmbeddingObjective.before_parts",
        "variable.assign(value)",
        "pass",
        (
            f"{_OBJECTIVE}"
            "::test_dropout_of_micro_batches_is_the_same_in_both_passes",
        ),
    ),
    Fault(
        "cut vectors are not scaled again",
        "VectorLosses._cut",
        "functional.unit(vectors) if scaled else vectors",
        "vectors",
        _LOGS,
    ),
    Fault(
        "the losses of cut vectors are added, not averaged",
        "VectorLosses.__init__",
        "1.0 / len(loss.dimensions)",
        "1.0",
        _LOGS,
    ),
    Fault(
        "the projection of vectors is not trained",
        "EmbeddingObjective.layer_projections",
        "found if projection is None else [*found, projection]",
        "found",
        _LOGS,
    ),
    Fault(
        "which of several equal documents is found is arbitrary",
        "_nearest",
        "np.flatnonzero(ties)",
        "()",
        _SEARCH,
    ),
    Fault(
        "documents are counted anew in each block",
        "search",
        "first += len(block)",
        "pass",
        _SEARCH,
    ),
    Fault(
        "a later document gains as much as an earlier one",
        "_gain",
        "np.log2(rank + 1)",
        "1.0",
        _RETRIEVAL,
    ),
)
