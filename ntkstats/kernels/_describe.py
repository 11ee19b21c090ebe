"""A plan in words: what was chosen for every parameter array, and what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ntkstats.kernels._engines import StructuredEngine
from ntkstats.kernels._tiles import count

if TYPE_CHECKING:
    from ntkstats.kernels._prepared import KernelPlan

HOW = {
    "factors": "factors",
    "rows": "rows from factors",
    "gradient": "rows",
    "bias": "with its weight",
    "zero": "-",
}


def summary(plan: KernelPlan) -> str:
    """One line."""
    task = plan.task
    tile = plan.diagonal_tiling if plan.tiling is None else plan.tiling
    tiles = count(task.n_samples, tile.samples), count(task.n_rows, tile.rows)
    groups = len(plan.streams or plan.diagonal_streams)
    streamed = f", {groups} groups of parameters" if groups > 1 else ""
    return (
        f"KernelPlan({task.outputs} kernel of {plan.model.name}[{task.head}]: "
        f"N={task.n_samples}, C={task.n_outputs}, matrix {task.size} x {task.size}, "
        f"method {plan.method}, {tiles[0]} x {tiles[1]} tile(s) of {tile.samples} samples x "
        f"{tile.rows} rows{streamed}, budget {plan.budget_bytes / 2**20:.0f} MiB)"
    )


def described(plan: KernelPlan) -> str:
    """The line, and a table with a row for each parameter array if the engine knows them."""
    streams = plan.streams or plan.diagonal_streams
    rows = [("parameters", "shape", "rule", "contracted as", "T", "in x out", "MFLOP", "bytes/row")]
    for number, stream in enumerate(streams):
        if not isinstance(stream.engine, StructuredEngine):
            return summary(plan)
        structure = stream.engine.structure
        if len(streams) > 1:
            rows.append((f"- group {number + 1}", "", "", "", "", "", "", ""))
        for choice in sorted(stream.engine.chosen):
            leaf = structure.leaves[choice.leaf]
            widths = f"{choice.left} x {choice.right}" if choice.left else ""
            batch = f"{choice.batch} * " if choice.batch > 1 else ""
            rows.append(
                (
                    structure.names[choice.leaf],
                    " x ".join(map(str, leaf.shape)),
                    leaf.rule,
                    HOW[choice.how],
                    f"{batch}{choice.positions}" if choice.left else "",
                    widths,
                    f"{choice.flops / 1e6:.3g}" if choice.flops else "",
                    f"{choice.row_bytes:,}" if choice.row_bytes else "",
                )
            )
    widths_of = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths_of, strict=True)).rstrip()
        for row in rows
    ]
    total = f"coverage {100 * plan.coverage:.1f} % of the parameters"
    return "\n".join([summary(plan), *lines, total])
