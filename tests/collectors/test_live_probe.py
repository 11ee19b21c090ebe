"""A live probe gives what a fixed probe of the same inputs gives, at every record."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntkstats as nts
from ntkstats import collectors, errors
from ntkstats.collectors import Snapshot, bind, init_on_host, run_on_host
from ntkstats.testing import check_collector
from tests.collectors.systems import actor_critic, classifier, digits, mlp, mlp_params

N = 14
AT = nts.RecordAt.every(2)
MEASURE = [
    collectors.ntk_spectrum(),
    collectors.loss("cross_entropy"),
]


def batch(step, size=N):
    """Real inputs and labels, others at every step."""
    x, y = digits()
    return x[50 * step : 50 * step + size], y[50 * step : 50 * step + size]


def params_at(step, seed=0):
    start, away = mlp_params(seed, (64, 12, 10)), mlp_params(seed + 7, (64, 12, 10))
    return jax.tree.map(lambda a, b: a + 0.1 * step * b, start, away)


def live(**options):
    return nts.Probe.from_extra("batch", *batch(0), **options)


@cache
def on_fixed(step, seed=0):
    """The record of a program that is bound to these very inputs."""
    model = nts.as_model(mlp)
    program = bind(model, params_at(0, seed), nts.Probe(*batch(step)), MEASURE)
    carry = program.init(jax.random.key(0))
    return program.jitted(carry, Snapshot(step, *model.split(params_at(step, seed)), {}))[1]


def check_equal(found, expected, rtol=2e-4):
    assert set(found) == set(expected)
    for name, value in expected.items():
        value = np.asarray(value)
        atol = 2e-5 * max(np.abs(value).max(), 1e-3)
        np.testing.assert_allclose(found[name], value, rtol=rtol, atol=atol, err_msg=name)


def test_the_inputs_of_each_record_are_measured(tmp_path):
    with nts.Recorder(tmp_path / "run", mlp, live(name="now"), MEASURE, at=AT) as recorder:
        for step in range(5):
            recorder(step, params_at(step), batch=batch(step))
        report = recorder.finish(params_at(5), batch=batch(5))
    assert (report.records, report.failures) == (4, 0)
    ds = nts.open_run(tmp_path / "run")
    assert ds.step.values.tolist() == [0, 2, 4, 5]
    for step in (0, 2, 4, 5):
        here = ds.sel(step=step)
        check_equal({str(n): here[n].values for n in here.data_vars}, on_fixed(step))
    traces = ds.trace.values
    assert len(set(traces.tolist())) == 4
    # The run says what it was measured on.
    probe = ds.attrs["probes"]["now"]
    assert (probe["n"], probe["live"], probe["extra"]) == (N, True, "batch")


def test_beside_a_frozen_probe_its_fields_carry_its_name():
    system = actor_critic()
    both = [system.probe, nts.Probe.from_extra("obs", system.test.x)]
    spectrum = collectors.ntk_spectrum(head="critic", probe="on_policy")
    program = bind(
        system.model,
        system.params,
        both,
        [collectors.ntk_spectrum(), spectrum, collectors.kernel_velocity()],
        extras={"obs": system.test.x},
    )
    carry = program.init(jax.random.key(0))
    snapshot = Snapshot(0, *system.model.split(system.params), {"obs": system.test.x})
    record = program.update(carry, snapshot)[1]
    at_test = bind(system.model, system.params, system.test, collectors.ntk_spectrum())
    expected = at_test.update(at_test.init(jax.random.key(0)), snapshot)[1]
    np.testing.assert_allclose(
        record["eigenvalues_critic_on_policy"], expected["eigenvalues_critic"], rtol=1e-4
    )
    assert "entropy_actor" in record
    # Collectors of the frozen probe alone need nothing from the loop.
    alone = program.select(frozenset({"kernel_velocity"}))
    assert "kernel_velocity_actor" in alone.update(carry, snapshot._replace(extras={}))[1]


def test_members_have_a_leading_axis(tmp_path):
    options = {"members": 3, "at": AT}

    def stacked(of):
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(of(seed) for seed in range(3)))

    with nts.Recorder(tmp_path / "run", mlp, live(), MEASURE, **options) as recorder:
        for step in (0, 2):
            recorder(
                step,
                stacked(lambda seed, step=step: params_at(step, seed)),
                batch=stacked(lambda seed, step=step: batch(step + seed)),
            )
    ds = nts.open_run(tmp_path / "run").sel(step=2)
    for seed in range(3):
        model = nts.as_model(mlp)
        program = bind(model, params_at(0, seed), nts.Probe(*batch(2 + seed)), MEASURE[:1])
        shot = Snapshot(2, *model.split(params_at(2, seed)), {})
        expected = program.update(program.init(jax.random.key(0)), shot)[1]
        found = {name: ds[name].sel(member=seed).values for name in expected}
        check_equal(found, expected)


def bound_watch():
    model = nts.as_model(mlp)
    program = bind(model, params_at(0), live(), MEASURE, extras={"batch": batch(0)})
    return nts.watch(program, model, AT, until=4)


STEPS = jnp.arange(5)


def scanned(watch, seed, key=None):
    x, y = (jnp.stack(parts) for parts in zip(*(batch(i) for i in range(8)), strict=True))
    start, away = (
        jax.tree.map(
            lambda *leaves: jnp.stack(leaves), *(mlp_params(s + d, (64, 12, 10)) for s in (0, 1))
        )
        for d in (0, 7)
    )

    def step(watched, i):
        params = jax.tree.map(lambda a, b: a[seed] + 0.1 * i * b[seed], start, away)
        return watch.measure_if(watched, i, params, batch=(x[i], y[i])), None

    return jax.lax.scan(step, watch.init(), STEPS)[0]


def test_in_a_scan():
    watch = bound_watch()
    records, steps = watch.results(jax.jit(lambda: scanned(watch, 0))())
    assert steps.tolist() == [0, 2, 4]
    for k, step in enumerate(steps.tolist()):
        check_equal({n: v[k] for n, v in records.items()}, on_fixed(step))


def test_under_vmap_each_lane_has_its_own():
    watch = bound_watch()
    lanes = jax.jit(jax.vmap(lambda seed: scanned(watch, seed)))(jnp.arange(2))
    records, steps = watch.results(lanes)
    for seed in range(2):
        for k, step in enumerate(steps.tolist()):
            check_equal({n: v[seed, k] for n, v in records.items()}, on_fixed(step, seed))


def test_float64_widens_what_the_loop_passes():
    model = nts.as_model(mlp)
    program = bind(
        model, params_at(0), live(), MEASURE, extras={"batch": batch(0)}, precision="float64"
    )
    carry = init_on_host(program, jax.random.key(0))
    carry, _ = run_on_host(
        program, carry, Snapshot(0, *model.split(params_at(0)), {"batch": batch(0)})
    )
    shot = Snapshot(2, *model.split(params_at(2)), {"batch": batch(2)})
    record = run_on_host(program, carry, shot)[1]
    assert record["eigenvalues"].dtype == np.float64
    check_equal(record, on_fixed(2), rtol=1e-3)


def test_numpy_float64_from_an_environment_is_no_other_dtype(tmp_path):
    x = batch(1)[0]
    probe = nts.Probe.from_extra("obs", jnp.asarray(batch(0)[0]))
    with nts.Recorder(tmp_path / "run", mlp, probe, collectors.ntk_spectrum()) as recorder:
        recorder(0, params_at(0), obs=x.astype(np.float64))
        recorder(1, params_at(1), obs=x)
        assert recorder.finish(params_at(2), obs=x).failures == 0


def test_resuming_takes_another_example_but_no_other_shape(tmp_path):
    def recorded(step, **options):
        recorder = nts.Recorder(tmp_path / "run", mlp, probe, MEASURE[:1], **options)
        recorder(step, params_at(step), batch=batch(step, probe.n)[0])
        recorder.close()

    probe = nts.Probe.from_extra("batch", batch(0)[0])
    recorded(0)
    probe = nts.Probe.from_extra("batch", batch(3)[0])
    recorded(1, resume=True)
    assert nts.open_run(tmp_path / "run").step.values.tolist() == [0, 1]
    probe = nts.Probe.from_extra("batch", batch(0, 9)[0])
    with pytest.raises(errors.RunMismatchError, match="probes"):
        recorded(2, resume=True)


def test_a_record_without_its_inputs_is_a_failure_and_no_more(tmp_path):
    frozen = nts.Probe(*batch(0))
    both = [frozen, nts.Probe.from_extra("obs", batch(0)[0])]
    measure = [collectors.ntk_spectrum(), collectors.ntk_spectrum(probe="on_policy")]
    recorder = nts.Recorder(tmp_path / "run", mlp, both, measure, at=nts.RecordAt.every(1))
    recorder(0, params_at(0), obs=batch(0)[0])
    with pytest.warns(errors.RecordingWarning, match="needs obs"):
        recorder(1, params_at(1))
    recorder(2, params_at(2), obs=batch(0, 9)[0])
    report = recorder.finish(params_at(3), obs=batch(3)[0])
    assert (report.records, report.failures) == (3, 2)
    ds = nts.open_run(tmp_path / "run")
    assert ds.step.values.tolist() == [0, 1, 3]
    assert "(9, 64) float32; expected (14, 64)" in ds.attrs["failures"][1]["message"]
    assert np.isfinite(ds.entropy).all()
    assert np.isnan(ds.entropy_on_policy.values).tolist() == [False, True, False]


def test_collectors_keep_their_contract_on_a_live_probe():
    system = classifier()
    probe = nts.Probe.from_extra("batch", system.probe.x, system.probe.y)
    collector = collectors.lnp("cross_entropy")
    check_collector(collector, model=system.model, obj=system.params, probes=probe, symmetric=True)


# --- bad input --------------------------------------------------------------------------------


def bound(measure=None, extras=None, members=None, obj=None, **options):
    return bind(
        nts.as_model(mlp),
        params_at(0) if obj is None else obj,
        live(**options),
        collectors.ntk_spectrum() if measure is None else measure,
        extras=extras,
        members=members,
    )


def twins():
    return jax.tree.map(lambda a: jnp.stack([a, a]), params_at(0))


X, Y = batch(0)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: bound(), errors.MissingExtraError, "takes its inputs from 'batch'.*batch=..."),
        (lambda: bound(extras={"obs": X}), errors.MissingExtraError, r"passed \['obs'\]"),
        (lambda: bound(extras={"batch": X}), errors.ProbeError, r"a pair: inputs, targets"),
        (lambda: bound(extras={"batch": (X[:3], Y)}), errors.ProbeError, r"\(3, 64\) float32; exp"),
        (
            lambda: bound(extras={"batch": (X, Y.astype(np.float32))}),
            errors.ProbeError,
            r"\[1\] is \(14,\) float32; expected \(14,\) int32",
        ),
        (
            lambda: bound(extras={"batch": (X, Y)}, members=2, obj=twins()),
            errors.ProbeError,
            r"behind a leading axis of 2 members",
        ),
        (
            lambda: bound(collectors.kernel_velocity(), {"batch": (X, Y)}),
            errors.CollectorError,
            "compares records through time .* probe= the name of a fixed",
        ),
        (
            lambda: nts.Probe.from_extra("on policy", X),
            errors.ProbeError,
            "'on policy'; expected the name of a keyword",
        ),
        (lambda: nts.Probe.from_extra("step", X), errors.ProbeError, "other than self, step"),
        (lambda: nts.Probe.from_extra("lambda", X), errors.ProbeError, "'lambda'"),
        (lambda: nts.Probe.from_extra(X, Y), errors.ProbeError, "expected the name of a keyword"),
        (lambda: nts.Probe.from_extra("obs", X[:0]), errors.ProbeError, "0 samples"),
        (lambda: nts.Probe.from_extra("obs", X, name="on policy"), errors.ProbeError, "identifier"),
    ],
)
def test_what_does_not_fit_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_watched_loop_that_passes_nothing_says_so_while_it_is_traced():
    watch = bound_watch()
    with pytest.raises(errors.MissingExtraError, match=r"batch=\.\.\."):
        jax.jit(lambda p: watch.measure_if(watch.init(), 0, p))(params_at(0))
    with pytest.raises(errors.ProbeError, match=r"\(3, 64\) float32; expected \(14, 64\)"):
        jax.jit(lambda p: watch.measure_if(watch.init(), 0, p, batch=(X[:3], Y[:3])))(params_at(0))


def test_inspect_says_that_a_probe_is_live(tmp_path, capsys):
    from ntkstats.cli._main import main

    with nts.Recorder(tmp_path / "run", mlp, live(), MEASURE[:1]) as recorder:
        recorder(0, params_at(0), batch=batch(0))
    assert main(["inspect", str(tmp_path / "run")]) == 0
    assert "on_policy, 14 samples, live: batch of every record" in capsys.readouterr().out
