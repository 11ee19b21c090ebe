"""The engine benchmark: its networks, worker processes, floors, fits and figure."""

import math
import sys
from functools import partial
from typing import ClassVar

import jax
import numpy as np
import pytest
from scipy import stats

import ntkstats as nts
from studies.benchmarks import __main__ as command
from studies.benchmarks import (
    _cases,
    _floors,
    _networks,
    _scaling_figure,
    _worker,
    _workers,
    engine,
    scaling,
    shares,
)
from studies.benchmarks._networks import Layer, Network
from studies.benchmarks._workers import WorkerError, WorkerLimitError, WorkerProcess

TINY = {
    "mlp": lambda: _networks.mlp(5, 16, 3, 2),
    "cnn": lambda: _networks.cnn(2, 3, 2, size=7),
    "resnet18": lambda: _networks.resnet18(2, 3, 2, size=9),
    "transformer": lambda: _networks.transformer(8, 1, 5, 7, 3, 2, heads=2),
    "decoder": lambda: _networks.decoder(8, 1, 5, 7, 2, heads=2),
}


@pytest.fixture(params=TINY)
def network(request):
    return TINY[request.param]()


def test_every_parameter_moves_every_sample(network):
    """And what ``backward`` carries is the Jacobian of the parameter next to the input."""
    entry = _networks.ENTRY[network.kind]
    arrays = jax.tree.map(jax.numpy.asarray, (network.params, network.constants, network.x))
    carried = _worker._carry_back(_worker.Loaded(network.apply, *arrays, entry))()

    # Compiled once and run once: optimising takes longer than it saves.
    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def jacobian_of(params, constants, x):
        return jax.jacrev(network.apply)(params, constants, x)

    jacobian = jacobian_of(*arrays)
    n, c = len(network.x), network.n_outputs
    for name, leaf in jacobian.items():
        assert leaf.dtype == np.float32
        assert leaf.shape == (n, c, *network.params[name].shape)
        assert np.isfinite(leaf).all(), name
        assert (np.abs(leaf).reshape(n, c, -1).max((1, 2)) > 0).all(), name
    expected = jacobian[entry]
    np.testing.assert_allclose(carried, expected, atol=1e-5 * np.abs(expected).max())


def test_layers_name_every_matrix(network):
    """Matrices of the cost model are those of the parameters; a tied one is used as well."""
    lookups = {"position"} | ({"embedding"} if network.kind == "transformer" else set())
    matrices = [p for name, p in network.params.items() if p.ndim > 1 and name not in lookups]
    assert sum(layer.fan_in * layer.fan_out for layer in network.layers) == sum(
        matrix.size for matrix in matrices
    )


def test_operations_of_the_forward_pass_are_those_that_xla_counts():
    for make in (TINY["mlp"], lambda: _networks.transformer(64, 2, 32, 7, 3, 2)):
        network = make()
        compiled = jax.jit(network.apply).lower(network.params, network.constants, network.x)
        counted = compiled.compile().cost_analysis()["flops"]
        assert 0.7 * counted < _floors.forward(network) <= counted


def test_resnet18_is_the_published_one():
    large = _networks.resnet18(64, 1000, 1, size=224)
    assert sum(p.size for p in large.params.values()) == 11_689_512
    outputs = jax.eval_shape(large.apply, large.params, large.constants, large.x)
    assert outputs.shape == (1, 1000)
    assert _floors.forward(large) / 2 == pytest.approx(1.814e9, rel=0.005)
    network = _networks.resnet18(64, 10, 1)
    assert sum(p.size for p in network.params.values()) == 11_173_962
    # 0.56 G multiply-adds on 32 x 32.
    assert _floors.forward(network) / 2 == pytest.approx(0.556e9, rel=0.01)


def test_gpt2_is_the_published_one():
    network = _networks.decoder(768, 12, 1024, 50257, 1, heads=12)
    assert sum(p.size for p in network.params.values()) == 124_439_808


def test_decoder_is_causal_and_a_likelihood():
    """Over all last tokens, the likelihoods of a text add up to that of its beginning."""
    vocabulary, length = 7, 5
    network = _networks.decoder(8, 2, length, vocabulary, 1, heads=2)
    start = np.tile(network.x[:, :-1], (vocabulary, 1))
    ends = np.concatenate([start, np.arange(vocabulary)[:, None]], axis=1)
    apply = jax.jit(network.apply)
    whole = length * apply(network.params, {}, ends)[:, 0]
    shorter = network.params | {"position": network.params["position"][:-1]}
    beginning = (length - 1) * apply(shorter, {}, start[:1])[0, 0]
    assert jax.nn.logsumexp(whole) == pytest.approx(float(beginning), abs=1e-5)


