"""One page that holds everything: open it anywhere, send it to anyone."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1f; --paper: #fff; --faint: #6b6b70;
  --rule: #d8d8dc; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececf0; --paper: #17171a; --faint: #a0a0a8; --rule: #3a3a40; } }
body { margin: 2.5rem auto; max-width: 58rem; padding: 0 1rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
figure { margin: 1rem 0; } figcaption, .note { color: var(--faint); font-size: .9rem; }
figure img { display: block; width: 100%; background: #fff; border-radius: 4px; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--rule); text-align: left;
  white-space: nowrap; } td { font-variant-numeric: tabular-nums; }
.warning { border-left: 3px solid #d55e00; padding-left: .8rem; }
"""


class Picture(NamedTuple):
    """A figure on the page.

    Attributes
    ----------
    title, caption
        Words above and below it.
    svg
        Its file.
    """

    title: str
    caption: str
    svg: Path


class Rows(NamedTuple):
    """A table on the page.

    Attributes
    ----------
    title
        Above it.
    head, rows
        Texts.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def page(
    title: str,
    text: str,
    warnings: Sequence[str],
    pictures: Sequence[Picture],
    tables: Sequence[Rows],
) -> str:
    """HTML without any reference to another file or place."""
    parts = [f"<h1>{_safe(title)}</h1>"]
    parts += [f"<p>{_safe(block)}</p>" for block in text.split("\n\n") if block.strip()]
    parts += [f'<p class="warning">{_safe(line)}</p>' for line in warnings]
    parts += [_figure(picture) for picture in pictures]
    parts += [_table(rows) for rows in tables]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_safe(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def _figure(picture: Picture) -> str:
    # as an image: ids inside of several SVGs on one page would meet
    data = base64.b64encode(picture.svg.read_bytes()).decode("ascii")
    return (
        f"<h2>{_safe(picture.title)}</h2>\n<figure>"
        f'<img alt="{_safe(picture.title)}" src="data:image/svg+xml;base64,{data}">'
        f"<figcaption>{_safe(picture.caption)}</figcaption></figure>"
    )


def _table(table: Rows) -> str:
    head = "".join(f"<th>{_safe(cell)}</th>" for cell in table.head)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{_safe(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    return (
        f'<h2>{_safe(table.title)}</h2>\n<div class="scroll"><table>\n<thead><tr>{head}</tr>'
        f"</thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _safe(text: str) -> str:
    return html.escape(str(text)).replace("\n", "<br>")
