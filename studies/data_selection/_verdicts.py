"""The claims of the data paper, and what else can be said from the same numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ntkstats.analysis import Interval
from studies._claims import Claim, claim
from studies.data_selection._answers import LOSS, Row

Parts = list[tuple[str, Interval]]

STARTS = (
    ("effective_entropy", "a larger starting entropy", -1),
    ("trace", "a larger starting trace", -1),
    ("log_determinant", "a larger log-determinant", -1),
    ("posterior_variance", "a larger posterior variance over the pool", 1),
)
"""Numbers at initialisation, in words, and the sign of their correlation with the loss."""


def claims(found: Mapping[str, Any]) -> list[Row]:
    """Every claim with its verdict, its intervals, and how many of them lie on either side."""
    return [_row(name, sign, made, parts) for name, sign, made, parts in _claims(found)]


def _claims(found: Mapping[str, Any]) -> Iterator[tuple[str, int, Claim, Parts]]:
    for name, sign, statement, parts in [
        *_of_starts(found.get("starts", {})),
        *_of_league(found.get("league", {})),
        *_of_ablations(found.get("contrasts", {})),
        *_of_atoms(found.get("atoms")),
    ]:
        yield name, sign, claim(statement, sign, parts), parts


def _of_starts(starts: Mapping[str, Sequence[Row]]) -> Iterator[tuple[str, int, str, Parts]]:
    if not starts:
        return
    for field, words, sign in STARTS:
        side = "smaller" if sign < 0 else "larger"
        parts = _parts(starts, lambda row, field=field: row[LOSS][field])
        yield (
            f"i/{field}",
            sign,
            f"At fixed size, {words} goes with a {side} test loss (rank correlation over random "
            "sets)",
            parts,
        )


def _of_league(league: Mapping[str, Any]) -> Iterator[tuple[str, int, str, Parts]]:
    if not league:
        return
    rows = {case: [r for r in t["rows"] if r["selector"] == "RND"] for case, t in league.items()}
    yield (
        "ii/loss", -1,
        "Sets that RND picks have a smaller test loss than random sets of the same size (per cent)",
        _parts(rows, lambda row: row[LOSS]),
    )  # fmt: skip
    yield (
        "ii/oracle_min", -1,
        "The same for the smallest test loss along the way, which stops on the test set (per cent)",
        _parts(rows, lambda row: row["oracle_min"]),
    )  # fmt: skip
    for field, words in (("effective_entropy", "entropy"), ("trace", "trace")):
        yield (
            f"iii/{words}", 1,
            f"Sets that RND picks have a larger starting {words} than random sets (per cent)",
            _parts(rows, lambda row, field=field: row[field]),
        )  # fmt: skip


def _of_ablations(found: Mapping[str, Sequence[Row]]) -> Iterator[tuple[str, int, str, Parts]]:
    expected = {
        "overlap with the limit, widest less narrowest network": (
            1, "Wider networks pick more of what the closed form of infinite width picks (share)"),
        "picks of two seeds in common, most less fewest outputs": (
            1, "With more outputs two seeds pick more of the same (share)"),
        "picks of two seeds in common, most pairs less one": (
            1, "With more pairs two seeds pick more of the same (share)"),
        "test loss, most less fewest outputs": (-1, "More outputs lower the test loss (per cent)"),
        "test loss, most pairs less one": (-1, "More pairs lower the test loss (per cent)"),
        "test loss, strictest less loosest threshold": (
            -1, "A stricter threshold lowers the test loss (per cent)"),
        "test loss, inputs of one norm less as they are": (
            -1, "Without the norms of the inputs RND picks better sets (per cent of test loss)"),
        "test loss, MaxDet normalised less as it is": (
            -1, "Without the norms of its kernel MaxDet picks better sets (per cent of test loss)"),
        "test loss, RNDLimit normalised less as it is": (
            -1, "Without the norms of its kernels RNDLimit picks better sets (per cent of test "
            "loss)"),
        "trace, RND with inputs of one norm less random": (
            1, "Picked by inputs of one norm, RND's sets still have a larger trace than random "
            "ones (per cent)"),
        "test loss, restart less going on": (
            -1, "Restarting the predictor lowers the test loss (per cent)"),
    }  # fmt: skip
    for what, (sign, statement) in expected.items():
        rows = {case: [r for r in table if r["what"] == what] for case, table in found.items()}
        parts = _parts(rows, lambda row: row["difference"])
        if parts:
            yield f"ablation/{what}", sign, statement, parts


_PICKED = {
    "strides": "Strides through clusters",
    "RND": "Sets that RND picks",
    "MaxDet": "Sets that MaxDet picks",
}


def _of_atoms(found: Mapping[str, Any] | None) -> Iterator[tuple[str, int, str, Parts]]:
    if not found:
        return
    for name, words in _PICKED.items():
        for part, where in (("test", "held-out"), ("minority", "held-out minority")):
            parts = [
                (f"{row['size']:.0f} samples", _interval(row[f"{part}/{name} less random"]))
                for row in found["rounds"]
            ]
            yield (
                f"atoms/{name}/{part}", -1,
                f"{words} have a smaller error on {where} environments than random sets of the "
                "same size (deviations of the target)",
                parts,
            )  # fmt: skip
    parts = [(f"{row['size']:.0f} samples", _interval(row["optimism"])) for row in found["rounds"]]
    if found["converged"]:
        parts.append(("when it ends", _interval(found["at_stop"]["optimism"])))
    yield (
        "atoms/optimism", -1,
        "The error on the neighbours, which ends the loop, is smaller than that on held-out "
        "environments (deviations of the target)",
        parts,
    )  # fmt: skip


def _parts(tables: Mapping[str, Iterable[Row]], number: Any) -> Parts:
    return [
        (f"{case}, {row['k']}", _interval(number(row)))
        for case, rows in tables.items()
        for row in rows
    ]


def _interval(ends: Sequence[float]) -> Interval:
    value, low, high = ends
    return Interval(value, low, high, n=0)


def _row(name: str, sign: int, made: Claim, parts: Parts) -> Row:
    signs = [part.sign for _, part in parts]
    return {
        "name": name,
        **made._asdict(),
        "for": signs.count(sign),
        "against": signs.count(-sign),
        "places": len(parts),
        "parts": [{"where": where, "interval": [p.value, p.low, p.high]} for where, p in parts],
    }
