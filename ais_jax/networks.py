"""The models of the IWAE study: perceptrons between layers of Gaussian latents."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, ArrayLike, Float, Real

from ais_jax.models import Distribution, LatentVariableModel
from ais_jax.numerics import (
    bernoulli_log_prob,
    normal_log_prob,
    standard_normal_log_prob,
)
from ais_jax.precision import dot_general
from ais_jax.registry import lookup
from ais_jax.types import Params, PRNGKey

ACTIVATIONS = {"tanh": nn.tanh, "relu": nn.relu, "softplus": nn.softplus}


class GaussianNet(nn.Module):
    """A perceptron that gives the mean and standard deviation of a diagonal normal."""

    widths: Sequence[int]
    size: int
    activation: Callable
    dot_general: Any

    @nn.compact
    def __call__(
        self, x: Real[ArrayLike, "*batch X"]
    ) -> tuple[Float[Array, "*batch D"], Float[Array, "*batch D"]]:
        """The mean and the standard deviation."""
        for width in self.widths:
            x = self.activation(nn.Dense(width, dot_general=self.dot_general)(x))
        mean, log_scale = (
            nn.Dense(self.size, dot_general=self.dot_general, name=name)(x)
            for name in ("mean", "log_scale")
        )
        return mean, jnp.exp(log_scale)


class BernoulliNet(nn.Module):
    """A perceptron that gives the logits of independent Bernoulli variables."""

    widths: Sequence[int]
    size: int
    activation: Callable
    dot_general: Any
    output_bias: Any = None

    @nn.compact
    def __call__(self, z: Float[Array, "*batch D"]) -> Float[Array, "*batch X"]:
        """The logits."""
        for width in self.widths:
            z = self.activation(nn.Dense(width, dot_general=self.dot_general)(z))
        bias = self.output_bias
        bias_init = nn.initializers.zeros if bias is None else lambda *_: bias
        output = nn.Dense(
            self.size, dot_general=self.dot_general, bias_init=bias_init, name="logits"
        )
        return output(z)


def data_mean_bias(
    images: Real[ArrayLike, "N X"], smallest: float = 0.001
) -> Float[Array, "X"]:
    """Logits of the clipped mean image, a start for the decoder's output bias.

    Args:
        images: intensities in [0, 1].
        smallest: the mean is clipped to [smallest, 1 - smallest].

    Raises:
        ValueError: an intensity is outside [0, 1] or NaN; not checked under `jit`.

    References:
        Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, 2016 (code).
    """
    if not isinstance(images, jax.core.Tracer):
        low, high = jnp.min(images), jnp.max(images)
        if not 0 <= low <= high <= 1:
            raise ValueError(
                f"images has intensities from {low} to {high}: they lie in [0, 1]; "
                "divide levels 0 to 255 by 255"
            )
    mean = jnp.clip(jnp.mean(images, axis=0), smallest, 1.0 - smallest)
    return jnp.log(mean) - jnp.log1p(-mean)


def bernoulli_model(
    data_size: int,
    *,
    latent_sizes: Sequence[int] = (50,),
    widths: Sequence[Sequence[int]] = ((200, 200),),
    activation: str = "tanh",
    output_bias: Float[ArrayLike, "X"] | None = None,
    precision: str = "float32",
    force_precision: str = "float32",
) -> LatentVariableModel:
    """The deep latent Gaussian models of the IWAE study, of any number of layers.

    Layer i has the latent vector z_i and a perceptron of `widths[i]` between it and
    what lies below it, the pixels under z_1; the generative model mirrors the inference
    model. The latent vector is the concatenation [z_1, ..., z_n].

    Args:
        data_size: X, the number of pixels.
        latent_sizes: size of each stochastic layer, from the pixels up.
        widths: hidden widths of each layer's perceptron in the encoder's order.
        activation: one of `ACTIVATIONS`.
        output_bias: what to start the decoder's output bias from; None for zeros.
        precision: of the matrix products, one of `precision.PRECISIONS`.
        force_precision: of those in the gradient that drives HMC, likewise.

    Returns:
        A model with X = data_size and D = sum(latent_sizes).

    Raises:
        ValueError: where `latent_sizes` and `widths` do not match, or for an unknown
            activation or precision.
    """
    if len(latent_sizes) != len(widths) or not latent_sizes:
        raise ValueError(
            f"latent_sizes={tuple(latent_sizes)} and widths={tuple(widths)}: give one "
            "tuple of widths for each latent size"
        )
    nets = _Networks.build(
        data_size,
        latent_sizes,
        widths,
        lookup("activation", activation, ACTIVATIONS),
        dot_general(precision),
        output_bias,
    )
    force = None
    if force_precision != precision:
        force = nets.with_dot_general(dot_general(force_precision)).log_joint
    return LatentVariableModel(
        init=nets.init,
        log_joint=nets.log_joint,
        prior=nets.prior,
        proposal=nets.proposal,
        decode=nets.decode,
        simulate=nets.simulate,
        force=force,
    )


class _Networks(NamedTuple):
    """The networks of a deep latent Gaussian model, and its densities.

    Attributes:
        encoders: q(z_1|x), q(z_2|z_1), ...
        priors: p(z_1|z_2), p(z_2|z_3), ...; the top prior is N(0, I).
        decoder: p(x|z_1).
        latent_sizes: of z_1, z_2, ...
        data_size: X.
    """

    encoders: tuple[GaussianNet, ...]
    priors: tuple[GaussianNet, ...]
    decoder: BernoulliNet
    latent_sizes: tuple[int, ...]
    data_size: int

    @classmethod
    def build(cls, data_size, latent_sizes, widths, activation, product, bias):
        def gaussian(hidden, size):
            return GaussianNet(tuple(hidden), size, activation, product)

        up = zip(widths, latent_sizes)
        down = zip(widths[1:], latent_sizes)
        decoder = BernoulliNet(
            tuple(widths[0][::-1]), data_size, activation, product, bias
        )
        return cls(
            encoders=tuple(gaussian(hidden, size) for hidden, size in up),
            priors=tuple(gaussian(hidden[::-1], size) for hidden, size in down),
            decoder=decoder,
            latent_sizes=tuple(latent_sizes),
            data_size=data_size,
        )

    def with_dot_general(self, product):
        """The same generative model with other matrix products."""
        priors = [net.clone(dot_general=product) for net in self.priors]
        decoder = self.decoder.clone(dot_general=product)
        return self._replace(priors=tuple(priors), decoder=decoder)

    def init(self, key: PRNGKey) -> tuple[Params, Params]:
        theta_key, phi_key = jax.random.split(key)
        layers = [jnp.zeros(size) for size in self.latent_sizes]
        theta = _init_all(theta_key, (self.decoder, *self.priors), layers)
        below = [jnp.zeros(self.data_size), *layers[:-1]]
        return theta, _init_all(phi_key, self.encoders, below)

    def split(self, z):
        """The layers [z_1, ..., z_n] of a latent vector."""
        ends = [sum(self.latent_sizes[: i + 1]) for i in range(len(self.latent_sizes))]
        return jnp.split(z, ends[:-1])

    def logits(self, theta, z1):
        return self.decoder.apply(theta[0], z1)

    def log_prior(self, theta, z):
        layers = self.split(z)
        log_p = standard_normal_log_prob(layers[-1])
        for i, net in enumerate(self.priors):
            log_p += normal_log_prob(layers[i], *net.apply(theta[i + 1], layers[i + 1]))
        return log_p

    def log_joint(
        self, theta: Params, x: Real[ArrayLike, "X"], z: Float[ArrayLike, "D"]
    ) -> Float[Array, ""]:
        logits = self.logits(theta, self.split(z)[0])
        return self.log_prior(theta, z) + bernoulli_log_prob(logits, x)

    def prior(self, theta):
        nets = [(net, theta[i + 1]) for i, net in enumerate(self.priors)][::-1]
        top = (jnp.zeros(self.latent_sizes[-1]), jnp.ones(self.latent_sizes[-1]))
        sample, mean, scale = _chain(top, nets)
        return Distribution(
            lambda key: jnp.concatenate(sample(key)[::-1]),
            lambda z: self.log_prior(theta, z),
            jnp.concatenate(mean[::-1]),
            jnp.concatenate(scale[::-1]),
        )

    def proposal(self, phi: Params, x: Real[ArrayLike, "X"]) -> Distribution:
        first = self.encoders[0].apply(phi[0], x)
        nets = list(zip(self.encoders[1:], phi[1:]))
        sample, mean, scale = _chain(first, nets)

        def log_prob(z):
            layers = self.split(z)
            log_q = normal_log_prob(layers[0], *first)
            for below, above, (net, params) in zip(layers, layers[1:], nets):
                log_q += normal_log_prob(above, *net.apply(params, below))
            return log_q

        return Distribution(
            lambda key: jnp.concatenate(sample(key)),
            log_prob,
            jnp.concatenate(mean),
            jnp.concatenate(scale),
        )

    def decode(self, theta: Params, z: Float[ArrayLike, "D"]) -> Float[Array, "X"]:
        return jax.nn.sigmoid(self.logits(theta, self.split(z)[0]))

    def simulate(self, key, theta):
        z_key, x_key = jax.random.split(key)
        z = self.prior(theta).sample(z_key)
        mean = self.decode(theta, z)
        return jax.random.bernoulli(x_key, mean).astype(mean.dtype), z


def _chain(first, nets):
    """Ancestral sampling through normal layers, and their means and scales.

    The means and scales of later layers are those at the means of the earlier ones.
    """

    def walk(draw):
        layers = [draw(0, *first)]
        for i, (net, params) in enumerate(nets):
            layers.append(draw(i + 1, *net.apply(params, layers[-1])))
        return layers

    def sample(key):
        keys = jax.random.split(key, len(nets) + 1)

        def draw(i, mean, scale):
            return mean + scale * jax.random.normal(keys[i], mean.shape, mean.dtype)

        return walk(draw)

    means = walk(lambda _, mean, scale: mean)
    scales = [first[1]]
    scales += [net.apply(p, mean)[1] for (net, p), mean in zip(nets, means)]
    return sample, means, scales


def _init_all(key, nets, inputs):
    keys = jax.random.split(key, len(nets))
    return tuple(net.init(k, x) for net, k, x in zip(nets, keys, inputs))
