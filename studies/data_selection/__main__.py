"""``python -m studies.data_selection docs``: the page in the documentation, and its figures."""

import argparse
from pathlib import Path

from studies._errors import StudyError
from studies.data_selection._page import write_docs


def main(arguments: list[str] | None = None) -> None:
    """Render the page from the committed answers, or from those of a run."""
    parser = argparse.ArgumentParser(prog="python -m studies.data_selection", description=__doc__)
    parser.add_argument("what", choices=("docs",))
    parser.add_argument("--run", type=Path, help="folder of a run whose answers are taken over")
    options = parser.parse_args(arguments)
    try:
        print(f"written  {write_docs(options.run)}")
    except StudyError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
