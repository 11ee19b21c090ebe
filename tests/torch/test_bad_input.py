"""What does not fit is refused with a message that says what to do."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

import ntkstats as nts
from ntkstats import collectors, errors
from ntkstats.torch import attach, on_probe
from tests.torch import networks
from tests.torch.oracle import dense_jacobian, gram_of, relative


class WritesStatistics(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 3)
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("var", torch.ones(3))

    def forward(self, x):
        return nn.functional.batch_norm(self.layer(x), self.mean, self.var, training=True)


class CountsCalls(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.layer(x)


class AlwaysDrops(nn.Sequential):
    def forward(self, x):
        return nn.functional.dropout(super().forward(x), 0.5, training=True)


class WritesInput(nn.Linear):
    def forward(self, x):
        x += 1
        return super().forward(x)


class InPlace(nn.Module):
    """Adds into a tensor made on the way: right, but not under a vmap over samples."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 3)

    def forward(self, x):
        out = torch.zeros(x.shape[0], 4, dtype=x.dtype)
        out[:, :3].add_(self.layer(x))
        return out


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


class CustomDerivative(nn.Linear):
    """An autograd function in the style that torch.func does not know."""

    def forward(self, x):
        return Double.apply(super().forward(x))


class Mean(nn.Linear):
    def forward(self, x):
        return super().forward(x).mean()


class Labels(nn.Linear):
    def forward(self, x):
        return super().forward(x).argmax(-1)


class Cache(nn.Linear):
    def forward(self, x):
        return {"logits": super().forward(x), "cache": object()}


def linear(kind=nn.Linear):
    return kind(64, 3)


def split(module, **options):
    x, _ = networks.digits(4)
    on_probe(nts.as_model(module, **options), nts.Probe(x))[0].split(module)


def split_twice(change):
    """A module whose trainable parameters change between two records."""
    module, (x, _) = networks.mlp(), networks.digits(4)
    module[0].bias.requires_grad_(False)
    model, _ = on_probe(module, nts.Probe(x))
    model.split(module)
    change(module)
    model.split(module)


def norm_over_the_batch():
    return nn.Sequential(nn.Linear(64, 5), nn.BatchNorm1d(5, track_running_stats=False))


CASES = {
    "statistics": (lambda: split(WritesStatistics()), errors.ModelError, "(buffer|channel)"),
    "buffer": (lambda: split(CountsCalls()), errors.ModelError, "writes to its buffer 'calls'"),
    "dropout": (
        lambda: split(AlwaysDrops(nn.Linear(64, 3))),
        errors.ModelError,
        "another output each time",
    ),
    "norm without statistics": (
        lambda: split(
            nn.Sequential(
                nn.Unflatten(1, (1, 64)), nn.BatchNorm1d(1, track_running_stats=False), nn.Flatten()
            )
        ),
        errors.CoupledSamplesError,
        "running statistics",
    ),
    "norm without statistics, one row a sample": (
        lambda: split(norm_over_the_batch()),
        errors.CoupledSamplesError,
        r"BatchNorm1d '1' with track_running_stats=False .* coupled=True",
    ),
    "input": (
        lambda: split(linear(WritesInput)),
        errors.ModelError,
        "writes to its input in place; expected .* inplace=False",
    ),
    "input, coupled": (
        lambda: split(linear(WritesInput), coupled=True),
        errors.ModelError,
        "writes to its input in place",
    ),
    "first activation": (
        lambda: split(nn.Sequential(nn.ReLU(inplace=True), linear())),
        errors.ModelError,
        "writes to its input in place",
    ),
    "unfrozen": (
        lambda: split_twice(lambda module: module[0].bias.requires_grad_(True)),
        errors.ParamsError,
        r"1 only now \('0\.bias'\)\. Expected the same ones throughout",
    ),
    "frozen in between": (
        lambda: split_twice(lambda module: module[3].requires_grad_(False)),
        errors.ParamsError,
        r"2 no longer \('3\.bias', '3\.weight'\).*params_filter=",
    ),
    "exchanged": (
        lambda: split_twice(
            lambda module: (
                module[0].bias.requires_grad_(True),
                module[0].weight.requires_grad_(False),
            )
        ),
        errors.ParamsError,
        r"1 no longer \('0\.weight'\) and 1 only now \('0\.bias'\)",
    ),
    "mean": (lambda: split(linear(Mean)), errors.ModelError, "mean over the batch"),
    "labels": (lambda: split(linear(Labels)), errors.ModelError, "no derivative"),
    "cache": (lambda: split(linear(Cache)), errors.ModelError, "'cache' is a object; expected"),
    "lazy": (lambda: split(nn.LazyLinear(3)), errors.ModelError, "Run it once"),
    "frozen": (
        lambda: split(linear().requires_grad_(False)),
        errors.ParamsError,
        r"no trainable parameters \(all 2 have requires_grad=False\)",
    ),
    "without parameters": (
        lambda: split(nn.Flatten()),
        errors.ParamsError,
        r"no trainable parameters \(it has none at all\).*requires_grad=True",
    ),
    "filter": (
        lambda: split(linear(), params_filter="nothing/*"),
        errors.ParamsError,
        "keeps no parameter",
    ),
    "head": (
        lambda: split(linear(), heads={"a b": lambda out: out}),
        errors.ModelError,
        "identifiers",
    ),
    "object": (
        lambda: on_probe(linear(), nts.Probe(np.ones((2, 64))))[0].split({"weight": 1}),
        errors.ModelError,
        "split on a dict",
    ),
    "per_sample": (
        lambda: nts.as_model(linear(), per_sample=True),
        errors.ModelError,
        "per_sample= was given with a torch module",
    ),
    "key": (
        lambda: nts.as_model(linear(), key=jax.random.key(0)),
        errors.ModelError,
        "key= was given with a torch module",
    ),
    "method": (
        lambda: nts.as_model(linear(), call_kwargs={"method": "encode"}),
        errors.ModelError,
        "wrap the module",
    ),
    "unsettled": (
        lambda: nts.as_model(linear()).split(linear()),
        errors.ModelError,
        "on_probe",
    ),
    "no probe": (lambda: on_probe(linear(), torch.ones(2)), errors.ProbeError, "Build it with"),
    "equal names": (
        lambda: on_probe(linear(), [nts.Probe(torch.ones(2, 64))] * 2),
        errors.DuplicateNameError,
        "its own name",
    ),
    "not finite": (
        lambda: nts.Probe(torch.full((2, 3), torch.nan)),
        errors.ProbeError,
        "not finite",
    ),
    "attach": (
        lambda: attach(None, linear(), linear()),
        errors.RecordingError,
        r"attach\(recorder, module, optimizer\)",
    ),
    "attach order": (
        lambda: attach(linear(), None, torch.optim.SGD(linear().parameters(), 0.1)),
        errors.RecordingError,
        "expected a Recorder",
    ),
}


