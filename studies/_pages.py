"""Parts of a documentation page that a command writes, between marks; people write the rest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from studies._errors import StudyError
from studies._folder import write_whole

DOCS = Path(__file__).parents[1] / "docs"
_PART = re.compile(r"(<!-- (?P<name>[\w-]+) -->).*?(<!-- /(?P=name) -->)", re.DOTALL)


def filled(page: str, parts: Mapping[str, str]) -> str:
    """The page with every part in its place: between ``<!-- NAME -->`` and ``<!-- /NAME -->``.

    Raises
    ------
    StudyError
        The page has marks for other parts than are given.
    """
    places = [match["name"] for match in _PART.finditer(page)]
    if sorted(places) != sorted(parts):
        msg = f"the page has marks for {sorted(places)}, but the parts are {sorted(parts)}"
        raise StudyError(msg)
    return _PART.sub(lambda m: f"{m[1]}\n\n{parts[m['name']].strip()}\n\n{m[3]}", page)


def fill(path: Path, parts: Mapping[str, str]) -> Path:
    """`filled`, in a file."""
    write_whole(path, filled(path.read_text(encoding="utf-8"), parts))
    return path


def picture(file: str, caption: str) -> str:
    """A figure with its caption below it; ``file`` is relative to the page."""
    return f"![{caption}]({file})\n\n*{caption}*"


def folded(title: str, text: str) -> str:
    """Text that a reader opens if they want it."""
    inner = "\n".join(f"    {line}".rstrip() for line in text.splitlines())
    return f'??? note "{title}"\n\n{inner}'
