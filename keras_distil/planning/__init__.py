"""Time and memory of recipes, estimated or measured."""
