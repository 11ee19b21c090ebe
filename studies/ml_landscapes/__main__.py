"""Figures and page of the documentation.

``python -m studies.ml_landscapes [FOLDER]`` draws the figures of the page on landscapes;
``python -m studies.ml_landscapes --study FOLDER`` makes the page of the study from its report.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

from studies import _pages
from studies._errors import StudyError
from studies.ml_landscapes._figures import draw, explore
from studies.ml_landscapes._problems import xor_problem

FOLDER = _pages.DOCS / "landscape"
PAGE = _pages.DOCS / "landscape-study.md"
_PREFIX = "study-"


def main(arguments: list[str] | None = None) -> None:
    """Make what was asked for, say where."""
    parser = argparse.ArgumentParser(prog="python -m studies.ml_landscapes", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER, help="of the figures")
    parser.add_argument("--study", type=Path, metavar="FOLDER", help="of a finished run")
    asked = parser.parse_args(arguments)
    if asked.study is None:
        paths = draw(explore(xor_problem(2, 1e-2), None), asked.folder)
    else:
        try:
            paths = published(asked.study)
        except StudyError as error:
            parser.error(str(error))
    for path in paths:
        print(path)


def published(report: Path, docs: Path = _pages.DOCS) -> list[Path]:
    """Copy figures and numbers of a study's report into the documentation and its page.

    Raises
    ------
    StudyError
        There is no report.
    """
    if not all((report / name).exists() for name in ("report.md", "answers.json")):
        msg = f"There is no report in {report}; give the folder of a finished run."
        raise StudyError(msg)
    folder, page = docs / FOLDER.name, docs / PAGE.name
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for source in [*sorted(report.glob("*.svg")), report / "answers.json"]:
        written.append(Path(shutil.copyfile(source, folder / f"{_PREFIX}{source.name}")))
    text = (report / "report.md").read_text()
    text = re.sub(r"\]\((\w+\.svg)\)", rf"](landscape/{_PREFIX}\1)", text)
    return [_pages.fill(page, {"report": text}), *written]


if __name__ == "__main__":
    main()
