"""Checks on the share of unknown tokens: does a vocabulary fit a text?"""

# The unknown token of BERT's tokenizers.
USUAL = "[UNK]"
_WARN_FROM = 0.05
_REFUSE_FROM = 0.5


def check_unknown(
    unknown: int, total: int, what: str, *, token: str | None = USUAL
) -> None:
    """Refuses a text that the vocabulary does not fit.

    Args:
        unknown: int, tokens that are unknown.
        total: int, all tokens of the text.
        what: a name of the text, for the message.
        token: the tokenizer's unknown token, for the message.

    Raises:
        ValueError: if half of the tokens or more are unknown.
    """
    if _share(unknown, total) >= _REFUSE_FROM:
        raise ValueError(_message(unknown, total, what, token))


def unknown_warnings(
    unknown: int, total: int, what: str, *, token: str | None = USUAL
) -> list[str]:
    """Returns a line if 5% of the tokens or more are unknown, else none."""
    share = _share(unknown, total)
    if _WARN_FROM <= share < _REFUSE_FROM:
        return [_message(unknown, total, what, token)]
    return []


def _share(unknown: int, total: int) -> float:
    return unknown / max(total, 1)


def describe_share(unknown: int, total: int, token: str | None) -> str:
    """Describes the share of unknown tokens; empty if there can be none."""
    if token is None:
        return ""
    return f"{_share(unknown, total):.1%} of the tokens are {token}"


def _message(unknown: int, total: int, what: str, token: str | None) -> str:
    return (
        f"{_share(unknown, total):.1%} of the tokens of {what} ({unknown:,} "
        f"of {total:,}) are {token}: the vocabulary lacks their words. Check "
        "`do_lower_case` in the teacher's tokenizer_config.json: it must be "
        "true for a lower-cased vocabulary and false for a cased one. Or use "
        "a teacher of the text's language."
    )
