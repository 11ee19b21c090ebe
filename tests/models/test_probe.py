"""The probe: its checks, its hash, and how it is drawn."""

import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntkstats.errors import ProbeError
from ntkstats.models import Probe
from ntkstats.models._probe import _stratified, describe_shapes

X = np.arange(12, dtype=np.float32).reshape(4, 3)
Y = np.array([0, 1, 1, 0])
KEY = jax.random.key(0)


def test_a_probe_counts_its_samples_and_keeps_its_arrays():
    tree = {"tokens": Y, "mask": Y > 0}
    probe = Probe(tree, Y, np.ones(4))
    assert probe.n == 4
    assert probe.x is tree
    assert probe.name == "probe"


def test_probes_compare_by_identity():
    probe = Probe(X)
    assert probe == probe
    assert probe != Probe(X)
    assert len({probe, Probe(X)}) == 2


def test_the_hash_is_that_of_the_content():
    base = Probe(X, Y, np.ones(4))
    same = [
        Probe(X, Y, np.ones(4), name="other"),
        Probe(np.asfortranarray(X), Y.copy(), np.ones(4)),
        Probe(X.astype(">f4"), Y, np.ones(4)),
    ]
    assert {probe.hash for probe in same} == {base.hash}
    different = [
        Probe(X + 1, Y, np.ones(4)),
        Probe(X.reshape(4, 3, 1), Y, np.ones(4)),
        Probe(X.astype(np.float64), Y, np.ones(4)),
        Probe(X, Y.astype(np.int32), np.ones(4)),
        Probe(X, 1 - Y, np.ones(4)),
        Probe(X, None, np.ones(4)),
        Probe(X, Y),
        Probe(X, Y, np.arange(4.0)),
        Probe({"x": X}, Y, np.ones(4)),
        Probe({"z": X}, Y, np.ones(4)),
        Probe(X[::-1], Y, np.ones(4)),
    ]
    assert len({probe.hash for probe in [base, *different]}) == 1 + len(different)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32, jnp.uint8, bool])
def test_numpy_and_jax_arrays_have_one_hash(dtype):
    values = jnp.asarray(X > 3).astype(dtype)
    assert Probe(values).hash == Probe(np.asarray(values)).hash


