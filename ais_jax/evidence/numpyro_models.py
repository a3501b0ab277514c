"""The path from the prior to the posterior of a NumPyro model; the extra `numpyro`."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np

from ais_jax.annealing.path import AnnealingPath, Coordinates, path_of_data
from ais_jax.evidence.digests import digest
from ais_jax.types import is_traced

KEPT = 32  # models whose programs are kept


def from_numpyro(model: Callable[..., Any], *args: Any, **kwargs: Any) -> AnnealingPath:
    """The path whose log Z is the log evidence of a NumPyro model's data.

    The path goes from the prior to the posterior, over parameters that NumPyro's
    bijections free of their bounds. Of a parameter loc + scale * u the coordinate is u.
    A parameter nearer to its bound than floating-point numbers tell is drawn and
    weighed by its logarithm or logit. Estimates give `z` back as a dict of the model's
    parameters and deterministic sites, and take `z_target` as one of its parameters.

    The arrays of the arguments are data: `estimate_log_z` compiles nothing for the same
    model and others of the same shapes. A model that reads their values, as for the
    size of a plate, is compiled for them.

    Args:
        model: of continuous parameters, with data at observed sites (`obs=`) or in
            `numpyro.factor`.
        *args: of the model.
        **kwargs: of the model.

    Raises:
        ImportError: without NumPyro.
        ValueError: naming the site, where a prior cannot be sampled or is not
            normalised: a discrete or improper one, `numpyro.param`, a mask or a scale
            on a prior. Also where `handlers.substitute` fixes a parameter, or numbers
            round too many of its draws; for subsampled plates, for scans that run
            backwards or within scans, and for models without data.
    """
    runs = _runs()
    draw = partial(runs.run, model, args, kwargs, place=runs.draw)
    shapes, observed = runs.check(draw)
    if is_traced(observed):  # by the look at the model, or by the caller
        observed = jax.jit(lambda key: runs.observed(draw(key)))(jax.random.key(0))
    family, arrays = _split(model, args, kwargs)
    mirrored = tuple(runs.mirrored(partial(family.gaps, arrays), shapes))
    function = _path_of(family, mirrored)
    return path_of_data(function, arrays, digest(observed))


class _Family:
    """A model whose arguments are made of arrays."""

    def __init__(self, model, arguments):
        self.model, self.arguments = model, arguments
        self.gaps = jax.jit(self._gaps)

    def run(self, arrays, key, place, **options):
        args, kwargs = self.arguments(arrays)
        return _runs().run(self.model, args, kwargs, key, place, **options)

    def at(self, arrays, x, **options):
        place = _runs().place_at(x)
        return self.run(arrays, jax.random.key(0), place, **options)

    def _gaps(self, arrays, x):
        return _runs().gaps(partial(self.at, arrays), x)


def _split(model, args, kwargs):
    """The family of a model, and its data.

    There are none where the model reads their values, or an argument has no hash.
    """
    leaves, tree = jax.tree.flatten((args, kwargs), is_leaf=lambda a: a is None)
    arrays = [a for a in leaves if _is_data(a)]
    rest = tuple(None if _is_data(a) else (type(a), a) for a in leaves)
    whole = _Family(model, lambda _: (args, kwargs)), []
    if is_traced(arrays):
        return whole
    try:
        family = _family(model, tree, rest)
        jax.eval_shape(partial(_at_a_draw, _path_of(family, ())), arrays)
    except (TypeError, IndexError):
        return whole
    return family, arrays


def _at_a_draw(function, arrays):
    """The target where a draw from the base is."""
    path = function(arrays)
    return path.log_target(path.sample_base(jax.random.key(0)))


@lru_cache(maxsize=KEPT)
def _family(model, tree, rest):
    """The same one for the same model and arguments that are no arrays."""

    def arguments(arrays):
        left = iter(arrays)
        return jax.tree.unflatten(tree, [r[1] if r else next(left) for r in rest])

    return _Family(model, arguments)


def _is_data(leaf):
    """Whether it is an array of numbers."""
    is_array = isinstance(leaf, np.ndarray | jax.Array)
    return is_array and (leaf.dtype == bool or np.issubdtype(leaf.dtype, np.number))


@lru_cache(maxsize=KEPT)
def _path_of(family, mirrored):
    """The function that gives the path of a model's data."""
    runs = _runs()

    def path(arrays):
        run, at = partial(family.run, arrays), partial(family.at, arrays)

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

        return AnnealingPath(
            sample_base=lambda key: runs.positions(run(key, runs.draw)),
            log_base=lambda x: runs.log_prior(at(x)),
            log_target=log_target,
            coordinates=Coordinates(
                constrain, unconstrain, lambda x: constrain(x) | runs.derived(at(x))
            ),
        )

    return path


def _runs():
    """What needs NumPyro, loaded on first use."""
    try:
        from ais_jax.evidence import numpyro_runs
    except ImportError as error:
        text = "from_numpyro needs NumPyro: pip install 'ais_jax[numpyro]'"
        raise ImportError(text) from error
    return numpyro_runs
