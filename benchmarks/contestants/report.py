"""Figures as Markdown tables."""

import contestants

_PRECISION = {"float32": "float32", "mixed_bfloat16": "bfloat16"}
# Waiting processes that use more of a core disturb the others.
_IDLE = 0.02


def markdown(rows: list[dict], ratios: list[dict]) -> str:
    """Returns a table of the contestants and one of the pairs.

    Args:
        rows: rows of contestants, as written by `train_step.py`.
        ratios: rows of pairs, as written by it.

    Returns:
        Text of several lines.
    """
    lines = [
        "",
        "| shape | step | precision | tokens/s | real tokens/s "
        "| of the peak | peak memory GB |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
        *map(_contestant, rows),
    ]
    if ratios:
        lines += [
            "",
            "| shape | keras_distil in | compared with | times as fast "
            "| of its memory |",
            "| --- | --- | --- | ---: | ---: |",
            *map(_pair, ratios),
        ]
    busy = max((row.get("waiting_cpu", 0.0) for row in rows), default=0.0)
    if busy > _IDLE:
        lines += [
            "",
            f"Processes that waited took {100 * busy:.0f}% of a core.",
        ]
    return "\n".join(lines)


def products_table(peaks: list[dict]) -> str:
    """Returns a table of the matrix products by shape and library.

    Args:
        peaks: rows as from `train_step.Peaks.rows`.
    """
    lines = [
        "",
        "| shape | precision | library | square | wide layer | vocabulary "
        "| kernels |",
        "| --- | --- | --- | ---: | ---: | ---: | --- |",
    ]
    for row in peaks:
        rates = " | ".join(
            f"{rate / 1e9:.0f}" for rate in row["rates"].values()
        )
        lines.append(
            f"| {shape_name(row)} | {_PRECISION[row['precision']]} "
            f"| {row['library']} | {rates} | {row['kernels']} |"
        )
    lines += ["", "Matrix products in GFLOP/s. The peak is the best of them."]
    return "\n".join(lines)


def shape_name(row: dict) -> str:
    """Returns the model, the batch and any unusual settings."""
    words = [f"{row['model']} {row['batch']} x {row['length']}"]
    if row["positions"] != "all":
        words.append(f"{row['positions']} positions")
    if row["padding"]:
        words.append(f"{100 * row['padding']:.0f}% padding")
    return ", ".join(words)


def _contestant(row: dict) -> str:
    start = (
        f"| {shape_name(row)} | {contestants.NAMES[row['name']][0]} "
        f"| {_PRECISION[row['precision']]} "
    )
    if "failed" in row:
        return f"{start}| failed: {row['failed']} | | | |"
    return (
        f"{start}| {row['tokens_per_second']:.0f} "
        f"| {row['real_tokens_per_second']:.0f} "
        f"| {100 * row['peak_fraction']:.0f}% "
        f"| {row['peak_memory_gb']:.1f} |"
    )


def _pair(row: dict) -> str:
    return (
        f"| {shape_name(row)} | {_PRECISION[row['precision']]} "
        f"| {contestants.NAMES[row['peer']][0]}, "
        f"{_PRECISION[row['peer_precision']]} "
        f"| {row['speed']:.2f} | {100 * row['memory']:.0f}% |"
    )
