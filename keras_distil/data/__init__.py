"""From text to training batches; no models, no losses.

Names are loaded on first use, so preparing a corpus imports no TensorFlow.
"""

import importlib

_HOMES = {
    "character_ids": "characters",
    "character_inputs": "characters",
    "split_words": "characters",
    "CorpusReport": "corpus.text_files",
    "Source": "corpus.text_files",
    "TextFiles": "corpus.text_files",
    "InstalledDocumentation": "corpus.documentation",
    "TfdsText": "corpus.tfds_text",
    "GLUE_TASKS": "tasks.glue",
    "GLUETask": "tasks.glue",
    "TaskExamples": "tasks.glue",
    "glue_task": "tasks.glue",
    "load_glue": "tasks.glue",
    "is_held_out": "corpus.split",
    "SquadAnswer": "tasks.squad",
    "SquadExample": "tasks.squad",
    "load_squad": "tasks.squad",
    "read_squad": "tasks.squad",
    "RetrievalSet": "tasks.retrieval",
    "load_retrieval": "tasks.retrieval",
    "save_retrieval": "tasks.retrieval",
    "squad_retrieval": "tasks.retrieval",
    "SquadWindows": "tasks.squad_windows",
    "make_squad_windows": "tasks.squad_windows",
    "SpecialTokens": "special_tokens",
    "TOKENIZER_FILES": "tokenize",
    "Encoder": "tokenize",
    "encode_paragraphs": "tokenize",
    "encode_texts": "tokenize",
    "load_tokenizer": "tokenize",
    "read_max_length": "tokenizer_folder",
    "vocabulary_hash": "vocabulary",
    "tokenizer_hash": "vocabulary",
    "vocabulary_size": "vocabulary",
    "words_by_id": "vocabulary",
    "find_files": "corpus.find_files",
    "check_unknown": "corpus.unknown",
    "unknown_warnings": "corpus.unknown",
    "describe_share": "corpus.unknown",
    "unknown_token": "special_tokens",
    "CorpusError": "corpus.shards",
    "PreparedCorpus": "corpus.prepared_corpus",
    "ShardedRecords": "corpus.shards",
    "ShardedSequences": "corpus.shards",
    "open_corpus": "corpus.prepared_corpus",
    "corpus_settings": "corpus.preparation",
    "prepare_corpus": "corpus.preparation",
    "mask_tokens": "mask",
    "ORDER_VERSION": "order",
    "rare_token_weights": "mask",
    "held_out_batches": "corpus_batches",
    "training_batches": "corpus_batches",
    "held_out_dataset": "masked_batches",
    "EncodedExamples": "tasks.batches",
    "encode_examples": "tasks.batches",
    "encode_windows": "tasks.batches",
    "padded_batches": "tasks.batches",
    "Mixture": "tasks.training_batches",
    "task_dataset": "tasks.training_batches",
    "Stream": "stream",
    "first_step_of": "stream",
    "stream_of": "stream",
    "masked_lm_dataset": "masked_batches",
    "masked_rows_dataset": "masked_batches",
    "row_reader": "masked_batches",
    "reading_error": "masked_batches",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return __all__
