"""Runs that distil sentence embedders: `distill.task: embedding`."""
