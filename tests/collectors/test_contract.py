"""Every collector keeps the contract that users check their own with."""

import jax
import jax.numpy as jnp
import pytest

from ntkstats import collectors
from ntkstats.collectors import bind
from ntkstats.testing import check_collector
from tests.collectors.systems import actor_critic, classifier, shot

ALL = {
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
UNDEFINED_AT_FIRST = {"kernel_velocity": ["kernel_velocity"]}
# One random sign a sample: the estimate depends on which sample got which.
ORDERED = {"ntk_spectrum_probe"}
VARIANTS = ("_full", "_sum", "_probe")
PUBLIC_HELPERS = {"bind", "init_on_host", "run_on_host"}


def test_battery_covers_every_public_collector():
    made = {name for name in ALL if not name.endswith(VARIANTS)}
    assert made == {n for n in collectors.__all__ if n.islower()} - PUBLIC_HELPERS


@pytest.mark.parametrize("name", ALL)
def test_the_contract_is_kept(name):
    check_collector(
        ALL[name](),
        undefined_at_first=UNDEFINED_AT_FIRST.get(name, ()),
        symmetric=name not in ORDERED,
    )


def test_the_contract_is_kept_on_a_model_with_several_heads():
    system = actor_critic()
    given = {"model": system.model, "obj": system.params, "probes": [system.probe, system.test]}
    check_collector(collectors.self_entropy(), **given, symmetric=True)
    check_collector(collectors.covariance_entropy(head="critic", probe="test"), **given)


def together():
    """One of each kind; loss_ntk writes what fisher_trace writes."""
    return [make() for n, make in ALL.items() if not n.endswith(VARIANTS) and n != "fisher_trace"]


def test_no_two_collectors_disturb_each_other():
    *others, last = together()
    check_collector(last, symmetric=True, beside=others)


def test_a_scan_over_all_collectors_is_traced_once():
    system, traces = classifier(), []
    program = bind(system.model, system.params, system.probe, together())

    def counted(carry, snapshot):
        traces.append(1)
        return program.update(carry, snapshot)

    def scan(carry, snapshot):
        twice = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), snapshot)
        return jax.lax.scan(counted, carry, twice)

    jax.eval_shape(scan, program.init(jax.random.key(0)), shot(system))
    assert len(traces) == 1
