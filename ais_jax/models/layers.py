"""The densities of a deep latent Gaussian model, from its networks.

A row is [x, covariates, log library size]: the values, and what is given beside them
where there is any.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Real

from ais_jax.models.counts import with_library
from ais_jax.models.latent import Distribution, LatentVariableModel, TargetWithResiduals
from ais_jax.models.likelihoods import Likelihood
from ais_jax.models.modules import ConvolutionalOutputNet, GaussianNet, OutputNet
from ais_jax.numerics import normal_log_prob, standard_normal_log_prob
from ais_jax.types import AnyArray, Params, PRNGKey

Row = Real[AnyArray, "R"] | None


class Layers(NamedTuple):
    """The networks of a deep latent Gaussian model, and its densities.

    Attributes:
        encoders: q(z_1|x), q(z_2|z_1), ...
        priors: p(z_1|z_2), p(z_2|z_3), ...; the top prior is N(0, I).
        decoder: p(x|z_1).
        latent_sizes: of z_1, z_2, ...
        size: X, the values of a row.
        input_size: of the encoder of x.
        num_covariates: that follow the values.
        likelihood: of x given the decoder's outputs.
    """

    encoders: tuple[GaussianNet, ...]
    priors: tuple[GaussianNet, ...]
    decoder: OutputNet | ConvolutionalOutputNet
    latent_sizes: tuple[int, ...]
    size: int
    input_size: int
    num_covariates: int
    likelihood: Likelihood

    def model(self, target: TargetWithResiduals | None) -> LatentVariableModel:
        """The model; a target is what HMC evaluates, or None."""
        plain = LatentVariableModel(
            init=self.init,
            log_joint=self.log_joint,
            prior=self.prior,
            proposal=self.proposal,
            decode=self.decode,
            simulate=self.simulate,
            target_with_residuals=target,
            observe=self.observe,
        )
        if not self.num_covariates and not self.likelihood.has_library:
            return plain

        def of_row(row):
            names = ("decode", "simulate", "observe")
            functions = {n: partial(getattr(self, n), row=row) for n in names}
            return plain._replace(**functions)

        return plain._replace(of_row=of_row)

    def with_coarse_force(self, product: Callable) -> TargetWithResiduals:
        """The target whose force is computed by other matrix products."""
        priors = [net.clone(dot_general=product) for net in self.priors]
        decoder = self.decoder.clone(dot_general=product)
        coarse = self._replace(priors=tuple(priors), decoder=decoder)
        force = jax.grad(coarse.log_joint, 2)
        return lambda *args: (self.log_joint(*args), force(*args), None)

    def init(self, key: PRNGKey) -> tuple[Params, Params]:
        """Theta and phi before training."""
        theta_key, phi_key = jax.random.split(key)
        layers = [jnp.zeros(size) for size in self.latent_sizes]
        bottom = jnp.zeros(self.latent_sizes[0] + self.num_covariates)
        above = [bottom, *layers[1:]]
        theta = _init_all(theta_key, (self.decoder, *self.priors), above)
        below = [jnp.zeros(self.input_size), *layers[:-1]]
        return theta, _init_all(phi_key, self.encoders, below)

    def split(self, z: Float[AnyArray, "D"]) -> list[Float[Array, "..."]]:
        """The layers [z_1, ..., z_n] of a latent vector."""
        ends = [sum(self.latent_sizes[: i + 1]) for i in range(len(self.latent_sizes))]
        return jnp.split(z, ends[:-1])

    def output(
        self, theta: Params, z: Float[AnyArray, "D"], row: Row = None
    ) -> tuple[Float[Array, "..."], Float[Array, "X"] | None]:
        """The likelihood's output, by what the row is given, and the log scale."""
        bottom = self.split(z)[0]
        if not self.num_covariates and not self.likelihood.has_library:
            return _outputs(self.decoder, theta[0], bottom)
        if row is None:
            raise ValueError(
                "x depends on covariates or a library size: use decode, simulate and "
                "observe of model.given(row), a row that has them"
            )
        x, covariates, log_library = jnp.split(
            row, [self.size, self.size + self.num_covariates]
        )
        bottom = jnp.append(bottom, covariates)
        output, log_scale = _outputs(self.decoder, theta[0], bottom)
        if self.likelihood.has_library:
            output = with_library(output, log_library[0], x)
        return output, log_scale

    def log_prior(self, theta: Params, z: Float[AnyArray, "D"]) -> Float[Array, ""]:
        """Log p(z), nats."""
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
        """Log p(x, z) given the rest of the row, nats."""
        log_p = self.likelihood.log_prob(*self.output(theta, z, x), x[: self.size])
        return self.log_prior(theta, z) + log_p

    def prior(self, theta: Params) -> Distribution:
        """P(z)."""
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
        """Q(z|x) given the rest of the row."""
        seen = self.likelihood.encoder_input(x[: self.size])
        seen = jnp.append(seen, x[self.size :])
        first = _normal(self.encoders[0], phi[0], seen)
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

    def decode(
        self, theta: Params, z: Float[AnyArray, "D"], row: Row = None
    ) -> Float[Array, "X"]:
        """The mean of p(x|z)."""
        return self.likelihood.mean(self.output(theta, z, row)[0])

    def simulate(
        self, key: PRNGKey, theta: Params, row: Row = None
    ) -> tuple[Real[Array, "X"], Float[Array, "D"]]:
        """A draw from p(x, z), with what the row is given behind x."""
        z_key, x_key = jax.random.split(key)
        z = self.prior(theta).sample(z_key)
        x = self.observe(x_key, theta, z, row)
        return x if row is None else jnp.append(x, row[self.size :]), z

    def observe(
        self, key: PRNGKey, theta: Params, z: Float[AnyArray, "D"], row: Row = None
    ) -> Real[Array, "X"]:
        """A draw from p(x|z)."""
        return self.likelihood.sample(key, *self.output(theta, z, row))


def _normal(net, params, x) -> tuple[Array, Array]:
    """The mean and the standard deviation that a network gives."""
    return net.apply(params, x)


def _outputs(net, params, z) -> tuple[Array, Array | None]:
    """The output and the log scale that a decoder gives."""
    return net.apply(params, z)


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
