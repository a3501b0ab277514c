"""Densities against plain numpy, draws against their moments, paths against a grid."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats
from targets import errors_off, ratio_and_error

from ais_jax import models, schedules
from ais_jax.ais import anneal
from ais_jax.hmc import hmc_step

X = np.array([1.0, 0.0, 0.0, 1.0, 1.0, 0.0], np.float32)


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


def shaken(tree, key, size=0.5):
    """Parameters with every entry moved at random, the biases too."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    moved = [a + size * jax.random.normal(k, a.shape) for a, k in zip(leaves, keys)]
    return jax.tree.unflatten(structure, moved)


@pytest.fixture
def params(model):
    return shaken(model.init(jax.random.key(0)), jax.random.key(1))


def test_densities_are_numpys(model, params):
    theta, phi = params
    z = np.array([0.3, -1.2, 0.8])[: 1 + len(theta)]
    ours = model.proposal(phi, X).log_prob(jnp.float32(z))
    np.testing.assert_allclose(ours, numpy_log_q(phi, X, z), rtol=1e-5)
    log_prior = numpy_log_prior(theta, z)
    ours = model.prior(theta).log_prob(jnp.float32(z))
    np.testing.assert_allclose(ours, log_prior, rtol=1e-5)
    mean = numpy_decode(theta, z)
    log_p = log_prior + stats.bernoulli.logpmf(X, mean).sum()
    np.testing.assert_allclose(model.log_joint(theta, X, z), log_p, rtol=1e-5)
    np.testing.assert_allclose(model.decode(theta, jnp.float32(z)), mean, rtol=1e-5)


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
    q = model.proposal(phi, X)
    z = np.float64(jax.vmap(q.sample)(jax.random.split(jax.random.key(3), 20000)))
    u = standardized(phi[0], X, z[:, :2], (4, 3))
    if len(phi) == 2:
        above = standardized(phi[1], z[:, :2], z[:, 2:], (3,))
        u = np.concatenate([u, above], axis=1)
    assert_standard_normal(u)


def test_proposal_mean_and_scale_are_the_encoders(model, params):
    _, phi = params
    q = model.proposal(phi, X)
    mean, scale = normal_net(phi[0], X, (4, 3))
    if len(phi) == 2:
        above = normal_net(phi[1], mean, (3,))
        mean, scale = np.append(mean, above[0]), np.append(scale, above[1])
    np.testing.assert_allclose(q.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(q.scale, scale, rtol=1e-5)


def test_proposal_draws_are_reparameterized(model, params):
    """dz/dmean = 1 and dz/dlog_scale = z - mean, for the layer next to the pixels."""
    _, phi = params
    draw = lambda phi: model.proposal(phi, X).sample(jax.random.key(4))[:2]
    jacobian = jax.jacobian(draw)(phi)[0]["params"]
    np.testing.assert_allclose(jacobian["mean"]["bias"], np.eye(2), atol=1e-6)
    noise = draw(phi) - model.proposal(phi, X).mean[:2]
    np.testing.assert_allclose(jacobian["log_scale"]["bias"], np.diag(noise), atol=1e-5)


def test_paths_end_at_the_base_and_the_joint(model, params):
    theta, phi = params
    z = jnp.array([0.3, -1.2, 0.8])[: 1 + len(theta)]
    bases = {
        models.posterior_path: model.proposal(phi, X),
        models.prior_path: model.prior(theta),
    }
    for make, base in bases.items():
        path = make(model, theta, phi, X)
        assert path.log_base(z) == base.log_prob(z)
        assert path.log_target(z) == model.log_joint(theta, X, z)
        assert path.scale == 1.0
        assert path.force is None
        path = make(model, theta, phi, X, "encoder")
        np.testing.assert_array_equal(path.scale, model.proposal(phi, X).scale)


@pytest.mark.parametrize("make", [models.posterior_path, models.prior_path])
def test_unknown_preconditioner_is_refused(small_model, make):
    theta, phi = small_model.init(jax.random.key(0))
    with pytest.raises(ValueError, match="preconditioner='mass'"):
        make(small_model, theta, phi, X, "mass")


@pytest.mark.parametrize("make", [models.posterior_path, models.prior_path])
@pytest.mark.parametrize(
    ("latent_sizes", "preconditioner"), [((2,), "unit"), ((1, 1), "encoder")]
)
def test_both_paths_normalise_to_the_integral_over_z(
    make, latent_sizes, preconditioner
):
    model = models.bernoulli_model(
        6, latent_sizes=latent_sizes, widths=((3,),) * len(latent_sizes)
    )
    theta, phi = model.init(jax.random.key(5))
    theta = shaken(theta, jax.random.key(6), size=0.3)
    wider = lambda path, a: a + 0.25 if "'log_scale']['bias" in path else a
    phi = jax.tree.map_with_path(lambda p, a: wider(jax.tree_util.keystr(p), a), phi)
    axis = jnp.linspace(-9.0, 9.0, 241)
    grid = jnp.stack(jnp.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    log_joint = jax.jit(jax.vmap(partial(model.log_joint, theta, X)))(grid)
    log_p = jax.nn.logsumexp(log_joint) + 2.0 * jnp.log(axis[1] - axis[0])

    def one(key):
        path = make(model, theta, phi, X, preconditioner)
        start_key, key = jax.random.split(key)
        betas, step_sizes = schedules.linear(3), jnp.full(3, 0.5)
        move = partial(hmc_step, num_leapfrog=2)
        z0 = path.sample_base(start_key)
        return anneal(key, path, z0, betas, step_sizes, move).log_w

    log_w = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(7), 2**16))
    ratio, error = ratio_and_error(log_w, log_p)
    assert error < 0.01
    assert abs(ratio - 1.0) < 4 * error


