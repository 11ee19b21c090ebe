"""``python -m studies.ml_landscapes [FOLDER]``: draw the figures of the documentation."""

from __future__ import annotations

import sys
from pathlib import Path

from studies.ml_landscapes._figures import draw, explore
from studies.ml_landscapes._problems import xor_problem

FOLDER = Path(__file__).parents[2] / "docs" / "landscape"


def main(arguments: list[str]) -> None:
    """Explore, draw, say where."""
    folder = Path(arguments[0]) if arguments else FOLDER
    for path in draw(explore(xor_problem(2, 1e-2), None), folder):
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
