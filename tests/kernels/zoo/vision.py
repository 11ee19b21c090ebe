"""Convolutional networks of every geometry, and networks on images."""

from __future__ import annotations

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from .building import draw, of_equinox, of_linen

N = 5
IMAGES = draw(N, 9, 9, 2, seed=1)


class StridedCNN(nn.Module):
    """One convolution with strides, uneven padding and a mean over the four pixels left."""

    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.Conv(16, (7, 6), strides=(5, 6), padding="SAME")(x))
        return nn.Dense(3)(x.mean((1, 2)))


class PoolingCNN(nn.Module):
    """Strides, both kinds of pooling and of padding, on an odd image."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(6, (3, 3), padding="SAME")(x))
        x = nn.max_pool(x, (2, 2), strides=(2, 2), padding="SAME")  # 5 x 5
        x = nn.relu(nn.Conv(12, (3, 3), strides=(2, 2), padding="VALID")(x))  # 2 x 2
        x = nn.avg_pool(x, (2, 1), strides=(1, 1))
        return nn.Dense(3)(x.reshape(x.shape[0], -1))


class DilatedCNN(nn.Module):
    """Dilation with and without padding and strides; an even kernel padded unevenly."""

    @nn.compact
    def __call__(self, x):
        x = nn.gelu(nn.Conv(6, (3, 3), kernel_dilation=(2, 2), padding="VALID")(x))
        x = nn.gelu(nn.Conv(6, (2, 4), (2, 1), kernel_dilation=(2, 1), padding="SAME")(x))
        return nn.Dense(3)(x.reshape(x.shape[0], -1))


class SeparableCNN(nn.Module):
    """Depthwise and grouped convolutions between pointwise ones, as in mobile networks."""

    @nn.compact
    def __call__(self, x):
        x = nn.swish(nn.Conv(8, (1, 1))(x))
        x = nn.swish(nn.Conv(8, (3, 3), strides=(2, 2), feature_group_count=8)(x))
        x = nn.swish(nn.Conv(12, (3, 3), padding="VALID", feature_group_count=4)(x))
        return nn.Dense(3)(x.mean((1, 2)))


class CausalCNN(nn.Module):
    """A stack of dilated causal convolutions over time with gates."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(8, (1,))(x)
        for rate in (1, 2, 4):
            both = nn.Conv(16, (2,), kernel_dilation=rate, padding="CAUSAL")(x)
            value, gate = jnp.split(both, 2, -1)
            x = x + nn.Conv(8, (1,))(jnp.tanh(value) * nn.sigmoid(gate))
        return nn.Dense(3)(x[:, -1])


class EquinoxCNN(eqx.Module):
    """Channels first, one image at a time."""

    first: eqx.nn.Conv2d
    pool: eqx.nn.MaxPool2d
    grouped: eqx.nn.Conv2d
    norm: eqx.nn.GroupNorm
    head: eqx.nn.Linear

    def __init__(self, key):
        k1, k2, k3 = jax.random.split(key, 3)
        self.first = eqx.nn.Conv2d(2, 6, 3, stride=2, padding=1, key=k1)
        self.pool = eqx.nn.MaxPool2d(2, stride=1)
        self.grouped = eqx.nn.Conv2d(6, 8, 3, groups=2, dilation=1, padding=(1, 0), key=k2)
        self.norm = eqx.nn.GroupNorm(2, 8)
        self.head = eqx.nn.Linear(8, 3, key=k3)

    def __call__(self, x):
        x = self.pool(jax.nn.relu(self.first(x)))
        x = jax.nn.relu(self.norm(self.grouped(x)))
        return self.head(x.mean((1, 2)))


