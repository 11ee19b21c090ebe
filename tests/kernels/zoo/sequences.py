"""Transformers, language models, recurrent networks, layers under a scan."""

from __future__ import annotations

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from .building import KEY, dense_layer, draw, made, of_equinox, of_linen, of_nnx, whole_numbers

N, T = 5, 6
VOCABULARY = 9
TOKENS = whole_numbers(VOCABULARY, N, T, seed=1)
LENGTHS = np.array([6, 3, 5, 4, 6])
SERIES = draw(N, T, 6, seed=2)

# --- encoders ---------------------------------------------------------------------------------


class Encoder(nn.Module):
    """A post-norm block over padded tokens, read out at all of them."""

    @nn.compact
    def __call__(self, x, *, deterministic: bool = False):
        mask = x["mask"]
        h = nn.Embed(VOCABULARY, 8)(x["tokens"])
        h = h + self.param("positions", nn.initializers.normal(0.5), (T, 8))
        pairs = nn.make_attention_mask(mask, mask)
        attention = nn.MultiHeadDotProductAttention(2, dropout_rate=0.1)
        h = nn.LayerNorm()(h + attention(h, mask=pairs, deterministic=deterministic))
        h = nn.LayerNorm()(h + nn.Dense(8)(nn.relu(nn.Dense(16)(h))))
        return nn.DenseGeneral(3, axis=(-2, -1))(h * mask[..., None])


def encoder():
    return of_linen(Encoder(), {"tokens": TOKENS, "mask": np.arange(T) < LENGTHS[:, None]})


def einsum_attention(query, key, value, **_):
    """Softmax attention that stays in the precision of its arguments."""
    scores = jnp.einsum("bthd,bshd->bhts", query, key) / query.shape[-1] ** 0.5
    return jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(scores), value)


class NnxBlock(nnx.Module):
    """Pre-norm attention and a gated feed-forward layer."""

    def __init__(self, rngs, **attention):
        self.norms = nnx.List([nnx.RMSNorm(8, rngs=rngs) for _ in range(2)])
        self.attention = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs, **attention)
        self.up = nnx.Linear(8, 24, rngs=rngs)
        self.down = nnx.Linear(12, 8, rngs=rngs)

    def __call__(self, h):
        h = h + self.attention(self.norms[0](h))
        value, gate = jnp.split(self.up(self.norms[1](h)), 2, -1)
        return h + self.down(value * nnx.silu(gate))


class NnxTransformer(nnx.Module):
    """A block over a series, read out at the mean over time."""

    def __init__(self, rngs):
        self.embed = nnx.Linear(6, 8, rngs=rngs)
        self.positions = nnx.Param(0.5 * jax.random.normal(rngs.params(), (T, 8)))
        self.block = NnxBlock(rngs, attention_fn=einsum_attention)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        h = self.dropout(self.embed(x) + self.positions[...])
        return self.head(self.block(h).mean(1))


class NnxClassifier(nnx.Module):
    """A block over tokens as nnx has it by default: embeddings and attention in float32."""

    def __init__(self, rngs):
        self.embed = nnx.Embed(VOCABULARY, 8, rngs=rngs)
        self.block = NnxBlock(rngs)
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, tokens):
        return self.head(self.block(self.embed(tokens)).mean(1))


# --- language models --------------------------------------------------------------------------


class LanguageModel(nn.Module):
    """A causal block of attention beside a feed-forward layer; the embedding also gives logits."""

    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(VOCABULARY, 8)
        h = embed(tokens) + nn.Embed(T, 8, name="positions")(jnp.arange(tokens.shape[1]))
        causal = nn.make_causal_mask(tokens)
        n = nn.LayerNorm()(h)
        h = h + nn.MultiHeadDotProductAttention(2)(n, mask=causal)
        h = h + nn.Dense(8)(nn.gelu(nn.Dense(16)(n)))
        return embed.attend(nn.LayerNorm()(h))


def language_model():
    """Logits of the next token."""
    return of_linen(LanguageModel(), TOKENS, heads={"output": lambda logits: logits[:, -1]})


