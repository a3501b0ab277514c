"""Priors of NumPyro's sites, drawn and weighed in unbounded coordinates.

A share of 1 - 1e-20 and a rate of 1e-100 round to 1 and 0 in float32, but their logit
and their logarithm do not. So draws and densities of bounded families are made in these
coordinates, from logarithms of gamma variates; the parameter itself is read off last.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betaln, gammaln
from jaxtyping import Array, Float
from numpyro.distributions import (
    Distribution,
    ExpandedDistribution,
    Independent,
    MaskedDistribution,
    TransformedDistribution,
    biject_to,
    constraints,
    transforms,
)

from ais_jax.types import PRNGKey

Site = dict[str, Any]
"""What NumPyro's handlers know of one `numpyro.sample` or other primitive."""

Parameters = Float[Array, "..."] | float

PLAIN = frozenset({"Normal", "MultivariateNormal", "Laplace", "Logistic", "Cauchy"})
"""Families over all real numbers whose draws float32 holds."""


class Prior(NamedTuple):
    """The prior of one site in unbounded coordinates x.

    Attributes:
        sample: an exact draw of x.
        log_prob: the normalised log-density at x, nats.
        constrain: the site's parameter at x, never rounded to where a density ends.
        unconstrain: the x of a parameter.
    """

    sample: Callable[[PRNGKey], Float[Array, "..."]]
    log_prob: Callable[[Float[Array, "..."]], Float[Array, ""]]
    constrain: Callable[[Float[Array, "..."]], Float[Array, "..."]]
    unconstrain: Callable[[Float[Array, "..."]], Float[Array, "..."]]


class Law(NamedTuple):
    """A family in its unbounded coordinates.

    Attributes:
        sample: a draw of a batch shape.
        log_prob: the log-density of each element of the batch, nats.
    """

    sample: Callable[[PRNGKey, tuple[int, ...]], Float[Array, "..."]]
    log_prob: Callable[[Float[Array, "..."]], Float[Array, "..."]]


def prior_of(site: Site) -> Prior:
    """The prior of a site, within plates and `to_event` too."""
    leaf = family(site["fn"])
    shape = site["kwargs"]["sample_shape"] + site["fn"].shape()
    batch = shape[: len(shape) - leaf.event_dim]
    constrain, unconstrain = _coordinates(leaf.support)
    law = _law(leaf)
    return Prior(
        sample=lambda key: law.sample(key, batch),
        log_prob=lambda x: jnp.sum(law.log_prob(x)),
        constrain=constrain,
        unconstrain=lambda y: unconstrain(jnp.reshape(y, shape)),
    )


def family(fn: Distribution) -> Distribution:
    """A distribution without what repeats it or makes its batches events.

    Its parameters broadcast against values of the whole from the right.
    """
    while isinstance(fn, Independent | ExpandedDistribution | MaskedDistribution):
        fn = fn.base_dist
    return fn


def parts(fn: Distribution) -> list[Distribution]:
    """A distribution and those that it is made of, from the outermost inwards."""
    found = [fn]
    while isinstance(getattr(fn, "base_dist", None), Distribution):
        fn = fn.base_dist
        found.append(fn)
    return found


def reason_against(site: Site) -> str | None:
    """Why a prior has no normalised density over an unbounded x, and what to do."""
    fn, names = site["fn"], [_name(part) for part in parts(site["fn"])]
    kind = _name(family(fn))
    if fn.support.is_discrete:
        how = ", and infer= is not read" if "enumerate" in site["infer"] else ""
        return f"is discrete ({kind}{how}): sum it out, as by MixtureSameFamily"
    for name in names:
        if name in ("Delta", "MaskedDistribution") or name.endswith("Censored"):
            return f"has a prior without a normalised density ({name})"
    if site["scale"] is not None:
        return f"has a prior scaled by {site['scale']}, which is not normalised"
    if not all(_is_finite(value) for value in jax.tree.leaves(fn)):
        return f"has a prior of a parameter that is infinite or NaN ({kind})"
    return None


def _is_finite(value):
    return isinstance(value, jax.core.Tracer) or bool(np.all(np.isfinite(value)))


def _name(fn):
    return type(fn).__name__


def is_exact(fn: Distribution) -> bool:
    """Whether float32 holds draws: as logarithms or logits, or over all reals."""
    leaf = family(fn)
    before = _before_bijection(leaf)
    return _exact_law(leaf) is not None or type(before or leaf).__name__ in PLAIN


