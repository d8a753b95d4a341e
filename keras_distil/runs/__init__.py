"""A recipe, run: its stages, their order, its folder and its report."""
