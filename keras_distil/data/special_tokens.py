"""Tokens that do not represent text, found by the parts they play."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import tokenizers

from keras_distil.data.vocabulary import require_id
from keras_distil.utils import token_roles

_PURPOSES = {
    "pad_token": "fills a batch",
    "cls_token": "starts a text",
    "sep_token": "ends a text",
    "mask_token": "hides a token",
    "unk_token": "stands for what the vocabulary lacks",
}
_NEEDED = ("pad_token", "cls_token", "sep_token", "mask_token")


@dataclasses.dataclass(frozen=True)
class SpecialTokens:
    """Ids of the tokens that do not represent text, by role.

    One token may start and end a text, and be the unknown one. Those that pad
    and that mask play no other of these roles, or a batch's padding and masks
    could not be told from its text.

    Attributes:
        pad_id: fills a sequence up to its length.
        unknown_id: represents what the vocabulary cannot spell; None if the
            tokenizer has no such token, as many byte-level ones.
        cls_id: starts a sequence.
        sep_id: ends a sequence and separates paragraphs.
        mask_id: hides a token that is to be predicted.
        separators: int, number of `sep_id` between the texts of a pair: one
            for BERT, two for RoBERTa.
        second_segment: segment id of a pair's second text, and of the
            separator at its end. That of the first text is 0.
    """

    pad_id: int
    unknown_id: int | None
    cls_id: int
    sep_id: int
    mask_id: int
    separators: int = 1
    second_segment: int = 1

    @property
    def ids(self) -> tuple[int, ...]:
        """All ids, ascending, without repeats."""
        return tuple(
            sorted({i for i in self.by_role().values() if i is not None})
        )

    @property
    def in_pair(self) -> int:
        """Number of special tokens that frame a pair of texts."""
        return self.separators + 2

    def by_role(self) -> dict[str, int | None]:
        """Returns the ids alone, which are all that masking depends on."""
        names = ("pad_id", "unknown_id", "cls_id", "sep_id", "mask_id")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_tokenizer(cls, tokenizer: tokenizers.Tokenizer) -> "SpecialTokens":
        """Finds the special tokens of a tokenizer.

        What frames a text is read off an empty pair, the unknown token off
        the model. Padding and mask are `[PAD]` or `<pad>`, and `[MASK]` or
        `<mask>`, unless `store_roles` has stored others.

        Raises:
            ValueError: if a token is missing, or texts are framed otherwise.
        """
        frame = _Frame.of(tokenizer)
        tokens = {
            role: token_roles.find_role(tokenizer, role)
            for role in ("pad_token", "mask_token")
        }
        if frame is not None:
            tokens["cls_token"] = frame.cls_token
            tokens["sep_token"] = frame.sep_token
        missing = [role for role in _NEEDED if tokens.get(role) is None]
        if missing or frame is None:
            raise ValueError(f"The tokenizer has no {missing_roles(missing)}")
        ids = {
            role: require_id(tokenizer, token)
            for role, token in tokens.items()
            if token is not None
        }
        _check_distinct(tokens)
        unknown = unknown_token(tokenizer)
        return cls(
            ids["pad_token"],
            None if unknown is None else require_id(tokenizer, unknown),
            ids["cls_token"],
            ids["sep_token"],
            ids["mask_token"],
            frame.separators,
            frame.second_segment,
        )


def _check_distinct(tokens: Mapping[str, str | None]) -> None:
    for role in ("pad_token", "mask_token"):
        for other, token in tokens.items():
            if other != role and token == tokens[role]:
                raise ValueError(
                    f"`{role}` and `{other}` must be different tokens. "
                    f"Received: {token!r:.60} for both. Name another token of "
                    "the vocabulary in tokenizer_config.json."
                )


def missing_roles(roles: list[str]) -> str:
    """Says what missing tokens are for, and how to name others instead."""
    named = ", ".join(f"`{role}`, which {_PURPOSES[role]}" for role in roles)
    return (
        f"{named}. Name tokens of the vocabulary for that in "
        "tokenizer_config.json."
    )


def unknown_token(tokenizer: tokenizers.Tokenizer) -> str | None:
    """Returns what stands for words that the vocabulary cannot spell.

    It is that of the model. A model without one never produces any, but the
    vocabulary may still have a token of that name; None if it has not.
    """
    token = getattr(tokenizer.model, "unk_token", None)
    if token is None or tokenizer.token_to_id(token) is None:
        return token_roles.find_role(tokenizer, "unk_token")
    return token


@dataclasses.dataclass(frozen=True)
class _Frame:
    """What a tokenizer puts around texts."""

    cls_token: str
    sep_token: str
    separators: int
    second_segment: int

    @classmethod
    def of(cls, tokenizer: tokenizers.Tokenizer) -> "_Frame | None":
        """Reads the frame off a tokenizer; None if it adds nothing."""
        if tokenizer.post_processor is None:
            # Framed as BERT does it, with the usual tokens.
            usual = [
                token_roles.find_role(tokenizer, role)
                for role in ("cls_token", "sep_token")
            ]
            first, last = usual
            if first is None or last is None:
                return None
            return cls(first, last, separators=1, second_segment=1)
        ids, segments = frame_ids(tokenizer)
        if not ids:
            return None
        tokens = [tokenizer.id_to_token(i) or "" for i in ids]
        first, *rest = tokens
        separators, second = len(rest) - 1, segments[-1]
        if (
            separators < 1
            or len(set(rest)) > 1
            or segments != [0] * (1 + separators) + [second]
        ):
            raise ValueError(
                "The tokenizer must frame a pair as `CLS A SEP B SEP`, with "
                f"any number of SEP in the middle. Received: {tokens!r:.80} "
                f"around an empty pair, with the segments {segments!r:.40}."
            )
        return cls(first, rest[0], separators, second)


def framing_ids(tokenizer: tokenizers.Tokenizer) -> set[int]:
    """Returns the ids of what starts and ends a text; empty if nothing does."""
    frame = _Frame.of(tokenizer)
    if frame is None:
        return set()
    tokens = frame.cls_token, frame.sep_token
    return {require_id(tokenizer, token) for token in tokens}


def frame_ids(tokenizer: tokenizers.Tokenizer) -> tuple[list[int], list[int]]:
    """Returns the ids and the segments that frame a pair of empty texts."""
    processor = tokenizer.post_processor
    if processor is None:
        return [], []
    # Not `tokenizer.encode`, which would also cut and pad.
    framed = processor.process(tokenizers.Encoding(), tokenizers.Encoding())
    return framed.ids, framed.type_ids


def store_roles(
    tokenizer: tokenizers.Tokenizer, roles: Mapping[str, str]
) -> tokenizers.Tokenizer:
    """Stores which tokens play a role, for `SpecialTokens.from_tokenizer`.

    Nothing is changed if the tokenizer's tokens are found without it. See
    `keras_distil.utils.token_roles` for where roles are stored.

    Args:
        tokenizer: a tokenizer with a post-processor.
        roles: the token by role, "pad_token" or "mask_token".

    Returns:
        The tokenizer, or another one that gives the same ids.
    """
    odd = {
        role: token
        for role, token in roles.items()
        if token_roles.find_role(tokenizer, role) != token
    }
    if not odd:
        return tokenizer
    described = json.loads(tokenizer.to_str())
    templates = list(token_roles.templates(described["post_processor"]))
    if not templates:
        frame = _Frame.of(tokenizer)
        if frame is None:
            return tokenizer
        templates = [_template(tokenizer, frame)]
        described["post_processor"] = {
            "type": "Sequence",
            "processors": [
                *_trimming(described["post_processor"]),
                *templates,
            ],
        }
    for role, token in odd.items():
        templates[0]["special_tokens"][role] = {
            "id": role,
            "ids": [require_id(tokenizer, token)],
            "tokens": [token],
        }
    return tokenizers.Tokenizer.from_str(json.dumps(described))


def _trimming(post_processor: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Returns what leaves spaces out of offsets, as a part of its own."""
    return [
        {
            "type": "ByteLevel",
            "add_prefix_space": part["add_prefix_space"],
            "trim_offsets": part["trim_offsets"],
            "use_regex": True,
        }
        for part in token_roles.parts(post_processor)
        if "trim_offsets" in part
    ]


def _template(tokenizer: tokenizers.Tokenizer, frame: _Frame) -> dict[str, Any]:
    """A template that frames texts as the tokenizer does."""

    def special(token: str, segment: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": token, "type_id": segment}}

    def text(name: str, segment: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": segment}}

    cls, sep, second = frame.cls_token, frame.sep_token, frame.second_segment
    single = [special(cls, 0), text("A", 0), special(sep, 0)]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [
            *single,
            *[special(sep, 0)] * (frame.separators - 1),
            text("B", second),
            special(sep, second),
        ],
        "special_tokens": {
            token: {
                "id": token,
                "ids": [require_id(tokenizer, token)],
                "tokens": [token],
            }
            for token in (cls, sep)
        },
    }