def test_floors_by_hand():
    layers = (Layer(1, 3, 5), Layer(1, 5, 2))
    network = Network("mlp", {}, {"a": np.zeros(25)}, {}, np.zeros((4, 3)), 2, layers)
    assert _floors.forward(network) == 4 * (2 * 15 + 2 * 10)
    assert _floors.backward(network) == 4 * 2 * 2 * 10
    pairs = 10
    assert _floors.contraction(network) == pairs * 2 * (3 + 4 * 6) + pairs * 2 * (5 + 4 * 3)
    assert _floors.eigenvalues(3) == 36
    assert _floors.factor_bytes(network) == 4 * (4 * (3 + 10 + 5 + 4) + 64)


def test_contraction_takes_the_cheaper_order():
    x = np.zeros((1, 3))
    long = Network("cnn", {}, {}, {}, x, 1, (Layer(1000, 3, 5),))
    # Forming the weight gradient: 2 T din dout, and one product of it with itself.
    assert _floors.contraction(long) == 2 * 1000 * 15 + 2 * 15


def test_worker_computes_the_kernel_of_what_it_is_sent():
    network = TINY["mlp"]()
    network = network._replace(x=network.x[::-1].copy())  # not what its function would draw
    with WorkerProcess(sys.executable, "ntkstats", 120) as worker:
        worker.load(network)
        with pytest.raises(WorkerError, match=r"KernelError: method='guess' was given"):
            worker.compile("guess")
        told = worker.compile("reference")
        assert told["compile"] > 0
        assert "method reference" in told["plan"]
        kernel = worker.kernel()
        assert 0 < worker.seconds(calls=2) < 1
        peaks = worker.peaks()
    assert peaks["whole"] > 0
    assert 0 < peaks["run"] < 2 * peaks["whole"]
    assert peaks["program"] > 0
    assert told["reserved"] >= kernel.nbytes
    model = nts.as_model(network.apply, has_state=True)
    params, state = model.split((network.params, network.constants))
    expected = nts.empirical_ntk(model, params, state, network.x, method="reference").matrix
    np.testing.assert_allclose(kernel, expected, rtol=1e-5)


def test_worker_measures_parts():
    with WorkerProcess(sys.executable, "parts", 120) as worker:
        worker.load(TINY["mlp"]())
        assert worker.compile("eigenvalues")["n"] == 2 * 3
        worker.compile("backward")
        assert worker.kernel().shape == (2, 3, 16)
        assert worker.compile("gemm")["flop"] == 2 * 2048**3


def test_worker_that_takes_too_long_or_too_much_is_ended(monkeypatch):
    with WorkerProcess(sys.executable, "ntkstats", 0.1) as worker:
        with pytest.raises(WorkerLimitError, match="did not finish in 0 s"):
            worker.load(TINY["mlp"]())
        assert worker._process.wait() < 0
    monkeypatch.setattr(_workers, "MEMORY_LIMIT", 2**20)
    with (
        WorkerProcess(sys.executable, "ntkstats", 120) as worker,
        pytest.raises(WorkerLimitError, match="needed more than 0 GiB"),
    ):
        worker.load(TINY["mlp"]())


def test_worker_without_its_package_says_so():
    with (
        WorkerProcess(sys.executable, "no-such-package", 120) as worker,
        pytest.raises(WorkerError, match="no-such-package"),
    ):
        worker.load(TINY["mlp"]())


class Scripted:
    """A worker that takes the seconds it was told."""

    def __init__(self, *seconds):
        self.left = list(seconds)

    def seconds(self, calls):
        return self.left.pop(0)


def test_peers_are_timed_next_to_ours():
    ours = Scripted(1.0, 2.0, 1.0)
    fast, slow = engine.Peer(3, runs=2), engine.Peer(1, runs=1)
    mine = engine._alternate(ours, 1, {Scripted(3.0, 5.0): fast, Scripted(8.0): slow}, 2)
    assert mine == [1.0, 2.0, 1.0]
    assert fast.ratios == [3.0, 5.0]
    assert slow.ratios == [4.0]


