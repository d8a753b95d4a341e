"""Turns a Matplotlib figure into an element of a page."""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

# What is drawn in these colours has the page's own instead, which differ in the
# dark. Words on a coloured cell are drawn in others, and stay as they are.
PAPER, GREY, BLUE = "#fdfdfd", "#555556", "#0072b3"
_INK, _GRID = "#020202", "#b3b3b4"
_BY_PAGE = {
    PAPER: "var(--paper,#ffffff)",
    _INK: "var(--ink,#000000)",
    _GRID: "var(--grid,#b0b0b0)",
    GREY: "var(--grey,#555555)",
    BLUE: "var(--blue,#0072b2)",
}
# The page's colours, as CSS.
LIGHT = (
    "--paper:#ffffff;--ink:#1c2430;--grid:#d5dae1;--grey:#555555;--blue:#0072b2"
)
DARK = (
    "--paper:#1a2028;--ink:#e6e9ee;--grid:#4a5563;--grey:#b3bcc8;--blue:#3d9be0"
)
# Text stays text and is never read as a formula, and the same figure always
# gives the same file.
_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "keras_distil",
    "text.parse_math": False,
    "font.size": 10.0,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.fontsize": 9.0,
    "legend.frameon": False,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _GRID,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
}
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_DECIMALS = re.compile(r"(\.\d\d)\d+")
# As earlier and later versions of Matplotlib write it.
_FONT = re.compile(r"font: ([\d.]+)px [^;]*")
_FAMILY = re.compile(r"; font-family: [^;]*")


@contextmanager
def style() -> Iterator[None]:
    """Context in which figures are made and drawn in the report's style."""
    # Importing it takes a second.
    import matplotlib

    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        # The reader's browser has other fonts than the one that measures here.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def inline(figure: Any, *, label: str, prefix: str) -> str:
    """Returns the figure as an `<svg>` for use inside HTML.

    Args:
        figure: a Matplotlib figure.
        label: text, for screen readers.
        prefix: starts every id; must differ from that of any other chart on the
            page.
    """
    content = io.BytesIO()
    figure.savefig(content, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(content.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    _name_ids(root, prefix)
    for element in root.iter():
        element.tag = _local(element.tag)
        # Fonts are inherited from the root element.
        css = _FONT.sub(r"font-size: \1px", element.get("style", ""))
        css = _FAMILY.sub("", css)
        for color, of_the_page in _BY_PAGE.items():
            css = css.replace(color, of_the_page)
        if css:
            element.set("style", css)
        if "d" in element.attrib:
            # A hundredth of a unit is less than a pixel.
            element.set("d", _DECIMALS.sub(r"\1", element.get("d", "")))
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("aria-label", label)
    root.set(
        "style",
        "font-family: Verdana, 'DejaVu Sans', sans-serif; "
        "stroke-linejoin: round; stroke-linecap: butt",
    )
    return ElementTree.tostring(root, encoding="unicode").strip()


def _name_ids(root: ElementTree.Element, prefix: str) -> None:
    """Drops ids that nothing refers to; prefixes the others."""
    used: set[str] = set()
    for element in root.iter():
        for name, value in list(element.attrib.items()):
            if _local(name) == "href":
                used.add(value.removeprefix("#"))
                del element.attrib[name]
                element.set("href", f"#{prefix}-{value.removeprefix('#')}")
            elif name != "id":
                used.update(_REFERENCE.findall(value))
                element.set(name, _REFERENCE.sub(rf"url(#{prefix}-\1)", value))
    for element in root.iter():
        found = element.attrib.pop("id", None)
        if found in used:
            element.set("id", f"{prefix}-{found}")


def _local(name: str) -> str:
    """A name without its namespace, which HTML does not need."""
    return name.rpartition("}")[2]
