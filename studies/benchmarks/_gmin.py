"""GMIN, OPTIM and PATHSAMPLE (Wales group, binaries of the pylfl wheel), driven by their files.

Each program runs in a folder of its own as a child process; nothing of the package is imported.
Their potential MLPVB3 is the loss of `ntkstats.landscape.xor_network`: one layer of tanh units,
mean cross-entropy, ``lambda`` times the sum of all squared parameters, in the same order.
"""

from __future__ import annotations

import os
import random
import re
import resource
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from studies.benchmarks._workers import ROOT

PEER = ROOT / ".venv-peers" / "pylfl"
HIDDEN, L2 = 2, 1e-2
DIM = 5 * HIDDEN + 2

_PATTERNS = "0.0 0.0 0\n0.0 1.0 1\n1.0 0.0 1\n1.0 1.0 0\n"
_POTENTIAL = f"MLPVB3 2 1 {HIDDEN} 2 4 {L2}\n"
# RMS gradient 1e-9 everywhere. Steps of pylfl's templates (0.01, 0.2) find fewer saddles here.
_SAME = "EDIFFTOL 1.0D-4\nGEOMDIFFTOL 1.0D2\n"
_SADDLES = (
    "DUMPALLPATHS\nBFGSMIN 1.0D-9\nCONVERGE 1.0 1.0D-9\nBFGSTS 5000 1 10 0.002\nNOIT\n"
    "MAXSTEP 0.3\nMAXMAX 0.5\nTRAD 1.0\nSTEPS 1000\nUPDATES 10 10\nBFGSSTEPS 50000\n"
)
_SCALES = (0.3, 1.0, 2.0, 4.0)
_BLOCK = 2 + DIM // 3 + DIM // 3  # lines of a stationary point in path.info
_POLL_SECONDS = 0.2
_TICKS = os.sysconf("SC_CLK_TCK")


class Quenches(NamedTuple):
    """A basin-hopping run: quenches, CPU seconds, energies of the minima that it keeps."""

    quenches: int
    seconds: float
    energies: list[float]


class Saddles(NamedTuple):
    """Transition states [n, d] in the order they came, and CPU seconds up to each."""

    theta: np.ndarray
    seconds: np.ndarray
    total: float


def binary(name: str) -> Path:
    """Where one of the programs lies; raises FileNotFoundError if it does not."""
    found = sorted(PEER.glob(f"lib/python*/site-packages/pylfl/bin/linux/{name}"))
    if not found:
        raise FileNotFoundError(name)
    return found[0]


def quench(folder: Path, seed: int, steps: int, step: float = 5.0) -> Quenches:
    """Basin hopping by GMIN from random coordinates; ``step`` 5 leaves no basin unvisited."""
    rng = random.Random(seed)
    _write(folder / "MLPdata", _PATTERNS)
    _write(folder / "coords", "".join(f"{rng.uniform(-5, 5):.10f}\n" for _ in range(DIM)))
    settings = (
        "SLOPPYCONV 1.0D-9\nTIGHTCONV 1.0D-9\nSAVE 1000\nUPDATES 500\nMAXIT 5000 5000\n"
        f"EDIFF 1.0D-04\nSTEPS {steps} 1.0\nSTEP {step}\nTEMPERATURE 2.0\nFIXBOTH\n"
    )
    _write(folder / "data", settings + _POTENTIAL)
    seconds = _ran("GMIN", folder)
    text = (folder / "lowest").read_text()
    energies = [float(e) for e in re.findall(r"Energy of minimum\s+\d+=\s*(\S+)", text)]
    return Quenches(steps, seconds, energies)