def test_the_hash_is_the_same_in_another_process():
    code = """
    import numpy as np
    from ntkstats.models import Probe
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    print(Probe({"a": x, "b": x[:, 0]}, np.array([0, 1, 1, 0], np.int32)).hash)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], check=True, capture_output=True, text=True
    )
    here = Probe({"b": jnp.asarray(X[:, 0]), "a": jnp.asarray(X)}, Y.astype(np.int32)).hash
    assert done.stdout.strip() == here


def test_keys_may_ride_along_with_the_samples():
    probes = [Probe({"x": X, "key": jax.random.split(jax.random.key(s), 4)}) for s in (0, 0, 1)]
    assert probes[0].hash == probes[1].hash != probes[2].hash


def nan_at(*index, array=X):
    array = array.astype(np.float32).copy()
    array[index] = np.nan
    return array


INF = np.full((4, 2), np.inf, np.float16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": {}}, "x has no arrays"),
        ({"x": None}, "x has no arrays"),
        ({"x": np.zeros((0, 3))}, "0 samples"),
        ({"x": {"a": X, "b": X[:3]}}, r"x\['a'\] has 4, x\['b'\] has 3"),
        ({"x": {"a": X, "scale": np.float32(1)}}, r"x\['scale'\] is a scalar"),
        ({"x": jnp.array(1.0)}, "x is a scalar"),
        ({"x": [[1.0, 2.0]]}, r"x\[0\]\[0\] is 1.0; .* np.asarray"),
        ({"x": np.array(["a", "b"])}, "an array of dtype <U1"),
        ({"x": np.array([None, 1])}, "an array of dtype object"),
        ({"x": nan_at(2, 1)}, r"1 entries that are not finite, the first at index \(2, 1\)"),
        ({"x": INF}, r"8 entries .* \(0, 0\)"),
        ({"x": jnp.full((2, 2), jnp.nan, jnp.bfloat16)}, "4 entries"),
        ({"x": {"a": X, "b": nan_at(1, array=Y)}}, r"x\['b'\] has 1 entries"),
        ({"x": X, "y": Y[:3]}, "y has length 3 and x has 4"),
        ({"x": X, "y": nan_at(3, array=Y)}, r"y has 1 entries .* \(3,\)"),
        ({"x": X, "y": 3}, "y is 3"),
        ({"x": X, "y": {}}, "y has no arrays"),
        ({"x": X, "y": [0, 1, 1, 0]}, r"y\[0\] is 0; .* np.asarray"),
        ({"x": X, "weight": np.ones(3)}, r"shape \(3,\) and x has 4 samples; expected \(4,\)"),
        ({"x": X, "weight": np.ones((4, 1))}, r"shape \(4, 1\)"),
        ({"x": X, "weight": np.array([1, 1, 1, -1])}, "from -1.0 to 1.0"),
        ({"x": X, "weight": np.zeros(4)}, "not all zero"),
        ({"x": X, "weight": nan_at(0, array=Y)}, "expected finite"),
        ({"x": X, "weight": np.ones(4, complex)}, "dtype complex128"),
        ({"x": X, "weight": [1, 1, 1, 1]}, r"expected a concrete array \(4,\)"),
        ({"x": X, "name": "on policy"}, "'on policy'; expected an identifier"),
        ({"x": X, "name": ""}, "expected an identifier"),
        ({"x": X, "name": 3}, "name is 3"),
    ],
)
def test_bad_probes_are_refused(arguments, message):
    with pytest.raises(ProbeError, match=message):
        Probe(**arguments)


def test_a_probe_cannot_be_made_of_tracers():
    with pytest.raises(ProbeError, match="x is a tracer"):
        jax.jit(lambda x: Probe(x).x)(X)
    with pytest.raises(ProbeError, match="y is a tracer"):
        jax.vmap(lambda y: Probe(X, y).x)(np.ones((2, 4)))
    with pytest.raises(ProbeError, match=r"weight is .* concrete"):
        jax.jit(lambda w: Probe(X, weight=w).x)(np.ones(4))


# --- drawing ----------------------------------------------------------------------------------


def test_samples_are_drawn_without_replacement_and_with_their_targets():
    x = {"id": np.arange(50), "double": 2 * np.arange(50)}
    probe = Probe.from_dataset(KEY, x, np.arange(50), n=20, name="drawn")
    assert len(set(probe.x["id"].tolist())) == 20
    np.testing.assert_array_equal(probe.x["double"], 2 * probe.x["id"])
    np.testing.assert_array_equal(probe.y, probe.x["id"])
    assert probe.name == "drawn"
    assert probe.n == 20


def test_one_key_draws_one_probe():
    draw = lambda seed: Probe.from_dataset(jax.random.key(seed), np.arange(50), n=20).hash  # noqa: E731
    assert draw(1) == draw(1) != draw(2)


def test_the_whole_data_set_can_be_drawn():
    probe = Probe.from_dataset(KEY, np.arange(7), n=7)
    assert sorted(probe.x.tolist()) == list(range(7))
    assert probe.y is None


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.data())
def test_stratified_counts_are_within_one_of_the_exact_proportions(labels, data):
    labels = np.array(labels)
    n = data.draw(st.integers(1, labels.size))
    chosen = _stratified(np.arange(labels.size)[::-1], labels, n)
    assert len(set(chosen.tolist())) == n
    for label in set(labels.tolist()):
        exact = n * (labels == label).sum() / labels.size
        assert np.floor(exact) <= (labels[chosen] == label).sum() <= np.ceil(exact)


def test_a_stratified_probe_keeps_targets_with_their_samples():
    labels = np.arange(30) % 3
    probe = Probe.from_dataset(KEY, np.arange(30), labels, n=7, stratify=True)
    np.testing.assert_array_equal(labels[probe.x], probe.y)
    assert np.bincount(probe.y).tolist() == [3, 2, 2]  # the tie goes to the smaller label


def test_stratified_samples_come_in_random_order():
    labels = np.repeat([0, 1], 50)
    probe = Probe.from_dataset(KEY, np.arange(100), n=40, stratify=labels)
    drawn = labels[probe.x]
    assert drawn.sum() == 20
    assert 0 < drawn[:20].sum() < 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 5}, "n=5 samples .* data set has 4"),
        ({"n": 0}, "from 1 to 4"),
        ({"n": 2.0}, "expected an integer"),
        ({"n": True}, "expected an integer"),
        ({"n": 2, "stratify": True}, "labels to stratify by have type NoneType"),
        ({"n": 2, "stratify": np.arange(3)}, r"have shape \(3,\)"),
        ({"n": 2, "y": np.eye(4), "stratify": True}, r"have shape \(4, 4\).*argmax"),
        ({"n": 2, "y": Y[:2]}, "y has length 2"),
        ({"n": 2, "x": {"a": X, "b": X[:2]}}, "leading axes of the inputs differ"),
    ],
)
def test_bad_draws_are_refused(arguments, message):
    with pytest.raises(ProbeError, match=message):
        Probe.from_dataset(KEY, **{"x": X, **arguments})


def test_a_bad_sample_that_is_not_drawn_does_no_harm():
    first = np.asarray(jax.random.permutation(KEY, 4))[0]
    y = np.where(np.arange(4) == first, 1.0, np.nan)
    assert Probe.from_dataset(KEY, X, y, n=1).y.tolist() == [1.0]
    with pytest.raises(ProbeError, match="y has 1 entries"):
        Probe.from_dataset(KEY, X, y, n=2)


def test_shapes_are_said_in_words():
    assert describe_shapes(X) == "(4, 3) float32"
    assert describe_shapes({"b": Y, "a": X}) == "{a: (4, 3) float32, b: (4,) int64}"
