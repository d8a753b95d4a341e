"""Files that match a pattern, within a folder."""

import glob
import os
from pathlib import Path


def find_files(
    pattern: str,
    root: str | os.PathLike | None,
    *,
    allow_outside_root: bool = True,
) -> list[Path]:
    """Returns the files that a pattern matches, sorted.

    Args:
        pattern: a path or glob pattern; `**` crosses folders.
        root: folder that a relative pattern starts from. Defaults to the
            working directory.
        allow_outside_root: whether files outside of `root` may be found,
            through an absolute pattern, `..` or links.

    Raises:
        FileNotFoundError: if there are none.
        ValueError: if a file is outside of the root without permission.
    """
    folder = Path(root or ".").expanduser()
    expanded = os.path.expanduser(pattern)
    if not allow_outside_root and (
        os.path.isabs(expanded) or ".." in Path(expanded).parts
    ):
        raise ValueError(
            f"The pattern '{pattern}' leaves the root '{folder}'. Give one "
            "below it, another root, or set `allow_outside_root: true`."
        )
    names = glob.glob(expanded, root_dir=folder, recursive=True)
    files = [folder / name for name in sorted(names)]
    files = [path for path in files if path.is_file()]
    if not files:
        raise FileNotFoundError(
            f"No file matches pattern '{pattern}' under root '{folder}'. "
            "Check the pattern and the root, which is `data.root` in a recipe; "
            "'**/' in a pattern crosses folders."
        )
    whole = folder.resolve()
    for path in files:
        if not allow_outside_root and not path.resolve().is_relative_to(whole):
            raise ValueError(
                f"'{path}' is a link out of the root '{whole}'. Copy the "
                "file, or set `allow_outside_root: true`."
            )
    return files