def _law(leaf: Distribution) -> Law:
    exact, before = _exact_law(leaf), _before_bijection(leaf)
    if exact is not None:
        return exact
    return _law_by_value(leaf) if before is None else _law_by_value(before)


def _exact_law(leaf: Distribution) -> Law | None:
    """By the family's name, which subclasses in NumPyro share."""
    for kind in type(leaf).__mro__:
        if kind.__module__.startswith("numpyro.") and kind.__name__ in FAMILIES:
            return FAMILIES[kind.__name__](leaf)
        if kind.__dict__.get("log_prob") is not None:
            return None  # a density of its own
    return None


def _before_bijection(leaf: Distribution) -> Distribution | None:
    """Of exp(X), sigmoid(X) and the like: X, if it is over all reals."""
    if not isinstance(leaf, TransformedDistribution):
        return None
    *others, last = leaf.transforms
    if type(last) not in BIJECTIONS or type(biject_to(leaf.support)) is not type(last):
        return None
    before = TransformedDistribution(leaf.base_dist, others) if others else None
    before = before or leaf.base_dist
    return before if _is_real(before.support) else None


def _is_real(support: Any) -> bool:
    bijection = biject_to(support)
    while isinstance(bijection, transforms.IndependentTransform):
        bijection = bijection.base_transform
    return isinstance(bijection, transforms.IdentityTransform)


def _law_by_value(leaf: Distribution) -> Law:
    """Drawn and weighed as the parameter itself, which may round."""
    bijection = biject_to(leaf.support)
    constrain, unconstrain = _coordinates(leaf.support)

    def log_prob(x):
        y = constrain(x)
        volume = jnp.sum(bijection.log_abs_det_jacobian(x, y))
        return jnp.sum(leaf.log_prob(y)) + volume

    def sample(key, batch):
        return unconstrain(leaf.expand(batch).sample(key))

    if _is_real(leaf.support):
        return Law(lambda key, batch: leaf.expand(batch).sample(key), leaf.log_prob)
    return Law(sample, log_prob)


def _coordinates(support: Any) -> tuple[Callable, Callable]:
    """The parameter of x, and x of the parameter, both finite and off the edges."""
    kind = type(support)
    if kind in (type(constraints.positive), type(constraints.nonnegative)):
        return lambda x: _inside(jnp.exp(x)), lambda y: jnp.log(_inside(y))
    if kind is type(constraints.unit_interval):
        return _share, _logit
    if kind is type(constraints.simplex):
        return _shares, lambda y: _sticks(jnp.log(_inside(y)))
    bijection = biject_to(support)
    return bijection, bijection.inv


def _inside(y, largest=None):
    """Between the smallest positive number and the largest finite one."""
    limits = jnp.finfo(jnp.result_type(y, float))
    return jnp.clip(y, limits.tiny, limits.max if largest is None else largest)


def _share(x):
    return _inside(jax.nn.sigmoid(x), _below_one(x))


def _logit(p):
    p = _inside(p, _below_one(p))
    return jnp.log(p) - jnp.log1p(-p)


def _below_one(x):
    return 1.0 - jnp.finfo(jnp.result_type(x, float)).epsneg


def _shares(x):
    """Shares of the fractions that are broken off a stick, as NumPyro's bijection."""
    x = x - _balance(x)
    rest = jnp.cumsum(jax.nn.log_sigmoid(-x), axis=-1)
    before = jnp.concatenate([jnp.zeros_like(rest[..., :1]), rest], axis=-1)
    last = jnp.zeros_like(rest[..., :1])
    log_shares = before + jnp.concatenate([jax.nn.log_sigmoid(x), last], axis=-1)
    return _inside(jax.nn.softmax(log_shares, axis=-1))


def _sticks(log_shares):
    """The way back, of the logarithms of shares that need not sum to one."""
    rest = jax.lax.cumlogsumexp(log_shares, axis=log_shares.ndim - 1, reverse=True)
    x = log_shares[..., :-1] - rest[..., 1:]
    return x + _balance(x)


def _balance(x):
    """Makes equal shares of x = 0: minus the logit of each fraction of equal shares."""
    return jnp.log(jnp.arange(x.shape[-1], 0, -1, dtype=x.dtype))


