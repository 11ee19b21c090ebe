"""Drawn lines, bands and scales against numpy."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import PolyCollection
from matplotlib.container import ErrorbarContainer

from ntkstats.errors import PlotError
from ntkstats.plots import PALETTE, dynamics

STEPS = np.array([0, 1, 2, 5, 10, 22, 46, 100, 215, 464, 1000])


@pytest.fixture(autouse=True)
def _no_window():
    yield
    plt.close("all")


def run(seed=0, members=6, steps=STEPS, **more):
    """A run as the reader gives it: seeded numbers with labels and units."""
    rng = np.random.default_rng(seed)
    shape = (len(steps), members)
    dims = ("step", "member")
    ds = xr.Dataset(
        {
            "entropy": (
                dims,
                3 + rng.normal(size=shape),
                {"long_name": "von Neumann entropy", "units": "nat"},
            ),
            "trace": (dims, np.exp(rng.normal(size=shape)) * (1.0 + steps)[:, None]),
            "loss": (dims, rng.uniform(1, 2, size=shape), {"long_name": "loss", "units": "nat"}),
            "accuracy": (dims, rng.uniform(0.01, 1, size=shape)),
            "eigenvalues": (("step", "member", "eigenvalue"), rng.uniform(size=(*shape, 4))),
        },
        coords={"step": np.asarray(steps), "wall_time": ("step", np.arange(len(steps)) * 0.5)},
        attrs={"run_id": f"run-{seed}"},
    )
    return ds.assign(more)


def solid(ax):
    """The median line."""
    return next(li for li in ax.get_lines() if li.get_linestyle() == "-" and li.get_zorder() == 3)


def band(ax):
    """Lower and upper edge of the band, read back from its polygon."""
    [poly] = [c for c in ax.collections if isinstance(c, PolyCollection)]
    points = poly.get_paths()[0].vertices
    low = {x: points[points[:, 0] == x, 1].min() for x in points[:, 0]}
    high = {x: points[points[:, 0] == x, 1].max() for x in points[:, 0]}
    order = sorted(low)
    return np.array([low[x] for x in order]), np.array([high[x] for x in order])


def test_line_is_the_median_and_band_the_quantiles_over_members():
    ds = run()
    [ax] = dynamics(ds, "entropy", quantiles=(0.25, 0.75))
    line = solid(ax)
    np.testing.assert_array_equal(line.get_xdata(), STEPS)
    np.testing.assert_allclose(line.get_ydata(), np.median(ds.entropy, axis=1))
    low, high = band(ax)
    np.testing.assert_allclose(low, np.quantile(ds.entropy, 0.25, axis=1))
    np.testing.assert_allclose(high, np.quantile(ds.entropy, 0.75, axis=1))


def test_default_fields_are_the_usual_ones_present_in_their_usual_order():
    axes = dynamics(run())
    assert [ax.get_ylabel().replace("\n", " ") for ax in axes] == [
        "Von Neumann entropy (nat)",
        "Trace",
        "Loss (nat)",
        "Accuracy",
    ]
    assert len(dynamics(run().drop_vars("trace"))) == 3


def test_default_fields_fall_back_to_every_curve_when_no_usual_one_is_there():
    ds = run()[["eigenvalues", "loss"]].rename(loss="chi_pos")
    [ax] = dynamics(ds)
    np.testing.assert_allclose(solid(ax).get_ydata(), np.median(ds.chi_pos, axis=1))


def test_fields_of_heads_are_drawn_by_default_and_standard_errors_are_not():
    ds = run()[["entropy"]].rename(entropy="entropy_actor")
    ds["entropy_critic"] = ds.entropy_actor + 1
    ds["entropy_stderr_critic"] = ds.entropy_actor * 0 + 0.1
    assert len(dynamics(ds)) == 2


def test_few_members_are_drawn_as_thin_lines_without_a_band():
    ds = run(members=3)
    [ax] = dynamics(ds, "loss")
    thin = [li for li in ax.get_lines() if li.get_zorder() == 2]
    assert not ax.collections
    for line, member in zip(thin, ds.loss.T.values, strict=True):
        np.testing.assert_array_equal(line.get_ydata(), member)


def test_members_none_leaves_the_median_alone():
    [ax] = dynamics(run(), "loss", members="none")
    assert len(ax.get_lines()) == 1
    assert not ax.collections


@pytest.mark.parametrize("squeeze", [False, True])
def test_one_replicate_is_a_bare_line_with_or_without_member_axis(squeeze):
    ds = run(members=1)
    [ax] = dynamics(ds.squeeze("member") if squeeze else ds, "entropy")
    [line] = ax.get_lines()
    np.testing.assert_array_equal(line.get_ydata(), ds.entropy.values[:, 0])
    assert not ax.collections


def test_runs_and_members_are_pooled():
    ds = xr.concat([run(0, 3), run(1, 3)], dim="run", combine_attrs="drop")
    [ax] = dynamics(ds, "entropy")
    pooled = np.median(ds.entropy.transpose("step", "run", "member").values, axis=(1, 2))
    np.testing.assert_allclose(solid(ax).get_ydata(), pooled)


def test_gap_where_every_member_is_nan():
    ds = run()
    ds["entropy"][4:6] = np.nan
    [ax] = dynamics(ds, "entropy")
    assert np.flatnonzero(np.isnan(solid(ax).get_ydata())).tolist() == [4, 5]
    assert [li.get_linestyle() for li in ax.get_lines()] == ["-"]


def test_line_is_dotted_where_a_member_is_missing():
    ds = run()
    ds["entropy"][7:, 2] = np.inf
    [ax] = dynamics(ds, "entropy")
    [dotted] = [li for li in ax.get_lines() if li.get_linestyle() == ":"]
    rest = np.median(np.delete(ds.entropy.values, 2, axis=1), axis=1)
    np.testing.assert_allclose(dotted.get_ydata()[7:], rest[7:])
    assert np.isnan(solid(ax).get_ydata()[7:]).all()
    assert not np.isnan(solid(ax).get_ydata()[:7]).any()


def test_all_nan_draws_an_empty_panel():
    ds = run() * np.nan
    for ax in dynamics(ds):
        assert np.isnan(solid(ax).get_ydata()).all()
        ax.figure.canvas.draw()


def test_one_step_is_a_visible_point():
    [ax] = dynamics(run(steps=np.array([0])), "entropy")
    assert solid(ax).get_marker() == "o"
    assert solid(ax).get_markevery() == [0]
    assert [li.get_marker() for li in dynamics(run(), "entropy")[0].get_lines()] == ["None"]


def test_no_step_at_all_is_drawn_empty():
    [ax] = dynamics(run(steps=np.array([], dtype=int)), "entropy")
    assert solid(ax).get_xdata().size == 0


def test_own_step_axis_is_honoured():
    ds = run()
    own = xr.DataArray(
        np.arange(3.0), dims="step_every_500", coords={"step_every_500": [0, 500, 1000]}
    )
    ds["sharpness"] = own
    ax, other = dynamics(ds, ("sharpness", "entropy"))
    np.testing.assert_array_equal(solid(ax).get_xdata(), [0, 500, 1000])
    np.testing.assert_array_equal(solid(other).get_xdata(), STEPS)


def test_abscissa_can_be_a_coordinate_along_the_steps():
    ds = run()
    ds["step"].attrs["long_name"] = "updates"
    ds["wall_time"].attrs.update(long_name="wall time", units="s")
    [ax] = dynamics(ds, "entropy", x="wall_time")
    np.testing.assert_array_equal(solid(ax).get_xdata(), ds.wall_time)
    assert ax.get_xlabel() == "Wall time (s)"
    assert ax.get_xscale() == "linear"


def test_own_schedule_takes_its_own_companion_of_the_abscissa():
    ds = run()
    ds["sharpness"] = ("step_every_500", np.arange(3.0))
    ds = ds.assign_coords(
        step_every_500=[0, 500, 1000], wall_time_every_500=("step_every_500", [0.0, 2.0, 9.0])
    )
    [ax] = dynamics(ds, "sharpness", x="wall_time")
    np.testing.assert_array_equal(solid(ax).get_xdata(), [0.0, 2.0, 9.0])


@pytest.mark.parametrize(
    ("name", "error"),
    [("entropy", "entropy_stderr"), ("entropy_test", "entropy_stderr_test")],
)
def test_error_bars_have_the_recorded_standard_errors(name, error):
    ds = run(members=1).squeeze("member")
    ds[name] = ds.entropy
    ds[error] = ds.entropy * 0 + 0.25
    [ax] = dynamics(ds, name)
    [bars] = [c for c in ax.containers if isinstance(c, ErrorbarContainer)]
    segments = np.array(bars[2][0].get_segments())
    np.testing.assert_allclose(np.diff(segments[..., 1], axis=1)[:, 0], 0.5)
    np.testing.assert_allclose(segments[..., 1].mean(axis=1), ds.entropy)


def test_error_bars_of_several_members_are_drawn_on_request_only():
    ds = run()
    ds["entropy_stderr"] = ds.entropy * 0 + np.arange(6.0)
    assert not dynamics(ds, "entropy")[0].containers
    [ax] = dynamics(ds, "entropy", errors=True)
    segments = np.array(ax.containers[0][2][0].get_segments())
    np.testing.assert_allclose(np.diff(segments[..., 1], axis=1), 2 * 2.5)


def test_several_datasets_get_labels_and_palette_colours_in_order():
    axes = dynamics({"narrow": run(0), "wide": run(1)}, ("entropy", "loss"))
    for ax in axes:
        handles, labels = ax.get_legend_handles_labels()
        assert labels == ["narrow", "wide"]
        assert [h.get_color() for h in handles] == list(PALETTE[:2])
    [legend] = axes[0].figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["narrow", "wide"]


def test_more_datasets_than_palette_colours_are_still_distinct():
    [ax] = dynamics({f"w{i}": run(i, 1) for i in range(9)}, "entropy")
    colors = {mpl.colors.to_hex(h.get_color()) for h in ax.get_legend_handles_labels()[0]}
    assert len(colors) == 9


def test_second_call_on_the_same_axes_continues_the_palette():
    axes = dynamics(run(0), ("entropy", "loss"), label="a")
    again = dynamics(run(1), ("entropy", "loss"), axes=axes, label="b")
    assert again[0] is axes[0]
    assert [h.get_color() for h in axes[1].get_legend_handles_labels()[0]] == list(PALETTE[:2])


def test_colours_can_be_given_by_label():
    [ax] = dynamics({"a": run(0), "b": run(1)}, "loss", color={"b": "red", "a": "blue"})
    assert [h.get_color() for h in ax.get_legend_handles_labels()[0]] == ["blue", "red"]


@pytest.mark.parametrize(
    ("steps", "scale"),
    [
        (STEPS, "symlog"),
        (STEPS[1:], "log"),
        (np.arange(0, 1001, 50), "linear"),
        (np.array([*range(0, 1001, 50), 1003]), "linear"),
        (np.array([0, 1, 2, 4, 8]), "linear"),
        (np.array([5]), "linear"),
    ],
)
def test_step_axis_is_logarithmic_only_for_unevenly_spread_steps(steps, scale):
    [ax] = dynamics(run(steps=steps), "loss")
    assert ax.get_xscale() == scale


def test_step_zero_has_its_own_place_and_tick_on_a_logarithmic_axis():
    [ax] = dynamics(run(), "loss")
    ax.figure.canvas.draw()
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0", "1", "10", "100", "1000"]
    at = ax.transData.transform([(0, 1), (1, 1), (10, 1)])[:, 0]
    assert at[0] < at[1] < at[2]


def test_longer_run_on_the_same_axes_extends_the_ticks():
    axes = dynamics(run(), "loss")
    longer = np.append(STEPS, 50_000)
    dynamics(run(steps=longer), "loss", axes=axes)
    assert axes[0].get_xticks().tolist() == [0, 1, 10, 100, 1000, 10_000]


def test_values_get_a_logarithmic_axis_when_positive_and_wide():
    ds = run()
    entropy, trace, accuracy = dynamics(ds, ("entropy", "trace", "accuracy"))
    assert (entropy.get_yscale(), trace.get_yscale()) == ("linear", "log")
    assert accuracy.get_yscale() == "linear"
    assert dynamics(ds - 1.0, "trace")[0].get_yscale() == "linear"


def test_scales_can_be_forced():
    [ax] = dynamics(run(), "loss", logx=False, logy=True)
    assert (ax.get_xscale(), ax.get_yscale()) == ("linear", "log")


def test_only_the_lowest_panels_of_a_new_figure_name_the_steps():
    axes = dynamics(run(), figs := ("entropy", "trace", "loss", "accuracy"))
    assert len(axes) == len(figs)
    rows = {ax.get_subplotspec().rowspan.start for ax in axes}
    for ax in axes:
        lowest = ax.get_subplotspec().rowspan.start == max(rows)
        assert bool(ax.get_xlabel()) == lowest


def test_settings_of_matplotlib_are_untouched():
    before = dict(mpl.rcParams)
    dynamics({"a": run(0), "b": run(1)})
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda: dynamics(run(), "entropi"), "Did you mean 'entropy'"),
        (lambda: dynamics(run(), "kappa"), "it holds accuracy, eigenvalues, entropy, loss, trace"),
        (lambda: dynamics({"b": run().drop_vars("loss")}, "loss"), "in the run of 'b'"),
        (lambda: dynamics(run(), "eigenvalues"), "expected one number a step"),
        (lambda: dynamics(run(), ()), "fields is empty"),
        (lambda: dynamics({}), "empty mapping"),
        (lambda: dynamics([run()]), "Got list; expected an xarray Dataset"),
        (lambda: dynamics({"a": 3}), "mapping from labels to such Datasets"),
        (lambda: dynamics({"a": run()}, label="b"), "whose keys are the labels"),
        (lambda: dynamics(run()[["eigenvalues"]]), "No field that is one number a step"),
        (lambda: dynamics(run(), "loss", axes=plt.subplots(2)[1]), "Got 2 axes for 1 fields"),
        (lambda: dynamics(run(), "loss", quantiles=(0.9, 0.1)), "expected (low, high)"),
        (lambda: dynamics(run(), "loss", members="some"), "expected 'auto', 'band', 'lines'"),
        (lambda: dynamics(run(), "loss", logx="yes"), "logx='yes'"),
        (lambda: dynamics(run(), "loss", x="epoch"), "such as step, wall_time"),
        (lambda: dynamics({"a": run()}, "loss", color={"b": "k"}), "no entry for 'a'"),
        (lambda: dynamics({"a": run(), "b": run()}, color="k"), "mapping from label to colour"),
    ],
)
def test_bad_input_is_answered(call, part):
    with pytest.raises(PlotError) as caught:
        call()
    assert part in str(caught.value)
