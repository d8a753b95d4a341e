"""Recipe keys from before `losses` was a map, and their present form.

In a user's recipe these keys are errors that show the present form. The recipe
that an earlier run keeps in its folder is translated.
"""

from typing import Any

import yaml

# Present keys, by the earlier key.
MOVED = {
    "student.undistilled_source": "student.baseline_source",
    "distill.twin": "distill.baseline",
    "distill.losses.mlm_weight": "distill.losses.mlm.weight",
    "distill.losses.soft_target_weight": "distill.losses.soft_target.weight",
    "distill.losses.cosine_weight": "distill.losses.cosine.weight",
    "distill.losses.temperature": "distill.losses.soft_target.temperature",
    "distill.losses.confidence_slope": (
        "distill.losses.soft_target.confidence_slope"
    ),
    "distill.losses.soft_target_positions": (
        "distill.losses.soft_target.positions"
    ),
    "distill.schedules.temperature": (
        "distill.schedules.soft_target.temperature"
    ),
    "distill.schedules.mlm_weight": "distill.schedules.mlm.weight",
    "distill.schedules.soft_target_weight": (
        "distill.schedules.soft_target.weight"
    ),
    "distill.schedules.cosine_weight": "distill.schedules.cosine.weight",
    "finetune.losses.label_weight": "finetune.losses.label.weight",
    "finetune.losses.soft_target_weight": "finetune.losses.soft_target.weight",
    "finetune.losses.cosine_weight": "finetune.losses.cosine.weight",
    "finetune.losses.temperature": "finetune.losses.soft_target.temperature",
    "finetune.losses.confidence_slope": (
        "finetune.losses.soft_target.confidence_slope"
    ),
}
# Name of the rows of tasks and of held-out text, and of everything named after
# them.
BASELINE = "baseline"
EARLIER_ROWS = {"undistilled": BASELINE, "twin": BASELINE}

_LOSSES = {
    "distill": ("mlm", "soft_target", "cosine"),
    "finetune": ("label", "soft_target", "cosine"),
}


def present_form(key: str, value: Any) -> str | None:
    """The present form of an earlier key; None for any other key.

    Args:
        key: the key's dotted path.
        value: the recipe's value for it.
    """
    moved = MOVED.get(key)
    if moved is None:
        return None
    section, name, *inner = moved.split(".")
    for each in reversed(inner):
        value = {each: value}
    shown = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, width=10**6
    )
    shown = shown.removesuffix("...\n").strip()
    if len(shown) > 200:
        shown = f"{shown[:197]}..."
    rest = "; what the map does not name is off" if name == "losses" else ""
    return f"write `{section}.{name}: {shown}`{rest}"


def translate(values: dict[str, Any]) -> dict[str, Any]:
    """Translates an earlier run's recipe into the present form.

    It trains exactly the same, bit for bit: on text, a loss of weight 0 is
    computed; on tasks, it used to be left out.

    Args:
        values: the recipe with every default written out. It may already be in
            the present form.
    """
    earlier = {key: _get(values, key) for key in MOVED}
    earlier = {k: v for k, v in earlier.items() if v is not _ABSENT}
    translated = values
    for key, value in earlier.items():
        translated = _without(translated, key)
        # Null stands for a schedule or file that was not given.
        if value is not None:
            translated = _with(translated, MOVED[key], value)
    if isinstance(values.get("finetune"), dict):
        rows = values["finetune"].get("rows", [])
        rows = [EARLIER_ROWS.get(row, row) for row in rows]
        translated = _with(translated, "finetune.rows", rows)
    for section in _LOSSES:
        if any(key.startswith(f"{section}.losses.") for key in earlier):
            translated = _with_losses(translated, section)
    translated = _with_balance(translated)
    space = _get(translated, "search.space")
    if isinstance(space, dict):
        space = {MOVED.get(key, key): each for key, each in space.items()}
        translated = _with(translated, "search.space", space)
    return translated


def _with_losses(values: dict[str, Any], section: str) -> dict[str, Any]:
    """Names the losses that the recipe did not mention but that were on."""
    named = {x: {} for x in _LOSSES[section]} | values[section]["losses"]
    if section == "finetune":
        named = {k: v for k, v in named.items() if v.get("weight") != 0}
    return _with(values, f"{section}.losses", named)


def _with_balance(values: dict[str, Any]) -> dict[str, Any]:
    """Drops the shares of losses without a weight, which had no effect."""
    balance = _get(values, "distill.balance")
    losses = _get(values, "distill.losses")
    if not isinstance(balance, dict) or not isinstance(losses, dict):
        return values
    off = {k for k, v in losses.items() if v.get("weight") == 0}
    kept = {k: v for k, v in balance.items() if k not in off}
    return _with(values, "distill.balance", kept)


_ABSENT = object()


def _get(values: Any, key: str) -> Any:
    """The value at a dotted path; `_ABSENT` if there is none."""
    for name in key.split("."):
        if not isinstance(values, dict) or name not in values:
            return _ABSENT
        values = values[name]
    return values


def _with(values: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    first, _, rest = key.partition(".")
    if rest:
        value = _with(values.get(first) or {}, rest, value)
    return {**values, first: value}


def _without(values: dict[str, Any], key: str) -> dict[str, Any]:
    first, _, rest = key.partition(".")
    if rest:
        return {**values, first: _without(values[first], rest)}
    return {name: each for name, each in values.items() if name != first}
