"""The path from the prior to the posterior of a NumPyro model; the extra `numpyro`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ais_jax.annealing.path import (
    AnnealingPath,
    Coordinates,
)


def from_numpyro(model: Callable[..., Any], *args: Any, **kwargs: Any) -> AnnealingPath:
    """The path whose log Z is the log evidence of a NumPyro model's data.

    It goes from the prior to the posterior, over parameters that NumPyro's bijections
    free of their bounds. Estimates give `z` back, and take `z_target`, as a dict of the
    model's parameters by site.

    Args:
        model: of continuous parameters, with data at observed sites (`obs=`) or in
            `numpyro.factor`.
        *args: of the model.
        **kwargs: of the model.

    Raises:
        ImportError: without NumPyro.
        ValueError: naming the site, where a prior has no density that can be sampled
            and is normalised: discrete or improper ones, `numpyro.param`, a mask or a
            scale on a prior; for subsampled plates, and models without data.
    """
    handlers, util = _numpyro()
    seeded = handlers.seed(model, jax.random.key(0))
    names = _parameters(_trace(handlers, seeded, args, kwargs))

    def unconstrain(y):
        transforms = util.get_transforms(seeded, args, kwargs, y)
        return {name: transforms[name].inv(y[name]) for name in names}

    def constrain(x):
        return util.constrain_fn(seeded, args, kwargs, x)

    def sample_base(key):
        sites = handlers.trace(handlers.seed(model, key)).get_trace(*args, **kwargs)
        return unconstrain({name: sites[name]["value"] for name in names})

    def log_terms(x):
        """Of each site, and of the volume that the bijections change."""
        y = constrain(x)
        transforms = util.get_transforms(seeded, args, kwargs, y)
        volumes = [
            jnp.sum(transforms[name].log_abs_det_jacobian(x[name], y[name]))
            for name in names
        ]
        return util.compute_log_probs(seeded, args, kwargs, y)[0], sum(volumes)

    def log_base(x):
        terms, log_volume = log_terms(x)
        return sum(terms[name] for name in names) + log_volume

    def log_target(x):
        terms, log_volume = log_terms(x)
        return sum(terms.values()) + log_volume

    coordinates = Coordinates(constrain, unconstrain)
    return AnnealingPath(sample_base, log_base, log_target, coordinates=coordinates)


def _numpyro():
    try:
        from numpyro import handlers
        from numpyro.infer import util
    except ImportError as error:
        text = "from_numpyro needs NumPyro: pip install 'ais_jax[numpyro]'"
        raise ImportError(text) from error
    return handlers, util


def _trace(handlers, seeded, args, kwargs):
    """One run of the model: its sites by name."""
    try:
        return handlers.trace(seeded).get_trace(*args, **kwargs)
    except NotImplementedError as error:
        raise ValueError(
            f"the model cannot be sampled from its prior ({error}): give every "
            "parameter a proper prior"
        ) from error


def _parameters(sites):
    """The names of a model's parameters, after a look at all of its sites."""
    sampled = [site for site in sites.values() if site["type"] == "sample"]
    names = [site["name"] for site in sampled if not site["is_observed"]]
    for site in sites.values():
        reason = _refusal(site)
        if reason is not None:
            raise ValueError(f"site {site['name']!r} of the model {reason}")
    if not names:
        raise ValueError("the model has no parameters: its evidence needs no estimate")
    if len(names) == len(sampled):
        raise ValueError("the model has no data: give observed sites their obs=")
    return names


def _refusal(site):
    """Why a site has no place on the path, and what to do; or None."""
    if site["type"] in ("param", "mutable"):
        return "is numpyro.param, which has no prior: use numpyro.sample"
    if site["type"] == "plate" and site["args"][1] not in (None, site["args"][0]):
        return "is a plate that is subsampled: log Z needs all of the data"
    if site["type"] != "sample" or site["is_observed"]:
        return None
    fn, kind = site["fn"], type(site["fn"]).__name__
    if fn.support.is_discrete:
        return f"is discrete ({kind}): sum it out, for instance by MixtureSameFamily"
    if kind in ("Delta", "MaskedDistribution"):
        return f"has a prior without a normalised density ({kind})"
    if site["scale"] is not None:
        return f"has a prior scaled by {site['scale']}, which is not normalised"
    return None
