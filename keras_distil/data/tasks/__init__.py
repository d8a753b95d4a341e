"""From examples of a task to batches."""
