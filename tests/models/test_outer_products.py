"""Theta's gradient from what the gradient in z computed, beside another pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ais_jax import estimators
from ais_jax.batching import example_keys
from ais_jax.models import networks
from ais_jax.training.gradients import theta_gradient

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
    "bf16_x6": {"precision": "bf16_x6", "force_precision": "bf16_x6"},
    "two layers and a scale": {
        "likelihood": "gaussian",
        "latent_sizes": (5, 3),
        "widths": ((9, 7), (6,)),
    },
    "three layers, two of one shape": {
        "latent_sizes": (4, 4, 4),
        "widths": ((9, 7), (6,), (6,)),
    },
}


def make_model(**settings):
    small = {"latent_sizes": (5,), "widths": ((9, 7),)}
    return networks.latent_model((12,), **{**small, **settings})


def both_gradients(model, **settings):
    """Theta's loss and gradient from one pass, and with another pass."""
    theta, phi = model.init(jax.random.key(1))
    noise = lambda a: a + 0.2 * jax.random.normal(jax.random.key(2), a.shape)
    theta = jax.tree.map(noise, theta)
    keys = example_keys(jax.random.key(3), jnp.arange(len(X)))
    for each in (model, model._replace(one_pass=None)):
        estimator = estimators.ais(each, **{**SETTINGS, **settings})
        assert (estimator.theta_gradient is None) == (each.one_pass is None)
        gradient = jax.jit(lambda *a, e=estimator: theta_gradient(e, *a))
        yield gradient(theta, phi, jnp.full(3, 0.3), keys, X)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("num_averaged", [1, 2])
def test_one_pass_gives_the_gradient_of_two(name, num_averaged):
    one, two = both_gradients(make_model(**MODELS[name]), num_averaged=num_averaged)
    assert jax.tree.structure(one[0]) == jax.tree.structure(two[0])
    compare = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-4)
    jax.tree.map(compare, one[0], two[0])
    assert max(jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(two[0][1])) > 1.0
    np.testing.assert_allclose(one[1].accept_prob, two[1].accept_prob, atol=1e-5)


def test_the_weights_of_the_samples_are_those_of_two_passes():
    one, two = (samples.log_w for _, samples in both_gradients(make_model()))
    np.testing.assert_allclose(np.sort(one), np.sort(two), atol=1e-4)
    assert not np.allclose(one, two)  # their order differs


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        (make_model(force_precision="bf16"), {}),
        (make_model(), {"point_stride": 5}),
        (make_model(), {"average": "ends"}),
        (make_model(), {"average": "end"}),
        (
            networks.latent_model((4, 3), network="convolution", widths=((4,),)),
            {},
        ),
    ],
    ids=["coarse force", "stride", "ends", "end", "convolution"],
)
def test_what_one_pass_is_not_for(model, settings):
    estimator = estimators.ais(model, **{**SETTINGS, **settings})
    assert estimator.theta_gradient is None
    theta, phi = model.init(jax.random.key(1))
    sample = jax.eval_shape(
        estimator.sample, jax.random.key(0), theta, phi, X[0], jnp.full(3, 0.3)
    )
    assert sample.factors is None
