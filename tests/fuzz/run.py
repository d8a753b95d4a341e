"""`make fuzz`: hostile files through every reader, hostile batches trained on.

Each must be accepted or refused with one line: no other exception, no hang,
no memory beyond what the files hold, nothing written outside the folder, no
network.

    .venv/bin/python tests/fuzz/run.py --cases 3000 --seconds 600 --seed 0
"""

import argparse
import logging
import sys
from pathlib import Path

import harness


def main() -> int:
    """Parses the options and runs the targets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=3000)
    parser.add_argument("--seconds", type=float, default=900.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--target", action="append", help="may be repeated")
    parser.add_argument("--keep", type=Path, default=Path("fuzz_failures"))
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    import targets  # isort: skip
    import batches
    import exported
    import folders
    import foreign

    made = [
        *targets.all_targets(),
        *foreign.all_targets(),
        *exported.all_targets(),
        *folders.all_targets(),
        *batches.all_targets(),
    ]
    names = [target.name for target in made]
    for name in options.target or ():
        if name not in names:
            parser.error(f"--target must be one of {names}, not {name!r}")
    if options.target:
        made = [target for target in made if target.name in options.target]
    return harness.run(
        made,
        cases=options.cases,
        seconds=options.seconds,
        seed=options.seed,
        keep=options.keep,
        first=options.first,
    )


if __name__ == "__main__":
    sys.exit(main())
