"""Log-probabilities against scipy, and averages in log space against plain ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ais_jax import numerics
from tests.targets import OPTIMIZED

pareto_k = jax.jit(numerics.pareto_k)


def test_bernoulli_log_prob_is_scipys():
    logits, x = np.linspace(-3.0, 3.0, 7), np.array([0, 1, 1, 0, 1, 0, 1])
    expected = stats.bernoulli.logpmf(x, 1.0 / (1.0 + np.exp(-logits))).sum()
    result = numerics.bernoulli_log_prob(jnp.float32(logits), jnp.float32(x))
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_bernoulli_log_prob_is_finite_at_large_logits():
    logits, x = jnp.array([-200.0, 200.0]), jnp.array([1.0, 0.0])
    value, grad = jax.value_and_grad(numerics.bernoulli_log_prob)(logits, x)
    assert value == -400.0
    np.testing.assert_array_equal(grad, [1.0, -1.0])


def test_bernoulli_derivatives_are_those_of_the_formula():
    def plain(logits, x):
        return jnp.sum(x * logits - jnp.logaddexp(0.0, logits))

    logits, x = jnp.array([-2.0, 0.3, 4.0]), jnp.array([0.2, 1.0, 0.7])
    for order in (jax.grad, jax.hessian):
        for argnums in (0, 1):
            ours, theirs = (
                jax.jit(order(f, argnums))(logits, x)
                for f in (numerics.bernoulli_log_prob, plain)
            )
            np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_bernoulli_log_prob_broadcasts_with_gradients():
    logits, x = jnp.array([0.5, -1.0]), jnp.array([[0.0, 1.0], [1.0, 1.0]])
    together = jax.jacobian(numerics.bernoulli_log_prob)(logits, x)
    apart = [jax.grad(numerics.bernoulli_log_prob)(logits, row) for row in x]
    np.testing.assert_allclose(together, jnp.stack(apart), rtol=1e-6)


def test_normal_log_probs_are_scipys():
    z, mean, scale = np.array([0.3, -2.0]), np.array([1.0, 0.0]), np.array([0.5, 3.0])
    ours = numerics.normal_log_prob(*map(jnp.float32, (z, mean, scale)))
    np.testing.assert_allclose(ours, stats.norm.logpdf(z, mean, scale).sum(), rtol=1e-6)
    ours = numerics.standard_normal_log_prob(jnp.float32(z))
    np.testing.assert_allclose(ours, stats.norm.logpdf(z).sum(), rtol=1e-6)


def test_log_mean_exp_is_the_mean_at_any_offset():
    w = np.array([[1.0, 2.0, 6.0], [1.0, 1.0, 1.0]])
    for offset in (0.0, -500.0, 500.0):
        log_w = jnp.float32(np.log(w) + offset)
        ours = numerics.log_mean_exp(log_w) - offset
        np.testing.assert_allclose(ours, np.log(w.mean(-1)), atol=1e-4)
    ours = numerics.log_mean_exp(jnp.float32(np.log(w)), axis=0)
    np.testing.assert_allclose(ours, np.log(w.mean(0)), atol=1e-6)


def is_effective_sample_size(function):
    """Whether a function agrees with (sum w)^2 / sum w^2 on a few weights."""
    cases = [np.ones(5), np.array([1.0, 2.0, 3.0]), np.array([1.0, 1e-6, 1e-6, 1e-6])]
    return all(
        np.allclose(function(jnp.float32(np.log(w))), w.sum() ** 2 / (w**2).sum())
        for w in cases
    )


def test_effective_sample_size_is_its_formula():
    assert is_effective_sample_size(numerics.effective_sample_size)
    shifted = lambda log_w: numerics.effective_sample_size(log_w + 300.0)
    assert is_effective_sample_size(shifted)


def test_effective_sample_size_of_a_wrong_sign_is_rejected():
    lse = jax.nn.logsumexp
    mutants = [
        lambda log_w: jnp.exp(lse(2.0 * log_w) - 2.0 * lse(log_w)),
        lambda log_w: numerics.effective_sample_size(-log_w),
        lambda log_w: jnp.exp(2.0 * lse(log_w) + lse(2.0 * log_w)),
    ]
    assert not any(map(is_effective_sample_size, mutants))


def test_log_mean_exp_error_is_the_spread_over_repeats():
    log_w = 0.5 * jax.random.normal(jax.random.key(0), (4000, 200))
    spread = jnp.std(numerics.log_mean_exp(log_w))
    error = jnp.mean(numerics.log_mean_exp_error(log_w))
    np.testing.assert_allclose(error, spread, rtol=0.05)


def test_log_mean_exp_error_is_the_delta_method():
    w = np.array([1.0, 2.0, 6.0])
    expected = w.std(ddof=1) / w.mean() / np.sqrt(3)
    ours = numerics.log_mean_exp_error(jnp.float32(np.log(w)))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_log_mean_exp_error_of_one_weight_is_nan(wrap):
    error = wrap(numerics.log_mean_exp_error)(jnp.zeros((4, 1)))
    assert error.shape == (4,)
    assert jnp.all(jnp.isnan(error))


@pytest.mark.parametrize(
    ("spread", "num", "k"),
    [
        *((0.5, 30, 0.30867), (0.5, 100, 0.22143), (0.5, 1000, 0.10819)),
        *((1.0, 30, 0.38343), (1.0, 1000, 0.29075), (2.0, 1000, 0.66650)),
    ],
)
def test_pareto_k_is_arvizs(spread, num, k):
    """Of log weights at normal quantiles; k by ArviZ 0.17.1, with a tail of this M."""
    log_w = spread * stats.norm.ppf((np.arange(num) + 0.5) / num)
    np.testing.assert_allclose(pareto_k(jnp.float32(log_w)), k, atol=1e-4)


def test_pareto_k_of_few_or_of_no_weights_is_infinite():
    assert pareto_k(jnp.zeros(24)) == jnp.inf
    assert pareto_k(jnp.full(50, -jnp.inf)) == jnp.inf
    assert pareto_k(jnp.zeros(50)) == 0.0


def test_two_sum_loses_nothing_to_the_optimizer():
    total = 1e4 * jax.random.normal(jax.random.key(1), (1000,))
    term = jax.random.normal(jax.random.key(2), (1000,))
    two_sum = jax.jit(numerics.two_sum, compiler_options=OPTIMIZED)
    result, error = two_sum(total, term)
    exact = np.float64(total) + np.float64(term)
    np.testing.assert_array_equal(np.float64(result) + np.float64(error), exact)
    assert np.any(error != 0.0)
