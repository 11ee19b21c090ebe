"""The same weights in torch and in JAX give the same numbers."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

import ntkstats as nts
from ntkstats import collectors
from ntkstats.torch import on_probe
from tests.torch import networks
from tests.torch.oracle import dense_jacobian, gram_of, relative

USUAL = [
    collectors.ntk_spectrum(),
    collectors.lnp("cross_entropy"),
    collectors.kernel_velocity(),
    collectors.loss("cross_entropy"),
    collectors.accuracy(),
    collectors.param_norm(),
    collectors.param_distance(),
]
EVERYTHING = [
    *USUAL,
    collectors.ntk_spectrum("full", name="full"),
    collectors.covariance_entropy(),
    collectors.self_entropy(),
    collectors.loss_ntk("cross_entropy"),
    collectors.fisher_trace("cross_entropy", name="own"),
    collectors.kernel_target_alignment(),
]


def record_both(tmp_path, module, twin, twin_of, measure, probe, steps=3, precision=None):
    x, y = networks.digits()
    options = {"strict": True, "precision": precision}
    ours = nts.Recorder(tmp_path / "torch", nts.as_model(module), probe, measure, **options)
    theirs = nts.Recorder(tmp_path / "jax", twin, probe, measure, **options)

    def before_step(step):
        ours(step, module)
        theirs(step, twin_of(module))

    networks.train(module, x, y, steps, before_step)
    ours.finish(module)
    theirs.finish(twin_of(module))
    return nts.open_run(tmp_path / "torch"), nts.open_run(tmp_path / "jax")


def assert_same_numbers(ours, theirs):
    assert set(ours.data_vars) == set(theirs.data_vars)
    for name, expected in theirs.data_vars.items():
        found = ours[name].values
        assert found.shape == expected.shape
        difference = np.nanmax(np.abs(found - expected.values), initial=0)
        size = np.nanmax(np.abs(expected.values), initial=0)
        assert difference <= 1e-5 * size, name
        assert (np.isnan(found) == np.isnan(expected.values)).all()


@pytest.mark.parametrize(
    "measure",
    [USUAL, pytest.param(EVERYTHING, marks=pytest.mark.slow)],
    ids=["usual", "every collector"],
)
def test_collectors_on_an_mlp_over_training(tmp_path, measure):
    x, y = networks.digits()
    module = networks.mlp()
    ours, theirs = record_both(
        tmp_path,
        module,
        nts.as_model(networks.mlp_twin),
        networks.weights,
        measure,
        nts.Probe(x[150:180], y[150:180]),
    )
    assert_same_numbers(ours, theirs)
    assert ours.param_distance.values[-1] > 0
    # More parameters than rows in the first layer: its coordinates were turned.
    assert module[0].weight.numel() > 30 * 10
    assert list(ours.layer.values) == list(theirs.layer.values) == ["0", "3"]
    assert ours.attrs["probes"] == theirs.attrs["probes"]


def test_a_cnn_with_batch_norm_in_evaluation_mode(tmp_path):
    x, y = networks.digits()
    ours, theirs = record_both(
        tmp_path,
        networks.CNN(),
        nts.as_model(networks.cnn_twin, has_state=True),
        networks.cnn_weights,
        [collectors.ntk_spectrum(), collectors.loss("cross_entropy")],
        nts.Probe(x[150:162], y[150:162]),
    )
    assert_same_numbers(ours, theirs)


def kernels_of(module, x, **options):
    model, _ = on_probe(nts.as_model(module, **options), nts.Probe(x))
    return gram_of(model, module)


def test_float64_is_float64_throughout():
    module, (x, _) = networks.mlp(), networks.digits(8)
    model, probe = on_probe(module, nts.Probe(x), precision="float64")
    params, state = model.split(module)
    assert {leaf.dtype for leaf in params.values()} == {np.dtype("float64")}
    kernel = nts.empirical_ntk(model, params, state, probe, outputs="full", precision="float64")
    jacobian, _ = dense_jacobian(module, lambda twin: twin(x.double()))
    assert relative(np.array(kernel.matrix), jacobian @ jacobian.T) < 1e-13


@pytest.mark.slow
def test_a_float64_recording_agrees_with_jax(tmp_path):
    x, y = networks.digits()
    # The noise scale divides by differences of nearly equal numbers.
    ours, theirs = record_both(
        tmp_path,
        networks.mlp(),
        nts.as_model(networks.mlp_twin),
        networks.weights,
        collectors.gradient_noise_scale("cross_entropy"),
        nts.Probe(x[150:165], y[150:165]),
        steps=1,
        precision="float64",
    )
    assert_same_numbers(ours, theirs)
    assert ours.gradient_norm.dtype == np.float64
    assert relative(ours.gradient_norm.values, theirs.gradient_norm.values) < 1e-12


def test_half_precision_is_measured_in_float32():
    module, (x, _) = networks.mlp().bfloat16(), networks.digits(5)
    wide = networks.mlp()
    wide.load_state_dict({k: v.float() for k, v in module.state_dict().items()})
    expected = kernels_of(wide, x)
    assert relative(kernels_of(module, x), expected) == 0
    assert module[0].weight.dtype == torch.bfloat16


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Linear(64, 16)
        self.actor = nn.Linear(16, 3)
        self.critic = nn.Linear(16, 1)

    def forward(self, x):
        hidden = torch.tanh(self.trunk(x))
        return {"actor": self.actor(hidden), "critic": self.critic(hidden)}


def test_several_heads_and_probes(tmp_path):
    x, _ = networks.digits(40)
    probes = [nts.Probe(x[:6]), nts.Probe(x[6:15], name="train")]
    measure = [
        collectors.ntk_spectrum(head="actor"),
        collectors.ntk_spectrum(head="critic", probe="train"),
    ]
    module = TwoHeads()

    def twin(p, x):
        hidden = jnp.tanh(x @ p["trunk"]["weight"].T + p["trunk"]["bias"])
        return {h: hidden @ p[h]["weight"].T + p[h]["bias"] for h in ("actor", "critic")}

    runs = []
    for name, model, obj in (("t", module, module), ("j", twin, networks.weights(module))):
        nts.Recorder(tmp_path / name, model, probes, measure, strict=True).finish(obj)
        runs.append(nts.open_run(tmp_path / name))
    for field in ("eigenvalues_actor", "entropy_critic_train", "trace_critic_train"):
        assert relative(runs[0][field].values, runs[1][field].values) < 1e-5


def test_joint_kernel_of_two_heads_shares_the_coordinates():
    x, _ = networks.digits(5)
    module = TwoHeads()
    model, probe = on_probe(module, nts.Probe(x))
    params, state = model.split(module)
    joint = nts.kernels.joint_ntk(model, params, state, probe)
    jacobian, _ = dense_jacobian(
        module, lambda twin: torch.cat(list(twin(x.double()).values()), dim=1)
    )
    assert relative(np.array(joint.joint.matrix), jacobian @ jacobian.T) < 1e-5


def test_filters_and_frozen_parameters_leave_the_kernel():
    module, (x, _) = networks.mlp(), networks.digits(6)
    module[0].weight.requires_grad_(False)
    jacobian, sizes = dense_jacobian(module, lambda twin: twin(x.double()))
    assert "0.weight" not in sizes
    assert relative(kernels_of(module, x), jacobian @ jacobian.T) < 1e-5
    first = sizes["0.bias"]
    part = jacobian[:, first:]
    only = kernels_of(module, x, params_filter="3/*")
    assert relative(only, part @ part.T) < 1e-5


class Tied(nn.Module):
    """Tokens in, logits of the same tokens out, through one matrix."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 7)
        self.out = nn.Linear(7, 11, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, tokens):
        return self.out(torch.tanh(self.embed(tokens)).mean(1))


