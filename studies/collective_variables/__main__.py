"""``python -m studies.collective_variables [REPORT]``: write the page of the documentation.

With the report folder of a finished sweep, its answers and figures are taken over first.
"""

import argparse
import sys
from pathlib import Path

from studies import _pages
from studies._errors import StudyError
from studies.collective_variables import _page


def main(arguments: list[str] | None = None) -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(prog="python -m studies.collective_variables")
    parser.add_argument("report", type=Path, nargs="?", help="folder of a report")
    asked = parser.parse_args(arguments)
    try:
        if asked.report is not None:
            print(f"written  {_page.keep(asked.report)}")
        print(f"written  {_pages.fill(_page.PAGE, _page.parts())}")
    except StudyError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