def peers(**second):
    first = {"seconds": [3.0, 5.0], "ratios": [30.0, 50.0], "difference": 1e-7}
    return {
        1: engine.Peer(1, **first, peaks={"whole": 40 * 2**20, "run": 8 * 2**20, "program": 2**20}),
        2: engine.Peer(2, **second),
        3: engine.Peer(3, failure="did not finish in 280 s"),
    }


def test_row_takes_the_best_implementation():
    case = _cases.Case("k", TINY["mlp"], speedup=2.0, speedup_default=50)
    peaks = {"whole": 10 * 2**20, "run": 4 * 2**20, "program": 2**20}
    second = {"seconds": [0.2, 0.4], "ratios": [2.5, 3.5], "difference": 2e-5, "peaks": peaks}
    row = engine._row(
        case, [0.1, 0.1, 0.1], {"whole": 2**20, "run": 2**20, "program": 2**19}, peers(**second)
    )
    assert (row.ours, row.peer, row.ratio) == (0.1, pytest.approx(0.3), 3.0)
    more = row.more
    assert more["implementation 1"].value == 4.0
    assert more["implementation 3"].note == "did not finish in 280 s"
    assert (more["times faster than 1"].value, more["times faster than 1"].holds) == (40.0, False)
    assert (more["memory, ours / best"].value, more["memory, ours / best"].holds) == (0.1, True)
    assert more["memory of a run, ours / best"].value == 0.25
    assert more["buffers of the program, ours / best"].value == 0.5
    assert (more["difference"].value, more["difference"].holds) == (2e-5, False)
    assert row.bar == 2.0
    assert not row.holds


def test_what_the_peer_does_not_say_has_no_ratio():
    case = _cases.Case("k", TINY["mlp"], speedup=2.0)
    second = {"seconds": [0.2], "ratios": [2.5], "difference": 2e-5}
    theirs = {"whole": 2**20, "run": 2**20, "program": 0}
    row = engine._row(case, [0.1], theirs | {"program": 1}, peers(**second, peaks=theirs))
    assert row.more["buffers of the program, ours / best"].value is None
    assert row.more["memory of a run, ours / best"].value == 1.0


def test_row_without_any_peer_has_no_ratio():
    case = _cases.Case("k", TINY["mlp"], speedup=2.0)
    none = {n: engine.Peer(n, failure="needed more than 8 GiB") for n in (1, 2, 3)}
    row = engine._row(case, [0.1], {"whole": 1, "run": 1, "program": 1}, none)
    assert (row.ours, row.peer, row.ratio, row.bar) == (0.1, None, None, None)
    assert not row.more["difference"].holds


class Fake:
    """A worker process that knows what it would answer."""

    times: ClassVar = {"kernel": 0.4, "backward": 0.1, "eigenvalues": 0.2, "gemm": 0.5}

    def __init__(self, python, package, limit):
        self.package = package

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def load(self, network):
        self.n = len(network.x)

    def compile(self, method):
        self.part = "kernel" if self.package == "ntkstats" else method
        return {"first": 1.0, "flop": 1000, "reserved": 10 * self.n}

    def seconds(self, calls):
        return self.times[self.part] * self.n


def test_shares_compare_each_part_with_its_floor(monkeypatch):
    monkeypatch.setattr(shares, "WorkerProcess", Fake)
    network = TINY["mlp"]()
    case = _cases.Case("k", lambda: network)
    rows = {row.case: row for row in shares.measured(case, 3, "auto", bar=0.9)}
    assert list(rows) == ["k: backward", "k: kernel", "k: eigenvalues"]
    rate = 1000 / (2 * 0.5)
    kernel = rows["k: kernel"]
    assert kernel.peer == pytest.approx(_floors.kernel(network) / rate)
    assert kernel.ratio == pytest.approx(kernel.peer / 0.8)
    assert (kernel.bar, rows["k: backward"].bar) == (0.9, None)
    carried = _floors.forward(network) + _floors.backward(network)
    assert rows["k: backward"].peer == pytest.approx(carried / rate)
    assert rows["k: eigenvalues"].peer == pytest.approx(_floors.eigenvalues(6) / rate)
    assert rows["k: eigenvalues"].more["of the kernel's time"].value == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["engine", "--gpu"], "--gpu: the peer's environment is for CPU only"),
        (["engine", "--cases", "mpl"], "--cases mpl: expected some of mlp, cnn"),
        (["engine", "--gpu", "--no-peers", "--cases", "mlp"], "expected some of fcn"),
        (["engine", "--no-peers", "--repeats", "0"], "--repeats 0: expected at least 1"),
        (["shares", "--cases", "gpt2"], "--cases gpt2: expected some of mlp"),
        (["scaling", "--repeats", "-1"], "--repeats -1: expected at least 1"),
    ],
)
def test_bad_options_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(arguments)
    assert message in capsys.readouterr().err


