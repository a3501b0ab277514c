"""NumPyro models that have no path to their evidence, refused by site."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from flax import linen as nn
from numpyro import handlers
from numpyro.contrib.control_flow import cond, scan
from numpyro.contrib.module import random_flax_module
from scipy import stats

from ais_jax.evidence.numpyro_models import from_numpyro

Y = np.array([0.3, 1.4, 0.8])
IMPROPER = dist.ImproperUniform(dist.constraints.real, (), ())
ENUMERATE = {"enumerate": "parallel"}
SOME = jnp.array([True, False, True])
NARROW = dist.MixtureSameFamily(
    dist.Categorical(jnp.array([0.5, 0.5])), dist.Beta(jnp.array([0.01, 2.0]), 2.0)
)


def with_site(site):
    def model():
        site()
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=Y)

    return model


def sampled(distribution, name="a", **options):
    return lambda: numpyro.sample(name, distribution, **options)


def within(*contexts, site=None):
    """A site, normal if it is not given, in a plate of three and other contexts."""

    def enter():
        with numpyro.plate("data", 3):
            if not contexts:
                return (site or sampled(dist.Normal(0.0, 1.0)))()
            with contexts[0]:
                return (site or sampled(dist.Normal(0.0, 1.0)))()

    return enter


def subsampled():
    with numpyro.plate("data", 3, subsample_size=2):
        pass


def looped(step=None, **options):
    def body(carry, shape):
        numpyro.sample("a", dist.Gamma(shape, 1.0))
        return carry, None

    scan(step or body, 0.0, jnp.array([1.0, 10.0]), **options)


def loop_in_loop():
    looped(lambda carry, _: (carry, looped()))


def net_of(prior):
    module = nn.Dense(1)
    return lambda: random_flax_module("nn", module, prior=prior, input_shape=(1,))


REFUSED = {
    "discrete": (sampled(dist.Bernoulli(0.5)), r"'a' of the model is discrete \(Bern"),
    "discrete_in_plate": (
        within(site=sampled(dist.Categorical(jnp.ones(3) / 3.0))),
        r"\(Categorical",
    ),
    "enumerated": (
        sampled(dist.Bernoulli(0.5), infer=ENUMERATE),
        "infer={'enumerate': ...} is not read",
    ),
    "improper": (sampled(IMPROPER), "'a' .* give every parameter a proper prior"),
    "no_bijection": (
        sampled(dist.ProjectedNormal(jnp.ones(2))),
        "'a' .* free of its b",
    ),
    "infinite": (
        within(site=sampled(dist.Uniform(-jnp.inf, jnp.inf))),
        r"'a' .* infinite or NaN \(Uniform\)",
    ),
    "delta": (sampled(dist.Delta(0.0)), r"'a' .* normalised density \(Delta\)"),
    "delta_in_event": (sampled(dist.Delta(Y).to_event(1)), r"density \(Delta\)"),
    "delta_in_plate": (within(site=sampled(dist.Delta(0.0))), r"density \(Delta\)"),
    "masked": (within(handlers.mask(mask=False)), r"density \(MaskedDistribution\)"),
    "masked_in_event": (
        sampled(dist.Normal(jnp.zeros(3), 1.0).mask(SOME).to_event(1)),
        r"density \(MaskedDistribution\)",
    ),
    "obs_mask": (
        within(site=sampled(dist.Normal(0.0, 1.0), obs=Y, obs_mask=SOME)),
        r"'a_unobserved' .* density \(MaskedDistribution\)",
    ),
    "censored": (
        sampled(dist.RightCensoredDistribution(dist.Normal(0.0, 1.0), jnp.array(0))),
        "density .RightCensored",
    ),
    "scaled": (within(handlers.scale(scale=2.0)), "'a' .* scaled by 2.0"),
    "param": (lambda: numpyro.param("a", 1.0), "'a' of the model is numpyro.param"),
    "net_without_prior": (
        net_of({"kernel": dist.Normal(0.0, 1.0)}),
        "random_flax_module a prior of every weight",
    ),
    "subsampled": (subsampled, "'data' of the model is a plate that is subsampled"),
    "backwards": (lambda: looped(reverse=True), "scan with reverse=True"),
    "loop_in_loop": (loop_in_loop, "'a' of the model is in a scan within a scan"),
    "tail": (sampled(dist.TruncatedNormal(0.0, 1.0, low=30.0)), "'a' .* 100% round"),
    "mixture": (sampled(NARROW), "'a' .* of whose draws 2.% round to a bound"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_models_without_a_path_are_refused_by_site(case):
    site, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        from_numpyro(with_site(site))


@pytest.mark.parametrize(
    "fix",
    [
        lambda model: handlers.substitute(model, {"a": jnp.ones(2)}),
        lambda model: handlers.seed(model, 0),
    ],
    ids=["substitute", "seed"],
)
@pytest.mark.parametrize("site", [looped, within()], ids=["loop", "plate"])
def test_parameters_that_are_not_drawn_are_refused(fix, site):
    """A fixed value has no prior density; `condition` gives the evidence with it."""
    with pytest.raises(ValueError, match=r"'a' .* handlers.condition"):
        from_numpyro(fix(with_site(site)))


def test_conditions_interventions_and_branches_are_taken():
    """The prior of a parameter that `do` cuts off is integrated out."""

    def branching():
        side = numpyro.sample("side", dist.Normal(0.0, 1.0))
        widths = lambda s: lambda _: numpyro.sample("a", dist.Normal(0.0, s))
        cond(side > 0.0, widths(1.0), widths(2.0), True)

    model = with_site(branching)
    path = from_numpyro(handlers.condition(model, {"mu": 0.5}))
    assert sorted(path.sample_base(jax.random.key(0))) == ["a", "side"]
    x = {"a": jnp.array(1.0), "side": jnp.array(-1.0)}
    exact = stats.norm.logpdf(-1.0) + stats.norm.logpdf(1.0)
    np.testing.assert_allclose(path.log_base(x), exact, rtol=1e-5)
    assert path.coordinates.constrain(x)["a"] == 2.0
    path = from_numpyro(handlers.do(model, {"mu": 0.5}))
    x = x | {"mu": jnp.array(3.0)}
    exact = stats.norm.logpdf(Y, 0.5).sum()
    np.testing.assert_allclose(path.log_target(x) - path.log_base(x), exact, rtol=1e-5)


def test_models_without_data_or_parameters_are_refused():
    with pytest.raises(ValueError, match="has no data"):
        from_numpyro(sampled(dist.Normal(0.0, 1.0)))
    with pytest.raises(ValueError, match="has no parameters"):
        from_numpyro(sampled(dist.Normal(0.0, 1.0), obs=Y))
