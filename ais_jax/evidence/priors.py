"""Priors of NumPyro's sites, drawn and weighed in unbounded coordinates."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
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

from ais_jax.evidence.gamma_laws import FAMILIES, Law, balance, sticks
from ais_jax.types import PRNGKey, is_traced

Site = dict[str, Any]
"""What NumPyro's handlers know of one `numpyro.sample` or other primitive."""

PLAIN = frozenset({"Normal", "MultivariateNormal", "Laplace", "Logistic", "Cauchy"})
"""Families over all real numbers whose draws float32 holds."""

UNITS = frozenset({"Normal", "Laplace", "Logistic", "Cauchy", "StudentT", "Gumbel"})
"""Families of loc + scale * u, whose u is the unbounded coordinate."""

BIJECTIONS = (
    transforms.ExpTransform,
    transforms.SigmoidTransform,
    transforms.StickBreakingTransform,
)
"""Maps of all reals, through which a law of reals is that of x."""

UNNORMALISED = ("Delta", "Masked", "Censored", "Hurdle")
"""Words in the names of what has no density that integrates to one."""


class Prior(NamedTuple):
    """The prior of one site in unbounded coordinates x.

    Of loc + scale * u the coordinate is u, so that the prior of a group's means does
    not depend on their scale. The means themselves would be drawn into a neck as the
    scale goes to zero.

    References:
        Papaspiliopoulos, Roberts & Skoeld, A general framework for the parametrization
        of hierarchical models, 2007 (the non-centred parametrisation).

    Attributes:
        shape: of x.
        sample: an exact draw of x.
        log_prob: the normalised log-density at x, nats.
        constrain: the site's parameter at x, never rounded to where a density ends.
        complement: the parameter, or one minus it where it is a share.
        unconstrain: the x of a parameter.
    """

    shape: tuple[int, ...]
    sample: Callable[[PRNGKey], Float[Array, "..."]]
    log_prob: Callable[[Float[Array, "..."]], Float[Array, ""]]
    constrain: Callable[[Float[Array, "..."]], Float[Array, "..."]]
    complement: Callable[[Float[Array, "..."]], Float[Array, "..."]]
    unconstrain: Callable[[Float[Array, "..."]], Float[Array, "..."]]


def prior_of(site: Site) -> Prior:
    """The prior of a site, within plates and `to_event` too."""
    leaf = family(site["fn"])
    shape = site["kwargs"]["sample_shape"] + site["fn"].shape()
    batch = shape[: len(shape) - leaf.event_dim]
    constrain, unconstrain = _coordinates(leaf.support)
    real = _before_bijection(leaf) or leaf
    if _name(real) in UNITS:
        law = _law_by_value(_unit(real))
        constrain, unconstrain = _from_units(real, constrain, unconstrain)
    else:
        law = _law(leaf)
    return Prior(
        shape=biject_to(leaf.support).inverse_shape(shape),
        sample=lambda key: law.sample(key, batch),
        log_prob=lambda x: jnp.sum(law.log_prob(x)),
        constrain=constrain,
        complement=(lambda x: _share(-x)) if constrain is _share else constrain,
        unconstrain=lambda y: unconstrain(jnp.reshape(y, shape)),
    )


def family(fn: Distribution) -> Any:
    """A distribution without what repeats it or makes its batches events.

    Its parameters, which `Distribution` does not name, broadcast against values of the
    whole from the right.
    """
    while isinstance(fn, Independent | ExpandedDistribution | MaskedDistribution):
        fn = fn.base_dist
    return fn


def parts(fn: Distribution) -> list[Distribution]:
    """A distribution and those that it is made of, from the outermost inwards."""
    found = [fn]
    while isinstance(inner := getattr(found[-1], "base_dist", None), Distribution):
        found.append(inner)
    return found


