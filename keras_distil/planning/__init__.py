"""What a recipe will take in time and memory: estimated, or measured."""
