"""Mutations of bytes and of nested values; each is a function of its rng."""

import copy
import random
import string
from typing import Any

# What parsers stumble over: extremes, other types, paths that leave a folder.
ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    10**30,
    1e308,
    float("nan"),
    float("inf"),
    -0.0,
    "",
    " ",
    "..",
    "../../escaped",
    "/nowhere/escaped",
    "a\x00b",
    "\ud7ff\u202e",
    "null",
    "1e5",
    "x" * 10_000,
    [],
    {},
    [[[[]]]],
    {"": ""},
    {"class_name": "Lambda", "config": {}},
)


def change_bytes(rng: random.Random, content: bytes) -> bytes:
    """Flips, cuts, repeats, inserts or removes bytes at one to four places."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(changed) + 1)
        length = rng.choice((1, 1, 2, 8, 64))
        kind = rng.randrange(7)
        if kind == 0 and start < len(changed):
            changed[start] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del changed[start:]
        elif kind == 2:
            changed[start:start] = changed[start : start + length]
        elif kind == 3:
            changed[start:start] = rng.randbytes(length)
        elif kind == 4:
            del changed[start : start + length]
        elif kind == 5:
            changed[start : start + 8] = rng.choice(
                (b"\x00" * 8, b"\xff" * 8, b"\xff" * 7 + b"\x7f")
            )
        else:
            changed[start:start] = rng.choice(
                (b"\x00", b"\xff\xfe", b"\xc3\x28", b"\xef\xbb\xbf", b"\r\n")
            )
    return bytes(changed)


def change_tree(rng: random.Random, values: Any, more: tuple = ()) -> Any:
    """Returns nested dicts and lists with one to three changes.

    Keys and entries are removed, doubled under another name, swapped, moved
    and replaced by odd values, or by those in `more`.
    """
    values = copy.deepcopy(values)
    for _ in range(rng.randint(1, 3)):
        places = list(_places(values))
        if not places:
            return _odd(rng, more)
        node, key = rng.choice(places)
        kind = rng.randrange(7)
        if kind == 0:
            del node[key]
        elif kind == 1:
            other, other_key = rng.choice(places)
            try:
                node[key], other[other_key] = other[other_key], node[key]
            except (KeyError, IndexError):
                continue
            if _is_cyclic(values):
                return _odd(rng, more)
        elif kind == 2 and isinstance(node, dict):
            node[_other_name(rng, str(key))] = node.pop(key)
        elif kind == 3:
            node[key] = nested(rng.choice((2, 30, 200)), rng.random() < 0.5)
        elif kind == 4:
            node[key] = [node[key], copy.deepcopy(node[key])]
        else:
            node[key] = _odd(rng, more)
    return values


def nested(depth: int, mapping: bool) -> Any:
    """Lists in lists, or mappings in mappings."""
    values: Any = 0
    for _ in range(depth):
        values = {"a": values} if mapping else [values]
    return values


def _odd(rng: random.Random, more: tuple) -> Any:
    chosen = rng.choice((*ODD_VALUES, *more))
    return copy.deepcopy(chosen)


def _other_name(rng: random.Random, name: str) -> str:
    if rng.random() < 0.3:
        return rng.choice(("", "..", "a.b", "0", "кey", "__class__"))
    place = rng.randrange(len(name) + 1)
    return name[:place] + rng.choice(string.ascii_letters) + name[place + 1 :]


def _places(node: Any, depth: int = 0) -> Any:
    """Yields each container in `node` with each of its keys."""
    if depth > 40:
        return
    if isinstance(node, dict):
        items = list(node.items())
    elif isinstance(node, list):
        items = list(enumerate(node))
    else:
        return
    for key, value in items:
        yield node, key
        yield from _places(value, depth + 1)


def _is_cyclic(node: Any, above: tuple = ()) -> bool:
    if not isinstance(node, dict | list):
        return False
    if id(node) in above:
        return True
    inside = node.values() if isinstance(node, dict) else node
    return any(_is_cyclic(x, (*above, id(node))) for x in inside)
