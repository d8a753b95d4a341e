"""One contestant: `python -m contestants NAME PRECISION SHAPE MEMORY`."""

import importlib
import os
import resource
import sys

from contestants.shapes import Shape
from contestants.turns import Turns


def main() -> None:
    """Runs a contestant until its standard input ends."""
    name, precision, shape, memory = sys.argv[1:]
    # Answers have the standard output for themselves.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # Better its own end than that of another process.
    resource.setrlimit(resource.RLIMIT_DATA, (int(memory), int(memory)))
    contestant = importlib.import_module(f"contestants.{name}_step")
    contestant.run(Shape.from_json(shape), precision, Turns(answers))


if __name__ == "__main__":
    main()