def test_tied_weights_count_once_with_the_sum_of_their_gradients():
    module, tokens = Tied(), torch.randint(0, 11, (5, 4))
    model, _ = on_probe(module, nts.Probe(tokens))
    params, _ = model.split(module)
    assert sum(leaf.size for leaf in params.values()) == 77
    jacobian, _ = dense_jacobian(module, lambda twin: twin(tokens))
    assert relative(gram_of(model, module), jacobian @ jacobian.T) < 1e-5


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU])
def test_recurrent_layers(layer):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = layer(8, 5, batch_first=True)
            self.head = nn.Linear(5, 2)

        def forward(self, x):
            return self.head(self.cell(x.reshape(-1, 8, 8))[0][:, -1])

    module, (x, _) = Recurrent(), networks.digits(3)
    jacobian, _ = dense_jacobian(module, lambda twin: twin(x.double()))
    assert relative(kernels_of(module, x), jacobian @ jacobian.T) < 1e-5


def test_the_fast_path_of_attention_is_left():
    module = nn.Sequential(
        nn.Unflatten(1, (8, 8)),
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        nn.Flatten(),
        nn.Linear(64, 2),
    )
    x, _ = networks.digits(3)
    jacobian, _ = dense_jacobian(module, lambda twin: twin(x.double()))
    assert relative(kernels_of(module, x), jacobian @ jacobian.T) < 1e-5
    assert torch.backends.mha.get_fastpath_enabled()


def test_samples_that_interact_by_declaration():
    class Centred(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 3)

        def forward(self, x):
            out = torch.tanh(self.layer(x))
            return out - out.mean(0)

    module, (x, _) = Centred(), networks.digits(4)
    with pytest.raises(nts.errors.CoupledSamplesError, match="coupled=True"):
        kernels_of(module, x)
    jacobian, _ = dense_jacobian(module, lambda twin: twin(x.double()))
    kernel = kernels_of(module, x, coupled=True)
    assert relative(kernel, jacobian @ jacobian.T) < 1e-5
