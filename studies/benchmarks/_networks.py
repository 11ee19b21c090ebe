"""The networks of the engine benchmark: plain functions that run under any JAX from 0.4.25 on.

Peers live in environments of their own, so nothing here imports ntkstats or anything else that
an old JAX lacks. Parameters are numpy arrays from a seed: every process gets the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Arrays = dict[str, Any]
Apply = Callable[[Arrays, Arrays, Any], Any]

ENTRY = {
    "mlp": "dense0/b",
    "cnn": "conv0/b",
    "resnet18": "stem/shift",
    "transformer": "position",
    "decoder": "position",
}
"""Parameter that is added to the first activations: what reaches it has gone all the way back."""


class Layer(NamedTuple):
    """A matrix and how often one sample passes through it, for counting operations.

    Attributes
    ----------
    positions
        Tokens or pixels of one sample at which the matrix is applied.
    fan_in, fan_out
        Its shape; a convolution's is that of its patches.
    """

    positions: int
    fan_in: int
    fan_out: int


class Network(NamedTuple):
    """A function, its arguments and what a cost model needs to know.

    Attributes
    ----------
    kind
        Name of the function, see `function`.
    settings
        Its keyword arguments.
    params
        What is differentiated; float32.
    constants
        What is not: the statistics of norms in evaluation mode.
    x
        Inputs ``(N, ...)``.
    n_outputs
        C.
    layers
        Every matrix product with a parameter; lookups are none.
    mixing
        FLOP of one sample's forward pass in products without a parameter (attention).
    """

    kind: str
    settings: dict[str, Any]
    params: Arrays
    constants: Arrays
    x: Any
    n_outputs: int
    layers: tuple[Layer, ...]
    mixing: int = 0

    @property
    def apply(self) -> Apply:
        """``apply(params, constants, x) -> (N, C)``."""
        return function(self.kind, self.settings)


class _Draw:
    """Collects named parameters; no bias is zero and no scale is one, so that none is special."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.params: Arrays = {}
        self.constants: Arrays = {}
        self.layers: list[Layer] = []

    def normal(self, *shape: int, scale: float = 1.0, mean: float = 0.0) -> Any:
        noise = self._rng.standard_normal(shape, dtype=np.float32)
        return np.float32(mean) + np.float32(scale) * noise

    def integers(self, high: int, *shape: int) -> Any:
        return self._rng.integers(0, high, shape).astype(np.int32)

    def dense(self, name: str, fan_in: int, fan_out: int, positions: int = 1) -> None:
        self.params[f"{name}/w"] = self.normal(fan_in, fan_out, scale=fan_in**-0.5)
        self.params[f"{name}/b"] = self.normal(fan_out, scale=0.1)
        self.layers.append(Layer(positions, fan_in, fan_out))

    def convolution(self, name: str, size: int, c_in: int, c_out: int, positions: int) -> None:
        fan_in = size * size * c_in
        self.params[f"{name}/w"] = self.normal(size, size, c_in, c_out, scale=(2 / fan_in) ** 0.5)
        self.layers.append(Layer(positions, fan_in, c_out))

    def norm(self, name: str, width: int) -> None:
        self.params[f"{name}/scale"] = self.normal(width, scale=0.1, mean=1.0)
        self.params[f"{name}/shift"] = self.normal(width, scale=0.1)

    def statistics(self, name: str, width: int) -> None:
        self.norm(name, width)
        self.constants[f"{name}/mean"] = self.normal(width, scale=0.1)
        self.constants[f"{name}/var"] = np.exp(self.normal(width, scale=0.1))


def mlp(n_in: int, width: int, classes: int, n: int, hidden: int = 3) -> Network:
    """ReLU network with `hidden` layers of one width."""
    draw = _Draw(0)
    sizes = (n_in, *[width] * hidden, classes)
    for i in range(hidden + 1):
        draw.dense(f"dense{i}", sizes[i], sizes[i + 1])
    x = draw.normal(n, n_in)
    return Network("mlp", {"hidden": hidden}, draw.params, {}, x, classes, tuple(draw.layers))


