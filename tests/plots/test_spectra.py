"""Spectra, eigenvalue paths and layer shares against numpy."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from ntkstats.errors import PlotError
from ntkstats.plots import eigenvalue_paths, layer_shares, spectra

STEPS = np.array([0, 1, 3, 10, 32, 100, 316, 1000])


@pytest.fixture(autouse=True)
def _no_window():
    yield
    plt.close("all")


def run(members=5, steps=STEPS, n=12):
    rng = np.random.default_rng(3)
    values = -np.sort(-rng.gamma(1.0, size=(len(steps), members, n)), axis=-1)
    layers = rng.uniform(1, 2, size=(len(steps), members, 3))
    return xr.Dataset(
        {
            "eigenvalues": (("step", "member", "eigenvalue"), values),
            "layer_trace": (("step", "member", "layer"), layers),
            "entropy": (("step", "member"), values.sum(-1)),
        },
        coords={"step": steps, "layer": ["Dense_0", "Dense_1", "Dense_2"]},
    )


def test_spectra_are_medians_of_normalised_eigenvalues_at_the_chosen_steps():
    ds = run()
    ax = spectra(ds, steps=[0, 32])
    lam = ds.eigenvalues.values
    share = np.median(lam / lam.sum(-1, keepdims=True), axis=1)
    first, second = ax.get_lines()
    np.testing.assert_array_equal(first.get_xdata(), np.arange(1, 13))
    np.testing.assert_allclose(first.get_ydata(), share[0])
    np.testing.assert_allclose(second.get_ydata(), share[4])
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")


def test_raw_eigenvalues_can_be_drawn_and_nonpositive_ones_are_left_out():
    ds = run(members=1)
    ds["eigenvalues"][0, 0, -2:] = [0.0, -1e-7]
    ax = spectra(ds, steps=[0], normalise=False)
    [line] = ax.get_lines()
    np.testing.assert_array_equal(line.get_ydata()[:-2], ds.eigenvalues.values[0, 0, :-2])
    assert np.isnan(line.get_ydata()[-2:]).all()


def test_leading_eigenvalues_are_divided_by_the_recorded_trace():
    whole = run()
    ds = whole.isel(eigenvalue=slice(4)).assign(trace=whole.eigenvalues.sum("eigenvalue"))
    ds["eigenvalues"].attrs["n"] = 12
    few, all_of_them = spectra(ds, steps=[3]), spectra(whole, steps=[3])
    np.testing.assert_allclose(
        few.get_lines()[0].get_ydata(), all_of_them.get_lines()[0].get_ydata()[:4]
    )
    with pytest.raises(PlotError, match="holds 4 of 12 eigenvalues and the run has no trace"):
        spectra(ds.drop_vars("trace"))


def test_at_most_nine_steps_are_drawn_with_the_first_and_the_last():
    steps = np.arange(40)
    ax = spectra(run(steps=steps))
    labels = [line.get_label() for line in ax.get_lines()]
    assert len(labels) == 9
    assert (labels[0], labels[-1]) == ("0", "39")


def test_colours_follow_the_steps_and_a_colourbar_explains_them():
    ax = spectra(run())
    dark = [np.mean(line.get_color()[:3]) for line in ax.get_lines()]
    assert dark == sorted(dark)
    ax.figure.canvas.draw()
    [bar] = [a for a in ax.figure.axes if a is not ax]
    assert bar.get_ylabel() == "Training step"
    assert [t.get_text() for t in bar.get_yticklabels()] == ["0", "1", "10", "100", "1000"]


def test_one_step_needs_no_colourbar():
    ax = spectra(run(steps=np.array([0])))
    assert ax.figure.axes == [ax]


def test_spectrum_without_member_axis_or_with_nan_is_drawn():
    ds = run(members=1)
    ds["eigenvalues"][2] = np.nan
    ax = spectra(ds.squeeze("member"))
    assert np.isnan(ax.get_lines()[2].get_ydata()).all()
    assert len(ax.get_lines()) == len(STEPS)
    ax.figure.canvas.draw()


def test_paths_are_medians_of_the_largest_eigenvalues():
    ds = run()
    ax = eigenvalue_paths(ds, top=3)
    lines = [line for line in ax.get_lines() if "lambda" in str(line.get_label())]
    assert len(lines) == 3
    for i, line in enumerate(lines):
        np.testing.assert_array_equal(line.get_xdata(), STEPS)
        np.testing.assert_allclose(line.get_ydata(), np.median(ds.eigenvalues[..., i], axis=1))
    assert len(ax.collections) == 3
    assert len(eigenvalue_paths(run(members=1), top=3).collections) == 0


def test_paths_of_one_step_are_visible_points():
    ax = eigenvalue_paths(run(steps=np.array([0])), top=1)
    assert ax.get_lines()[0].get_marker() == "o"


def test_layer_shares_are_means_over_members_and_stack_to_one():
    ds = run()
    ax = layer_shares(ds)
    traces = ds.layer_trace.values
    share = (traces / traces.sum(-1, keepdims=True)).mean(1)
    tops = []
    for area in ax.collections:
        points = area.get_paths()[0].vertices
        tops.append([points[points[:, 0] == s, 1].max() for s in STEPS])
    np.testing.assert_allclose(tops, np.cumsum(share, axis=1).T)
    np.testing.assert_allclose(tops[-1], 1.0)
    legend = [t.get_text() for t in ax.get_legend().get_texts()]
    assert legend == ["Dense_2", "Dense_1", "Dense_0"]


def test_layer_shares_leave_out_members_that_are_not_finite():
    ds = run()
    ds["layer_trace"][3:, 0] = np.nan
    traces = ds.layer_trace.values[:, 1:]
    share = (traces / traces.sum(-1, keepdims=True)).mean(1)
    points = layer_shares(ds).collections[0].get_paths()[0].vertices
    top = [points[points[:, 0] == s, 1].max() for s in STEPS[3:]]
    np.testing.assert_allclose(top, share[3:, 0])


def test_panels_can_be_given():
    _, axes = plt.subplots(1, 3)
    assert spectra(run(), ax=axes[0]) is axes[0]
    assert eigenvalue_paths(run(), ax=axes[1]) is axes[1]
    assert layer_shares(run(), ax=axes[2]) is axes[2]


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda: spectra(run().drop_vars("eigenvalues")), "No field 'eigenvalues'"),
        (lambda: spectra(run(), field="entropy"), "expected one vector a step"),
        (lambda: spectra(run(), steps=[0, 7]), "Steps [7] were not recorded; choose from 0, 1, 3"),
        (lambda: spectra(run(), steps=[]), "steps is empty"),
        (lambda: spectra(run(steps=np.array([], dtype=int))), "holds no record yet"),
        (lambda: eigenvalue_paths(run(), top=0), "top=0; expected a whole number from 1 to 12"),
        (lambda: eigenvalue_paths(run(), top=13), "from 1 to 12"),
        (lambda: eigenvalue_paths(run(), logy="no"), "logy='no'"),
        (lambda: layer_shares(run().drop_vars("layer_trace")), "No field runs over a 'layer' axis"),
        (lambda: layer_shares(run(), field="eigenvalues"), "expected 'layer'"),
        (
            lambda: layer_shares(run().assign(other=run().layer_trace)),
            "Several fields run over layers: layer_trace, other",
        ),
    ],
)
def test_bad_input_is_answered(call, part):
    with pytest.raises(PlotError) as caught:
        call()
    assert part in str(caught.value)
