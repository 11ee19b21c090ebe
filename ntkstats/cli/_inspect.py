"""``inspect RUN``: what a run is and how far it got."""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

import numpy as np

from ntkstats.cli._planned import planned_steps
from ntkstats.cli._runs import as_data, read
from ntkstats.cli._text import numbers, plain, safe, size, table, unit_of
from ntkstats.recording import RunSummary, summarise

_FAILURES = 5


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("inspect", help="what a run is, and how far it got")
    parser.add_argument("run", metavar="RUN", help="path of a run, with or without .sqlite")
    parser.add_argument("--json", action="store_true", help="print one JSON object, for programs")
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the run."""
    found = read(summarise, arguments.run)
    with as_data(arguments.run):
        text = json.dumps(as_json(found), allow_nan=False) if arguments.json else describe(found)
    print(text)
    return 0


def describe(found: RunSummary) -> str:
    """The run as text."""
    blocks = [
        table(_facts(found)),
        "Attempts\n" + table(_attempts(found.attrs)),
        "Records\n" + table(_records(found)),
        "Fields\n" + table(_fields(found), right=(3,)),
    ]
    failures = found.attrs["failures"]
    if failures:
        shown = [
            f"  step {f['step']}, {f['stage']}: {f['error']}: {f['message']}"
            for f in failures[-_FAILURES:]
        ]
        more = f", the last {_FAILURES}" if len(failures) > _FAILURES else ""
        title = f"Failures ({len(failures)}{more})"
        blocks.append("\n".join([title, *map(safe, shown)]))
    return "\n\n".join(blocks)


def _facts(found: RunSummary) -> list[tuple[str, str]]:
    attrs = found.attrs
    device = attrs.get("device") or {}
    git = attrs.get("git") or {}
    heads = {name: tuple(shape) for name, shape in attrs.get("heads", {}).items()}
    git_text = git.get("revision", "unknown") + (" with changes" if git.get("changed") else "")
    rows = [
        ("run", f"{found.path} ({size(found.path.stat().st_size)})"),
        ("id", attrs["run_id"]),
        ("created", attrs["created"]),
        ("status", attrs["status"]),
        ("model", f"{attrs.get('model')}, {attrs.get('parameters')} parameters"),
        ("heads", "; ".join(f"{name} {shape}" for name, shape in heads.items())),
    ]
    for name, probe in attrs.get("probes", {}).items():
        live = f", live: {probe['extra']} of every record" if probe.get("live") else ""
        rows.append(("probe", f"{name}, {probe['n']} samples{live}, hash {probe['hash']}"))
    if attrs.get("members"):
        rows.append(("members", str(attrs["members"])))
    return [
        *rows,
        ("seed", plain(attrs.get("seed"))),
        ("config", plain(attrs.get("config"))),
        ("precision", str(attrs.get("precision"))),
        ("versions", ", ".join(f"{k} {v}" for k, v in attrs.get("versions", {}).items())),
        ("device", f"{device.get('count', '?')} x {device.get('kind', 'unknown')}"),
        ("git", git_text),
    ]


def _attempts(attrs: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            f"  {attempt['id']}",
            f"from step {attempt['from_step']}",
            f"{attempt['started']} to {attempt['ended'] or '?'}",
            attempt["status"],
        )
        for attempt in attrs["attempts"]
    ]


def _records(found: RunSummary) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for axis, one in progress(found).items():
        steps = found.steps[axis]
        span = f"steps {steps[0]} to {steps[-1]}" if steps.size else "none yet"
        planned = (
            "no planned end"
            if one["planned"] is None
            else f"{one['recorded_of_planned']} of {one['planned']} planned"
        )
        rows.append((f"  {axis}", f"{steps.size} records", planned, span, f"({one['schedule']})"))
    if found.superseded:
        rows.append(("  superseded", f"{found.superseded} records", "", "", ""))
    strange = found.attrs["non_finite_steps"]
    if strange:
        shown = ", ".join(map(str, strange[:5])) + (", ..." if len(strange) > 5 else "")
        rows.append(("  not finite", f"{len(strange)} records", "", f"steps {shown}", ""))
    return rows


def progress(found: RunSummary) -> dict[str, dict[str, Any]]:
    """``{step axis: schedule, records, planned, recorded_of_planned}``."""
    schedules = found.attrs.get("schedules", {})
    rows = {}
    for axis, steps in found.steps.items():
        label = str(schedules.get(axis, "unknown"))
        planned = planned_steps(label)
        if planned is not None:
            planned = np.union1d(planned, [0])  # the first state is always recorded
        rows[axis] = {
            "schedule": label,
            "records": int(steps.size),
            "planned": None if planned is None else int(planned.size),
            "recorded_of_planned": None if planned is None else int(np.isin(planned, steps).sum()),
        }
    return rows


def _fields(found: RunSummary) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("  name", "axes", "unit", "last", "")]
    for name, field in found.fields.items():
        sizes = dict(zip(field.dims, field.shape, strict=True))
        axes = " x ".join([found.axes[name], *(f"{dim} {n}" for dim, n in sizes.items())])
        step, value = found.last.get(name, (None, None))
        last = "" if value is None else numbers(value)
        rows.append((f"  {name}", axes, unit_of(field), last, "" if step is None else f"at {step}"))
    return rows


def as_json(found: RunSummary) -> dict[str, Any]:
    """Everything as JSON; numbers that are not finite are null."""
    attrs = {k: v for k, v in found.attrs.items() if k not in ("finished", "key")}
    fields = {
        name: {
            "axis": found.axes[name],
            "dims": list(field.dims),
            "shape": list(field.shape),
            "units": field.units,
            "long_name": field.long_name,
        }
        for name, field in found.fields.items()
    }
    last = {
        name: {"step": step, "value": value.tolist()} for name, (step, value) in found.last.items()
    }
    whole = {
        "path": str(found.path),
        "bytes": found.path.stat().st_size,
        **attrs,
        "records": progress(found),
        "steps": {axis: steps.tolist() for axis, steps in found.steps.items()},
        "superseded": found.superseded,
        "fields": fields,
        "last": last,
    }
    return _finite(whole)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, complex):
        return _finite([value.real, value.imag])
    return None if isinstance(value, float) and not math.isfinite(value) else value
