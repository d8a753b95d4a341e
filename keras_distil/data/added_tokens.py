"""Added tokens of a folder: searched for before a text is split into words.

Hugging Face's classes of every kind use `added_tokens_decoder` of
`tokenizer_config.json`, or else `special_tokens_map.json`, `added_tokens.json`
and the added tokens of `tokenizer.json`. Tokens that play a role are added if
the vocabulary has them, and special tokens without an id get the next one.
"""

import dataclasses
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tokenizers

from keras_distil.data.tokenizer_files import (
    MOST_IDS,
    SETTINGS_FILE,
    read_object,
)

# Roles that a text's frame, a batch and masking need.
FRAMING_ROLES = ("sep_token", "pad_token", "cls_token", "mask_token")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclasses.dataclass(frozen=True)
class AddedToken:
    """A token that is searched for before a text is split into words."""

    content: str
    flags: Mapping[str, bool]
    token_id: int | None = None
    where: str = ""

    def build(self) -> tokenizers.AddedToken:
        """Returns it as the `tokenizers` library has it."""
        return tokenizers.AddedToken(self.content, **self.flags)


def list_added(
    directory: Path,
    settings: Mapping[str, Any],
    described: Mapping[str, Any],
    defaults: Mapping[str, str | None],
) -> tuple[list[AddedToken], dict[str, str]]:
    """Lists all added tokens: those with ids in order, then the others.

    Args:
        directory: the tokenizer's folder.
        settings: content of `tokenizer_config.json`.
        described: content of `tokenizer.json`, at least the vocabulary.
        defaults: the tokens that Hugging Face's class takes for roles that no
            file names; None if it takes none.

    Returns:
        The added tokens, and by role the tokens that the files or the class
        name.
    """
    path = directory / SETTINGS_FILE
    named = dict(settings)
    if "added_tokens_decoder" in settings:
        with_ids = _decoder_tokens(path, settings["added_tokens_decoder"])
    else:
        map_path = directory / "special_tokens_map.json"
        named |= read_object(map_path)
        with_ids = _legacy_tokens(
            directory, path, named, described, list(defaults)
        )
    known = {token.content for token in with_ids}
    present = known | set(described["model"]["vocab"])
    without, roles = [], {}
    for key, default in defaults.items():
        token = _role_token(path, key, named, default, present)
        if token is not None:
            roles[key] = token.content
            # Not made up if the vocabulary lacks it: a later check reports it.
            if token.content in described["model"]["vocab"]:
                without.append(token)
    without += [
        _named_token(path, "extra_special_tokens", value)
        for value in _extra_specials(path, named)
    ]
    listed = sorted(with_ids, key=lambda token: token.token_id or 0)
    for token in without:
        if token.content not in known:
            known.add(token.content)
            listed.append(token)
    special = set(roles.values())
    return [_make_special(token, special) for token in listed], roles


def _role_token(
    path: Path,
    key: str,
    named: Mapping[str, Any],
    default: str | None,
    present: set[str],
) -> AddedToken | None:
    """Returns the token that plays a role; None if none is named."""
    value = named.get(key, default)
    if value is None and (key not in named or key not in FRAMING_ROLES):
        return None
    token = _named_token(path, key, value)
    if token.content != default and token.content not in present:
        usual = "" if default is None else f"{default!r}, or "
        raise ValueError(
            f"`{key}` in '{path}' or special_tokens_map.json must be {usual}"
            "another token that the vocabulary has. "
            f"Received: {token.content!r:.60}."
        )
    return token


def _make_special(token: AddedToken, special: set[str]) -> AddedToken:
    if token.content not in special:
        return token
    return dataclasses.replace(token, flags={**token.flags, "special": True})


def _decoder_tokens(path: Path, decoder: Any) -> list[AddedToken]:
    where = f"`added_tokens_decoder` in '{path}'"
    if not isinstance(decoder, dict):
        raise ValueError(f"{where} must be an object of ids.")
    return [
        AddedToken(
            *_content_and_flags(where, token), _token_id(where, key), where
        )
        for key, token in decoder.items()
    ]


