"""Runs a contestant: `python -m contestants NAME PRECISION SHAPE MEMORY`."""

import importlib
import os
import resource
import sys

from contestants.shapes import Shape
from contestants.turns import Turns


def main() -> None:
    """Runs a contestant until its standard input ends."""
    name, precision, shape, memory = sys.argv[1:]
    # Reserve standard output for the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # If memory runs out, this process should end rather than another one.
    resource.setrlimit(resource.RLIMIT_DATA, (int(memory), int(memory)))
    contestant = importlib.import_module(f"contestants.{name}_step")
    contestant.run(Shape.from_json(shape), precision, Turns(answers))


if __name__ == "__main__":
    main()
