"""One battery over every adapter: what any `Model` must do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ntkstats.models import Model, Probe, as_model, check_model, layer_names

from .cases import CASES, Case, N


@functools.cache
def adapted(case: Case):
    """The model, what the loop holds, and one split of it; not to be trained."""
    obj = case.build()
    model = as_model(case.network(obj), **case.options)
    return model, obj, *model.split(obj)


@functools.cache
def compiled(case: Case):
    """One compiled `apply`, shared so that the battery stays short."""
    return jax.jit(adapted(case)[0].apply)


@functools.cache
def outputs_of(case: Case):
    _, _, params, state = adapted(case)
    return compiled(case)(params, state, case.x)


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request):
    return request.param


def assert_outputs_close(got, expected, rtol=1e-5, atol=1e-6):
    assert set(got) == set(expected)
    for head, value in expected.items():
        np.testing.assert_allclose(got[head], value, rtol=rtol, atol=atol)


def content(obj):
    """Every array and every mode switch of what a loop holds, as comparable values."""
    if isinstance(obj, nnx.Module):
        modes = [
            (
                path,
                getattr(module, "deterministic", None),
                getattr(module, "use_running_average", 0),
            )
            for path, module in nnx.iter_modules(obj)
        ]
        arrays = jax.tree.leaves(nnx.to_pure_dict(nnx.state(obj)))
    else:
        modes, arrays = [], jax.tree.leaves(obj)
    return modes, [host(a) for a in arrays]


def host(leaf):
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.array(leaf).tobytes() if hasattr(leaf, "dtype") else leaf


def test_params_are_real_floating_arrays_and_state_is_arrays_only(case):
    model, _, params, state = adapted(case)
    leaves = jax.tree.leaves(params)
    assert isinstance(model, Model)
    assert leaves
    assert all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves)
    assert all(isinstance(leaf, jax.Array | np.ndarray) for leaf in jax.tree.leaves(state))
    assert len(layer_names(params)) == len(leaves)


def test_apply_is_the_frameworks_own_evaluation(case):
    obj = adapted(case)[1]
    assert_outputs_close(outputs_of(case), jax.jit(lambda x: case.oracle(obj, x))(case.x))


def test_outputs_have_the_leading_sample_axis_at_any_batch_size(case):
    _, _, params, state = adapted(case)
    whole = outputs_of(case)
    one = compiled(case)(params, state, jax.tree.map(lambda a: a[2:3], case.x))
    assert all(value.shape[0] == N for value in whole.values())
    assert_outputs_close(one, {head: value[2:3] for head, value in whole.items()}, 1e-4, 1e-5)


def test_splitting_and_applying_leave_the_live_object_bitwise_alone(case):
    obj = case.build()
    before = content(obj)
    model = adapted(case)[0]
    as_model(case.network(obj), **case.options)
    for _ in range(2):
        outputs = compiled(case)(*model.split(obj), case.x)
        for head, value in outputs_of(case).items():
            np.testing.assert_array_equal(value, outputs[head])
    assert content(obj) == before


def test_apply_works_under_jit_vmap_and_scan(case):
    model, _, params, state = adapted(case)
    expected = outputs_of(case)
    twice = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), state)
    stacked = jax.tree.map(lambda p: jnp.stack([jnp.asarray(p), 0.9 * p]), params)

    @jax.jit
    def everything(state, stacked, twice):
        members = jax.vmap(lambda p, s: model.apply(p, s, case.x))(stacked, twice)
        _, steps = jax.lax.scan(lambda c, p: (c, model.apply(p, state, case.x)), None, stacked)
        return members, steps

    members, steps = everything(state, stacked, twice)
    assert_outputs_close({head: value[0] for head, value in members.items()}, expected)
    assert_outputs_close(steps, members)
    head = next(iter(expected))
    assert not np.allclose(members[head][1], expected[head])


def test_gradients_of_single_samples_are_finite_and_not_all_zero(case):
    model, _, params, state = adapted(case)

    def sample_jacobian(sample):
        x = jax.tree.map(lambda a: a[None], sample)
        return jax.jacrev(lambda p: model.apply(p, state, x))(params)

    jacobian = jax.jit(jax.vmap(sample_jacobian))(case.x)
    for head_jacobian in jacobian.values():
        leaves = jax.tree.leaves(head_jacobian)
        assert all(np.isfinite(leaf).all() for leaf in leaves)
        assert any(np.abs(leaf).max() > 0 for leaf in leaves)


def test_the_next_split_sees_the_training_step_without_retracing(case):
    model, obj = adapted(case)[0], case.build()
    params, state = model.split(obj)
    before = compiled(case)(params, state, case.x)
    traces = compiled(case)._cache_size()
    obj = case.train(obj)
    new_params, new_state = model.split(obj)
    after = compiled(case)(new_params, new_state, case.x)
    assert compiled(case)._cache_size() == traces
    assert_outputs_close(after, jax.jit(lambda x: case.oracle(obj, x))(case.x))
    head = next(iter(before))
    assert not np.allclose(before[head], after[head])
    # Statistics are those of the moment of each split; defect 13 of the closest ancestor.
    floats = [
        [np.asarray(leaf) for leaf in jax.tree.leaves(s) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
        for s in (state.rest, new_state.rest)
    ]
    moved = any((a != b).any() for a, b in zip(*floats, strict=True))
    assert moved == case.has_batch_statistics


def test_apply_works_in_float64(case):
    model, _, params, state = adapted(case)

    def double(leaf):
        wide = jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.asarray(leaf, dtype=jnp.float64) if wide else leaf

    with jax.enable_x64(True):
        wide = jax.tree.map(double, (params, state, case.x))
        outputs = jax.jit(model.apply)(*wide)
        assert all(value.dtype == jnp.float64 for value in outputs.values())
    assert_outputs_close(outputs, outputs_of(case), 1e-4, 1e-5)


def test_the_checks_pass(case):
    model, _, params, state = adapted(case)
    shapes = check_model(model, params, state, Probe(case.x))
    outputs = outputs_of(case)
    assert {h: (s.shape, s.dtype) for h, s in shapes.items()} == {
        h: (v.shape, v.dtype) for h, v in outputs.items()
    }


def test_models_are_cheap_to_compare_and_hash(case):
    model, obj, _, _ = adapted(case)
    assert model == model
    assert len({model, model, as_model(case.network(obj), **case.options)}) == 2
    assert as_model(model) is model
    assert hex(id(obj))[2:] not in repr((model.name, model.description, model.covers))
