"""Recording that keeps to a share of the wall time."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntkstats as nts
from ntkstats import collectors
from ntkstats.errors import RecordingError, ScheduleError
from ntkstats.recording import RecordAt, Recorder, open_run
from ntkstats.recording.live._budget import Budget
from ntkstats.recording.live._groups import Group
from tests.recording.helpers import MODEL, PROBE, state, weight_mean

EVERY = RecordAt.every(1)

pytestmark = pytest.mark.optimised  # records have to be as fast as they are for users


class Clock:
    """Time that passes when it is told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def simulate(share, step_seconds, record_seconds, steps, wanted=EVERY):
    """A training whose steps and records take the given times; the share spent on records."""
    clock = Clock()
    at = RecordAt.budget(share, wanted)
    budget = Budget([Group("step", at, frozenset({"a"}))], clock)
    (purse,) = budget.purses
    recorded, spent, start = [], 0.0, clock.now
    for step in range(steps):
        if budget.allowed(step):
            seconds = record_seconds(step)
            clock.now += seconds
            purse.charge(seconds)
            recorded.append(step)
            spent += seconds
        clock.now += step_seconds
    return recorded, spent / (clock.now - start), budget


@pytest.mark.parametrize("share", [0.01, 0.05, 0.3])
@pytest.mark.parametrize("cost", [0.3, 3.0, 30.0])
def test_the_share_is_kept_whatever_a_record_costs(share, cost):
    recorded, spent, budget = simulate(share, 1.0, lambda step: cost, 20_000)
    affordable = share / (1 - share) * 20_000 / cost
    if affordable > 20_000:  # more than one a step: all of them, and still below the share
        assert recorded == list(range(20_000))
        assert spent < share
    else:
        assert spent == pytest.approx(share, rel=0.1)
        assert len(recorded) == pytest.approx(affordable, abs=2)
        assert budget.skipped == 20_000 - len(recorded)


def test_the_share_is_kept_while_the_cost_drifts_and_jumps():
    rng = np.random.default_rng(0)
    cost = lambda step: (1 + step / 5000) * rng.uniform(0.5, 1.5) * (10 if step % 97 == 0 else 1)  # noqa: E731
    _, spent, _ = simulate(0.05, 1.0, cost, 20_000)
    assert spent == pytest.approx(0.05, abs=0.005)


def test_only_wanted_steps_are_recorded_and_counted():
    recorded, _, budget = simulate(0.05, 1.0, lambda step: 2.0, 1000, wanted=RecordAt.every(10))
    assert all(step % 10 == 0 for step in recorded)
    assert budget.skipped == 100 - len(recorded)
    assert budget.facts()["budget"]["step"]["skipped"] == budget.skipped


def slow_step(seconds):
    """An update that takes its time."""

    def step_fn(params):
        time.sleep(seconds)
        return jax.tree.map(lambda w: w + 1, params)

    return step_fn


def test_a_real_run_keeps_recording_at_five_percent_of_its_wall_time(tmp_path):
    apply = lambda params, x: jnp.tanh(x @ params["a"]) @ params["b"]  # noqa: E731
    a, b, data = jax.random.split(jax.random.key(0), 3)
    params = {"a": jax.random.normal(a, (20, 64)), "b": jax.random.normal(b, (64, 10))}
    probe = nts.Probe(jax.random.normal(data, (100, 20)))
    spectrum = collectors.ntk_spectrum()
    at = RecordAt.budget(0.05)
    spent = 0.0
    with Recorder(tmp_path / "run", nts.as_model(apply), probe, spectrum, at=at) as recorder:
        recorder(0, params)
        recorder(1, params)
        start = time.perf_counter()
        step = 2
        # On a busy machine records cost more, so that there are fewer of them in a second.
        while (seconds := time.perf_counter() - start) < 6 or (
            seconds < 60 and recorder.flush().records <= 8
        ):
            due, before = recorder.due(step), time.perf_counter()
            recorder(step, params)
            spent += due * (time.perf_counter() - before)
            time.sleep(0.01)  # the training
            step += 1
        share = spent / (time.perf_counter() - start)
        report = recorder.close()
    assert share == pytest.approx(0.05, abs=0.02)
    assert report.records > 5
    assert report.skipped == step - report.records
    assert f"{report.skipped} skipped to stay within the budget" in str(report)
    ds = open_run(tmp_path / "run")
    facts = ds.attrs["budget"]["step"]
    assert facts["share"] == 0.05
    assert facts["skipped"] == report.skipped
    assert facts["record_seconds"] / facts["seconds"] == pytest.approx(share, abs=0.01)
    assert np.isfinite(ds.entropy).all()


