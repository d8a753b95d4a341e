"""Splits paragraphs into sentences."""

import re
from collections.abc import Iterator

# A mark that ends a sentence, what closes with it, and white space; or an East
# Asian mark, which no space follows.
_END = re.compile(
    r"[.!?\u2026]+[\"'\u201d\u2019)\]]*\s+|[\u3002\uff01\uff1f]+\s*"
)
# What a full stop shortens, before the next word of the same sentence.
_SHORTENED = re.compile(
    r"(?:^|[\s(\"'])(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|vs|cf|al|etc|e\.g|i\.e"
    r"|approx|No|Fig|Eq|Sec|Vol|pp|U\.S|U\.K)\.\s+$"
)


def split_sentences(paragraph: str) -> Iterator[str]:
    """Yields the sentences of a paragraph.

    A sentence ends at a full stop, an exclamation mark or a question mark,
    unless the next word begins in lower case or a common abbreviation ends
    there. It is a rule for prose with usual punctuation, not a parser.

    Args:
        paragraph: a text.

    Example:
        >>> list(split_sentences("Dr. No is here. Is he? No."))
        ['Dr. No is here.', 'Is he?', 'No.']
    """
    begin = 0
    for match in _END.finditer(paragraph):
        following = paragraph[match.end() : match.end() + 1]
        if following.islower() or _SHORTENED.search(
            paragraph, begin, match.end()
        ):
            continue
        yield paragraph[begin : match.end()].strip()
        begin = match.end()
    rest = paragraph[begin:].strip()
    if rest:
        yield rest
