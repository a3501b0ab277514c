"""Densities against plain numpy, draws against their moments."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from ais_jax.annealing.path import evaluate
from ais_jax.models import latent, networks
from tests.targets import errors_off, shaken

X = jnp.array([1.0, 0.0, 0.0, 1.0, 1.0, 0.0])


def perceptron(net, x, widths):
    """The hidden layers of a perceptron in numpy."""
    for i in range(len(widths)):
        x = np.tanh(affine(net, f"Dense_{i}", x))
    return x


def affine(net, name, x):
    layer = net["params"][name]
    return x @ np.float64(layer["kernel"]) + np.float64(layer["bias"])


def normal_net(net, x, widths):
    x = perceptron(net, x, widths)
    return affine(net, "mean", x), np.exp(affine(net, "log_scale", x))


def numpy_log_q(phi, x, z):
    mean, scale = normal_net(phi[0], x, (4, 3))
    log_q = stats.norm.logpdf(z[:2], mean, scale).sum()
    if len(phi) == 2:
        mean, scale = normal_net(phi[1], z[:2], (3,))
        log_q += stats.norm.logpdf(z[2:], mean, scale).sum()
    return log_q


def numpy_log_prior(theta, z):
    if len(theta) == 1:
        return stats.norm.logpdf(z).sum()
    mean, scale = normal_net(theta[1], z[2:], (3,))
    top = stats.norm.logpdf(z[2:]).sum()
    return top + stats.norm.logpdf(z[:2], mean, scale).sum()


def numpy_decode(theta, z):
    logits = affine(theta[0], "logits", perceptron(theta[0], z[..., :2], (3, 4)))
    return special.expit(logits)


@pytest.fixture(scope="module")
def params(model):
    return shaken(jax.jit(model.init)(jax.random.key(0)), jax.random.key(1))


def test_densities_are_numpys(model, params):
    theta, phi = params
    z = np.array([0.3, -1.2, 0.8])[: 1 + len(theta)]

    @jax.jit
    def ours(theta, phi, z):
        log_q, log_prior = model.proposal(phi, X).log_prob, model.prior(theta).log_prob
        log_p = model.log_joint(theta, X, z)
        return log_q(z), log_prior(z), log_p, model.decode(theta, z)

    log_prior, mean = numpy_log_prior(theta, z), numpy_decode(theta, z)
    log_p = log_prior + stats.bernoulli.logpmf(X, mean).sum()
    exact = numpy_log_q(phi, X, z), log_prior, log_p, mean
    for value, expected in zip(ours(theta, phi, np.float32(z)), exact, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5)


def standardized(nets, inputs, z, widths):
    """Draws in units of the conditional normal's mean and standard deviation."""
    mean, scale = normal_net(nets, inputs, widths)
    return (z - mean) / scale


def assert_standard_normal(u):
    assert abs(errors_off(u, 0.0)).max() < 4
    assert abs(errors_off(u**2, 1.0)).max() < 4
    products = u[:, :1] * u[:, 1:]
    assert products.size == 0 or abs(errors_off(products, 0.0)).max() < 4


def test_simulated_draws_have_the_conditional_moments(model, params):
    theta, _ = params
    keys = jax.random.split(jax.random.key(2), 20000)
    x, z = jax.jit(jax.vmap(model.simulate, (0, None)))(keys, theta)
    x, z = np.float64(x), np.float64(z)
    assert set(np.unique(x)) == {0.0, 1.0}
    assert abs(errors_off(x - numpy_decode(theta, z), 0.0)).max() < 4
    if len(theta) == 2:
        below = standardized(theta[1], z[:, 2:], z[:, :2], (3,))
        z = np.concatenate([below, z[:, 2:]], axis=1)
    assert_standard_normal(z)


def test_proposal_draws_have_the_proposals_moments(model, params):
    _, phi = params
    draw = jax.jit(
        jax.vmap(lambda key, phi: model.proposal(phi, X).sample(key), (0, None))
    )
    z = np.float64(draw(jax.random.split(jax.random.key(3), 20000), phi))
    u = standardized(phi[0], X, z[:, :2], (4, 3))
    if len(phi) == 2:
        above = standardized(phi[1], z[:, :2], z[:, 2:], (3,))
        u = np.concatenate([u, above], axis=1)
    assert_standard_normal(u)


