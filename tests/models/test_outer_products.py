"""Theta's gradient from what the gradient in z computed, beside another pass."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ais_jax import estimators
from ais_jax.batching import example_keys
from ais_jax.models import networks
from ais_jax.training.step import sampled_gradient
from tests.targets import slow_but

SETTINGS = {
    "num_samples": 2,
    "num_temperatures": 1,
    "final_moves": 3,
    "num_leapfrog": 4,
    "average": "points",
}
X = jax.random.bernoulli(jax.random.key(0), 0.4, (6, 12)).astype(jnp.float32)
MODELS = {
    "one layer": {},
    "two layers and a scale": {
        "likelihood": "gaussian",
        "latent_sizes": (5, 3),
        "widths": ((9, 7), (6,)),
    },
    "three layers, two of one shape": {
        "latent_sizes": (4, 4, 4),
        "widths": ((9, 7), (6,), (6,)),
    },
    "three layers, two of one shape, and a scale": {
        "likelihood": "gaussian",
        "latent_sizes": (4, 4, 4),
        "widths": ((9, 7), (6,), (6,)),
    },
}


def make_model(**settings):
    small = {"latent_sizes": (5,), "widths": ((9, 7),)}
    return networks.latent_model((12,), **{**small, **settings})


def both_gradients(model):
    """Theta's loss and gradient from one pass, and with another pass; the samples."""
    theta, phi = jax.jit(model.init)(jax.random.key(1))
    noise = lambda a: a + 0.2 * jax.random.normal(jax.random.key(2), a.shape)
    theta = jax.tree.map(noise, theta)
    keys = example_keys(jax.random.key(3), jnp.arange(len(X)))
    for each in (model, model._replace(target_with_residuals=None)):
        gradient = jax.jit(partial(sampled_gradient, estimators.ais(each, **SETTINGS)))
        yield gradient(theta, phi, jnp.full(3, 0.3), keys, X)


@pytest.mark.parametrize("name", slow_but(MODELS, list(MODELS)[-1]))
def test_one_pass_gives_the_gradient_of_two(name):
    one, two = both_gradients(make_model(**MODELS[name]))
    assert jax.tree.structure(one[0]) == jax.tree.structure(two[0])
    compare = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-4)
    jax.tree.map(compare, one[0], two[0])
    assert max(jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(two[0][1])) > 1.0
    compare(one[1].log_w, two[1].log_w)
    np.testing.assert_allclose(one[1].accept_prob, two[1].accept_prob, atol=1e-5)
    assert one[1].residuals is None


def residuals(model, **settings):
    """The shapes of the residuals of one example's samples."""
    estimator = estimators.ais(model, **{**SETTINGS, **settings})
    theta, phi = jax.eval_shape(model.init, jax.random.key(1))
    arguments = jax.random.key(0), theta, phi, X[0], jnp.full(3, 0.3)
    return jax.eval_shape(estimator.sample, *arguments).residuals


def test_residuals_are_of_every_point():
    assert residuals(make_model()).log_p.shape == (2 * 5,)


CONVOLUTION = networks.latent_model((4, 3), network="convolution", widths=((4,),))


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        (make_model(force_precision="bf16"), {}),
        (make_model(), {"average": "end"}),
        (CONVOLUTION, {}),
    ],
    ids=["coarse force", "end", "convolution"],
)
def test_what_one_pass_is_not_for(model, settings):
    assert residuals(model, **settings) is None
