"""Packages that only some features need."""


def names_package(error: ImportError, *packages: str) -> bool:
    """Whether an import failed for want of one of these packages.

    A package that is there may fail to import for reasons of its own, which
    installing it again does not change.

    Args:
        error: what the import raised.
        *packages: top-level names.
    """
    missing = isinstance(error, ModuleNotFoundError)
    return missing and (error.name or "").partition(".")[0] in packages
