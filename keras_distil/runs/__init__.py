"""Runs a recipe: its stages, their order, its folder and its report."""