# --- residual network -------------------------------------------------------------------------


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm beside a shortcut."""

    channels: int
    stride: int

    @nn.compact
    def __call__(self, x, train: bool):
        def norm():
            return nn.BatchNorm(use_running_average=not train, momentum=0.5)

        y = nn.Conv(self.channels, (3, 3), (self.stride, self.stride), use_bias=False)(x)
        y = nn.relu(norm()(y))
        y = norm()(nn.Conv(self.channels, (3, 3), use_bias=False)(y))
        if x.shape != y.shape:
            x = nn.Conv(self.channels, (1, 1), (self.stride, self.stride), use_bias=False)(x)
            x = norm()(x)
        return nn.relu(x + y)


class ResNet18(nn.Module):
    """A stem and four stages of two basic blocks."""

    width: int

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.Conv(self.width, (3, 3), use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.5)(x))
        for stage in range(4):
            for block in range(2):
                stride = 2 if stage > 0 and block == 0 else 1
                x = BasicBlock(self.width * 2**stage, stride)(x, train)
        return nn.Dense(2)(x.mean((1, 2)))


# --- attention over patches, score networks ---------------------------------------------------


class ViT(nn.Module):
    """Patches by a strided convolution, a class token and learned positions."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(16, (4, 4), strides=(4, 4), padding="VALID", name="patches")(x)
        x = x.reshape(x.shape[0], -1, 16)
        token = self.param("class_token", nn.initializers.normal(0.5), (1, 1, 16))
        x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, 16)), x], 1)
        x = x + self.param("positions", nn.initializers.normal(0.5), (1, x.shape[1], 16))
        h = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(2)(h) + nn.Dense(16)(nn.gelu(nn.Dense(32)(h)))
        return nn.Dense(4)(x[:, 0])


class ScoreUNet(nn.Module):
    """Noise prediction with time embedding, skip connections and both ways of up-sampling."""

    @nn.compact
    def __call__(self, x):
        image, time = x["image"], x["time"]
        angles = time[:, None] * jnp.array([1.0, 3.0, 9.0], time.dtype)
        waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)
        embedding = nn.swish(nn.Dense(12)(waves))

        fine = nn.Conv(4, (3, 3))(image)
        middle = nn.Conv(6, (3, 3), strides=(2, 2))(nn.swish(fine))
        middle = nn.swish(nn.GroupNorm(2)(middle + nn.Dense(6)(embedding)[:, None, None]))
        coarse = nn.swish(nn.Conv(8, (2, 2), strides=(2, 2))(middle))
        coarse = coarse + nn.Dense(8)(embedding)[:, None, None]
        up = nn.ConvTranspose(6, (2, 2), strides=(2, 2))(coarse)
        up = nn.swish(nn.Conv(4, (3, 3))(jnp.concatenate([up, middle], -1)))
        up = jax.image.resize(up, (*fine.shape[:3], 4), "nearest")
        return nn.Conv(1, (3, 3))(jnp.concatenate([up, fine], -1))


def every_other_pixel(images):
    return images[:, ::2, ::2]


TIMED = {"image": draw(3, 4, 4, 1, seed=3), "time": np.array([0.1, 0.5, 1.0], np.float32)}

SYSTEMS = {
    "cnn_strided": lambda: of_linen(StridedCNN(), IMAGES),
    "cnn_pooling": lambda: of_linen(PoolingCNN(), IMAGES),
    "cnn_dilated": lambda: of_linen(DilatedCNN(), IMAGES),
    "cnn_separable": lambda: of_linen(SeparableCNN(), IMAGES),
    "cnn_causal": lambda: of_linen(CausalCNN(), draw(N, 10, 3, seed=6)),
    "cnn_equinox": lambda: of_equinox(EquinoxCNN, np.moveaxis(IMAGES, -1, 1)),
    "resnet18": lambda: of_linen(ResNet18(4), draw(3, 16, 16, 3, seed=2)),
    "vit": lambda: of_linen(ViT(), IMAGES),
    "unet": lambda: of_linen(ScoreUNet(), TIMED, heads={"output": every_other_pixel}),
}
