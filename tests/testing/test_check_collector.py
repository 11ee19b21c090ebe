"""What check_collector says about collectors that break their contract, one clause each."""

import dataclasses
import doctest
import importlib
import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats import collectors, errors
from ntkstats.collectors import Collector, Kernel, Label, ModelOutputs
from ntkstats.testing import check_collector


def collector(measure, labels=None, **options):
    """A collector called "mine" of one field "mine", unless said otherwise."""
    shown = {"mine": Label("mine")} if labels is None else labels
    options = {"name": "mine", "uses_head": False, **options}
    return Collector(measure=measure, labels=lambda binding, head: shown, **options)


def norm(moment):
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(moment.snapshot.params))


def gives(value, labels=None, **options):
    """A collector that records `value(moment)` and remembers nothing."""
    return collector(lambda moment, carry: (carry, {"mine": value(moment)}), labels, **options)


def remembers(init, after, **options):
    """A collector whose carry starts as `init` and is `after(carry)` later."""
    return collector(
        lambda moment, carry: (after(carry), {"mine": norm(moment)}),
        init=lambda binding, head, key: init,
        **options,
    )


def outputs_of(moment, head):
    return moment.get(ModelOutputs())[head]


def counting():
    numbers = itertools.count()
    return gives(lambda m: norm(m) + next(numbers))


def leaking():
    kept = []

    def measure(moment, carry):
        kept.append(norm(moment))
        return carry, {"mine": kept[-1]}

    return collector(measure)


@dataclasses.dataclass  # not frozen: no hash, so it cannot be shared
class Unhashable:
    def requires(self):
        return ()

    def prepare(self, binding):
        return None

    def compute(self, prepared, binding, reading):
        return jnp.zeros(())


def host_sum(params):
    total = sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(params))
    return np.float32(total)


def calling_back(moment):
    shape = jax.ShapeDtypeStruct((), jnp.float32)
    return jax.pure_callback(host_sum, shape, moment.snapshot.params, vmap_method="sequential")


def printing(moment):
    value = norm(moment)
    jax.debug.print("norm {}", value)
    return value


def branching(moment):
    return norm(moment) if norm(moment) > 1 else jnp.zeros(())


READS = {"uses_head": True, "requires": lambda head: (ModelOutputs(),)}

# {what is wrong: (collector, options of check_collector, clause, part of the message)}
BROKEN = {
    "a field without a label": (
        collector(lambda m, c: (c, {"mine": norm(m), "more": norm(m)})),
        {},
        "fields",
        r"labels declares \['mine'\] and measure returns \['mine', 'more'\]",
    ),
    "a label without a field": (
        collector(lambda m, c: (c, {})),
        {},
        "fields",
        r"measure returns \[\]",
    ),
    "the record alone": (
        collector(lambda m, c: {"mine": norm(m)}),
        {},
        "fields",
        "gave dict; return",
    ),
    "text as a value": (gives(lambda m: "large"), {}, "fields", "'mine' is str"),
    "no dims for an array": (
        gives(lambda m: m.snapshot.params["out"]["b"]),
        {},
        "dims",
        r"shape \(3,\) and dims \(\)",
    ),
    "an axis of the library": (
        gives(lambda m: m.snapshot.params["out"]["b"], {"mine": Label("mine", dims=("step",))}),
        {},
        "dims",
        "which the library adds",
    ),
    "too few coordinates": (
        gives(
            lambda m: m.snapshot.params["out"]["b"],
            {"mine": Label("mine", dims=("unit",), coords={"unit": ("a", "b")})},
        ),
        {},
        "dims",
        "2 labels along 'unit'; expected 3",
    ),
    "no description": (gives(norm, {"mine": Label("")}), {}, "labels", "long_name=''"),
    "a name with a space": (
        collector(lambda m, c: (c, {"my norm": norm(m)}), {"my norm": Label("norm")}),
        {},
        "names",
        "expected a Python name",
    ),
    "a field called step": (
        collector(lambda m, c: (c, {"step": norm(m)}), {"step": Label("norm")}),
        {},
        "names",
        "an axis or coordinate of a run",
    ),
    "a field of a neighbour": (
        collector(lambda m, c: (c, {"param_norm": norm(m)}), {"param_norm": Label("norm")}),
        {"beside": collectors.param_norm()},
        "names",
        "would both write field 'param_norm'",
    ),
    "no name": (gives(norm, name=""), {}, "name", "non-empty string"),
    "an extra that is not there": (
        gives(lambda m: m.snapshot.extras["loss"], extras=("loss",)),
        {},
        "extras",
        r"extras=\{'loss': ...\}",
    ),
    "a quantity that is not required": (
        gives(lambda m: outputs_of(m, "output").sum()),
        {},
        "requires",
        "reads ModelOutputs.* without requiring it",
    ),
    "a name instead of a quantity": (
        gives(norm, requires=lambda head: ("kernel/output",)),
        {},
        "requires",
        "'kernel/output' is no quantity",
    ),
    "a list of quantities": (
        gives(norm, requires=lambda head: [ModelOutputs()]),
        {},
        "requires",
        "gave list",
    ),
    "a quantity that cannot be shared": (
        gives(norm, requires=lambda head: (Unhashable(),)),
        {},
        "requires",
        "frozen dataclasses",
    ),
    "a kernel of no head": (
        gives(norm, requires=lambda head: (Kernel("logits"),)),
        {},
        "bind",
        "failed with KeyError: 'logits'",
    ),
    "a carry that grows": (
        remembers(jnp.zeros(1), lambda c: jnp.concatenate([c, c])),
        {},
        "carry",
        r"float32\[1\] from init and float32\[2\] from measure",
    ),
    "a carry of another dtype": (
        remembers({"n": jnp.zeros(())}, lambda c: {"n": jnp.ones((), jnp.int32)}),
        {},
        "carry",
        r"\['n'\] is float32\[\] from init and int32\[\]",
    ),
    "a carry of another structure": (
        remembers((), lambda c: (jnp.zeros(()),)),
        {},
        "carry",
        "return what init gives",
    ),
    "text in the carry": (remembers({"a": "b"}, lambda c: c), {}, "carry", r"\['a'\] is str"),
    "a branch on a number": (gives(branching), {}, "jit", "not known yet"),
    "numpy": (gives(lambda m: np.sum(np.asarray(m.snapshot.step))), {}, "jit", "not known yet"),
    "a callback": (gives(calling_back), {}, "pure", "pure_callback"),
    "printing": (gives(printing), {}, "pure", "debug_print|debug_callback"),
    "numbers from numpy": (
        gives(lambda m: norm(m) + np.float32(np.random.default_rng().normal())),
        {},
        "pure",
        "another function each time",
    ),
    "a clock": (
        gives(lambda m: norm(m) + np.float32(time.perf_counter() % 1000)),
        {},
        "pure",
        "another function each time",
    ),
    "a counter in Python": (counting(), {}, "pure", "another function each time"),
    "values kept outside": (leaking(), {}, "pure", "keeps"),
    "not a number": (gives(lambda m: norm(m) / 0 - norm(m) / 0), {}, "finite", "at record 0"),
    "infinite later": (
        gives(lambda m: norm(m) / (1 - jnp.asarray(m.snapshot.step, jnp.float32))),
        {"undefined_at_first": ["mine"]},
        "finite",
        "at record 1",
    ),
    "the parameters it was bound to": (
        gives(lambda m: jnp.sum(m.binding.params["out"]["b"]) + 0 * norm(m)),
        {},
        "vmap",
        "parameters of the binding",
    ),
    "no rule for vmap": (gives(lambda m: no_vmap(norm(m))), {}, "vmap", "NotImplementedError"),
    "a difference of equal numbers": (
        gives(lambda m: (1e4 + norm(m)) ** 2 - 1e8 - 2e4 * norm(m)),
        {},
        "precision",
        "in float32 and float64",
    ),
    "a carry in float32 only": (
        collector(
            lambda m, c: (norm(m), {"mine": norm(m) + c}),
            init=lambda binding, head, key: jnp.zeros((), jnp.float32),
        ),
        {},
        "carry' in float64",
        "fixed shapes and dtypes",
    ),
    "the first sample only": (
        gives(lambda m: outputs_of(m, m.head)[0].sum(), **READS),
        {"symmetric": True},
        "order",
        "samples of the probe reversed",
    ),
    "a head by its name": (
        gives(lambda m: outputs_of(m, "output").sum(), per_head=True, **READS),
        {},
        "heads",
        "KeyError",
    ),
    "always the first head": (
        gives(lambda m: next(iter(m.get(ModelOutputs()).values())).sum(), per_head=True, **READS),
        {},
        "heads",
        "as 'second' of two",
    ),
}