class Likelihood(nn.Module):
    """Log-likelihood of a sequence."""

    @nn.compact
    def __call__(self, tokens):
        logits = nn.log_softmax(LanguageModel()(tokens[:, :-1]))
        return jnp.take_along_axis(logits, tokens[:, 1:, None], -1)[..., 0].sum(1)


def likelihood():
    return of_linen(Likelihood(), TOKENS)


# --- recurrent networks -----------------------------------------------------------------------


class Recurrent(nn.Module):
    """A recurrent layer over time and a read-out of its last state."""

    cell: type[nn.RNNCellBase]

    @nn.compact
    def __call__(self, x):
        cell = self.cell(24)
        # The cell's own carry is float32 whatever the inputs are.
        carry = jax.tree.map(
            lambda leaf: leaf.astype(x.dtype), cell.initialize_carry(KEY, x[:, 0].shape)
        )
        h = nn.RNN(cell)(x, initial_carry=carry)
        return nn.Dense(3)(h[:, -1])


class EquinoxGRU(eqx.Module):
    """A GRU scanned over one sequence, read out by attention over time."""

    cell: eqx.nn.GRUCell
    score: eqx.nn.Linear
    head: eqx.nn.Linear

    def __init__(self, key):
        k1, k2, k3 = jax.random.split(key, 3)
        self.cell = eqx.nn.GRUCell(6, 8, key=k1)
        self.score = eqx.nn.Linear(8, "scalar", use_bias=False, key=k2)
        self.head = eqx.nn.Linear(8, 3, key=k3)

    def __call__(self, x):
        def step(carry, x):
            carry = self.cell(x, carry)
            return carry, carry

        _, states = jax.lax.scan(step, jnp.zeros(8, x.dtype), x)
        weights = jax.nn.softmax(jax.vmap(self.score)(states))
        return self.head(weights @ states)


# --- scans over layers ------------------------------------------------------------------------


class ScannedBlock(nn.Module):
    @nn.compact
    def __call__(self, h, _):
        h = h + nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(h))
        return h + nn.Dense(8)(nn.gelu(nn.Dense(16)(nn.LayerNorm()(h)))), None


class ScannedTransformer(nn.Module):
    """Blocks scanned over their stacked parameters and computed again on the way back."""

    @nn.compact
    def __call__(self, tokens):
        h = nn.Embed(VOCABULARY, 8)(tokens) + nn.Embed(T, 8)(jnp.arange(T))
        blocks = nn.scan(
            nn.remat(ScannedBlock, prevent_cse=False),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=2,
        )
        h, _ = blocks(name="blocks")(h, None)
        return nn.Dense(3)(nn.LayerNorm()(h).mean(1))


def stacked_layers(params, x):
    """Residual layers in a `lax.scan` with checkpoints, no framework."""

    @jax.checkpoint
    def layer(h, p):
        return h + jax.nn.gelu(h @ p["w"] + p["b"]), None

    h = jnp.tanh(x @ params["in"]["w"] + params["in"]["b"])
    h, _ = jax.lax.scan(layer, h, params["layers"])
    return h.mean(1) @ params["out"]["w"] + params["out"]["b"]


def scanned_plain():
    layers = [dense_layer(32, 32, i) for i in range(3)]
    params = {
        "in": dense_layer(6, 32, 20),
        "layers": jax.tree.map(lambda *leaves: np.stack(leaves), *layers),
        "out": dense_layer(32, 3, 21),
    }
    return made(stacked_layers, params, SERIES[:, :2])


SYSTEMS = {
    "encoder": encoder,
    "nnx_transformer": lambda: of_nnx(NnxTransformer, SERIES),
    "nnx_float32": lambda: of_nnx(NnxClassifier, TOKENS),
    "language_model": language_model,
    "likelihood": likelihood,
    "gru": lambda: of_linen(Recurrent(nn.GRUCell), SERIES),
    "lstm": lambda: of_linen(Recurrent(nn.OptimizedLSTMCell), SERIES),
    "gru_equinox": lambda: of_equinox(EquinoxGRU, SERIES),
    "scanned_transformer": lambda: of_linen(ScannedTransformer(), TOKENS),
    "scanned_plain": scanned_plain,
}