def reason_against(site: Site) -> str | None:
    """Why a prior has no normalised density over an unbounded x, and what to do."""
    fn, kind = site["fn"], _name(family(site["fn"]))
    enumerated = "enumerate" in site["infer"]
    if fn.support.is_discrete:
        how = "infer={'enumerate': ...} is not read: " if enumerated else ""
        return f"is discrete ({kind}): {how}sum it out, as by MixtureSameFamily"
    for name in map(_name, parts(fn)):
        if any(word in name for word in UNNORMALISED):
            return f"has a prior without a normalised density ({name})"
    if site["scale"] is not None:
        return f"has a prior scaled by {site['scale']}, which is not normalised"
    if not all(map(_is_finite, jax.tree.leaves(fn))):
        return f"has a prior of a parameter that is infinite or NaN ({kind})"
    return None


def _is_finite(value):
    return is_traced(value) or bool(np.all(np.isfinite(value)))


def _name(fn):
    return type(fn).__name__.removesuffix("Probs").removesuffix("Logits")


def is_exact(fn: Distribution) -> bool:
    """Whether float32 holds draws: as logarithms or logits, or over all reals."""
    leaf = family(fn)
    before = _before_bijection(leaf)
    return _exact_law(leaf) is not None or _name(family(before or leaf)) in PLAIN


def _law(leaf: Distribution) -> Law:
    return _exact_law(leaf) or _law_by_value(_before_bijection(leaf) or leaf)


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

    def draw(key, batch):
        return jnp.asarray(leaf.expand(batch).sample(key))

    if _is_real(leaf.support):
        return Law(draw, lambda x: jnp.asarray(leaf.log_prob(x)))
    return Law(lambda key, batch: unconstrain(draw(key, batch)), log_prob)


def _unit(real: Any) -> Distribution:
    """The law of u."""
    units = {"loc": jnp.zeros_like(real.loc), "scale": jnp.ones_like(real.scale)}
    others = {name: getattr(real, name) for name in real.arg_constraints}
    return type(real)(**(others | units))


def _from_units(real, constrain, unconstrain):
    """A parameter's maps to and from x, as maps to and from u."""

    def from_units(u):
        return constrain(real.loc + real.scale * u)

    def to_units(y):
        return (unconstrain(y) - real.loc) / real.scale

    return from_units, to_units


def _coordinates(support: Any) -> tuple[Callable, Callable]:
    """The parameter of x, and x of the parameter, both finite and off the edges."""
    if isinstance(support, type(constraints.unit_interval)):
        return _share, lambda p: _clamp(jnp.log(p) - jnp.log1p(-p))
    if isinstance(support, type(constraints.simplex)):
        return _shares, lambda y: sticks(_clamp(jnp.log(y)))
    bijection = biject_to(support)
    first = getattr(bijection, "parts", [bijection])[0]
    if type(first) not in BIJECTIONS:
        return bijection, bijection.inv
    return lambda x: bijection(_clamp(x)), lambda y: _clamp(bijection.inv(y))


def _clamp(x):
    """Logarithms of numbers whose inverse, times many data, is finite."""
    x = jnp.asarray(x, float)
    end = -0.8 * np.log(jnp.finfo(x.dtype).tiny)
    return jax.lax.clamp(jnp.full_like(x, -end), x, jnp.full_like(x, end))


def _share(x):
    p = jax.nn.sigmoid(_clamp(x))
    below_one = 1.0 - jnp.finfo(p.dtype).epsneg
    return jax.lax.clamp(jnp.zeros_like(p), p, jnp.full_like(p, below_one))


def _shares(x):
    """Shares of the fractions that are broken off a stick, as NumPyro's bijection."""
    x = x - balance(x)
    rest = jnp.cumsum(jax.nn.log_sigmoid(-x), axis=-1)
    before = jnp.concatenate([jnp.zeros_like(rest[..., :1]), rest], axis=-1)
    last = jnp.zeros_like(rest[..., :1])
    log_shares = before + jnp.concatenate([jax.nn.log_sigmoid(x), last], axis=-1)
    return jnp.exp(_clamp(jax.nn.log_softmax(log_shares, axis=-1)))