def _of_gammas(
    a: Parameters,
    b: Parameters | None = None,
    shift: Parameters = 0.0,
    slope: Parameters = 1.0,
) -> Law:
    """The law of shift + slope log(A / B) of gamma variates A and B, or of A alone."""
    a, b, shift, slope = (
        None if v is None else jnp.asarray(v, float) for v in (a, b, shift, slope)
    )

    def sample(key, batch):
        keys = jax.random.split(key)
        log_ratio = jax.random.loggamma(keys[0], a, batch)
        if b is not None:
            log_ratio = log_ratio - jax.random.loggamma(keys[1], b, batch)
        return shift + slope * log_ratio

    def log_prob(x):
        u = (x - shift) / slope
        density = _log_gamma(a, u) if b is None else _logit_beta(a, b, u)
        return density - jnp.log(jnp.abs(slope))

    return Law(sample, log_prob)


def _log_gamma(a, u):
    """The log-density of the logarithm of a gamma variate."""
    return a * u - jnp.exp(u) - gammaln(a)


def _logit_beta(a, b, u):
    """The log-density of the logit of a beta variate."""
    return a * jax.nn.log_sigmoid(u) + b * jax.nn.log_sigmoid(-u) - betaln(a, b)


def _dirichlet(d: Any) -> Law:
    """Independent beta fractions of a stick (Connor & Mosimann, 1969)."""
    a = jnp.asarray(d.concentration, float)
    rest = jnp.flip(jnp.cumsum(jnp.flip(a, axis=-1), axis=-1), axis=-1)

    def sample(key, batch):
        return _sticks(jax.random.loggamma(key, a, batch + a.shape[-1:]))

    def log_prob(x):
        return _logit_beta(a[..., :-1], rest[..., 1:], x - _balance(x)).sum(-1)

    return Law(sample, log_prob)


def _kumaraswamy(d: Any) -> Law:
    """Of Y whose power a is a beta variate of 1 and b."""
    a, b = (jnp.asarray(v, float) for v in (d.concentration1, d.concentration0))
    powers = _of_gammas(1.0, b)

    def sample(key, batch):
        log_y = jax.nn.log_sigmoid(powers.sample(key, batch)) / a
        return log_y - _log1mexp(log_y)

    def log_prob(x):
        log_power = a * jax.nn.log_sigmoid(x)
        complement = _log1mexp(log_power)
        slope = jnp.log(a) + jax.nn.log_sigmoid(-x) - complement
        return powers.log_prob(log_power - complement) + slope

    return Law(sample, log_prob)


def _log1mexp(x):
    """log(1 - exp(x)) of x < 0."""
    x = jnp.minimum(x, -jnp.finfo(x.dtype).tiny)
    is_near = x > -0.7
    near = jnp.log(-jnp.expm1(jnp.where(is_near, x, -0.7)))
    return jnp.where(is_near, near, jnp.log1p(-jnp.exp(jnp.where(is_near, -0.7, x))))


BIJECTIONS = (
    transforms.ExpTransform,
    transforms.SigmoidTransform,
    transforms.StickBreakingTransform,
)

FAMILIES: dict[str, Callable[[Any], Law]] = {
    "Beta": lambda d: _of_gammas(d.concentration1, d.concentration0),
    "Dagum": lambda d: _of_gammas(
        d.concentration, 1.0, jnp.log(d.scale), 1.0 / d.sharpness
    ),
    "Dirichlet": _dirichlet,
    "Exponential": lambda d: _of_gammas(1.0, None, -jnp.log(d.rate)),
    "Gamma": lambda d: _of_gammas(d.concentration, None, -jnp.log(d.rate)),
    "HalfCauchy": lambda d: _of_gammas(0.5, 0.5, jnp.log(d.scale), 0.5),
    "HalfNormal": lambda d: _of_gammas(
        0.5, None, jnp.log(d.scale) + 0.5 * jnp.log(2.0), 0.5
    ),
    "InverseGamma": lambda d: _of_gammas(d.concentration, None, jnp.log(d.rate), -1.0),
    "Kumaraswamy": _kumaraswamy,
    "Levy": lambda d: _of_gammas(0.5, None, jnp.log(d.scale / 2.0), -1.0),
    "Pareto": lambda d: _of_gammas(1.0, d.alpha, jnp.log(d.scale)),
    "Uniform": lambda d: _of_gammas(1.0, 1.0),
    "Weibull": lambda d: _of_gammas(1.0, None, jnp.log(d.scale), 1.0 / d.concentration),
}
"""By a family's name; x is the logarithm of a positive parameter, or of its distance
from the lower bound, and the logit of one between two bounds."""