def test_data_mean_bias_is_the_logit_of_the_clipped_mean():
    images = np.array([[0.0, 1.0, 0.25], [0.0, 1.0, 0.75]], np.float32)
    expected = special.logit([0.001, 0.999, 0.5])
    np.testing.assert_allclose(models.data_mean_bias(images), expected, atol=1e-4)
    wider = models.data_mean_bias(images, smallest=0.1)
    np.testing.assert_allclose(wider, special.logit([0.1, 0.9, 0.5]), atol=1e-5)


def test_output_bias_starts_the_decoder():
    bias = jnp.linspace(-2.0, 2.0, 6)
    model = models.bernoulli_model(6, widths=((4,),), output_bias=bias)
    theta, _ = model.init(jax.random.key(0))
    np.testing.assert_array_equal(theta[0]["params"]["logits"]["bias"], bias)
    plain, _ = models.bernoulli_model(6, widths=((4,),)).init(jax.random.key(0))
    np.testing.assert_array_equal(plain[0]["params"]["logits"]["bias"], np.zeros(6))


def test_force_precision_drives_the_leapfrog_alone():
    model = models.bernoulli_model(
        6, widths=((4,),), latent_sizes=(2,), force_precision="bf16"
    )
    theta, phi = shaken(model.init(jax.random.key(0)), jax.random.key(1))
    path, z = models.posterior_path(model, theta, phi, X), jnp.array([0.3, -1.2])
    plain = models.bernoulli_model(6, widths=((4,),), latent_sizes=(2,))
    assert path.log_target(z) == plain.log_joint(theta, X, z)
    assert plain.force is None
    force, gradient = jax.grad(path.force)(z), jax.grad(path.log_target)(z)
    assert jnp.all(force != gradient)
    np.testing.assert_allclose(force, gradient, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latent_sizes": (2, 1)}, r"latent_sizes=\(2, 1\) and widths="),
        ({"latent_sizes": (), "widths": ()}, r"latent_sizes=\(\)"),
        ({"activation": "tanhh"}, "activation='tanhh'"),
        ({"kernel": "cuda"}, "kernel='cuda'"),
        ({"kernel": "pallas"}, "kernel='pallas' with force_precision='float32': use"),
        (
            {"kernel": "pallas", "force_precision": "bf16", "activation": "relu"},
            "kernel='pallas' with activation='relu': use 'tanh', or kernel='xla'",
        ),
        (
            {"kernel": "pallas", "latent_sizes": (2, 1), "widths": ((4,), (3,))},
            r"kernel='pallas' with latent_sizes=\(2, 1\): use one size",
        ),
    ],
)
def test_invalid_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        models.bernoulli_model(6, **settings)


def test_activations_are_used():
    joints = []
    for name in models.ACTIVATIONS:
        model = models.bernoulli_model(
            6, latent_sizes=(2,), widths=((4,),), activation=name
        )
        theta, _ = shaken(model.init(jax.random.key(0)), jax.random.key(1))
        joints.append(float(model.log_joint(theta, X, jnp.array([0.3, -1.2]))))
    assert len(set(joints)) == len(models.ACTIVATIONS)