@jax.custom_batching.custom_vmap
def no_vmap(x):
    return x


@no_vmap.def_vmap
def _refuse(size, batched, x):
    raise NotImplementedError


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_clause_is_named(case):
    broken, options, clause, part = BROKEN[case]
    with pytest.raises(errors.ContractError, match=part) as caught:
        check_collector(broken, **options)
    expected = clause if "'" in clause else f"{clause}'"
    assert f"{broken.name!r} breaks '{expected}" in str(caught.value)
    assert isinstance(caught.value, AssertionError)


def test_a_good_collector_passes():
    sound = gives(lambda m: outputs_of(m, m.head).mean(), per_head=True, **READS)
    assert check_collector(sound, symmetric=["mine"], beside=collectors.param_norm()) is None


def test_randomness_from_a_key_in_the_carry_passes():
    def measure(moment, carry):
        key, drawn = jax.random.split(carry)
        value = norm(moment)
        return key, {"mine": value + jax.random.normal(drawn, dtype=jnp.float32)}

    check_collector(collector(measure, init=lambda binding, head, key: key))


def test_extras_are_passed_along():
    check_collector(
        gives(lambda m: 2 * m.snapshot.extras["loss"], extras=("loss",)), extras={"loss": 0.5}
    )


def test_complex_numbers_and_batches_of_arrays_pass():
    spectrum = {"mine": Label("spectrum", dims=("frequency",))}
    check_collector(
        gives(lambda m: jnp.fft.fft(m.snapshot.extras["batch"]["x"]), spectrum, extras=("batch",)),
        extras={"batch": {"x": np.arange(4, dtype=np.float32), "y": np.arange(2)}},
    )


def test_a_refused_precision_passes():
    def labels(binding, head):
        if jax.tree.leaves(binding.params)[0].dtype == np.float64:
            msg = "this collector counts in float32; use precision=None"
            raise errors.PrecisionError(msg)
        return {"mine": Label("mine")}

    check_collector(dataclasses.replace(gives(norm), labels=labels))


def test_the_example_of_the_docstring_is_true():
    assert doctest.testmod(importlib.import_module("ntkstats.testing._check")) == (0, 7)


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda: check_collector(collectors.param_norm), "Call the function that makes it"),
        (lambda: check_collector(gives(norm), model=lambda p, x: x), "belong together"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(call, part):
    with pytest.raises(errors.CollectorError, match=part) as caught:
        call()
    assert not isinstance(caught.value, errors.ContractError)