def test_steps_outside_the_budget_are_recorded_whatever_the_time(tmp_path):
    at = RecordAt.budget(1e-6) | RecordAt.every(10)
    with Recorder(tmp_path / "run", MODEL, PROBE, weight_mean(), at=at) as recorder:
        for step in range(35):
            recorder(step, state(step))
        report = recorder.finish(state(35))
    steps = open_run(tmp_path / "run").step.values.tolist()
    assert steps == [0, 1, 10, 20, 30, 35]  # the record at 1 tells what one costs
    assert report.skipped == 30  # 2 to 34, but for the tens


def test_what_was_recorded_is_not_counted_as_skipped(tmp_path):
    at = RecordAt.budget(1e-6) | RecordAt.every(1)
    with Recorder(tmp_path / "run", MODEL, PROBE, weight_mean(), at=at) as recorder:
        for step in range(10):
            recorder(step, state(step))
            recorder(step, state(step))
        assert recorder.finish(state(10)).skipped == 0


def test_one_group_may_have_a_budget_and_another_a_schedule(tmp_path):
    what = [weight_mean("paid", at=RecordAt.budget(1e-6)), weight_mean("free", at=EVERY)]
    with Recorder(tmp_path / "run", MODEL, PROBE, what, at=EVERY) as recorder:
        for step in range(6):
            recorder(step, state(step))
    ds = open_run(tmp_path / "run")
    assert ds.free.dropna("step").size == 6
    (axis,) = (dim for dim in ds.dims if dim.startswith("step_"))
    assert ds[axis].values.tolist() == [0, 1]
    np.testing.assert_array_equal(ds.paid, [1, 2])


def test_due_asks_the_budget(tmp_path):
    recorder = Recorder(tmp_path / "run", MODEL, PROBE, weight_mean(), at=RecordAt.budget(1e-6))
    for step in range(2):
        assert recorder.due(step)
        recorder(step, state(step))
    assert not recorder.due(2)
    assert recorder.close().skipped == 0


def test_an_estimate_of_a_budget_needs_the_time_of_a_step(tmp_path):
    recorder = Recorder(tmp_path / "run", MODEL, PROBE, weight_mean(), at=RecordAt.budget(0.05))
    with pytest.raises(ScheduleError, match="give step_seconds"):
        recorder.estimate(state(0), 1000)
    overhead = recorder.estimate(state(0), 1000, step_seconds=1e-4)
    assert overhead.share == pytest.approx(0.05 / 0.95, rel=0.3)
    assert overhead.compile_seconds == 0.0  # by the first attempt
    assert recorder.estimate(state(0), 1000, step_seconds=10.0).records == 1003
    recorder.close()


@pytest.mark.parametrize("share", [0, 1, -0.1, 5, "5%", None, True, float("nan")])
def test_a_budget_is_a_share(share):
    with pytest.raises(ScheduleError, match=r"between 0 and 1.*write RecordAt.budget\(0.05\)"):
        RecordAt.budget(share)


@pytest.mark.parametrize("at", [3, RecordAt.budget(0.1)])
def test_the_steps_of_a_budget_are_a_schedule(at):
    with pytest.raises(ScheduleError, match="a schedule without a budget"):
        RecordAt.budget(0.05, at)


def test_budgets_unite_if_they_are_the_same():
    at = RecordAt.budget(0.05, RecordAt.every(10)) | RecordAt.budget(0.05, RecordAt.steps([3]))
    assert at.share == 0.05
    assert at.wanted.due(3)
    assert at.wanted.due(20)
    assert not at.due(20)
    assert at.certain is None
    with pytest.raises(ScheduleError, match="different budgets"):
        RecordAt.budget(0.05) | RecordAt.budget(0.1)


def test_what_needs_steps_beforehand_refuses_a_budget():
    at = RecordAt.budget(0.05) | RecordAt.every(7)
    for use in (lambda: at.points(100), lambda: at.first(3)):
        with pytest.raises(ScheduleError, match="follows the clock"):
            use()
    model = nts.as_model(lambda w, x: x @ w)
    program = collectors.bind(
        model, jnp.ones((3, 2)), nts.Probe(jnp.eye(3)), collectors.param_norm()
    )
    with pytest.raises(ScheduleError, match="follows the clock"):
        nts.watch(program, model, at, until=10)


def test_records_stacked_up_by_a_scan_have_no_budget(tmp_path):
    recorder = Recorder(tmp_path / "run", MODEL, PROBE, weight_mean(), at=RecordAt.budget(0.05))
    recorder.bind(state(0))
    with pytest.raises(ScheduleError, match="follows the clock"):
        recorder.extend({"weight_mean": jnp.ones(3)}, RecordAt.budget(0.05))
    recorder.close()
    assert issubclass(ScheduleError, nts.errors.NtkStatsError)
    assert not issubclass(ScheduleError, RecordingError)
