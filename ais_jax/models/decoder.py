"""Models of decoders that were trained elsewhere."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Real

from ais_jax.checks import check_count, lookup
from ais_jax.models.latent import Distribution, LatentVariableModel
from ais_jax.models.likelihoods import LIKELIHOODS, Likelihood, gaussian
from ais_jax.numerics import normal_log_prob
from ais_jax.types import Params

Decode = Callable[[Params, Float[Array, "D"]], Array | tuple[Array, Array]]
OF_DECODERS = LIKELIHOODS | {"gaussian": gaussian(smallest=0.0)}  # theirs as it is
Encode = Callable[[Params, Real[Array, "X"]], tuple[Array, Array]]


def from_decoder(
    decode: Decode,
    latent_size: int,
    likelihood: str | Likelihood = "bernoulli",
    encode: Encode | None = None,
) -> LatentVariableModel:
    """A model of z ~ N(0, I) and a decoder, such as `log_likelihood` takes.

    Args:
        decode: (theta, z f32[D]) -> what the likelihood takes, f32[X]: logits of
            Bernoulli pixels, log rates of counts, or means; of zero-inflated counts log
            means and log odds of dropouts, f32[X, 2]. Where the likelihood has a
            scale, decode gives (output, log_scale); exp(log_scale) is a normal's
            standard deviation. Theta is what `log_likelihood` is called with.
        latent_size: D.
        likelihood: a name in `likelihoods.LIKELIHOODS`, or a `Likelihood`.
        encode: (phi, x) -> (mean, standard deviations) of q(z|x), f32[D] each; None for
            the prior in its place.

    Raises:
        ValueError: for an unknown likelihood, or a size below 1.
    """
    check_count("latent_size", latent_size)
    family = likelihood
    if isinstance(family, str):
        family = lookup("likelihood", family, OF_DECODERS)
    mean, scale = jnp.zeros((latent_size,)), jnp.ones((latent_size,))

    def prior(theta):
        return _normal(mean, scale)

    def proposal(phi, x):
        return prior(()) if encode is None else _normal(*encode(phi, x))

    def output(theta, z) -> tuple[Array, Array | None]:
        given = decode(theta, z)
        return given if isinstance(given, tuple) else (given, None)

    def log_joint(theta, x, z):
        return prior(theta).log_prob(z) + family.log_prob(*output(theta, z), x)

    def observe(key, theta, z):
        return family.sample(key, *output(theta, z))

    def simulate(key, theta):
        z_key, x_key = jax.random.split(key)
        z = prior(theta).sample(z_key)
        return observe(x_key, theta, z), z

    return LatentVariableModel(
        init=lambda key: ((), ()),
        log_joint=log_joint,
        prior=prior,
        proposal=proposal,
        decode=lambda theta, z: family.mean(output(theta, z)[0]),
        simulate=simulate,
        observe=observe,
    )


def _normal(mean, scale):
    return Distribution(
        lambda key: mean + scale * jax.random.normal(key, scale.shape, scale.dtype),
        lambda z: normal_log_prob(z, mean, scale),
        mean,
        scale,
    )
