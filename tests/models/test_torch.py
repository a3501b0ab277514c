"""Weights trained in PyTorch, scored against probabilistic PCA's closed form."""

import jax
import numpy as np
import pytest
from scipy.stats import multivariate_normal

import ais_jax

torch = pytest.importorskip("torch", reason="the extra bench is not installed")


@pytest.fixture(scope="module")
def trained():
    """Data x f32[300, 6], and the weights of a linear decoder trained on them."""
    torch.manual_seed(0)
    x = torch.randn(300, 2) @ torch.randn(2, 6) + 0.5 * torch.randn(300, 6) + 1.0
    decoder = torch.nn.Linear(2, 6)
    log_scale = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.Adam([*decoder.parameters(), log_scale], 0.05)
    for _ in range(400):
        noise = torch.exp(2.0 * log_scale) * torch.eye(6)
        covariance = decoder.weight @ decoder.weight.T + noise
        marginal = torch.distributions.MultivariateNormal(decoder.bias, covariance)
        loss = -marginal.log_prob(x).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    theta = {name: a.detach().numpy() for name, a in decoder.named_parameters()}
    return x.numpy(), theta | {"log_scale": log_scale.detach().numpy()}


def test_log_p_of_its_rows_is_that_of_the_closed_form(trained):
    x, theta = trained
    rows = x[:40].copy()
    rows[0] += 6.0  # far from the data
    weight, noise = theta["weight"], np.exp(2.0 * theta["log_scale"]) * np.eye(6)
    marginal = multivariate_normal(theta["bias"], weight @ weight.T + noise)
    exact = marginal.logpdf(rows)

    def decode(theta, z):
        mean = theta["weight"] @ z + theta["bias"]
        return mean, jax.numpy.full(6, theta["log_scale"])

    model = ais_jax.from_decoder(decode, 2, "gaussian")
    found = ais_jax.log_likelihood(
        jax.random.key(0), model, rows, (theta, ()), start="prior", error=0.02
    )
    away = found.log_p - exact
    assert np.max(np.abs(away) / (found.standard_error + 1e-3)) < 5.0
    assert abs(np.mean(away) - found.bias) < 4.0 * found.monte_carlo < 0.1
    assert abs(found.gap.mean) < 0.02 + 4.0 * found.gap.standard_error


def test_the_weights_are_trained_to_the_largest_likelihood(trained):
    x, theta = trained
    values = np.linalg.eigvalsh(np.cov(x.T, bias=True))
    noise = np.mean(values[:-2])  # of the directions that are left out
    assert np.exp(2.0 * theta["log_scale"]) == pytest.approx(noise, rel=0.02)
    own = np.linalg.eigvalsh(theta["weight"] @ theta["weight"].T)[-2:]
    np.testing.assert_allclose(own, values[-2:] - noise, rtol=0.05)
