"""Runs of a NumPyro model at chosen unbounded positions, and what they refuse."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, Var
from jaxtyping import Array, ArrayLike, Float, PyTree
from numpyro import deterministic, handlers
from numpyro.contrib.control_flow.scan import scan_wrapper
from numpyro.distributions import Unit

from ais_jax.evidence import complements, priors
from ais_jax.evidence.bounded import lost_draws
from ais_jax.evidence.priors import Prior, Site
from ais_jax.types import PRNGKey, Scalar, is_traced

MARK = "|unbounded|"
"""Begins the names under which a run keeps its positions."""

FIXED = (
    "is drawn without the key: fix it by handlers.condition, not handlers.substitute, "
    "and give the model without handlers.seed"
)

IMPROPER = (
    "has a prior that NumPyro cannot draw from, or free of its bounds: give every "
    "parameter a proper prior over numbers, positive numbers, intervals or shares"
)

LOOP_IN_LOOP = "is in a scan within a scan, where NumPyro cannot place values"

NO_PRIOR = (
    "has no prior: use numpyro.sample, and in random_flax_module a prior of every "
    "weight"
)

Sites = dict[str, Site]
"""The sites of one run, by name."""

Positions = dict[str, Float[Array, "..."]]
"""Unbounded parameters, by site."""

Values = Mapping[str, ArrayLike]
"""Numbers that a user gives, by site."""

Place = Callable[[Site, Prior], Float[Array, "..."]]
"""Gives a site of a prior its position."""


class Forwards(handlers.substitute):
    """Substitutes values; refuses loops in which NumPyro would give them to others."""

    def process_message(self, msg: Site) -> None:
        """Looks at scans, whose last argument is `reverse`."""
        if msg.get("fn") is scan_wrapper and msg["args"][-1]:
            raise ValueError(
                "the model has a scan with reverse=True, where NumPyro gives values to "
                "the wrong steps: flip its xs, and scan forwards"
            )
        super().process_message(msg)


def run(
    model: Callable[..., Any],
    args: tuple,
    kwargs: dict[str, Any],
    key: PRNGKey,
    place: Place,
    *,
    is_complement: bool = False,
) -> Sites:
    """One run of the model, with its parameters where `place` puts them.

    Args:
        model: the user's.
        args: of the model.
        kwargs: of the model.
        key: of what the model draws.
        place: gives each parameter's unbounded position.
        is_complement: whether each share is given to the model as one minus itself.

    Returns:
        Also a site for each parameter, under `MARK` and its name, of the value
        (position, log prior).

    Raises:
        ValueError: naming the site, where a parameter's prior has no place on a path.
    """

    def value_of(site):
        if site["type"] != "sample" or site["value"] is not None:
            return None
        _refuse(site, priors.reason_against(site))
        try:
            prior = priors.prior_of(site)
            x = place(site, prior)
        except NotImplementedError:
            raise _refusal(site, IMPROPER) from None
        _refuse(site, None if jnp.shape(x) == prior.shape else LOOP_IN_LOOP)
        # A site of its own, because nothing else leaves the loops of NumPyro. It keeps
        # any pytree, where its annotation names an array.
        kept: Any = x, prior.log_prob(x)
        deterministic(MARK + site["name"], kept)
        return prior.complement(x) if is_complement else prior.constrain(x)

    placed = Forwards(handlers.seed(model, key), substitute_fn=value_of)
    return handlers.trace(placed).get_trace(*args, **kwargs)


def draw(site: Site, prior: Prior) -> Float[Array, "..."]:
    """Places a site at a draw of its prior."""
    return prior.sample(site["kwargs"]["rng_key"])


def place_at(x: Values) -> Place:
    """Places sites at given positions."""
    return lambda site, prior: _at_step(site, x)


def place_at_value(y: Values) -> Place:
    """Places sites where their parameters have given values."""
    return lambda site, prior: prior.unconstrain(_at_step(site, y))


def _at_step(site, values):
    """The site's value, or its part at the step of the `scan` that the site is in."""
    value = jnp.asarray(values[site["name"]])
    step = site["infer"].get("_scan_current_index")
    return value if step is None else value[step]


def positions(sites: Sites) -> Positions:
    """Where a run's parameters were."""
    return {name: x for name, (x, _) in _kept(sites).items()}


def log_prior(sites: Sites) -> Scalar:
    """Of all parameters of a run, in unbounded coordinates, nats."""
    terms = [jnp.sum(log_prob) for _, log_prob in _kept(sites).values()]
    return jnp.asarray(sum(terms))


