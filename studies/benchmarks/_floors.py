"""What a kernel cannot do without, counted in floating-point operations.

Products with a parameter and attention only: biases, norms, lookups and nonlinearities are
left out, so nothing reaches these floors.
"""

from __future__ import annotations

from studies.benchmarks._networks import Layer, Network


def forward(network: Network) -> float:
    """FLOP of the forward pass of all samples."""
    products = sum(2 * layer.positions * layer.fan_in * layer.fan_out for layer in network.layers)
    return len(network.x) * (products + network.mixing)


def backward(network: Network) -> float:
    """FLOP of carrying every output's gradient to the first layer, weight gradients left out."""
    # Nothing has to go through the first matrix, unless an embedding comes before it.
    inner = network.layers if "embedding" in network.params else network.layers[1:]
    products = sum(2 * layer.positions * layer.fan_in * layer.fan_out for layer in inner)
    return len(network.x) * network.n_outputs * (products + 2 * network.mixing)


def contraction(network: Network) -> float:
    """FLOP of the Gram matrix from layer inputs and output gradients, one triangle."""
    return sum(_contraction(layer, len(network.x), network.n_outputs) for layer in network.layers)


def kernel(network: Network) -> float:
    """FLOP of the whole kernel."""
    return forward(network) + backward(network) + contraction(network)


def eigenvalues(n: int) -> float:
    """FLOP of a reduction to tridiagonal form (Golub and Van Loan, 2013)."""
    return 4 / 3 * n**3


def factor_bytes(network: Network) -> float:
    """Bytes in float32 of the kernel, and of all layers' inputs and output gradients."""
    n, n_outputs = len(network.x), network.n_outputs
    factors = sum(
        layer.positions * (layer.fan_in + n_outputs * layer.fan_out) for layer in network.layers
    )
    return 4.0 * (n * factors + (n * n_outputs) ** 2)


def _contraction(layer: Layer, n: int, n_outputs: int) -> float:
    """Cheaper of pairing inputs and gradients, and of pairing weight gradients.

    The two orders are those of Novak et al. (2022), *Fast finite width neural tangent kernel*.
    """
    pairs = n * (n + 1) / 2
    positions, fan_in, fan_out = layer
    paired = 2 * pairs * positions**2 * (fan_in + n_outputs**2 * (fan_out + 1))
    formed = 2 * fan_in * fan_out * (n * n_outputs * positions + pairs * n_outputs**2)
    return min(paired, formed)
