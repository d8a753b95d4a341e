"""Faults in the exports of sentence embedders, and in what runs them."""

from faults.fault import Fault

_EMBEDDERS = "tests/export/test_embedders.py"
_TABLE = "tests/export/test_static_table.py"
_STATIC = "tests/edge/test_static_student.py"

FAULTS = (
    Fault(
        "an exported table has rows of special tokens",
        "table_of",
        "table[backbone.special_ids] = 0.0",
        "pass",
        (f"{_TABLE}::test_a_table_embeds_as_the_model",),
    ),
    Fault(
        "rows of a table are rounded towards zero",
        "_quantized",
        "np.round(table / divisors)",
        "np.trunc(table / divisors)",
        (f"{_TABLE}::test_a_table_embeds_as_the_model",),
    ),
    Fault(
        "rows of a table are added without their scales",
        "StaticStudent.sum_rows",
        "np.dot(scales[place], rows[place], out=vector)",
        "np.sum(rows[place], axis=0, out=vector)",
        (f"{_STATIC}::test_vectors_are_sums_of_rows",),
    ),
    Fault(
        "a table reads two tokens too many",
        "StaticStudent._most_tokens",
        "self.max_length - framing",
        "self.max_length",
        (f"{_STATIC}::test_vectors_are_sums_of_rows",),
    ),
    Fault(
        "words of any tokenizer are split at spaces",
        "_splits_at_spaces",
        'rules.get("type") == _BERT',
        "True",
        ("tests/edge/test_known_words.py",),
    ),
    Fault(
        "far texts count as near ones for cut vectors",
        "_gradient",
        "np.exp((wanted - 1) / _TEMPERATURE)",
        "np.ones_like(wanted)",
        ("tests/models/test_directions.py",),
    ),
    Fault(
        "prompts are left out without TensorFlow",
        "Prompts.join",
        'f"{prompt}{text}".strip()',
        "text.strip()",
        (f"{_STATIC}::test_vectors_are_sums_of_rows",),
    ),
    Fault(
        "a table of another size is mapped",
        "_map_table",
        "size != expected",
        "size < expected",
        (f"{_STATIC}::test_damaged_tables",),
    ),
    Fault(
        "the largest of states in ONNX is one of padding",
        "_pooled",
        'graph.add("Where", real, states, never)',
        "states",
        (f"{_EMBEDDERS}::test_onnx",),
    ),
    Fault(
        "a folder for sentence-transformers always says the mean",
        "write_sentence_transformer",
        "mode == model.pooling_mode",
        'mode == "mean"',
        (f"{_EMBEDDERS}::test_hugging_face_folders_read_back",),
    ),
    Fault(
        "a LiteRT card has no prompts",
        "_write_card",
        'dict(settings["prompts"] or {})',
        "{}",
        (f"{_EMBEDDERS}::test_litert_by_edge",),
    ),
    Fault(
        "a preset without a class in KerasHub loses its tokenizer",
        "TextPreprocessor.save_to_preset",
        "self.tokenizer.save(str(path))",
        "pass",
        (f"{_EMBEDDERS}::test_presets",),
    ),
    Fault(
        "a score is of vectors in another order",
        "_score",
        "[np.argsort(np.concatenate(places))]",
        "",
        (
            "tests/runs/embeddings/test_embedding_exports.py"
            "::test_what_rounded_weights_are_fitted_to_and_scored_on",
        ),
    ),
)