def log_likelihood(sites: Sites, others: Sites, mirrored: Sequence[str]) -> Scalar:
    """Of all observed sites, with their masks and scales, nats.

    Args:
        sites: of a run.
        others: of the run at the same place with `is_complement`.
        mirrored: the sites whose logit both runs together give.
    """
    total = 0.0
    for name, site in _sampled(sites).items():
        if site["is_observed"]:
            fn, scale = site["fn"], site["scale"]
            if name in mirrored:
                fn = complements.in_logits(fn, others[name]["fn"])
            log_prob = fn.log_prob(site["value"])
            total += jnp.sum(log_prob if scale is None else scale * log_prob)
    return jnp.asarray(total)


def observed(sites: Sites) -> list[ArrayLike]:
    """The data of a run; none where a factor may hold more of them."""
    sampled = [site for site in _sampled(sites).values() if site["is_observed"]]
    if any(isinstance(site["fn"], Unit) for site in sampled):
        return []
    return [site["value"] for site in sampled]


def check(
    draw: Callable[[PRNGKey], Sites],
) -> tuple[Mapping[str, jax.ShapeDtypeStruct], list[ArrayLike]]:
    """Refuses a model whose evidence a path would not give.

    Args:
        draw: a run at a draw of the prior.

    Returns:
        (the shapes of its positions, its data as `observed`; traced where they are not
        arrays that the model closes over or is given).

    Raises:
        ValueError: naming the site.
    """
    doubtful, data = [], []

    def drawn(key):
        sites = draw(key)
        _check_sites(sites)
        doubtful.extend(_doubtful(sites))
        data.extend(observed(sites))
        return positions(sites)

    trace = jax.make_jaxpr(drawn, return_shape=True)
    program, shapes = trace(jax.random.key(0))
    for name, is_drawn in zip(sorted(shapes), _depend(program.jaxpr), strict=True):
        _refuse({"name": name}, None if is_drawn else FIXED)
    lost = (lambda key: _only(doubtful, positions(draw(key)))) if doubtful else None
    for name, reason in lost_draws(lost) if lost else []:
        _refuse({"name": name}, f"has a prior of whose draws {reason}")
    return shapes, data


def derived(sites: Sites) -> dict[str, PyTree]:
    """The deterministic sites of a run, by name."""
    return {
        name: site["value"]
        for name, site in sites.items()
        if site["type"] == "deterministic" and MARK not in name
    }


def gaps(at: Callable[..., Sites], x: Values) -> dict[str, Scalar]:
    """How far f(p) + f(1 - p) is from one, for the probabilities f(p) of data.

    Args:
        at: a run at positions.
        x: the positions.
    """
    there = complements.probabilities(at(x))
    back = complements.probabilities(at(x, is_complement=True))
    return jax.tree.map(lambda p, q: jnp.max(jnp.abs(p + q - 1.0)), there, back)


def mirrored(
    gaps: Callable[[Values], dict[str, Scalar]],
    shapes: Mapping[str, jax.ShapeDtypeStruct],
) -> list[str]:
    """The data whose probability f(p) has f(1 - p) = 1 - f(p), by site.

    Args:
        gaps: of positions, as `gaps`.
        shapes: of the positions.

    Returns:
        None of them within `jit`, where numbers are not known.
    """
    noise = np.random.default_rng(0)
    x = {name: noise.normal(size=a.shape).astype(a.dtype) for name, a in shapes.items()}
    known = {k: v for k, v in gaps(x).items() if not is_traced(v)}
    return [name for name, gap in known.items() if gap < 1e-5]


def _check_sites(sites):
    names, sampled = _kept(sites), _sampled(sites)
    for site in sites.values():
        _refuse(site, _reason_against(site, names))
    if not names:
        raise ValueError("the model has no parameters: its evidence needs no estimate")
    if len(names) == len(sampled):
        raise ValueError("the model has no data: give observed sites their obs=")


def _refuse(site, reason):
    if reason is not None:
        raise _refusal(site, reason)


def _refusal(site, reason):
    return ValueError(f"site {site['name']!r} of the model {reason}")


def _reason_against(site, names):
    """Why a site has no place on the path, and what to do; or None."""
    kind = site["type"]
    if kind == "sample" and not site["is_observed"] and site["name"] not in names:
        return FIXED
    # random_flax_module takes the weights that have a prior out of its parameters.
    if kind in ("param", "mutable") and jax.tree.leaves(site["value"]):
        return f"is numpyro.{kind}, which {NO_PRIOR}"
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


def _doubtful(sites):
    """Parameters whose draws floating-point numbers may not hold, by name."""
    return [
        name
        for name, site in _sampled(sites).items()
        if name in _kept(sites) and not priors.is_exact(site["fn"])
    ]


def _kept(sites):
    """What a run kept, by parameter; a scope's prefix stands before the mark."""
    marked = {name: site["value"] for name, site in sites.items() if MARK in name}
    return {name.split(MARK)[-1]: value for name, value in marked.items()}


def _sampled(sites):
    return {name: site for name, site in sites.items() if site["type"] == "sample"}


def _only(names, values):
    return {name: values[name] for name in names}
