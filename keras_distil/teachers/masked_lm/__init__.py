"""A teacher's outputs for masked text."""