def cnn(channels: int, classes: int, n: int, size: int = 28) -> Network:
    """Three 3x3 convolutions (strides 1, 2, 2), mean over positions, dense."""
    draw = _Draw(1)
    widths = (1, channels, 2 * channels, 2 * channels)
    for i in range(3):
        side = -(-size // 2**i)
        draw.convolution(f"conv{i}", 3, widths[i], widths[i + 1], side * side)
        draw.params[f"conv{i}/b"] = draw.normal(widths[i + 1], scale=0.1)
    draw.dense("out", widths[-1], classes)
    x = draw.normal(n, size, size, 1)
    return Network("cnn", {}, draw.params, {}, x, classes, tuple(draw.layers))


def resnet18(width: int, classes: int, n: int, size: int = 32) -> Network:
    """ResNet-18 with norms in evaluation mode: CIFAR stem up to 64 pixels a side, else ImageNet's.

    Width 64 is the published network.
    """
    draw = _Draw(2)
    small = size <= 64
    side = size if small else -(-size // 2)
    draw.convolution("stem", 3 if small else 7, 3, width, side * side)
    draw.statistics("stem", width)
    side = side if small else -(-side // 2)
    c_in = width
    for i in range(8):
        c_out = width * 2 ** (i // 2)
        side = -(-side // 2) if _stride(i) == 2 else side
        draw.convolution(f"block{i}/one", 3, c_in, c_out, side * side)
        draw.statistics(f"block{i}/one", c_out)
        draw.convolution(f"block{i}/two", 3, c_out, c_out, side * side)
        draw.statistics(f"block{i}/two", c_out)
        if c_in != c_out:
            draw.convolution(f"block{i}/skip", 1, c_in, c_out, side * side)
            draw.statistics(f"block{i}/skip", c_out)
        c_in = c_out
    draw.dense("out", c_in, classes)
    x = draw.normal(n, size, size, 3)
    settings = {"small": small}
    layers = tuple(draw.layers)
    return Network("resnet18", settings, draw.params, draw.constants, x, classes, layers)


def transformer(
    width: int, depth: int, length: int, vocabulary: int, classes: int, n: int, heads: int = 4
) -> Network:
    """Pre-norm encoder on tokens, mean over positions, dense."""
    draw = _Draw(3)
    draw.params["embedding"] = draw.normal(vocabulary, width)
    _draw_blocks(draw, width, depth, length)
    draw.dense("out", width, classes)
    x = draw.integers(vocabulary, n, length)
    settings = {"depth": depth, "heads": heads}
    mixing = depth * 4 * length * length * width
    layers = tuple(draw.layers)
    return Network("transformer", settings, draw.params, {}, x, classes, layers, mixing)


def decoder(
    width: int, depth: int, length: int, vocabulary: int, n: int, heads: int = 4
) -> Network:
    """Causal language model with tied embeddings (GPT-2's form).

    The one output is the mean log-likelihood of each sample's tokens given those before them;
    samples are ``length + 1`` tokens long.
    """
    draw = _Draw(4)
    draw.params["embedding"] = draw.normal(vocabulary, width, scale=width**-0.5)
    _draw_blocks(draw, width, depth, length)
    draw.layers.append(Layer(length, width, vocabulary))
    x = draw.integers(vocabulary, n, length + 1)
    settings = {"depth": depth, "heads": heads}
    mixing = depth * 4 * length * length * width
    return Network("decoder", settings, draw.params, {}, x, 1, tuple(draw.layers), mixing)


def _draw_blocks(draw: _Draw, width: int, depth: int, length: int) -> None:
    draw.params["position"] = draw.normal(length, width, scale=0.1)
    for i in range(depth):
        draw.norm(f"block{i}/norm1", width)
        draw.dense(f"block{i}/qkv", width, 3 * width, length)
        draw.dense(f"block{i}/mix", width, width, length)
        draw.norm(f"block{i}/norm2", width)
        draw.dense(f"block{i}/up", width, 4 * width, length)
        draw.dense(f"block{i}/down", 4 * width, width, length)
    draw.norm("norm", width)


def function(kind: str, settings: dict[str, Any]) -> Apply:
    """A network's function by name; this is how another process gets it."""
    functions: dict[str, Callable[..., Any]] = {
        "mlp": _mlp,
        "cnn": _cnn,
        "resnet18": _resnet18,
        "transformer": _transformer,
        "decoder": _decoder,
    }
    return partial(functions[kind], **settings)


def _mlp(p: Arrays, _: Arrays, x: Any, *, hidden: int) -> Any:
    for i in range(hidden):
        x = jax.nn.relu(_dense(p, f"dense{i}", x))
    return _dense(p, f"dense{hidden}", x)


def _cnn(p: Arrays, _: Arrays, x: Any) -> Any:
    for i in range(3):
        x = jax.nn.relu(_convolution(p, f"conv{i}", x, 1 if i == 0 else 2) + p[f"conv{i}/b"])
    return _dense(p, "out", x.mean((1, 2)))


def _resnet18(p: Arrays, c: Arrays, x: Any, *, small: bool) -> Any:
    x = jax.nn.relu(_fixed_norm(p, c, "stem", _convolution(p, "stem", x, 1 if small else 2)))
    if not small:
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
    for i in range(8):
        one, two, skip = (f"block{i}/{part}" for part in ("one", "two", "skip"))
        y = jax.nn.relu(_fixed_norm(p, c, one, _convolution(p, one, x, _stride(i))))
        y = _fixed_norm(p, c, two, _convolution(p, two, y, 1))
        if f"{skip}/w" in p:
            x = _fixed_norm(p, c, skip, _convolution(p, skip, x, _stride(i)))
        x = jax.nn.relu(x + y)
    return _dense(p, "out", x.mean((1, 2)))


def _transformer(p: Arrays, _: Arrays, x: Any, *, depth: int, heads: int) -> Any:
    h = p["embedding"][x] + p["position"]
    h = _blocks(p, h, depth, heads, causal=False)
    return _dense(p, "out", h.mean(1))


def _decoder(p: Arrays, _: Arrays, x: Any, *, depth: int, heads: int) -> Any:
    tokens, following = x[:, :-1], x[:, 1:]
    h = p["embedding"][tokens] + p["position"]
    h = _blocks(p, h, depth, heads, causal=True)
    scores = jax.nn.log_softmax(h @ p["embedding"].T)
    likelihood = jnp.take_along_axis(scores, following[..., None], axis=-1)
    return likelihood.mean((1, 2))[:, None]


def _blocks(p: Arrays, h: Any, depth: int, heads: int, *, causal: bool) -> Any:
    for i in range(depth):
        name = f"block{i}"
        h = h + _attention(p, name, _layer_norm(p, f"{name}/norm1", h), heads, causal=causal)
        y = jax.nn.gelu(_dense(p, f"{name}/up", _layer_norm(p, f"{name}/norm2", h)))
        h = h + _dense(p, f"{name}/down", y)
    return _layer_norm(p, "norm", h)


def _attention(p: Arrays, name: str, h: Any, heads: int, *, causal: bool) -> Any:
    n, length, width = h.shape
    split = (n, length, heads, width // heads)
    q, k, v = (part.reshape(split) for part in jnp.split(_dense(p, f"{name}/qkv", h), 3, axis=-1))
    scores = jnp.einsum("nthd,nshd->nhts", q, k) / np.float32((width // heads) ** 0.5)
    if causal:
        scores = jnp.where(np.tri(length, dtype=bool), scores, np.float32(-1e9))
    mixed = jnp.einsum("nhts,nshd->nthd", jax.nn.softmax(scores), v)
    return _dense(p, f"{name}/mix", mixed.reshape(n, length, width))


def _dense(p: Arrays, name: str, x: Any) -> Any:
    return x @ p[f"{name}/w"] + p[f"{name}/b"]


def _convolution(p: Arrays, name: str, x: Any, stride: int) -> Any:
    dimensions = ("NHWC", "HWIO", "NHWC")
    w = p[f"{name}/w"]
    return jax.lax.conv_general_dilated(
        x, w, (stride, stride), "SAME", dimension_numbers=dimensions
    )


def _layer_norm(p: Arrays, name: str, x: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    spread = jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return centred / spread * p[f"{name}/scale"] + p[f"{name}/shift"]


def _fixed_norm(p: Arrays, c: Arrays, name: str, x: Any) -> Any:
    scaled = (x - c[f"{name}/mean"]) / jnp.sqrt(c[f"{name}/var"] + 1e-5)
    return scaled * p[f"{name}/scale"] + p[f"{name}/shift"]


def _stride(block: int) -> int:
    """Each stage after the first halves the map."""
    return 2 if block in (2, 4, 6) else 1