def explore(folder: Path, seed: int, cycles: int) -> Saddles:
    """The usual way: GMIN's minima, then cycles of PATHSAMPLE that starts OPTIM searches."""
    spent = quench(folder, seed, 200).seconds
    lines = (folder / "lowest").read_text().splitlines()
    minima = [lines[i + 2 : i + 2 + DIM] for i in range(0, len(lines), DIM + 2)]
    known = ""
    for coordinates in minima:
        settings = (
            "SEARCH 0\nDUMPDATA\nENDHESS\nMAXBFGS 0.1 0.1\nUPDATES 1000 1000\nBFGSMIN 1.0D-10\n"
            "STEPS 10000\n"
        )
        point = "VARIABLES\n" + "\n".join(coordinates) + "\n"
        _write(folder / "odata", settings + _POTENTIAL + point)
        spent += _ran("OPTIM", folder)
        known += (folder / "min.data.info").read_text()
    _write(folder / "min.data.info.all", known)
    program = folder / "OPTIM"
    if not program.exists():
        program.symlink_to(binary("OPTIM"))  # Fortran cuts long paths
    common = (
        f"{_POTENTIAL}ALLTS\nEVCUT 1.0D-7\nCOPYFILES MLPdata\n{_SAME}EXEC {program}\n"
        "TEMPERATURE 0.1\nPAIRLIST 1\n"
    )
    _write(folder / "pathdata", common + "ADDMIN min.data.info.all\n")
    spent += _ran("PATHSAMPLE", folder)
    _write(folder / "min.A", "1\n1\n")
    _write(folder / "min.B", "1\n2\n")
    search = f"CYCLES {cycles}\nNEWCONNECTIONS 10000000 1000 1\nSEED {seed + 1}\n"
    _write(folder / "pathdata", common + search)
    bands = (
        "STEPMIN 100\nNEWCONNECT 100 1 10.0 20.0 50 5.0 0.025\nMAXERISE 1.0D-6 1.0D-3\n"
        "REOPTIMISEENDPOINTS\nNEWNEB 100 350 0.0001\nDIJKSTRA EXP\nMAXBFGS 0.1 0.1\nNEBK 50.0\n"
        "PUSHOFF 0.2\n"
    )
    _write(folder / "odata.connect", _POTENTIAL + bands + _SAME + _SADDLES + "VARIABLES\n")
    paths = "PATH 3 0.0\nSHIFT 1.0D10\n"
    _write(folder / "odata.tspath", _POTENTIAL + paths + _SAME + _SADDLES + "VARIABLES\n")
    total, seen = _watched(folder)
    theta = np.fromfile(folder / "points.ts").reshape(-1, DIM)[: len(seen)]
    return Saddles(theta, spent + np.array(seen), spent + total)


def follow(folder: Path, seed: int, searches: int) -> Saddles:
    """OPTIM alone, a process a search, from random coordinates at the scales that ours has."""
    rng = random.Random(seed)
    _write(folder / "MLPdata", _PATTERNS)
    settings = _POTENTIAL + "PATH 3 0.0\nSHIFT 1.0D10\n" + _SAME + _SADDLES + "VARIABLES\n"
    info = folder / "path.info"
    total, theta, seconds = 0.0, [], []
    for _ in range(searches):
        scale = rng.choice(_SCALES)
        start = "".join(f"{rng.gauss(0, scale):.10f}\n" for _ in range(DIM))
        _write(folder / "odata", settings + start)
        info.unlink(missing_ok=True)
        total += _ran("OPTIM", folder)
        lines = info.read_text().splitlines() if info.exists() else []
        if len(lines) >= 3 * _BLOCK:  # minimum, transition state, minimum
            theta.append(_numbers(lines[2 * _BLOCK - DIM // 3 : 2 * _BLOCK]))
            seconds.append(total)
    return Saddles(np.array(theta).reshape(-1, DIM), np.array(seconds), total)


def _numbers(lines: Sequence[str]) -> list[float]:
    return [float(word.replace("D", "E")) for line in lines for word in line.split()]


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def _ran(name: str, folder: Path) -> float:
    """CPU seconds of a program and of whatever it started."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _started(name, folder).wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _started(name: str, folder: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with (folder / f"{name}.out").open("ab") as out:
        return subprocess.Popen([binary(name)], cwd=folder, env=environment, stdout=out, stderr=out)


def _watched(folder: Path) -> tuple[float, list[float]]:
    """Run PATHSAMPLE; CPU seconds in all, and at which each transition state was first seen."""
    process = _started("PATHSAMPLE", folder)
    stat, found = Path(f"/proc/{process.pid}/stat"), folder / "ts.data"
    seen: list[float] = []
    spent = 0.0
    while process.poll() is None:
        fields = stat.read_text().rpartition(")")[2].split()
        spent = sum(map(int, fields[11:15])) / _TICKS  # user and system, own and of children
        rows = len(found.read_text().splitlines()) if found.exists() else 0
        seen += [spent] * (rows - len(seen))
        time.sleep(_POLL_SECONDS)
    rows = len(found.read_text().splitlines()) if found.exists() else 0
    seen += [spent] * (rows - len(seen))
    return spent, seen
