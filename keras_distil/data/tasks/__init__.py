"""The examples of a task, and batches of them."""
