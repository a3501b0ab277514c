"""Deep latent Gaussian models: networks between layers of Gaussian latents.

Those of the IWAE study, perceptrons with Bernoulli pixels, are `bernoulli_model`.
"""

import math
from collections.abc import Sequence
from typing import Any

from jaxtyping import Array, Float

from ais_jax.checks import lookup
from ais_jax.models.latent import LatentVariableModel
from ais_jax.models.layers import Layers
from ais_jax.models.likelihoods import LIKELIHOODS, Start, data_mean_bias, of_observed
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
    num_covariates: int = 0,
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
        num_covariates: c, numbers that follow the X values of each row and are given
            to decoder and encoder. The log of the row's library size comes last, where
            the likelihood has one.
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
            cannot be convolved or convolutions cannot take what rows are given, or for
            an unknown name.
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
    num_given = num_covariates + family.has_library
    if num_given and network != "perceptron":
        raise ValueError(
            f"network={network!r} takes neither covariates ({num_covariates} here) nor "
            f"the library size of some likelihoods ({likelihood} here): use "
            "network='perceptron'"
        )
    output = {
        "dot_general": product,
        "output": family.output,
        "has_scale": family.has_scale,
        "start": start,
    }
    if family.num_outputs > 1:
        output["num_outputs"] = family.num_outputs
    hidden, decoder = bottom(tuple(image_shape), tuple(widths[0]), act, output)
    if missing:  # the encoder has twice the channels
        doubled = (*image_shape[:2], 2 * math.prod(image_shape[2:]))
        family = of_observed(family)
        hidden, _ = bottom(doubled, tuple(widths[0]), act, output)

    def gaussian(hidden, size):
        return GaussianNet(hidden, size, product)

    up = [perceptron(tuple(each), act) for each in widths[1:]]
    down = [perceptron(tuple(each[::-1]), act) for each in widths[1:]]
    size = math.prod(image_shape)
    nets = Layers(
        encoders=tuple(map(gaussian, (hidden, *up), latent_sizes)),
        priors=tuple(map(gaussian, down, latent_sizes)),
        decoder=decoder,
        latent_sizes=tuple(latent_sizes),
        size=size,
        input_size=size * (2 if missing else 1) + num_given,
        num_covariates=num_covariates,
        likelihood=family,
    )
    target = None
    if force_precision != precision:
        target = nets.with_coarse_force(dot_general(force_precision))
    elif network == "perceptron":
        target = of_dense_layers(nets.log_joint, product)
    return nets.model(target)


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
