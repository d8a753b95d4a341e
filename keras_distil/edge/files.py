"""Reads the small files of an export: its card and its tokenizer."""

import contextlib
import dataclasses
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

CARD_FILE = "student.json"
TOKENIZER_FILE = "tokenizer.json"
FORMAT_VERSION = 1
# Kinds of models: those with an output per token, all that are LiteRT files,
# and the table of token vectors.
BY_TOKEN = ("masked_lm", "token_classification", "span")
EMBEDDING_KIND = "sentence_embedding"
LITERT_KINDS = (
    *BY_TOKEN,
    "classification",
    "multi_label",
    "regression",
    EMBEDDING_KIND,
)
STATIC_KIND = "static_embedding"
# Limit on the size of a card or a tokenizer.
_MOST_BYTES = 2**28

# Required keys of a card, with the type of the value and of list items.
Keys: TypeAlias = Mapping[str, tuple[type, type | None]]


def read_card(
    path: Path, keys: Keys, kinds: Collection[str], others: Mapping[str, str]
) -> dict[str, Any]:
    """Reads the description of an export.

    Args:
        path: the file.
        keys: the keys that it must have; integers must be positive.
        kinds: the kinds of models that the caller runs.
        others: other kinds, and what runs them.

    Raises:
        FileNotFoundError: if it is missing.
        ValueError: if it is damaged, of a later version or of another kind.
    """
    card = _read_json(path)
    if card["kind"] in others:
        raise ValueError(
            f"{path} describes a {card['kind']} model. Open it with "
            f"`{others[card['kind']]}`."
        )
    missing = [key for key in keys if key not in card]
    if missing:
        raise ValueError(f"{path} is damaged: it lacks {', '.join(missing)}.")
    wrong = [key for key, types in keys.items() if not _is(card[key], *types)]
    if card["kind"] not in kinds:
        wrong.append("kind")
    if not wrong:
        sizes = [key for key, (kind, _) in keys.items() if kind is int]
        wrong += [key for key in sizes if card[key] < 1]
    if wrong:
        raise ValueError(
            f"{path} is damaged: {wrong[0]} cannot be {card[wrong[0]]!r:.80}."
        )
    return card


def read_kind(path: Path) -> str:
    """Reads which kind of model a card describes.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: if it is missing.
        ValueError: if it is damaged, of a later version, or of no kind that
            this package runs.
    """
    kind = _read_json(path)["kind"]
    if kind not in (*LITERT_KINDS, STATIC_KIND):
        raise ValueError(f"{path} is damaged: kind cannot be {kind!r:.80}.")
    return kind


def _read_json(path: Path) -> dict[str, Any]:
    """Returns a card of this version, with a kind."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: `export.export` writes it next to the model, "
            "with format='litert' or 'static_table'."
        )
    check_size(path)
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        version = card["format_version"]
        card.setdefault("kind", None)
    except (
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise ValueError(f"{path} is damaged: {error!s:.200}.") from error
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {version!r:.40}; this keras_distil "
            f"reads {FORMAT_VERSION}. Update keras_distil, or export it again."
        )
    if not isinstance(card["kind"], str):
        raise ValueError(
            f"{path} is damaged: kind cannot be {card['kind']!r:.80}."
        )
    return card


def _is(value: Any, kind: type, of: type | None) -> bool:
    if isinstance(value, bool) or not isinstance(value, kind):
        return False
    return not isinstance(value, list) or all(
        _is(part, of or object, None) for part in value
    )


@dataclasses.dataclass(frozen=True)
class Prompts:
    """What an embedder puts before texts.

    Attributes:
        by_name: the prompts.
        default: name of the prompt of texts without another, or None.
    """

    by_name: Mapping[str, str]
    default: str | None

    @classmethod
    def from_card(cls, card: Mapping[str, Any], path: Path) -> "Prompts":
        """Reads them from a card; a card of an earlier export has none.

        Raises:
            ValueError: if they are not strings by name.
        """
        found, default = card.get("prompts", {}), card.get("default_prompt")
        strings = isinstance(found, dict) and all(
            isinstance(prompt, str) for prompt in found.values()
        )
        known = default is None or (strings and default in list(found))
        if not strings or not known:
            raise ValueError(
                f"{path} is damaged: prompts cannot be {found!r:.80} with the "
                f"default {default!r:.40}."
            )
        return cls(found, default)

    def join(self, texts: Sequence[str], name: str | None) -> list[str]:
        """Puts a prompt before texts, and drops white space around them.

        Args:
            texts: the texts.
            name: a prompt's name; None for the default one, if any.

        Raises:
            ValueError: if there is no such prompt.
        """
        name = self.default if name is None else name
        if name is None:
            return [text.strip() for text in texts]
        if not self.by_name:
            raise ValueError(
                "`prompt_name` must be None, because the model has no prompts. "
                f"Received: prompt_name={name!r:.60}."
            )
        if name not in self.by_name:
            raise ValueError(
                f"`prompt_name` must be one of {sorted(self.by_name)}, the "
                f"model's prompts. Received: prompt_name={name!r:.60}."
            )
        prompt = self.by_name[name]
        return [f"{prompt}{text}".strip() for text in texts]


def check_texts(texts: str | Sequence[str]) -> list[str]:
    """Returns texts as a list, after checking them.

    Raises:
        TypeError: if one is not a string.
        ValueError: if one is empty, or there are none.
    """
    if isinstance(texts, str):
        texts = [texts]
    if not isinstance(texts, Iterable):
        raise TypeError(
            "`texts` must be a text or a list of them. Received: "
            f"{type(texts).__name__}."
        )
    texts = list(texts)
    if not texts:
        raise ValueError("`texts` must hold one text or more. Received: none.")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(
                "Texts must be strings. Received: "
                f"{type(text).__name__} as text {number} (from 0)."
            )
        if not text or text.isspace():
            raise ValueError(
                "A text must have a character that is not white space. "
                f"Received: {text!r:.40} as text {number} (from 0). "
                "Leave it out."
            )
    return texts


def load_tokenizer(folder: Path) -> Any:
    """Loads the `tokenizers.Tokenizer` of an export.

    Raises:
        FileNotFoundError: if it is missing.
        ValueError: if it is damaged.
    """
    import tokenizers

    path = folder / TOKENIZER_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: without it, this student reads only token ids."
        )
    check_size(path)
    with name_file_in_errors(path):
        return tokenizers.Tokenizer.from_file(str(path))


@contextlib.contextmanager
def name_file_in_errors(path: Path) -> Iterator[None]:
    """Names the file in the errors of `tokenizers`, which have no class."""
    try:
        yield
    except (TypeError, ValueError):
        # The caller's text is not a string, or cannot be answered.
        raise
    except Exception as error:
        raise ValueError(f"{path} is damaged: {error!s:.200}") from error


def check_size(path: Path) -> None:
    """Raises ValueError if a file exceeds the size limit."""
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(
            f"{path} has more than the allowed {_MOST_BYTES:,} bytes, and is "
            "not read."
        )
