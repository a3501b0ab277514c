"""The path from the prior to the posterior of a NumPyro model; the extra `numpyro`."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, Var

from ais_jax.annealing.path import (
    AnnealingPath,
    Coordinates,
)

MARK = "|unbounded|"
"""Begins the names under which a run of a model keeps its positions."""

NUM_LOOKS = 256
"""Draws that are looked at, of priors that floating-point numbers may not hold."""

FIXED = (
    "is drawn without the key: fix it by handlers.condition, not handlers.substitute "
    "or handlers.do, and give the model without handlers.seed"
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
            scale on a prior; where `handlers.substitute` fixes a parameter, or numbers
            round too many of its draws; for subsampled plates, and models without data.
    """
    priors = _priors()
    visit = partial(_visit, priors, model, args, kwargs)

    def draw(key):
        return visit(key, lambda site, prior: prior.sample(site["kwargs"]["rng_key"]))

    def at(x):
        return visit(jax.random.key(0), lambda site, _: _at_step(site, x))

    def of(y):
        place = lambda site, prior: prior.unconstrain(_at_step(site, y))
        return visit(jax.random.key(0), place)

    def log_target(x):
        sites = at(x)
        return _log_prior(sites) + _log_likelihood(sites)

    def constrain(x):
        sites = at(x)
        return {name: sites[name]["value"] for name in x}

    _check(priors, draw)
    return AnnealingPath(
        sample_base=lambda key: _positions(draw(key)),
        log_base=lambda x: _log_prior(at(x)),
        log_target=log_target,
        coordinates=Coordinates(constrain, lambda y: _positions(of(y))),
    )


def _priors():
    """The module that needs NumPyro, loaded on first use."""
    try:
        from ais_jax.evidence import priors
    except ImportError as error:
        text = "from_numpyro needs NumPyro: pip install 'ais_jax[numpyro]'"
        raise ImportError(text) from error
    return priors


def _visit(priors, model, args, kwargs, key, place):
    """One run of the model, with parameters where `place(site, prior)` puts them.

    Returns:
        Its sites by name, and for each parameter one of `MARK` and its name, whose
        value is (position, log prior).
    """
    import numpyro

    def substitute(site):
        if site["type"] != "sample" or site["value"] is not None:
            return None
        _refuse(site, priors.reason_against(site))
        prior = priors.prior_of(site)
        x = place(site, prior)
        # A site of its own, because only sites leave the loops of NumPyro.
        numpyro.deterministic(MARK + site["name"], (x, prior.log_prob(x)))
        return prior.constrain(x)

    handlers = numpyro.handlers
    seeded = handlers.seed(model, key)
    placed = handlers.substitute(seeded, substitute_fn=substitute)
    return handlers.trace(placed).get_trace(*args, **kwargs)


def _at_step(site, values):
    """The site's value, or its part at the step of the `scan` that the site is in."""
    value, step = values[site["name"]], site["infer"].get("_scan_current_index")
    return value if step is None else value[step]


def _kept(sites):
    """What `_visit` kept, by parameter; a scope's prefix stands before the mark."""
    return {
        name.split(MARK)[-1]: site["value"]
        for name, site in sites.items()
        if MARK in name
    }


def _positions(sites):
    return {name: x for name, (x, _) in _kept(sites).items()}


def _log_prior(sites):
    return sum(jnp.sum(log_prob) for _, log_prob in _kept(sites).values())


def _log_likelihood(sites):
    """Of all observed sites, with their masks and scales, nats."""
    total = 0.0
    for site in _sampled(sites):
        if site["is_observed"]:
            scale = 1.0 if site["scale"] is None else site["scale"]
            total = total + jnp.sum(scale * site["fn"].log_prob(site["value"]))
    return total


def _sampled(sites):
    return [site for site in sites.values() if site["type"] == "sample"]


def _check(priors, draw):
    """Refuses a model whose evidence the path would not give, before any run of it."""
    doubtful = []

    def positions(key):
        sites = draw(key)
        _check_sites(sites)
        doubtful.extend(_doubtful(priors, sites))
        return _positions(sites)

    key = jax.random.key(0)
    try:
        program, shapes = jax.make_jaxpr(positions, return_shape=True)(key)
    except NotImplementedError as error:
        raise ValueError(
            f"the model cannot be sampled from its prior ({error}): give every "
            "parameter a proper prior"
        ) from error
    for name, is_drawn in zip(sorted(shapes), _depend(program.jaxpr), strict=True):
        _refuse({"name": name}, None if is_drawn else FIXED)
    _check_draws(draw, doubtful)


def _check_sites(sites):
    names = _kept(sites)
    sampled = _sampled(sites)
    for site in sites.values():
        _refuse(site, _reason_against(site, names))
    if not names:
        raise ValueError("the model has no parameters: its evidence needs no estimate")
    if len(names) == len(sampled):
        raise ValueError("the model has no data: give observed sites their obs=")


def _refuse(site, reason):
    if reason is not None:
        raise ValueError(f"site {site['name']!r} of the model {reason}")


def _reason_against(site, names):
    """Why a site has no place on the path, and what to do; or None."""
    kind = site["type"]
    if kind == "sample" and not site["is_observed"] and site["name"] not in names:
        return FIXED
    # random_flax_module takes the weights that have a prior out of its parameters.
    if kind in ("param", "mutable") and jax.tree.leaves(site["value"]):
        return (
            "is numpyro.param, which has no prior: use numpyro.sample, and in "
            "random_flax_module a prior of every weight"
        )
    if kind == "plate" and site["args"][1] not in (None, site["args"][0]):
        return "is a plate that is subsampled: log Z needs all of the data"
    return None


def _depend(program: Jaxpr) -> list[bool]:
    """Of each of a program's outputs, whether it depends on an input."""
    reached = set(program.invars)
    for step in program.eqns:
        if any(isinstance(v, Var) and v in reached for v in step.invars):
            reached.update(step.outvars)
    return [isinstance(v, Var) and v in reached for v in program.outvars]


def _doubtful(priors, sites):
    """Parameters whose draws numbers may not hold, by name."""
    names = _kept(sites)
    return [
        site["name"]
        for site in _sampled(sites)
        if site["name"] in names and not priors.is_exact(site["fn"])
    ]


def _check_draws(draw, names):
    """Refuses priors many of whose draws are infinite, or round to equal ones."""
    if not names:
        return
    keys = jax.random.split(jax.random.key(0), NUM_LOOKS)

    @jax.jit
    @jax.vmap
    def positions(key):
        drawn = _positions(draw(key))
        return {name: drawn[name] for name in names}

    for name, x in positions(keys).items():
        if isinstance(x, jax.core.Tracer):
            return  # of arguments that are not known yet
        share = _share_lost(np.asarray(x))
        _refuse(
            {"name": name},
            None
            if share < 0.02
            else f"has a prior of whose draws {share:.0%} are infinite or round to one "
            f"and the same {x.dtype}: use a narrower prior, or jax_enable_x64",
        )


def _share_lost(x):
    """The largest share, over elements, of draws that are infinite or no new value."""
    draws = x.reshape(len(x), -1).T
    new = [len(np.unique(element[np.isfinite(element)])) for element in draws]
    return 1.0 - min(new) / len(x)