@pytest.mark.parametrize(("act", "kind", "message"), CASES.values(), ids=CASES)
@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
def test_refused(act, kind, message):
    with pytest.raises(kind, match=message):
        act()


def test_in_place_operations_are_exact_one_sample_at_a_time():
    module, (x, _) = InPlace(), networks.digits(4)
    model, _ = on_probe(module, nts.Probe(x))
    jacobian, _ = dense_jacobian(module, lambda twin: twin(x.double()))
    assert relative(gram_of(model, module), jacobian @ jacobian.T) < 1e-5


def test_what_torch_func_does_not_know_is_said_and_the_kernel_is_exact():
    module, (x, _) = linear(CustomDerivative), networks.digits(4)
    model, _ = on_probe(module, nts.Probe(x))
    jacobian, _ = dense_jacobian(module, lambda twin: twin(x.double()))
    with pytest.warns(errors.EngineWarning, match="without setup_context"):
        kernel = gram_of(model, module)
    assert relative(kernel, jacobian @ jacobian.T) < 1e-5


def test_second_derivatives_are_refused():
    module, (x, _) = linear(), networks.digits(4)
    model, probe = on_probe(module, nts.Probe(x))
    params, state = model.split(module)
    params = jax.tree.map(jnp.asarray, params)

    def total(params):
        return model.apply(params, state, probe.x)["output"].sum()

    assert float(jnp.abs(jax.grad(total)(params)["bias"]).sum()) > 0
    with pytest.raises(errors.ModelError, match="second derivative"):
        jax.hessian(total)(params)


def test_a_recorder_refuses_at_the_first_call_only(tmp_path):
    module, (x, _) = networks.mlp(), networks.digits(4)
    wrong = nts.Recorder(tmp_path / "a", module, nts.Probe(x[:, :5]), collectors.ntk_spectrum())
    with pytest.raises(errors.ModelError, match="fails on the probe"):
        wrong(0, module)
    recorder = nts.Recorder(tmp_path / "b", module, nts.Probe(x), collectors.param_norm())
    recorder(0, module)
    with pytest.warns(errors.RecordingWarning, match="split on a dict"):
        recorder(1, {})
    assert recorder.close().failures == 1


def test_the_core_never_imports_torch():
    code = (
        "import sys, ntkstats as nts, jax.numpy as jnp, ntkstats.plots, ntkstats.cli\n"
        "nts.as_model(lambda p, x: x @ p)\n"
        "nts.Probe(jnp.ones((2, 3)))\n"
        "bad = {m.split('.')[0] for m in sys.modules} & {'torch', 'transformers', 'lightning'}\n"
        "assert not bad, bad\n"
        "import ntkstats.torch\n"
        "assert 'torch' in sys.modules and 'ntkstats.torch' in sys.modules\n"
        "assert not {'transformers', 'lightning'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