def test_missing_environment_of_the_peer_is_said(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(engine, "PEER_PYTHON", tmp_path / "python")
    with pytest.raises(SystemExit, match="2"):
        command.main(["engine"])
    assert "make peers" in capsys.readouterr().err


def test_exponent_is_that_of_the_power_law():
    size = np.array([2.0, 4.0, 8.0, 16.0, 32.0])
    exponent, half = scaling.slope(size, 3 * size**1.5)
    assert exponent == pytest.approx(1.5)
    assert half == pytest.approx(0, abs=1e-6)
    noise = np.exp([0.1, -0.1, 0.05, -0.1, 0.1])
    exponent, half = scaling.slope(size, size * noise)
    # The textbook form of the interval, by hand.
    x, y = np.log(size), np.log(size * noise)
    residual = y - np.polyval(np.polyfit(x, y, 1), x)
    error = math.sqrt((residual @ residual) / 3 / ((x - x.mean()) ** 2).sum())
    assert half == pytest.approx(stats.t.ppf(0.975, 3) * error)


def fabricated(network, axis, exponent):
    size = [1, 2, 4, 8, 16]
    return {
        "axis": axis,
        "network": network,
        "size": size,
        "seconds": [1e-3 * s**exponent for s in size],
        "bytes": [2**20 * s for s in size],
        "operations": [s**2 for s in size],
        "factors": [s**1 for s in size],
    }


def test_rows_hold_exponent_cost_model_and_interval():
    time, memory = scaling.fitted(fabricated("MLP", "N", 1.5))
    assert (time.case, memory.case) == ("MLP: time against N", "MLP: memory against N")
    assert (time.ours, time.peer, time.ratio) == tuple(map(pytest.approx, (1.5, 2.0, 0.75)))
    assert time.more["95 % interval"].note == "1.50 to 1.50"
    assert memory.ratio == pytest.approx(1.0)


def test_axes_vary_one_size_around_one_base():
    def sizes(network):
        parameters = sum(p.size for p in network.params.values())
        positions = network.layers[0].positions
        return {"N": len(network.x), "C": network.n_outputs, "P": parameters, "T": positions}

    for axis in scaling.AXES:
        build, base = scaling.BASES[axis.network]
        usual = sizes(build(**base))
        ends = [sizes(axis.make(value)) for value in (axis.values[0], axis.values[-1])]
        assert ends[0][axis.name] < usual[axis.name] < ends[1][axis.name]
        # The number of parameters follows C and T a little.
        for other in {"N", "C", "T"} - {axis.name}:
            assert ends[0][other] == ends[1][other] == usual[other]


def test_an_axis_is_measured_point_by_point(monkeypatch):
    monkeypatch.setattr(scaling, "WorkerProcess", Fake)
    axis = scaling.Axis("N", "MLP", "n", (2, 4))
    series = scaling.measured(axis, "auto", repeats=3)
    assert (series["axis"], series["network"], series["size"]) == ("N", "MLP", [2, 4])
    assert series["seconds"] == pytest.approx([0.8, 1.6])
    assert series["bytes"] == [20, 40]
    assert series["operations"] == [_floors.kernel(axis.make(n)) for n in (2, 4)]
    parameters = scaling.measured(scaling.Axis("P", "MLP", "width", (3, 4)), "auto", repeats=1)
    assert parameters["size"] == [64 * w + 2 * w * w + 7 * w + 4 for w in (3, 4)]


def test_figure_of_the_same_points_is_the_same_file(tmp_path):
    series = [
        fabricated(network, axis, 1.2)
        for axis in _scaling_figure.PANELS
        for network in _scaling_figure.COLOURS
    ]
    first, second = tmp_path / "a.svg", tmp_path / "b.svg"
    _scaling_figure.draw(series, first)
    _scaling_figure.draw(series, second)
    assert first.read_bytes() == second.read_bytes()
    assert first.read_text().startswith("<?xml")
