"""Faults in tokenizers of both kinds, and in what frames and cuts texts."""

from faults.fault import Fault

_BYTES = ("tests/data/test_byte_level_bpe.py",)
_ROLES = ("tests/data/test_special_tokens.py",)
_SPLIT = ("tests/data/test_splitting.py",)
_BATCHES = ("tests/data/tasks/test_batches.py",)
_GRAPH = ("tests/export/test_graph_byte_level.py",)
_WINDOWS = ("tests/data/tasks/test_squad_windows.py",)
_FILES = ("tests/export/test_tokenizer_files.py",)

FAULTS = (
    Fault(
        "one separator stands in every pair",
        "_Frame.of",
        "separators, second = len(rest) - 1, segments[-1]",
        "separators, second = 1, segments[-1]",
        _ROLES,
    ),
    Fault(
        "the names of roles are not kept",
        "store_roles",
        "if not odd:",
        "if True:",
        _ROLES,
    ),
    Fault(
        "the unknown token is BERT's",
        "unknown_token",
        'getattr(tokenizer.model, "unk_token", None)',
        "None",
        _ROLES,
    ),
    Fault(
        "a pair's second separator takes no room",
        "encode_examples",
        "2 if second_ids is None else special.in_pair",
        "2 if second_ids is None else 3",
        _BATCHES,
    ),
    Fault(
        "the second text has another segment",
        "encode_examples",
        "in_first if special.second_segment else length",
        "in_first",
        _BATCHES,
    ),
    Fault(
        "a window's second separator takes no room",
        "make_squad_windows",
        "max_length - special.in_pair - len(question_ids)",
        "max_length - 3 - len(question_ids)",
        _WINDOWS,
    ),
    Fault(
        "answers begin with a space",
        "leave_out_spaces",
        "if not len(early):",
        "if True:",
        _WINDOWS,
    ),
    Fault(
        "a mask does not take the space before it",
        "_between_words",
        "any(token in text for token in greedy)",
        "False",
        _SPLIT,
    ),
    Fault(
        "texts of any tokenizer are cut at spaces",
        "find_splitter",
        "if kinds == _BYTE_LEVEL and",
        "if True or",
        _SPLIT,
    ),
    Fault(
        "no space is put before a text",
        "_rebuild",
        '_flag(folder.settings, "add_prefix_space")',
        "False",
        _BYTES,
    ),
    Fault(
        "a tokenizer.json is followed in part",
        "check_followed",
        "if not folder.is_plain:",
        "if False:",
        _BYTES,
    ),
    Fault(
        "a merge that the library cannot read ends the process",
        "_check_prefix",
        "if prefix:",
        "if False:",
        _BYTES,
    ),
    Fault(
        "tokens of other names play no role",
        "_role_token",
        "value = named.get(key, default)",
        "value = default",
        ("tests/data/test_word_piece.py",),
    ),
    Fault(
        "every byte-level tokenizer is written as RoBERTa's",
        "is_followed",
        'described["normalizer"] is None',
        "True",
        _FILES,
    ),
    Fault(
        "the last of several pairs of one rank is merged",
        "ByteLevelGraphTokenizer._merge",
        "first = tf.gather(tf.math.segment_min(places, owner), owner)",
        "first = tf.gather(tf.math.segment_max(tf.where(is_best, "
        "tf.range(count - 1), -1), owner), owner)",
        _GRAPH,
    ),
    Fault(
        "several spaces before a word are one word with it",
        "ByteLevelGraphTokenizer._begins",
        "~white_before | last",
        "~white_before",
        _GRAPH,
    ),
    Fault(
        "a bytes' space that was put there is taken away",
        "ByteLevelGraphTokenizer._tokens",
        "if self._first_has_space:",
        "if False:",
        _GRAPH,
    ),
    Fault(
        "strings go through a tokenizer that is not the student's",
        "make_graph_tokenizer",
        "or ids_only_note(tokenizer) is not None",
        "",
        _FILES,
    ),
    Fault(
        "pieces of words are replaced",
        "WordFinder.__init__",
        "text[:1].isalnum() or text[:1] == _HALF",
        "False",
        ("tests/models/test_replaceable_words.py",),
    ),
    Fault(
        "a byte-level word is shown as its bytes",
        "spell",
        "tokenizer.decode([token_id], skip_special_tokens=False)",
        "token",
        ("tests/utils/test_token_roles.py",),
    ),
)
