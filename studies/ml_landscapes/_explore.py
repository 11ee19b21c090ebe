"""Search one landscape, from the keys of its seed."""

from __future__ import annotations

from pathlib import Path

import jax

from ntkstats import landscape
from studies._progress import Progress
from studies.ml_landscapes._config import Explored

FILE = "landscape"
_FOLLOW = landscape.Follow(max_iterations=100)


def run(task: Explored, folder: Path, progress: Progress) -> None:
    """Leave the landscape in ``folder / landscape.sqlite``."""
    keys = jax.random.split(jax.random.key(task.seed), 1 + task.rounds + task.top)
    with landscape.Landscape(task.problem(), folder / FILE) as scape:
        scape.find_minima(key=keys[0], starts=task.starts)
        for key in keys[1 : 1 + task.rounds]:
            # Pathways end in minima that no quench found; the next round starts from these too.
            scape.find_saddles(key=key, starts=task.saddle_starts, follow=_FOLLOW)
            scape.connect()
        for index, key in zip(range(2, task.top + 1), keys[1 + task.rounds :], strict=False):
            scape.find_saddles(key=key, index=index, starts=task.saddle_starts, follow=_FOLLOW)
            if not scape.ids(index):
                break
        found = f"{len(scape.ids(0))} minima, {len(scape.ids(1))} transition states"
    progress.say(f"{task.label}: {found}")
