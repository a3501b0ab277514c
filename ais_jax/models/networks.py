"""Deep latent Gaussian models: networks between layers of Gaussian latents.

Those of the IWAE study, perceptrons with Bernoulli pixels, are `bernoulli_model`.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Real

from ais_jax.checks import lookup
from ais_jax.models.latent import Distribution, LatentVariableModel
from ais_jax.models.likelihoods import (
    LIKELIHOODS,
    Likelihood,
    Start,
    data_mean_bias,
    of_observed,
)
from ais_jax.models.modules import (
    ACTIVATIONS,
    ConvolutionalOutputNet,
    GaussianNet,
    OutputNet,
    convolutions,
    perceptron,
)
from ais_jax.models.outer_products import of_dense_layers
from ais_jax.models.precision import dot_general
from ais_jax.numerics import normal_log_prob, standard_normal_log_prob
from ais_jax.types import AnyArray, Params, PRNGKey

__all__ = [
    "ACTIVATIONS",
    "NETWORKS",
    "WIDTHS",
    "bernoulli_model",
    "data_mean_bias",
    "latent_model",
]


def bernoulli_model(
    data_size: int, *, output_bias: Float[Array, "X"] | None = None, **settings: Any
) -> LatentVariableModel:
    """The deep latent Gaussian models of the IWAE study, of any number of layers.

    Args:
        data_size: X, the number of pixels.
        output_bias: what to start the decoder's output bias from; None for zeros.
        **settings: of `latent_model`.

    Returns:
        A model with X = data_size and D = sum(latent_sizes).

    Raises:
        ValueError: for settings that `latent_model` refuses.
    """
    start = None if output_bias is None else (output_bias, None)
    return latent_model((data_size,), start=start, **settings)


def latent_model(
    image_shape: Sequence[int],
    *,
    likelihood: str = "bernoulli",
    network: str = "perceptron",
    latent_sizes: Sequence[int] = (50,),
    widths: Sequence[Sequence[int]] | None = None,
    activation: str = "tanh",
    missing: bool = False,
    start: Start | None = None,
    precision: str = "float32",
    force_precision: str = "float32",
) -> LatentVariableModel:
    """Layers of Gaussian latents with networks between them, over any likelihood.

    Layer i has the latent vector z_i. A network of `widths[i]` lies between it and the
    layer below; below z_1 is x. The generative model mirrors the inference model. The
    latent vector is the concatenation [z_1, ..., z_n].

    Args:
        image_shape: [H, W] or [H, W, C] of an image, or [X] of a vector. Examples are
            flat rows of X values, the product of the shape, channels last.
        likelihood: of x given z_1, one of `likelihoods.LIKELIHOODS`.
        network: between x and z_1: 'perceptron', or 'convolution', whose convolutions
            of 3 x 3 halve the image. Networks above are perceptrons.
        latent_sizes: size of each stochastic layer, from the pixels up.
        widths: hidden widths of each layer's network in the encoder's order; of
            convolutions, their channels. None for `WIDTHS`, of one layer.
        activation: one of `ACTIVATIONS`.
        missing: whether values may be missing, which are NaN. Log p(x, z) is then that
            of the observed ones, and the encoder sees which they are.
        start: what to start the decoder's output bias and log scale from
            (`Likelihood.start`); None for zeros.
        precision: of the matrix products, one of `precision.PRECISIONS`. Convolutions
            are computed in float32.
        force_precision: of the matrix products in the gradient that drives HMC, one of
            `precision.PRECISIONS`.

    Returns:
        A model with D = sum(latent_sizes).

    Raises:
        ValueError: where `latent_sizes` and `widths` do not match, where an image
            cannot be convolved, or for an unknown name.
    """
    bottom = lookup("network", network, NETWORKS)
    widths = WIDTHS[network] if widths is None else widths
    if len(latent_sizes) != len(widths) or not latent_sizes:
        raise ValueError(
            f"latent_sizes={tuple(latent_sizes)} and widths={tuple(widths)}: give one "
            "tuple of widths for each latent size"
        )
    product, act = dot_general(precision), lookup("activation", activation, ACTIVATIONS)
    family = lookup("likelihood", likelihood, LIKELIHOODS)
    output = {
        "dot_general": product,
        "output": family.output,
        "has_scale": family.has_scale,
        "start": start,
    }
    hidden, decoder = bottom(tuple(image_shape), tuple(widths[0]), act, output)
    if missing:  # the encoder has twice the channels
        doubled = (*image_shape[:2], 2 * math.prod(image_shape[2:]))
        family = of_observed(family)
        hidden, _ = bottom(doubled, tuple(widths[0]), act, output)

    def gaussian(hidden, size):
        return GaussianNet(hidden, size, product)

    up = [perceptron(tuple(each), act) for each in widths[1:]]
    down = [perceptron(tuple(each[::-1]), act) for each in widths[1:]]
    nets = _Networks(
        encoders=tuple(map(gaussian, (hidden, *up), latent_sizes)),
        priors=tuple(map(gaussian, down, latent_sizes)),
        decoder=decoder,
        latent_sizes=tuple(latent_sizes),
        input_size=math.prod(image_shape) * (2 if missing else 1),
        likelihood=family,
    )
    target = None
    if force_precision != precision:
        target = nets.with_coarse_force(dot_general(force_precision))
    elif network == "perceptron":
        target = of_dense_layers(nets.log_joint, product)
    return LatentVariableModel(
        init=nets.init,
        log_joint=nets.log_joint,
        prior=nets.prior,
        proposal=nets.proposal,
        decode=nets.decode,
        simulate=nets.simulate,
        target_with_residuals=target,
        observe=nets.observe,
    )


def _perceptrons(image_shape, widths, activation, output):
    """The hidden layers of the encoder of x, and the decoder."""
    size = math.prod(image_shape)
    decoder = OutputNet(perceptron(widths[::-1], activation), size, **output)
    return perceptron(widths, activation), decoder


def _convolutions(image_shape, channels, activation, output):
    """The convolutions of the encoder of x, and the decoder."""
    if len(image_shape) < 2 or not channels:
        raise ValueError(
            f"network='convolution': images {image_shape} with widths={channels} "
            "cannot be convolved; use images [H, W] or [H, W, C] and at least one "
            "number of channels, or network='perceptron'"
        )
    shape = (*image_shape, 1)[:3]
    decoder = ConvolutionalOutputNet(shape, channels, activation, **output)
    return convolutions(shape, channels, activation), decoder


WIDTHS = {"perceptron": ((200, 200),), "convolution": ((32, 64),)}
"""Of a network between x and z_1 where none are given."""

NETWORKS = {"perceptron": _perceptrons, "convolution": _convolutions}


class _Networks(NamedTuple):
    """The networks of a deep latent Gaussian model, and its densities.

    Attributes:
        encoders: q(z_1|x), q(z_2|z_1), ...
        priors: p(z_1|z_2), p(z_2|z_3), ...; the top prior is N(0, I).
        decoder: p(x|z_1).
        latent_sizes: of z_1, z_2, ...
        input_size: of the encoder of x.
        likelihood: of x given the decoder's outputs.
    """

    encoders: tuple[GaussianNet, ...]
    priors: tuple[GaussianNet, ...]
    decoder: OutputNet | ConvolutionalOutputNet
    latent_sizes: tuple[int, ...]
    input_size: int
    likelihood: Likelihood

    def with_coarse_force(self, product):
        """The target whose force is computed by other matrix products."""
        priors = [net.clone(dot_general=product) for net in self.priors]
        decoder = self.decoder.clone(dot_general=product)
        coarse = self._replace(priors=tuple(priors), decoder=decoder)
        force = jax.grad(coarse.log_joint, 2)
        return lambda *args: (self.log_joint(*args), force(*args), None)

    def init(self, key: PRNGKey) -> tuple[Params, Params]:
        theta_key, phi_key = jax.random.split(key)
        layers = [jnp.zeros(size) for size in self.latent_sizes]
        theta = _init_all(theta_key, (self.decoder, *self.priors), layers)
        below = [jnp.zeros(self.input_size), *layers[:-1]]
        return theta, _init_all(phi_key, self.encoders, below)

    def split(self, z):
        """The layers [z_1, ..., z_n] of a latent vector."""
        ends = [sum(self.latent_sizes[: i + 1]) for i in range(len(self.latent_sizes))]
        return jnp.split(z, ends[:-1])

    def output(self, theta, z):
        """The likelihood's output and log scale."""
        return self.decoder.apply(theta[0], self.split(z)[0])

    def log_prior(self, theta, z):
        layers = self.split(z)
        log_p = standard_normal_log_prob(layers[-1])
        for i, net in enumerate(self.priors):
            log_p += normal_log_prob(
                layers[i], *_normal(net, theta[i + 1], layers[i + 1])
            )
        return log_p

    def log_joint(
        self, theta: Params, x: Real[AnyArray, "X"], z: Float[AnyArray, "D"]
    ) -> Float[Array, ""]:
        output = self.output(theta, z)
        return self.log_prior(theta, z) + self.likelihood.log_prob(*output, x)

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

    def proposal(self, phi: Params, x: Real[AnyArray, "X"]) -> Distribution:
        first = _normal(self.encoders[0], phi[0], self.likelihood.encoder_input(x))
        nets = list(zip(self.encoders[1:], phi[1:]))
        sample, mean, scale = _chain(first, nets)

        def log_prob(z):
            layers = self.split(z)
            log_q = normal_log_prob(layers[0], *first)
            for below, above, (net, params) in zip(layers, layers[1:], nets):
                log_q += normal_log_prob(above, *_normal(net, params, below))
            return log_q

        return Distribution(
            lambda key: jnp.concatenate(sample(key)),
            log_prob,
            jnp.concatenate(mean),
            jnp.concatenate(scale),
        )

    def decode(self, theta: Params, z: Float[AnyArray, "D"]) -> Float[Array, "X"]:
        return self.likelihood.mean(self.output(theta, z)[0])

    def simulate(self, key, theta):
        z_key, x_key = jax.random.split(key)
        z = self.prior(theta).sample(z_key)
        return self.observe(x_key, theta, z), z

    def observe(self, key, theta, z):
        return self.likelihood.sample(key, *self.output(theta, z))


def _normal(net, params, x) -> tuple[Array, Array]:
    """The mean and the standard deviation that a network gives."""
    return net.apply(params, x)


def _chain(first, nets):
    """Ancestral sampling through normal layers, and their means and scales.

    The means and scales of later layers are those at the means of the earlier ones.
    """

    def walk(draw):
        layers = [draw(0, *first)]
        for i, (net, params) in enumerate(nets):
            layers.append(draw(i + 1, *_normal(net, params, layers[-1])))
        return layers

    def sample(key):
        keys = jax.random.split(key, len(nets) + 1)

        def draw(i, mean, scale):
            return mean + scale * jax.random.normal(keys[i], mean.shape, mean.dtype)

        return walk(draw)

    means = walk(lambda _, mean, scale: mean)
    scales = [first[1]]
    scales += [_normal(net, p, mean)[1] for (net, p), mean in zip(nets, means)]
    return sample, means, scales


def _init_all(key, nets, inputs):
    keys = jax.random.split(key, len(nets))
    return tuple(net.init(k, x) for net, k, x in zip(nets, keys, inputs))