def _legacy_tokens(
    directory: Path,
    path: Path,
    named: Mapping[str, Any],
    described: Mapping[str, Any],
    roles: Iterable[str],
) -> list[AddedToken]:
    """Reads the other files if there is no `added_tokens_decoder`."""
    specials = {
        _named_token(path, key, named[key]).content
        for key in roles
        if named.get(key) is not None
    }
    specials |= {
        _named_token(path, "extra_special_tokens", value).content
        for value in _extra_specials(path, named)
    }
    added_path = directory / "added_tokens.json"
    tokens_by_id = {}
    for content, token_id in read_object(added_path).items():
        special = content in specials
        flags = {"normalized": not special, "special": special}
        where = f"'{added_path}'"
        number = _token_id(where, token_id)
        tokens_by_id[number] = AddedToken(content, flags, number, where)
    where = f"'{directory / 'tokenizer.json'}'"
    for token in described.get("added_tokens", ()):
        content, flags = _content_and_flags(where, token)
        tokens_by_id[token["id"]] = AddedToken(
            content, flags, token["id"], where
        )
    return list(tokens_by_id.values())


def _extra_specials(path: Path, named: Mapping[str, Any]) -> list[Any]:
    for key in ("extra_special_tokens", "additional_special_tokens"):
        values = named.get(key)
        if isinstance(values, dict):
            values = list(values.values())
        if values:
            if not isinstance(values, list):
                raise ValueError(
                    f"`{key}` in '{path}' must be a list of tokens. "
                    f"Received: {reprlib.repr(values)}."
                )
            return values
    return []


def _named_token(path: Path, key: str, value: Any) -> AddedToken:
    where = f"`{key}` in '{path}'"
    if isinstance(value, str):
        return AddedToken(value, {"normalized": False, "special": True})
    content, flags = _content_and_flags(where, value)
    return AddedToken(content, {**flags, "special": True})


def _content_and_flags(where: str, token: Any) -> tuple[str, dict[str, bool]]:
    content = token.get("content") if isinstance(token, dict) else None
    if not isinstance(content, str) or not content:
        raise ValueError(
            f"{where} must hold tokens with a `content`. "
            f"Received: {reprlib.repr(token)}."
        )
    flags = {name: token[name] for name in _FLAGS if name in token}
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise ValueError(
                f"{where}: `{name}` of {content!r:.60} must be true or false. "
                f"Received: {reprlib.repr(value)}."
            )
    return content, flags


def _token_id(where: str, value: Any) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:20])
    if type(value) is not int or not 0 <= value < MOST_IDS:
        raise ValueError(
            f"{where}: ids must be whole numbers from 0 to {MOST_IDS - 1:,}. "
            f"Received: {reprlib.repr(value)}."
        )
    return value


def add(
    directory: Path,
    tokenizer: tokenizers.Tokenizer,
    added: Iterable[AddedToken],
) -> None:
    """Adds tokens to a tokenizer, one by one.

    Raises:
        ValueError: if one gets another id than the files say.
    """
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    token_of = {token_id: token for token, token_id in vocabulary.items()}
    for token in added:
        tokenizer.add_tokens([token.build()])
        token_id = tokenizer.token_to_id(token.content)
        if token_id is None:
            raise ValueError(
                f"{token.where or 'A special token'} in '{directory}' cannot "
                f"be added: {token.content!r:.60}."
            )
        if token.token_id not in (None, token_id):
            raise ValueError(
                f"{token.where} gives {token.content!r:.60} the id "
                f"{token.token_id}, but it gets {token_id}: added tokens "
                "follow the vocabulary without gaps."
            )
        if token_of.setdefault(token_id, token.content) != token.content:
            raise ValueError(
                f"The added token {token.content!r:.60} in '{directory}' "
                f"would get the id {token_id} of {token_of[token_id]!r:.60}: "
                "the vocabulary has gaps."
            )
