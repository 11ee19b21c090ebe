"""Sizes, typefaces and colours; nothing global changes."""

from __future__ import annotations

import colorsys

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from ntkstats.errors import PlotError
from ntkstats.plots import PALETTE, figure_size, style


@pytest.mark.parametrize(
    ("venue", "columns", "width"),
    [
        ("neurips", 1, 5.5),
        ("iclr", 1, 5.5),
        ("icml", 1, 3.25),
        ("icml", 2, 6.75),
        ("jmlr", 1, 6.0),
        ("tmlr", 1, 6.5),
        ("aps", 1, 3.404),
        ("aps", 2, 7.057),
        ("nature", 1, 3.504),
        ("nature", 2, 7.205),
    ],
)
def test_widths_are_those_of_the_templates(venue, columns, width):
    assert figure_size(venue, columns=columns)[0] == pytest.approx(width, abs=5e-4)


def test_fraction_and_aspect_scale_the_size():
    assert figure_size("neurips", fraction=0.5, aspect=2.0) == (2.75, 5.5)


def test_style_sets_the_size_and_leaves_no_trace():
    before = dict(mpl.rcParams)
    with style("icml", columns=2, aspect=0.5):
        assert tuple(mpl.rcParams["figure.figsize"]) == (6.75, 3.375)
        assert mpl.rcParams["pdf.fonttype"] == 42
        assert mpl.rcParams["axes.prop_cycle"].by_key()["color"] == list(PALETTE)
    assert dict(mpl.rcParams) == before


def test_style_is_left_after_an_error_too():
    before = dict(mpl.rcParams)
    with pytest.raises(ZeroDivisionError), style("aps"):
        _ = 1 / 0
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("venue", ["neurips", "nature"])
def test_typefaces_are_found_without_a_complaint(venue, caplog):
    with style(venue):
        figure, ax = plt.subplots()
        ax.set_xlabel(r"$\lambda_1$ against step")
        figure.canvas.draw()
        plt.close(figure)
    assert "not found" not in caplog.text


def _seen(color, loss):
    """The colour as seen without one kind of cone (Viénot, Brettel and Mollon 1999)."""
    rgb = np.array(mpl.colors.to_rgb(color)) ** 2.2
    to_lms = np.array(
        [[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]]
    )
    change = {
        "protan": [[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]],
        "deutan": [[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]],
    }[loss]
    return np.linalg.inv(to_lms) @ np.array(change) @ to_lms @ rgb


@pytest.mark.parametrize("loss", ["protan", "deutan"])
def test_palette_colours_stay_apart_without_red_or_green_cones(loss):
    seen = [np.clip(_seen(c, loss), 0, 1) ** (1 / 2.2) for c in PALETTE]
    apart = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
    assert min(apart) > 0.1
    assert max(colorsys.rgb_to_hls(*mpl.colors.to_rgb(c))[1] for c in PALETTE) < 0.75


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda: figure_size("nerips"), "Did you mean 'neurips'"),
        (lambda: figure_size("neurips", columns=2), "pass columns=1"),
        (lambda: figure_size("icml", columns=3), "expected 1 (one column) or 2"),
        (lambda: figure_size("icml", fraction=1.5), "in (0, 1]"),
        (lambda: figure_size("icml", fraction=0), "in (0, 1]"),
        (lambda: figure_size("icml", aspect=-1), "a positive number"),
        (lambda: style("journal").__enter__(), "Unknown venue 'journal'; expected one of neurips"),
    ],
)
def test_bad_input_is_answered(call, part):
    with pytest.raises(PlotError) as caught:
        call()
    assert part in str(caught.value)
