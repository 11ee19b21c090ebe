"""Binding: sharing, subsets, precision, failures of the model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats import collectors, errors
from ntkstats.collectors import Collector, Label, bind, init_on_host, run_on_host
from ntkstats.kernels import KernelPlan
from ntkstats.models import Probe, as_model
from tests.collectors.systems import actor_critic, classifier, dense_jacobian, mlp, shot

EVERYTHING = (
    collectors.ntk_spectrum(),
    collectors.covariance_entropy(),
    collectors.self_entropy(),
    collectors.lnp("cross_entropy"),
    collectors.kernel_target_alignment(),
    collectors.kernel_velocity(),
    collectors.loss("cross_entropy"),
    collectors.accuracy(),
)


def first_record(program, system, **extras):
    carry = program.init(jax.random.key(0))
    return program.update(carry, shot(system, **extras))[1]


def test_every_shared_quantity_is_computed_once(monkeypatch):
    system = classifier()
    program = bind(system.model, system.params, system.probe, EVERYTHING)
    calls = []
    for method in ("gram", "diagonal"):
        original = getattr(KernelPlan, method)

        def counted(self, *args, _original=original, _name=method, **kwargs):
            calls.append(_name)
            return _original(self, *args, **kwargs)

        monkeypatch.setattr(KernelPlan, method, counted)
    first_record(program, system)
    # Five collectors read one trace kernel; its diagonal serves the two that need no pairs.
    assert calls == ["gram"]


def test_pairless_collectors_form_no_kernel(monkeypatch):
    system = classifier()
    made = [collectors.lnp("cross_entropy"), collectors.self_entropy()]
    program = bind(system.model, system.params, system.probe, made)
    monkeypatch.setattr(KernelPlan, "gram", lambda *_, **__: pytest.fail("a kernel was formed"))
    first_record(program, system)


def test_model_is_applied_once_for_outputs(monkeypatch):
    system = classifier()
    seen = []

    def apply(params, x):
        seen.append(x.shape)
        return mlp(params, x)

    made = [collectors.loss("cross_entropy"), collectors.accuracy()]
    program = bind(as_model(apply), system.params, system.probe, made)
    seen.clear()
    first_record(program, system)
    assert seen == [(14, 64)]


def test_subset_measures_only_what_was_selected_and_keeps_the_carry():
    system = classifier()
    program = bind(system.model, system.params, system.probe, EVERYTHING)
    subset = program.select(frozenset({"loss", "kernel_velocity"}))
    assert subset.collectors == ("kernel_velocity", "loss")
    carry = program.init(jax.random.key(0))
    start = shot(system)
    carry, record = subset.update(carry, start)
    assert set(record) == {"loss", "loss_stderr", "kernel_velocity", "kernel_distance"}
    carry, record = program.update(carry, start._replace(step=1))
    assert record["kernel_velocity"] == pytest.approx(0, abs=1e-6)


def test_selecting_an_unknown_collector_is_refused():
    system = classifier()
    program = bind(system.model, system.params, system.probe, EVERYTHING)
    with pytest.raises(errors.CollectorError, match="selected"):
        program.select(frozenset({"no_such"}))


def test_second_probe_has_a_suffix():
    system = classifier()
    made = [collectors.loss("cross_entropy"), collectors.loss("cross_entropy", probe="test")]
    program = bind(system.model, system.params, [system.probe, system.test], made)
    assert set(program.fields) == {"loss", "loss_stderr", "loss_test", "loss_stderr_test"}
    record = first_record(program, system)
    assert record["loss"] != record["loss_test"]
    assert program.attrs["probes"]["test"]["hash"] == system.test.hash


def test_float64_agrees_with_the_dense_oracle():
    system = classifier(n=8)
    made = [collectors.ntk_spectrum(), collectors.lnp("cross_entropy")]
    program = bind(system.model, system.params, system.probe, made, precision="float64")
    carry = init_on_host(program, jax.random.key(0))
    _, record = run_on_host(program, carry, shot(system))
    jacobian = dense_jacobian(system)
    values = np.linalg.eigvalsh(np.einsum("ncp,mcp->nm", jacobian, jacobian))[::-1]
    assert record["eigenvalues"].dtype == np.float64
    np.testing.assert_allclose(record["eigenvalues"], values, rtol=1e-10, atol=1e-10 * values[0])
    np.testing.assert_allclose(record["chi_net"], values.sum(), rtol=1e-10)


def test_float64_program_is_refused_inside_a_float32_trace():
    system = classifier()
    made = collectors.ntk_spectrum()
    program = bind(system.model, system.params, system.probe, made, precision="float64")
    carry = init_on_host(program, jax.random.key(0))
    with pytest.raises(errors.PrecisionError, match="run_on_host"):
        jax.jit(program.update)(carry, shot(system))


def test_model_that_turns_nan_is_recorded_as_nan_and_later_records_are_fine():
    system = classifier()
    program = bind(system.model, system.params, system.probe, EVERYTHING)
    broken = jax.tree.map(lambda p: p * jnp.nan, system.params)
    carry = program.init(jax.random.key(0))
    carry, first = program.jitted(carry, shot(system))
    carry, bad = program.jitted(carry, shot(system, broken, 1))
    carry, good = program.jitted(carry, shot(system, system.params, 2))
    for name in ("entropy", "trace", "effective_rank", "loss", "covariance_entropy"):
        assert np.isnan(bad[name]), name
    assert np.isnan(bad["eigenvalues"]).all()
    assert bad["accuracy"] == 0
    np.testing.assert_array_equal(good["entropy"], first["entropy"])


def test_members_must_match_the_stack():
    system = classifier()
    with pytest.raises(errors.CollectorError, match="leading axis of 3"):
        bind(system.model, system.params, system.probe, collectors.param_norm(), members=3)


def test_a_collector_of_ones_own_needs_a_measure_and_labels():
    system = classifier()
    own = Collector(
        "spread",
        measure=lambda moment, carry: (
            carry + 1,
            {"spread": moment.snapshot.extras["temperature"] * jnp.ones(()), "calls": carry},
        ),
        labels=lambda binding, head: {"spread": Label("spread"), "calls": Label("calls")},
        init=lambda binding, head, key: jnp.zeros((), int),
        extras=("temperature",),
    )
    with pytest.raises(errors.MissingExtraError, match="temperature"):
        bind(system.model, system.params, system.probe, own)
    program = bind(system.model, system.params, system.probe, own, extras={"temperature": 2.0})
    carry = program.init(jax.random.key(0))
    for expected in range(3):
        moment = shot(system, None, expected, temperature=2.0)
        carry, record = program.update(carry, moment)
        assert record["spread"] == 2
        assert record["calls"] == expected


def test_kernels_of_two_sizes_get_axes_of_their_own():
    system = actor_critic()
    program = bind(system.model, system.params, system.probe, collectors.ntk_spectrum("full"))
    assert program.fields["eigenvalues_actor"].dims == ("eigenvalue_36",)
    assert program.fields["eigenvalues_critic"].dims == ("eigenvalue_9",)


def test_head_that_nobody_measures_may_be_anything():
    system = actor_critic()

    def apply(params, x):
        out = system.model.apply(*system.model.split(params), x)
        return {"critic": out["critic"], "choice": jnp.argmax(out["actor"], axis=1)}

    model = as_model(apply)
    program = bind(model, system.params, system.probe, collectors.self_entropy(head="critic"))
    assert set(program.fields) == {"self_entropy_critic"}
    with pytest.raises(errors.ModelError, match="choice"):
        bind(model, system.params, system.probe, collectors.self_entropy())


def mixing_loss(output, y):
    return jnp.var(output)


def penalised_loss(output, y):
    return jnp.mean(output**2) + 1.0 if output.shape[0] > 1 else jnp.mean(output**2)


x3 = np.eye(3, dtype=np.float32)
BAD = {
    "no probe": (lambda s: bind(s.model, s.params, [], EVERYTHING), "CollectorError", "probes="),
    "no collector": (
        lambda s: bind(s.model, s.params, s.probe, []),
        "CollectorError",
        "at least one",
    ),
    "factory not called": (
        lambda s: bind(s.model, s.params, s.probe, [collectors.ntk_spectrum]),
        "CollectorError",
        "parentheses",
    ),
    "two probes of one name": (
        lambda s: bind(s.model, s.params, [s.probe, s.probe], EVERYTHING),
        "DuplicateNameError",
        "own name",
    ),
    "two collectors of one name": (
        lambda s: bind(
            s.model, s.params, s.probe, [collectors.ntk_spectrum(), collectors.ntk_spectrum("sum")]
        ),
        "DuplicateNameError",
        "name=",
    ),
    "two collectors with one field": (
        lambda s: bind(
            s.model,
            s.params,
            s.probe,
            [collectors.loss_ntk("cross_entropy"), collectors.fisher_trace("cross_entropy")],
        ),
        "DuplicateNameError",
        "fisher_trace",
    ),
    "unknown head": (
        lambda s: bind(s.model, s.params, s.probe, collectors.ntk_spectrum(head="critic")),
        "HeadError",
        "critic",
    ),
    "unknown probe": (
        lambda s: bind(s.model, s.params, s.probe, collectors.loss("mse", probe="test")),
        "CollectorError",
        "wants probe 'test'",
    ),
    "no targets": (
        lambda s: bind(s.model, s.params, Probe(s.probe.x), collectors.loss("mse")),
        "MissingTargetsError",
        "Probe(x, y)",
    ),
    "no labels": (
        lambda s: bind(s.model, s.params, Probe(s.probe.x), collectors.accuracy()),
        "MissingTargetsError",
        "labels",
    ),
    "no targets to align with": (
        lambda s: bind(s.model, s.params, Probe(s.probe.x), collectors.kernel_target_alignment()),
        "MissingTargetsError",
        "targets",
    ),
    "unknown loss": (
        lambda s: bind(s.model, s.params, s.probe, collectors.loss("hinge")),
        "CollectorError",
        "cross_entropy",
    ),
    "loss that fails": (
        lambda s: bind(s.model, s.params, s.probe, collectors.lnp(lambda o, y: o @ y)),
        "CollectorError",
        "failed on outputs",
    ),
    "loss that mixes samples": (
        lambda s: bind(s.model, s.params, s.probe, collectors.lnp(mixing_loss)),
        "CollectorError",
        "mixes samples",
    ),
    "loss with a penalty": (
        lambda s: bind(s.model, s.params, s.probe, collectors.loss(penalised_loss)),
        "CollectorError",
        "term of its own",
    ),
    "loss of the wrong shape": (
        lambda s: bind(s.model, s.params, s.probe, collectors.loss(lambda o, y: o)),
        "CollectorError",
        "one value a sample",
    ),
    "float labels": (
        lambda s: bind(
            s.model, s.params, Probe(s.probe.x, np.ones(14, np.float32)), collectors.accuracy()
        ),
        "CollectorError",
        "integer labels",
    ),
    "weights where they change the meaning": (
        lambda s: bind(
            s.model,
            s.params,
            Probe(s.probe.x, s.probe.y, weight=np.ones(14, np.float32)),
            collectors.lnp("cross_entropy"),
        ),
        "CollectorError",
        "equal weights",
    ),
    "too few samples": (
        lambda s: bind(
            s.model,
            s.params,
            Probe(s.probe.x[:2], s.probe.y[:2]),
            collectors.gradient_noise_scale("cross_entropy"),
        ),
        "CollectorError",
        "at least 3",
    ),
    "members not a number": (
        lambda s: bind(s.model, s.params, s.probe, EVERYTHING, members=0),
        "CollectorError",
        "members=0",
    ),
    "unknown outputs": (lambda s: collectors.ntk_spectrum("logits"), "CollectorError", "logits"),
    "unknown outputs of another": (
        lambda s: collectors.kernel_velocity("logits"),
        "CollectorError",
        "logits",
    ),
    "one draw": (lambda s: collectors.ntk_spectrum("probe", draws=1), "CollectorError", "2 draws"),
    "no eigenvalue": (lambda s: collectors.ntk_spectrum(top_k=0), "CollectorError", "top_k"),
    "unknown convention": (
        lambda s: collectors.ntk_spectrum(convention="mine"),
        "SpectrumError",
        "mine",
    ),
    "unknown precision": (
        lambda s: bind(s.model, s.params, s.probe, EVERYTHING, precision="bfloat16"),
        "PrecisionError",
        "bfloat16",
    ),
    "probe that does not fit": (
        lambda s: bind(s.model, s.params, Probe(x3), collectors.ntk_spectrum()),
        "ProbeError",
        "",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_a_clear_error(case):
    call, error, part = BAD[case]
    with pytest.raises(getattr(errors, error)) as caught:
        call(classifier())
    assert part in str(caught.value)


def test_a_measure_that_fails_is_named():
    def measure(moment, carry):
        raise ValueError("boom")

    broken = Collector("mine", measure, lambda binding, head: {"mine": Label("mine")})
    params = jnp.ones((3, 2))
    model = as_model(lambda p, x: x @ p)
    with pytest.raises(errors.CollectorError, match=r"collector 'mine' failed.*ValueError: boom"):
        bind(model, params, Probe(jnp.eye(3)), broken)


@pytest.mark.parametrize("collector", [collectors.loss("cross_entropy"), collectors.accuracy()])
def test_one_output_is_no_classification(collector):
    x = jnp.eye(3)
    probe = Probe(x, np.array([[0.5], [1.5], [2.0]]))
    model = as_model(lambda p, x: x @ p)
    with pytest.raises(errors.CollectorError, match=r"at least 2 logits|one-hot rows"):
        bind(model, jnp.ones((3, 1)), probe, collector)
