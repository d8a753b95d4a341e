"""A fine-tuned teacher's outputs for the examples of a task."""
