"""Rooms import only from rooms below them, and nothing in the wheel imports the studies."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "ntkstats"
# Lowest first, as in docs/design.md.
ORDER = (
    "typing",
    "errors",
    "_checks",
    "_compat",
    "_device",
    "_lanes",
    "models",
    "kernels",
    "spectrum",
    "collectors",
    "recording",
    "attach",
    "checkpoints",
    "torch",
    "training",
    "analysis",
    "selection",
    "landscape",
    "plots",
    "cli",
    "__main__",
    "testing",
)
MODULES = sorted(ROOT.rglob("*.py"))
SEES_JAXPRS = "_compat"


def room_of(path: Path) -> str:
    relative = path.relative_to(ROOT)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "ntkstats":
                names = [f"ntkstats.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            assert parts[0] != "studies", f"{path} imports the studies"
            if parts[0] == "ntkstats" and len(parts) > 1:
                rooms.add(parts[1])
    return rooms


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downwards(path):
    room = room_of(path)
    if room == "__init__":
        return
    assert room in ORDER, f"{room} has no place in the order of rooms"
    for other in imported_rooms(path) - {room}:
        if other in ORDER:
            assert ORDER.index(other) < ORDER.index(room), f"{room} imports {other}"
        else:
            # A name re-exported at the top, or the version.
            assert room in {"recording", "plots"}
            assert other == "__version__"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_jaxprs_are_touched_in_one_room_only(path):
    if room_of(path) == SEES_JAXPRS:
        return
    text = path.read_text()
    for word in ("make_jaxpr", "jax.extend", "eqns"):
        assert word not in text


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_hold_one_idea(path):
    assert len(path.read_text().splitlines()) <= 400
