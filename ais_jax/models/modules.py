"""Flax modules of encoders and decoders: perceptrons and strided convolutions."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Real

ACTIVATIONS = {
    name: getattr(nn, name)
    for name in (
        "elu",
        "gelu",
        "hard_sigmoid",
        "hard_silu",
        "hard_tanh",
        "leaky_relu",
        "log_sigmoid",
        "relu",
        "relu6",
        "selu",
        "sigmoid",
        "silu",
        "soft_sign",
        "softplus",
        "tanh",
    )
}
_KERNEL, _STRIDES = (3, 3), (2, 2)
Hidden = Callable[[Array, Any], Array]
"""(x [*batch, X], matrix product) -> features [*batch, F], inside a module."""


class GaussianNet(nn.Module):
    """A network that gives the mean and standard deviation of a diagonal normal."""

    hidden: Hidden
    size: int
    dot_general: Any

    @nn.compact
    def __call__(
        self, x: Real[Array, "*batch X"]
    ) -> tuple[Float[Array, "*batch D"], Float[Array, "*batch D"]]:
        """The mean and the standard deviation."""
        x = self.hidden(x, self.dot_general)
        mean, log_scale = (
            nn.Dense(self.size, dot_general=self.dot_general, name=name)(x)
            for name in ("mean", "log_scale")
        )
        return mean, jnp.exp(log_scale)


class OutputNet(nn.Module):
    """A perceptron that gives a likelihood's output and log scale, for each value.

    Attributes:
        hidden: its hidden layers.
        size: X.
        dot_general: the matrix product.
        output: the name of the output.
        has_scale: whether there is a log scale.
        start: what to start the output's bias and the log scale from; None for zeros.
        num_outputs: O of each value; the output is f32[X, O] where O > 1.
    """

    hidden: Hidden
    size: int
    dot_general: Any
    output: str
    has_scale: bool
    start: Any = None
    num_outputs: int = 1

    @nn.compact
    def __call__(
        self, z: Float[Array, "*batch D"]
    ) -> tuple[Float[Array, "..."], Float[Array, "X"] | None]:
        """The output and the log scale, or None where there is none."""
        z = self.hidden(z, self.dot_general)
        bias, log_scale = self.start or (None, None)
        output = nn.Dense(
            self.size * self.num_outputs,
            dot_general=self.dot_general,
            bias_init=_starting_at(bias),
            name=self.output,
        )(z)
        if self.num_outputs > 1:
            output = output.reshape(*z.shape[:-1], self.size, self.num_outputs)
        if not self.has_scale:
            return output, None
        return output, self.param("log_scale", _starting_at(log_scale), (self.size,))


class ConvolutionalOutputNet(nn.Module):
    """Transposed convolutions that give a likelihood's output, for each value.

    Attributes:
        image_shape: [H, W, C], whose product is X.
        channels: of each convolution, from the pixels up.
        activation: after each convolution but the last.
        dot_general: the matrix product of the dense layer under the code.
        output: the name of the output.
        has_scale: whether there is a log scale.
        start: what to start the output's bias and the log scale from; None for zeros.
    """

    image_shape: Sequence[int]
    channels: Sequence[int]
    activation: Callable
    dot_general: Any
    output: str
    has_scale: bool
    start: Any = None

    @nn.compact
    def __call__(
        self, z: Float[Array, "*batch D"]
    ) -> tuple[Float[Array, "*batch X"], Float[Array, "X"] | None]:
        """The output and the log scale, or None where there is none."""
        sizes = _sizes(self.image_shape[:2], len(self.channels))
        top = (*sizes[-1], self.channels[-1])
        x = nn.Dense(math.prod(top), dot_general=self.dot_general)(z)
        x = self.activation(x).reshape(*z.shape[:-1], *top)
        for size, channels in zip(sizes[-2:0:-1], self.channels[-2::-1]):
            x = self.activation(_crop(_transposed(channels)(x), size))
        last = _transposed(self.image_shape[2], name=self.output, use_bias=False)
        x = _crop(last(x), sizes[0]).reshape(*z.shape[:-1], -1)
        bias, log_scale = self.start or (None, None)
        x = x + self.param("bias", _starting_at(bias), x.shape[-1:])
        if not self.has_scale:
            return x, None
        return x, self.param("log_scale", _starting_at(log_scale), x.shape[-1:])


def perceptron(widths: Sequence[int], activation: Callable) -> Hidden:
    """Dense layers, each with its activation."""

    def hidden(x, dot_general):
        for width in widths:
            x = activation(nn.Dense(width, dot_general=dot_general)(x))
        return x

    return hidden


def convolutions(
    image_shape: Sequence[int], channels: Sequence[int], activation: Callable
) -> Hidden:
    """Convolutions of 3 x 3 that halve an image [H, W, C], each with its activation."""

    def hidden(x, _):
        x = x.reshape(*x.shape[:-1], *image_shape)
        for number in channels:
            layer = nn.Conv(
                number, _KERNEL, _STRIDES, precision=jax.lax.Precision.HIGHEST
            )
            x = activation(layer(x))
        return x.reshape(*x.shape[:-3], -1)

    return hidden


def _transposed(channels, **settings):
    precision = jax.lax.Precision.HIGHEST
    return nn.ConvTranspose(
        channels, _KERNEL, _STRIDES, precision=precision, **settings
    )


def _sizes(size, num_halvings):
    """[H, W] of an image after 0, 1, ... convolutions of stride 2."""
    sizes = [tuple(size)]
    for _ in range(num_halvings):
        sizes.append(tuple((side + 1) // 2 for side in sizes[-1]))
    return sizes


def _crop(x, size):
    return x[..., : size[0], : size[1], :]


def _starting_at(value):
    if value is None:
        return nn.initializers.zeros
    return lambda _, shape, *__: jnp.reshape(value, shape)
