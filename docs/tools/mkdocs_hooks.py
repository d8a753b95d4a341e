"""Hooks of the site's build: generated pages, and what must not be missing.

A warning fails the build, which is strict.
"""

import sys
from pathlib import Path
from typing import Any

from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))

import public_objects  # noqa: E402
import recipe_keys  # noqa: E402
import shipped_recipes  # noqa: E402

log = get_plugin_logger("keras_distil")
# Files at the repository's root that are pages, too.
ROOT_PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that are made from the code."""
    made = {
        **recipe_keys.pages(),
        **public_objects.pages(),
        **shipped_recipes.pages(),
    }
    for name, path in ROOT_PAGES.items():
        text = (ROOT / name).read_text("utf-8")
        # Seen from the root, pages are in `docs/`.
        made[path] = text.replace("](docs/", "](")
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    problems = recipe_keys.missing_texts()
    problems += public_objects.missing_docstrings()
    for problem in problems:
        log.warning("%s", problem)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Leads links to files at the root to their pages."""
    up = "../" * page.file.src_uri.count("/")
    for name, path in ROOT_PAGES.items():
        markdown = markdown.replace(f"](../{up}{name}", f"]({up}{path}")
    return markdown


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Checks that every public object is on its page."""
    for anchor in public_objects.anchors().get(page.file.src_uri, ()):
        if f'id="{anchor}"' not in html:
            log.warning("%s has no heading on its page", anchor)
    return html
