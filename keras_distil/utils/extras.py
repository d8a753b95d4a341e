"""Checks for packages that only some features need."""


def names_package(error: ImportError, *packages: str) -> bool:
    """Checks whether an import failed because a package is missing.

    An installed package may fail to import for other reasons, which another
    installation does not fix.

    Args:
        error: the error of the import.
        *packages: top-level names.
    """
    missing = isinstance(error, ModuleNotFoundError)
    return missing and (error.name or "").partition(".")[0] in packages
