"""Likelihoods of shares p so near 1 that 1 - p is lost, from 1 - p itself.

Some of a model's probabilities have f(1 - p) = 1 - f(p): p itself, its elements and
their means. For these a second run of the model at 1 - p gives 1 - f(p) unrounded.
"""

import copy
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from numpyro.distributions import (
    BernoulliLogits,
    BinomialLogits,
    Distribution,
    GeometricLogits,
)

from ais_jax.evidence.priors import Site, family

OF_LOGITS: dict[str, Callable[[Any, Any], Distribution]] = {
    "BernoulliProbs": lambda d, logits: BernoulliLogits(logits),
    "BinomialProbs": lambda d, logits: BinomialLogits(logits, d.total_count),
    "GeometricProbs": lambda d, logits: GeometricLogits(logits),
}
"""Families of a probability, as what they are of its logit."""


def probabilities(sites: dict[str, Site]) -> dict[str, Any]:
    """The probabilities that a run of a model gave its data, by site."""
    return {
        name: family(site["fn"]).probs
        for name, site in sites.items()
        if site["type"] == "sample"
        and site["is_observed"]
        and type(family(site["fn"])).__name__ in OF_LOGITS
    }


def in_logits(fn: Distribution, complement: Distribution) -> Distribution:
    """A site's distribution, by the logit of its probability p.

    Args:
        fn: of p.
        complement: the same of 1 - p.
    """
    leaf = family(fn)
    logits = jnp.log(leaf.probs) - jnp.log(family(complement).probs)
    return _with_family(fn, OF_LOGITS[type(leaf).__name__](leaf, logits))


def _with_family(fn, leaf):
    """The same plates, masks and events of another family."""
    if fn is family(fn):
        return leaf
    outer = copy.copy(fn)
    outer.base_dist = _with_family(fn.base_dist, leaf)
    return outer