def test_proposal_mean_and_scale_are_the_encoders(model, params):
    _, phi = params
    ours = jax.jit(lambda phi: model.proposal(phi, X)[2:])(phi)
    mean, scale = normal_net(phi[0], X, (4, 3))
    if len(phi) == 2:
        above = normal_net(phi[1], mean, (3,))
        mean, scale = np.append(mean, above[0]), np.append(scale, above[1])
    np.testing.assert_allclose(ours, (mean, scale), rtol=1e-5)


def test_proposal_draws_are_reparameterized(model, params):
    """dz/dmean = 1 and dz/dlog_scale = z - mean, for the layer next to the pixels."""
    _, phi = params

    @partial(jax.jacobian, has_aux=True)
    def draw(phi):
        q = model.proposal(phi, X)
        z = q.sample(jax.random.key(4))[:2]
        return z, z - q.mean[:2]

    jacobian, noise = jax.jit(draw)(phi)
    jacobian = jacobian[0]["params"]
    np.testing.assert_allclose(jacobian["mean"]["bias"], np.eye(2), atol=1e-6)
    np.testing.assert_allclose(jacobian["log_scale"]["bias"], np.diag(noise), atol=1e-5)


def test_data_mean_bias_is_the_logit_of_the_clipped_mean():
    images = np.array([[0.0, 1.0, 0.25], [0.0, 1.0, 0.75]], np.float32)
    expected = special.logit([0.001, 0.999, 0.5])
    np.testing.assert_allclose(networks.data_mean_bias(images), expected, atol=1e-4)
    wider = networks.data_mean_bias(images, smallest=0.1)
    np.testing.assert_allclose(wider, special.logit([0.1, 0.9, 0.5]), atol=1e-5)


@pytest.mark.parametrize("level", [-0.1, 255.0, np.nan])
def test_images_outside_0_to_1_have_no_bias(level):
    images = np.array([[0.0, 1.0], [level, 0.5]], np.float32)
    with pytest.raises(ValueError, match=r"they lie in \[0, 1\]"):
        networks.data_mean_bias(images)
    assert jax.jit(networks.data_mean_bias)(images).shape == (2,)


def test_output_bias_starts_the_decoder():
    bias = jnp.linspace(-2.0, 2.0, 6)
    model = networks.bernoulli_model(6, widths=((4,),), output_bias=bias)
    theta, _ = model.init(jax.random.key(0))
    np.testing.assert_array_equal(theta[0]["params"]["logits"]["bias"], bias)
    plain, _ = networks.bernoulli_model(6, widths=((4,),)).init(jax.random.key(0))
    np.testing.assert_array_equal(plain[0]["params"]["logits"]["bias"], np.zeros(6))


def test_force_precision_drives_the_leapfrog_alone():
    model = networks.bernoulli_model(
        6, widths=((4,),), latent_sizes=(2,), force_precision="bf16"
    )
    theta, phi = shaken(model.init(jax.random.key(0)), jax.random.key(1))
    path, z = latent.posterior_path(model, theta, phi, X), jnp.array([0.3, -1.2])
    plain = networks.bernoulli_model(6, widths=((4,),), latent_sizes=(2,))
    assert path.log_target(z) == plain.log_joint(theta, X, z)
    force, gradient = (
        evaluate(each, z).grad_target
        for each in (path, latent.posterior_path(plain, theta, phi, X))
    )
    np.testing.assert_allclose(gradient, jax.grad(path.log_target)(z), rtol=1e-6)
    assert jnp.all(force != gradient)
    np.testing.assert_allclose(force, gradient, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latent_sizes": (2, 1)}, r"latent_sizes=\(2, 1\) and widths="),
        ({"latent_sizes": (), "widths": ()}, r"latent_sizes=\(\)"),
        ({"activation": "tanhh"}, "activation='tanhh'"),
    ],
)
def test_invalid_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        networks.bernoulli_model(6, **settings)


def test_activations_are_used():
    joints, places = [], jnp.array([[0.3, -1.2], [3.0, -12.0]])
    plain = networks.bernoulli_model(6, latent_sizes=(2,), widths=((4,),))
    theta, _ = shaken(plain.init(jax.random.key(0)), jax.random.key(1))
    for name in networks.ACTIVATIONS:
        model = networks.bernoulli_model(
            6, latent_sizes=(2,), widths=((4,),), activation=name
        )
        log_joint = jax.jit(jax.vmap(model.log_joint, (None, None, 0)))
        joints.append(log_joint(theta, X, places))
    assert len(set(map(tuple, np.array(joints)))) == len(networks.ACTIVATIONS)
