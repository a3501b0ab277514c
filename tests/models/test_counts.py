"""Counts of any size against double precision; rows with covariates and libraries."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import ais_jax
from ais_jax.models import counts, evaluation, likelihoods, networks
from tests.targets import OPTIMIZED, errors_off, shaken

NAME = "zero_inflated_negative_binomial"
FAMILY = likelihoods.LIKELIHOODS[NAME]


def extremes():
    """Log means, log r and counts, near each other and far apart."""
    for x in (0.0, 1.0, 2.0, 7.0, 100.0, 1e4, 1e6):
        near = [np.log(x) + d for d in (-0.5, -0.003, 0.0, 0.01, 0.7)] if x else []
        for log_r in (-8.0, -1.0, 0.0, 1.3, 6.0, 13.0):
            for log_mean in (-30.0, -3.0, 0.0, 5.0, 9.0, 14.0, *near):
                yield log_mean, log_r, x


def in_double(log_mean, log_r, x):
    """Log-probabilities and derivatives by the textbook formula."""
    mean, r = np.exp(log_mean), np.exp(log_r)
    log_sum = log_r + np.log1p(mean / r)
    value = special.gammaln(x + r) - special.gammaln(r) - special.gammaln(x + 1)
    value += r * (log_r - log_sum) + x * (log_mean - log_sum)
    by_mean = (x - mean) * r / (r + mean)
    by_r = special.digamma(x + r) - special.digamma(r) + log_r - log_sum
    return value, by_mean, r * by_r - by_mean


def test_counts_of_any_size_are_right_to_single_precision():
    given = np.float32(list(extremes())).T
    exact, by_mean, by_r = in_double(*np.float64(given))
    grad = jax.vmap(jax.value_and_grad(counts.log_negative_binomial, (0, 1)))
    value, found = jax.jit(grad, compiler_options=OPTIMIZED)(*given)
    # exp(log_mean) is rounded: the force times that is lost, and of the force the count
    rounding = 1e-6 * (1 + np.abs(exact) + np.abs(by_mean))
    assert np.all(np.abs(value - exact) < 3 * rounding)
    assert np.all(np.abs(found[0] - by_mean) < rounding + 2e-7 * given[2])
    assert np.all(np.abs(found[1] - by_r) < 4 * rounding + 1e-6 * np.abs(by_r))
    is_usual = (np.abs(exact) < 300) & (given[0] > -10)  # scipy's is finite there
    log_mean, log_r, x = np.float64(given[:, is_usual])
    scipys = stats.nbinom.logpmf(x, np.exp(log_r), special.expit(log_r - log_mean))
    np.testing.assert_allclose(value[is_usual], scipys, rtol=1e-4, atol=1e-4)


def test_poisson_counts_of_any_size_are_right_to_single_precision():
    given = np.float32([(log_mean, x) for log_mean, _, x in extremes()]).T
    log_rate, x = np.float64(given)
    exact, push = stats.poisson.logpmf(x, np.exp(log_rate)), x - np.exp(log_rate)
    grad = jax.vmap(jax.value_and_grad(counts.log_poisson))
    value, found = jax.jit(grad, compiler_options=OPTIMIZED)(*given)
    rounding = 1e-6 * (1 + np.abs(exact) + np.abs(push))
    assert np.all(np.abs(value - exact) < 3 * rounding)
    assert np.all(np.abs(found - push) < rounding + 2e-7 * x)
    assert np.all(
        np.isfinite(
            jax.vmap(jax.grad(counts.log_poisson))(
                jnp.float32([-300.0, -300.0, 300.0, 300.0]),
                jnp.float32([0.0, 3.0, 0.0, 3.0]),
            )
        )
    )


@pytest.mark.parametrize("values", [(200.0, 0.0), (-200.0, 0.0), (0.0, 200.0)])
def test_no_parameter_overflows(values):
    grad = jax.grad(lambda *a: counts.log_negative_binomial(*a), (0, 1))
    for x in (0.0, 3.0, 1e6):
        assert np.all(np.isfinite(grad(*jnp.float32([*values, x]))))


ODDS = np.array([-30.0, -2.0, 0.0, 3.0, 12.0, 40.0], np.float32)


@pytest.mark.parametrize("log_mean", [-12.0, 0.5, 9.0])
@pytest.mark.parametrize("x", [0.0, 4.0])
def test_dropouts_are_right_to_single_precision(log_mean, x):
    log_kept = in_double(log_mean, 0.3, x)[0]
    dropped, kept = special.expit(np.float64(ODDS)), special.expit(-np.float64(ODDS))
    exact = np.log1p(kept * np.expm1(log_kept)) if x == 0 else np.log(kept) + log_kept
    output = np.stack([np.full(6, log_mean), ODDS], -1).astype(np.float32)
    log_prob = lambda o, x: FAMILY.log_prob(o, np.float32(0.3), x)
    ours = jax.vmap(log_prob)(output, np.full(6, x, np.float32))
    np.testing.assert_allclose(ours, exact, rtol=5e-6)
    force = jax.vmap(jax.grad(log_prob))(output, np.full(6, x, np.float32))
    responsible = dropped * (x == 0) / np.exp(exact)  # how likely a dropout was
    push = in_double(log_mean, 0.3, x)[1]
    by_mean, tiny = (1 - responsible) * push, 1e-7 * abs(push)
    np.testing.assert_allclose(force[:, 0], by_mean, rtol=1e-5, atol=tiny)
    np.testing.assert_allclose(force[:, 1], responsible - dropped, atol=1e-6)


OUTPUT = np.array([[-1.3, -1.0], [0.2, 0.5], [0.9, -9.0], [1.4, 0.0]], np.float32)
LOG_R = np.array([-0.7, 0.3, 2.0, 0.1], np.float32)


def test_draws_have_their_moments_and_probabilities_their_sum():
    keys = jax.random.split(jax.random.key(0), 20000)
    x = np.float64(jax.vmap(lambda key: FAMILY.sample(key, OUTPUT, LOG_R))(keys))
    assert FAMILY.is_value(x).all()
    kept, mean = special.expit(-OUTPUT[:, 1]), np.exp(OUTPUT[:, 0])
    np.testing.assert_allclose(FAMILY.mean(OUTPUT), kept * mean, rtol=1e-5)
    square = kept * (mean + mean**2 * (1 + 1 / np.exp(LOG_R)))
    for draws, expected in ((x, kept * mean), (x**2, square)):
        assert abs(errors_off(draws - expected, 0.0)).max() < 4.5
    all_x = np.arange(2000, dtype=np.float32)[:, None]
    of_one = jax.vmap(lambda x: FAMILY.log_prob(OUTPUT[1:2], LOG_R[1:2], x))(all_x)
    assert np.exp(np.float64(of_one)).sum() == pytest.approx(1.0, abs=2e-5)
    start, log_r = FAMILY.start(np.float32(x))
    np.testing.assert_allclose(FAMILY.mean(start), x.mean(0), rtol=1e-4)
    assert start.shape == (4, 2) and log_r.shape == (4,)


def test_means_add_up_to_the_library_over_what_is_observed():
    x = np.float32([3.0, np.nan, 0.0, 5.0])
    log_library = jnp.asarray(counts.log_library(x[None])[0])
    assert log_library == pytest.approx(np.log(8.0))
    assert counts.log_library(np.zeros((1, 4)))[0] == 0.0
    for row, seen in ((x, [0, 2, 3]), (0 * x, [0, 2, 3]), (np.nan * x, range(4))):
        output = counts.with_library(jnp.asarray(OUTPUT), log_library, jnp.asarray(row))
        np.testing.assert_array_equal(output[:, 1], OUTPUT[:, 1])
        np.testing.assert_allclose(
            np.diff(output[:, 0]), np.diff(OUTPUT[:, 0]), rtol=1e-5
        )
        total = np.exp(output[list(seen), 0]).sum()
        assert total == pytest.approx(8.0, rel=1e-5)


def test_a_decoder_trained_elsewhere_gives_log_means_and_odds():
    decode = lambda theta, z: (theta * z + OUTPUT, jnp.asarray(LOG_R))
    model = ais_jax.from_decoder(decode, 1, NAME)
    x, z, theta = jnp.float32([0.0, 3.0, 1.0, 0.0]), jnp.float32([0.5]), jnp.float32(2)
    exact = stats.norm.logpdf(0.5) + FAMILY.log_prob(1.0 + OUTPUT, LOG_R, x)
    assert model.log_joint(theta, x, z) == pytest.approx(float(exact), rel=1e-5)


NUM = 16
SETTINGS = {"likelihood": NAME, "latent_sizes": (1,), "widths": ((4,),)}
COVARIATES = np.random.default_rng(0).normal(size=(NUM, 2)).astype(np.float32)
LIBRARY = np.linspace(3.0, 6.0, NUM, dtype=np.float32)


def rows_of(model, theta, missing):
    """Simulated rows whose covariates and libraries are those above."""
    like = np.concatenate([np.zeros((NUM, 5)), COVARIATES, LIBRARY[:, None]], 1)
    if missing:
        like[::2, :2] = np.nan
    like = np.float32(like)
    key = jax.random.key(3)
    return np.asarray(evaluation.simulate(model, key, theta, np.arange(NUM), like)[0])


@pytest.fixture(scope="module", params=[False, True], ids=["whole", "missing"])
def conditional(request):
    """A model of counts with covariates, its parameters, and rows."""
    missing = request.param
    model = networks.latent_model((5,), num_covariates=2, missing=missing, **SETTINGS)
    params = shaken(jax.jit(model.init)(jax.random.key(0)), jax.random.key(1))
    return model, params, rows_of(model, params[0], missing)


def exact_log_p(model, theta, rows):
    """Log p(x) given the rest of each row, by quadrature over the one latent."""
    z = np.linspace(-8.0, 8.0, 4001, dtype=np.float32)[:, None]
    each = jax.vmap(model.log_joint, (None, None, 0))
    log_p = jax.lax.map(lambda row: each(theta, row, z), rows)
    return special.logsumexp(np.float64(log_p), axis=1) + np.log(z[1] - z[0])


def test_log_p_given_covariates_and_library_is_that_of_quadrature(conditional):
    model, params, rows = conditional
    result = ais_jax.log_likelihood(
        *(jax.random.key(0), model, rows, params),
        **{"error": 0.02, "num_simulated": 64, "start": "prior"},
    )
    exact = exact_log_p(model, params[0], rows)
    off = result.log_p - exact
    assert np.all(np.abs(off) < 5 * result.standard_error + 1e-3)
    assert result.monte_carlo < 0.03 < np.std(exact)
    assert abs(result.gap.mean) < 5 * result.gap.standard_error + 0.01
    moved = rows.copy()
    for column in (5, 6, 7):  # each of what is given has its part
        moved[:, column] += 1.0
        now = exact_log_p(model, params[0], moved)
        assert np.max(np.abs(now - exact)) > 0.1
        exact = now


def test_the_encoder_sees_covariates_and_library(conditional):
    model, (_, phi), rows = conditional
    means = jax.vmap(lambda row: model.proposal(phi, row).mean)
    for column in (5, 6, 7):
        moved = rows.copy()
        moved[:, column] += 1.0
        assert np.all(means(moved) != means(rows))


def test_force_and_gradient_of_one_pass_are_those_of_the_density(conditional):
    model, (theta, _), rows = conditional
    z = jnp.linspace(-1.0, 2.0, NUM)[:, None]
    total = lambda theta: jax.vmap(partial(model.log_joint, theta))(rows, z).sum()

    @jax.jit
    def both(theta):
        of_z = jax.vmap(jax.value_and_grad(model.log_joint, 2), (None, 0, 0))
        targets = jax.vmap(model.target_with_residuals, (None, 0, 0))
        log_p, force, residuals = targets(theta, rows, z)
        of_theta = residuals.gradient(theta, jnp.ones(NUM))[1]
        exact = (*of_z(theta, rows, z), jax.grad(total)(theta))
        return (log_p, force, of_theta), exact

    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-3)
    jax.tree.map(close, *both(theta))


def test_simulated_rows_have_what_the_real_ones_are_given(conditional):
    model, (theta, _), rows = conditional
    pairs = evaluation.simulate
    x, z = pairs(model, jax.random.key(1), theta, np.arange(NUM), rows)
    np.testing.assert_array_equal(x[:, 5:], np.column_stack([COVARIATES, LIBRARY]))
    np.testing.assert_array_equal(np.isnan(x), np.isnan(rows))
    assert not np.array_equal(x, rows, equal_nan=True)
    for i in (0, 1):
        given = model.given(rows[i])
        seen = ~np.isnan(rows[i, :5])
        log_total = np.log(np.sum(given.decode(theta, z[i])[seen]))
        assert log_total < rows[i, 7] + 1e-3  # dropouts take their share
    with pytest.raises(ValueError, match=r"model.given\(row\)"):
        model.simulate(jax.random.key(0), theta)


@pytest.mark.parametrize(
    "settings", [{"num_covariates": 1}, {"likelihood": NAME}], ids=str
)
def test_convolutions_take_nothing_that_is_given(settings):
    with pytest.raises(ValueError, match="network='convolution' takes neither"):
        networks.latent_model((8, 8), network="convolution", **settings)
