"""From text to training batches; no models, no losses.

Names are loaded when first used: preparing a corpus imports no TensorFlow.
"""

import importlib

_HOMES = {
    "character_ids": "characters",
    "character_inputs": "characters",
    "split_words": "characters",
    "CorpusReport": "corpus",
    "Source": "corpus",
    "TextFiles": "corpus",
    "InstalledDocumentation": "documentation",
    "TfdsText": "tfds_text",
    "GLUETask": "glue",
    "TaskExamples": "glue",
    "glue_task": "glue",
    "load_glue": "glue",
    "is_held_out": "split",
    "SquadAnswer": "squad",
    "SquadExample": "squad",
    "load_squad": "squad",
    "read_squad": "squad",
    "SquadWindows": "squad_windows",
    "make_squad_windows": "squad_windows",
    "SpecialTokens": "tokenize",
    "TOKENIZER_FILES": "tokenize",
    "Encoder": "tokenize",
    "encode_paragraphs": "tokenize",
    "load_tokenizer": "tokenize",
    "vocabulary_hash": "tokenize",
    "tokenizer_hash": "tokenize",
    "vocabulary_size": "tokenize",
    "words_by_id": "tokenize",
    "check_unknown": "unknown",
    "unknown_warnings": "unknown",
    "CorpusError": "shards",
    "PreparedCorpus": "prepared",
    "ShardedSequences": "shards",
    "open_corpus": "prepared",
    "corpus_settings": "prepare",
    "prepare_corpus": "prepare",
    "mask_tokens": "mask",
    "ORDER_VERSION": "order",
    "rare_token_weights": "mask",
    "held_out_dataset": "pipeline",
    "EncodedExamples": "task_batches",
    "encode_examples": "task_batches",
    "encode_windows": "task_batches",
    "padded_batches": "task_batches",
    "task_dataset": "task_batches",
    "Stream": "stream",
    "first_step_of": "stream",
    "stream_of": "stream",
    "masked_lm_dataset": "pipeline",
    "masked_rows_dataset": "pipeline",
    "row_reader": "pipeline",
    "reading_error": "pipeline",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    return getattr(module, name)
