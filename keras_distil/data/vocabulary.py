"""A tokenizer's vocabulary: its size, its words, and hashes of both."""

import hashlib
import json

import tokenizers


def vocabulary_size(tokenizer: tokenizers.Tokenizer) -> int:
    """Returns the number of ids that texts can have: the largest, plus 1.

    A vocabulary may have gaps (a repeated line in `vocab.txt` leaves one), so
    this is not its number of tokens. Empty lines represent no text and do not
    count.
    """
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    return 1 + max((i for token, i in vocabulary.items() if token), default=-1)


def vocabulary_hash(tokenizer: tokenizers.Tokenizer) -> str:
    """Returns the sha256 of a vocabulary in id order, in hexadecimal.

    Two tokenizers with equal hashes give every id the same token; they may
    still split text differently.
    """
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    ordered = sorted((i, token) for token, i in vocabulary.items())
    return hashlib.sha256(json.dumps(ordered).encode()).hexdigest()


def tokenizer_hash(tokenizer: tokenizers.Tokenizer) -> str:
    """Returns the sha256 of a vocabulary and of how text is split into it.

    Tokenizers with equal hashes give the same ids to the same text.
    """
    whole = json.loads(tokenizer.to_str())
    described = [vocabulary_hash(tokenizer), whole["normalizer"]]
    if "merges" in whole["model"]:
        described += [whole["model"]["merges"], whole["pre_tokenizer"]]
    content = json.dumps(described, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def words_by_id(
    tokenizer: tokenizers.Tokenizer, missing: str = " {}"
) -> list[str]:
    """Returns the tokens in the order of their ids.

    Args:
        tokenizer: as returned by `load_tokenizer`.
        missing: used for ids without a token, with `{}` for the id. Defaults
            to a text that is not a word, different for each id.
    """
    words = [missing.format(i) for i in range(vocabulary_size(tokenizer))]
    for token, i in tokenizer.get_vocab(with_added_tokens=True).items():
        if token:
            words[i] = token
    return words


def normalized(tokenizer: tokenizers.Tokenizer, text: str) -> str:
    """Applies the tokenizer's normalizer, if it has one."""
    if tokenizer.normalizer is None:
        return text
    return tokenizer.normalizer.normalize_str(text)


def require_id(tokenizer: tokenizers.Tokenizer, token: str) -> int:
    """Returns the id of a token.

    Raises:
        ValueError: if the vocabulary lacks it.
    """
    token_id = tokenizer.token_to_id(token)
    if token_id is None:
        raise ValueError(f"The vocabulary lacks {token!r:.60}.")
    return token_id
