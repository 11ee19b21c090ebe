"""One battery over every collector."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats import collectors
from ntkstats.collectors import Snapshot, bind
from tests.collectors.systems import actor_critic, classifier, shot

SINGLE_HEAD = {
    "ntk_spectrum": lambda: collectors.ntk_spectrum(),
    "ntk_spectrum_full": lambda: collectors.ntk_spectrum("full", top_k=5),
    "ntk_spectrum_sum": lambda: collectors.ntk_spectrum("sum", average_outputs=True),
    "ntk_spectrum_probe": lambda: collectors.ntk_spectrum("probe", draws=3),
    "covariance_entropy": lambda: collectors.covariance_entropy(),
    "self_entropy": lambda: collectors.self_entropy(),
    "lnp": lambda: collectors.lnp("cross_entropy"),
    "loss_ntk": lambda: collectors.loss_ntk("cross_entropy"),
    "fisher_trace": lambda: collectors.fisher_trace("cross_entropy"),
    "gradient_noise_scale": lambda: collectors.gradient_noise_scale("cross_entropy"),
    "kernel_target_alignment": lambda: collectors.kernel_target_alignment(),
    "kernel_velocity": lambda: collectors.kernel_velocity(),
    "loss": lambda: collectors.loss("cross_entropy"),
    "accuracy": lambda: collectors.accuracy(),
    "param_norm": lambda: collectors.param_norm(),
    "param_distance": lambda: collectors.param_distance(),
}
# NaN by definition at the first record.
UNDEFINED_AT_FIRST = {"kernel_velocity"}
PUBLIC_HELPERS = {"bind", "init_on_host", "run_on_host"}


@pytest.fixture(scope="module", params=list(SINGLE_HEAD))
def case(request):
    system = classifier()
    program = bind(system.model, system.params, system.probe, SINGLE_HEAD[request.param]())
    return request.param, system, program


def snapshots(system, steps=3):
    """Parameters that move a little from record to record."""
    params, state = system.model.split(system.params)
    return [
        Snapshot(i, jax.tree.map(lambda p, i=i: p * (1 + 0.1 * i), params), state, {})
        for i in range(steps)
    ]


def run_eagerly(program, system):
    carry, records = program.init(jax.random.key(0)), []
    for snapshot in snapshots(system):
        carry, record = program.jitted(carry, snapshot)
        records.append(record)
    return carry, records


def assert_records_agree(a, b, rtol=2e-4):
    assert set(a) == set(b)
    for name in a:
        # Distances of a kernel from itself are rounding, so nothing below 1e-9 is compared.
        scale = max(np.max(np.abs(np.nan_to_num(a[name])), initial=0), 1e-5)
        np.testing.assert_allclose(a[name], b[name], rtol=rtol, atol=rtol * scale, err_msg=name)


def test_battery_covers_every_public_collector():
    made = {
        name.removesuffix("_full").removesuffix("_sum").removesuffix("_probe")
        for name in SINGLE_HEAD
    }
    factories = {n for n in collectors.__all__ if n.islower()} - PUBLIC_HELPERS
    assert made == factories


def test_record_matches_its_declared_fields(case):
    _, system, program = case
    _, record = program.jitted(program.init(jax.random.key(0)), snapshots(system)[0])
    assert set(record) == set(program.fields)
    for name, field in program.fields.items():
        assert record[name].shape == field.shape
        assert str(record[name].dtype) == field.dtype
        assert len(field.dims) == len(field.shape)
        assert field.long_name
        assert field.units
        for dim, labels in field.coords.items():
            assert len(labels) == field.shape[field.dims.index(dim)]


def test_values_are_finite(case):
    _, system, program = case
    _, records = run_eagerly(program, system)
    for i, record in enumerate(records):
        for name, value in record.items():
            if i or name not in UNDEFINED_AT_FIRST:
                assert np.isfinite(value).all(), name


def test_carry_keeps_structure_shapes_and_dtypes(case):
    _, system, program = case
    first = program.init(jax.random.key(0))
    last, _ = run_eagerly(program, system)
    assert jax.tree.structure(first) == jax.tree.structure(last)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(last), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)


def test_same_input_gives_the_same_record(case):
    _, system, program = case
    carry = program.init(jax.random.key(0))
    first, second = (program.jitted(carry, snapshots(system)[1])[1] for _ in range(2))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_scan_agrees_with_a_python_loop(case):
    _, system, program = case
    traces = []

    def counted(carry, snapshot):
        traces.append(1)
        return program.update(carry, snapshot)

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *snapshots(system))
    _, scanned = jax.lax.scan(counted, program.init(jax.random.key(0)), stacked)
    assert len(traces) == 1
    _, records = run_eagerly(program, system)
    for i, record in enumerate(records):
        assert_records_agree(record, {k: v[i] for k, v in scanned.items()})


def test_members_agree_with_single_runs(case):
    name, system, single = case
    shots = snapshots(system)
    ensemble = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(s.params for s in shots))
    program = bind(system.model, ensemble, system.probe, SINGLE_HEAD[name](), members=3)
    assert all(field.dims[0] == "member" for field in program.fields.values())
    carry = program.init(jax.random.key(0))
    _, together = program.jitted(carry, shot(system, ensemble))
    for i, one in enumerate(shots):
        _, alone = single.jitted(single.init(jax.random.key(0)), one)
        assert_records_agree(alone, {k: v[i] for k, v in together.items()})


PER_HEAD = {
    "ntk_spectrum": collectors.ntk_spectrum,
    "covariance_entropy": collectors.covariance_entropy,
    "self_entropy": collectors.self_entropy,
    "kernel_velocity": collectors.kernel_velocity,
}


@pytest.mark.parametrize("name", PER_HEAD)
def test_every_head_is_measured_apart(name):
    system = actor_critic()
    both = bind(system.model, system.params, system.probe, PER_HEAD[name]())
    _, record = both.jitted(both.init(jax.random.key(0)), shot(system))
    for head in ("actor", "critic"):
        only = bind(system.model, system.params, system.probe, PER_HEAD[name](head=head))
        _, alone = only.jitted(only.init(jax.random.key(0)), shot(system))
        assert all(key.endswith(f"_{head}") for key in alone)
        assert_records_agree(alone, {k: record[k] for k in alone})
    assert all(key.endswith(("_actor", "_critic")) for key in record)
