"""A page of the recipes that come with the package, as they are."""

from pathlib import Path

RECIPES = Path(__file__).parents[2] / "recipes"


def pages() -> dict[str, str]:
    """The Markdown of the page, by its path in the site."""
    lines = [
        "# Recipes that come with the package\n",
        "`keras-distil run NAME` runs one, and `keras-distil recipes copy "
        "NAME` writes it to a file that you can change. "
        "[Recipe keys](recipe/index.md) explains every key.\n",
    ]
    for path in sorted(RECIPES.glob("*.yaml")):
        text = path.read_text("utf-8").strip()
        lines.append(f"## {path.stem}\n\n```yaml\n{text}\n```\n")
    return {"reference/recipes.md": "\n".join(lines)}
