"""Records from scans, and the estimate before a run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats import collectors
from ntkstats.collectors import Snapshot
from ntkstats.errors import RecordingError, RecordingWarning, StoreError
from ntkstats.recording import RecordAt, Recorder, open_run
from tests.recording.helpers import MODEL, PROBE, state, train, weight_mean, weights

WHAT = [weight_mean(), collectors.param_distance()]


def recorder_at(path, what=WHAT, **options):
    return Recorder(path, MODEL, PROBE, what, **{"at": RecordAt.every(1), **options})


def scan(program, carry, params, steps):
    """Train with w <- w + 1 and record before each update, in one scan."""

    def body(loop, step):
        params, carry = loop
        carry, record = program.update(carry, Snapshot(step, *MODEL.split(params), {}))
        record["loss"] = params["w"].sum()
        return (jax.tree.map(lambda w: w + 1, params), carry), record

    return jax.lax.scan(body, (params, carry), steps)


def test_a_scan_stores_what_a_loop_stores(tmp_path):
    with recorder_at(tmp_path / "loop") as recorder:
        train(recorder, 0, 6, loss=lambda step: state(step)["w"].sum())
        recorder.finish(state(6))
    with recorder_at(tmp_path / "scan") as recorder:
        program = recorder.bind(state(0))
        # Two chunks, the first of which ends at the state where the second one starts.
        loop, records = scan(program, recorder.carry, state(0), jnp.arange(4))
        recorder.extend(records, range(4))
        loop, records = scan(program, loop[1], loop[0], jnp.arange(4, 6))
        recorder.extend(records, [4, 5])
        recorder.carry = loop[1]
        report = recorder.finish(loop[0])
    assert report.records == 7
    a, b = open_run(tmp_path / "loop"), open_run(tmp_path / "scan")
    assert set(a.data_vars) == set(b.data_vars) == {"weight_mean", "param_distance", "loss"}
    for name in a.data_vars:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-6)
        assert a[name].dtype == b[name].dtype
        assert a[name].attrs == b[name].attrs


def test_a_vmapped_scan_has_its_member_axis_first(tmp_path):
    with recorder_at(tmp_path / "run", weights(), members=3) as recorder:
        recorder.bind(state(0, members=3))
        stacked = jnp.stack([state(step, members=3)["w"] for step in range(2)], axis=1)
        assert stacked.shape == (3, 2, 3, 2)
        recorder.extend(
            {"weights": stacked, "loss": jnp.ones((3, 2)), "lr": jnp.array([0.1, 0.2])}, [0, 5]
        )
    ds = open_run(tmp_path / "run")
    assert ds.weights.dims == ("step", "member", "row", "column")
    np.testing.assert_array_equal(ds.weights[:, :, 0, 0], [[1, 101, 201], [2, 102, 202]])
    assert ds.loss.dims == ("step", "member")
    assert ds.lr.dims == ("step",)


def test_a_scanned_ensemble_program_has_its_time_axis_first(tmp_path):
    with recorder_at(tmp_path / "run", WHAT, members=2) as recorder:
        program = recorder.bind(state(0, members=2))
        _, records = scan(program, recorder.carry, state(0, members=2), jnp.arange(3))
        del records["loss"]
        assert records["weight_mean"].shape == (3, 2)
        recorder.extend(records, range(3), time_axis=0)
    values = open_run(tmp_path / "run").weight_mean
    np.testing.assert_array_equal(values, [[1, 101], [2, 102], [3, 103]])


def test_a_schedule_says_which_steps_were_stacked(tmp_path):
    with recorder_at(tmp_path / "run", weight_mean()) as recorder:
        recorder.bind(state(0))
        at = RecordAt.every(10) | RecordAt.steps([5])
        recorder.extend({"weight_mean": jnp.ones(4)}, at)
    assert open_run(tmp_path / "run").step.values.tolist() == [0, 5, 10, 20]


def test_a_step_stored_already_is_passed_over(tmp_path):
    with recorder_at(tmp_path / "run", weight_mean()) as recorder:
        recorder(0, state(0))
        recorder.extend({"weight_mean": jnp.array([77.0, 2.0])}, [0, 1])
        recorder.extend({"weight_mean": jnp.array([77.0, 3.0])}, [1, 2])
    np.testing.assert_array_equal(open_run(tmp_path / "run").weight_mean, [1, 2, 3])


def test_a_chunk_that_overlaps_what_is_stored_adds_what_is_new(tmp_path):
    with recorder_at(tmp_path / "run", weight_mean()) as recorder:
        for step in range(5):
            recorder(step, state(step))
        recorder.extend({"weight_mean": jnp.arange(4.0, 8.0)}, [3, 4, 5, 6])
    ds = open_run(tmp_path / "run")
    np.testing.assert_array_equal(ds.weight_mean, [1, 2, 3, 4, 5, 6, 7])
    assert ds.attrs["failures"] == []


def test_all_stacked_records_are_one_transaction(tmp_path):
    with recorder_at(tmp_path / "run", weight_mean()) as recorder:
        recorder(0, state(0))
        connection = recorder._journal.store._connection
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 2}").fetchone()
        with pytest.warns(RecordingWarning, match="could not extend"):
            recorder.extend({"weight_mean": jnp.ones(5000)}, range(1, 5001))
    assert open_run(tmp_path / "run").step.values.tolist() == [0]


BAD = [
    ({"weight_mean": jnp.ones(3)}, [0, 1], "2 steps for 3 stacked records"),
    ({"weight_mean": jnp.ones(2)}, [1, 1], r"steps must increase .* \[1, 1\]"),
    ({"weight_mean": jnp.ones(2)}, [-1, 1], "steps must increase"),
    ({"weight_mean": jnp.ones(2)}, [0.0, 1.0], "list of integers, got float64"),
    ({"weight_mean": jnp.ones(2)}, RecordAt.steps([3]), "1 steps for 2 stacked records"),
    ({"weight_mean": jnp.ones((2, 3))}, [0, 1], r"shape \(3,\) at each step, expected \(\)"),
    ({"weight_mean": jnp.ones(())}, [0], "is one number"),
    ({"loss": jnp.ones((2, 3))}, [0, 1], "a number that is no field"),
    ({"weight_mean": jnp.ones(2), "loss": jnp.ones(3)}, [0, 1], "equally long"),
    ({"step": jnp.ones(2)}, [0, 1], r"names \['step'\]"),
    ({}, [], "no records"),
]


@pytest.mark.parametrize(("records", "steps", "part"), BAD)
def test_stacked_records_that_make_no_sense_are_refused_while_nothing_is_lost(
    tmp_path, records, steps, part
):
    recorder = recorder_at(tmp_path / "run", weight_mean())
    recorder.bind(state(0))
    with pytest.raises(RecordingError, match=part):
        recorder.extend(records, steps)
    assert recorder.close().records == 0


def test_later_mistakes_do_not_stop_the_training(tmp_path):
    with recorder_at(tmp_path / "run", weight_mean()) as recorder:
        recorder.bind(state(0))
        recorder.extend({"weight_mean": jnp.ones(2)}, [0, 1])
        with pytest.warns(RecordingWarning, match="2 steps for 3 stacked"):
            recorder.extend({"weight_mean": jnp.ones(3)}, [2, 3])
        recorder.extend({"weight_mean": jnp.ones(2)}, [2, 3])
    assert open_run(tmp_path / "run").step.values.tolist() == [0, 1, 2, 3]


def test_extend_before_bind_says_what_to_call(tmp_path):
    recorder = recorder_at(tmp_path / "run")
    for use in (lambda: recorder.extend({}, []), lambda: recorder.carry):
        with pytest.raises(RecordingError, match=r"call recorder.bind\(obj\) first"):
            use()
    recorder.close()


# --- estimate ---------------------------------------------------------------------------------


def test_the_estimate_counts_the_records_and_bytes_of_the_run(tmp_path):
    what = [weight_mean(), weights(at=RecordAt.every(5))]
    options = {"what": what, "at": RecordAt.log(6, until=40)}
    recorder = recorder_at(tmp_path / "run", **options)
    overhead = recorder.estimate(state(0), 12, step_seconds=0.1)
    train(recorder, 0, 12)
    report = recorder.finish(state(12))
    assert report.records == overhead.records
    ds = open_run(tmp_path / "run")
    assert overhead.bytes == sum(v.nbytes for v in ds.data_vars.values())
    assert overhead.bytes_per_record == overhead.bytes / overhead.records
    assert 0 < overhead.seconds_per_record == overhead.seconds / overhead.records
    assert overhead.share == pytest.approx(overhead.seconds / 1.2)


def test_an_estimate_changes_nothing(tmp_path):
    traces = []
    what = [weight_mean(on_trace=lambda: traces.append(1)), collectors.param_distance()]
    recorder = recorder_at(tmp_path / "run", what)
    recorder.estimate(state(9), 4)
    seen = len(traces)
    train(recorder, 0, 3)
    recorder.close()
    assert len(traces) == seen
    ds = open_run(tmp_path / "run")
    assert ds.step.values.tolist() == [0, 1, 2]
    np.testing.assert_allclose(ds.param_distance, np.sqrt(6) * np.arange(3), rtol=1e-6)


def test_an_estimate_reads_as_a_sentence(tmp_path):
    recorder = recorder_at(tmp_path / "run", weights(repeat=50))
    text = str(recorder.estimate(state(0), 3, step_seconds=100.0))
    assert text.startswith("4 records of 1.2 kB and ")
    assert " % of the training time, and " in text
    assert text.endswith(" of compilation")
    assert "training" not in str(recorder.estimate(state(0), 3))
    recorder.close()


@pytest.mark.parametrize("total", [0, -1, 2.5, None])
def test_an_estimate_needs_the_length_of_the_run(tmp_path, total):
    recorder = recorder_at(tmp_path / "run")
    with pytest.raises(RecordingError, match="total_steps must be a positive integer"):
        recorder.estimate(state(0), total)
    recorder.close()


def test_text_in_stacked_records_is_refused(tmp_path):
    recorder = recorder_at(tmp_path / "run")
    recorder.bind(state(0))
    with pytest.raises(StoreError, match="only numbers"):
        recorder.extend({"note": np.array(["a"])}, [0])
    recorder.close()
