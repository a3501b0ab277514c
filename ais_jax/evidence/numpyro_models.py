"""The path from the prior to the posterior of a NumPyro model; the extra `numpyro`."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from ais_jax.annealing.path import AnnealingPath, Coordinates


def from_numpyro(model: Callable[..., Any], *args: Any, **kwargs: Any) -> AnnealingPath:
    """The path whose log Z is the log evidence of a NumPyro model's data.

    It goes from the prior to the posterior, over parameters that NumPyro's bijections
    free of their bounds. Estimates give `z` back, and take `z_target`, as a dict of the
    model's parameters by site. A parameter nearer to its bound than floating-point
    numbers tell is drawn and weighed by its logarithm or logit.

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
            round too many of its draws; for subsampled plates, scans backwards or
            within scans, and models without data.
    """
    runs = _runs()
    run = partial(runs.run, model, args, kwargs)

    def draw(key):
        return run(key, runs.draw)

    def at(x, **options):
        return run(jax.random.key(0), runs.place_at(x), **options)

    def log_target(x):
        sites = at(x)
        complements = at(x, is_complement=True) if mirrored else {}
        log_likelihood = runs.log_likelihood(sites, complements, mirrored)
        return runs.log_prior(sites) + log_likelihood

    def constrain(x):
        sites = at(x)
        return {name: sites[name]["value"] for name in x}

    def unconstrain(y):
        return runs.positions(run(jax.random.key(0), runs.place_at_value(y)))

    shapes = runs.check(draw)
    mirrored = runs.mirrored(at, shapes)
    return AnnealingPath(
        sample_base=lambda key: runs.positions(draw(key)),
        log_base=lambda x: runs.log_prior(at(x)),
        log_target=log_target,
        coordinates=Coordinates(constrain, unconstrain),
    )


def _runs():
    """What needs NumPyro, loaded on first use."""
    try:
        from ais_jax.evidence import numpyro_runs
    except ImportError as error:
        text = "from_numpyro needs NumPyro: pip install 'ais_jax[numpyro]'"
        raise ImportError(text) from error
    return numpyro_runs
