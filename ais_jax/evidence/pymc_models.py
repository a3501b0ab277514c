"""The path from the prior to the posterior of a PyMC model; the extra `pymc`."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ais_jax.annealing.path import AnnealingPath, Coordinates, PathOfData
from ais_jax.evidence.bounded import lost_draws
from ais_jax.evidence.digests import digest

if TYPE_CHECKING:
    from pymc import Model

TRANSFORMS = {  # PyMC's defaults, which are one to one onto the prior's support
    "Interval",
    "IntervalTransform",
    "LogOddsTransform",
    "LogTransform",
    "NoneType",
    "SimplexTransform",
}


def from_pymc(model: "Model") -> AnnealingPath:
    """The path whose log Z is the log evidence of a PyMC model's data.

    The path goes from the prior to the posterior, over parameters that PyMC's
    transforms free of their bounds. PyTensor's JAX backend compiles the densities.
    Potentials count as data. Estimates give `z` back, and take draws, as a dict of the
    model's parameters by name.

    PyTensor switches JAX to 64 bits, unless its own `floatX` is float32.

    Args:
        model: of continuous parameters, with data.

    Raises:
        ImportError: without PyMC.
        ValueError: naming the variable, where a prior is discrete or improper, has
            another transform than its own, or cannot be drawn by JAX. Also for
            minibatches, and for models without data.
    """
    Model = _import()
    if not isinstance(model, Model):
        raise ValueError(f"model is a {type(model).__name__}: give a pymc.Model")
    _check(model)
    names = [rv.name for rv in model.free_RVs]
    densities = _compile(
        model.value_vars,
        [model.logp(jacobian=True), model.logp(vars=model.free_RVs, jacobian=True)],
    )
    sample = _sampler(model, names)
    constrained = model.replace_rvs_by_values(model.free_RVs)
    constrain = _compile(model.value_vars, constrained)
    inputs = {rv: rv.type(rv.name) for rv in model.free_RVs}
    unconstrain = _compile(list(inputs.values()), _replace(_forward(model), inputs))

    def by_name(function):
        def of_dict(z):
            return dict(zip(names, function(*(z[name] for name in names)), strict=True))

        return of_dict

    path = PathOfData(
        sample_base=sample,
        log_base=lambda z: densities(*(z[name] for name in names))[1],
        log_target=lambda z: densities(*(z[name] for name in names))[0],
        coordinates=Coordinates(by_name(constrain), by_name(unconstrain)),
    )
    try:
        lost = lost_draws(sample)
    except NotImplementedError as error:
        raise ValueError(f"a prior of the model has no draws in JAX: {error}") from None
    for name, reason in lost:
        raise ValueError(f"variable {name!r} has a prior of whose draws {reason}")
    if not model.potentials:
        values = [model.rvs_to_values[rv] for rv in model.observed_RVs]
        path.digest = digest(_compile([], values)())
    return path


def _import():
    """PyMC's class of models."""
    try:
        import pymc.sampling.jax  # noqa: F401
        from pymc import Model
    except ImportError as error:
        text = "from_pymc needs PyMC: pip install 'ais_jax[pymc]'"
        raise ImportError(text) from error
    return Model


def _check(model):
    """Refuses a model whose evidence the path would not give."""
    if not model.observed_RVs and not model.potentials:
        raise ValueError("the model has no data: give a variable observed=")
    if not model.free_RVs:
        raise ValueError("the model has no parameters: its evidence needs no estimate")
    for rv in [*model.free_RVs, *model.observed_RVs]:
        reason = _reason_against(rv, model)
        if reason is not None:
            raise ValueError(f"variable {rv.name!r} of the model {reason}")


def _reason_against(rv, model):
    """Why a variable has no place on the path, and what to do; or None."""
    kind = type(rv.owner.op).__name__
    if kind == "MinibatchRandomVariable":
        return "is a minibatch (total_size=): log Z needs all of the data"
    if rv not in model.free_RVs:
        return None
    if not rv.dtype.startswith("float"):
        return f"has the discrete prior {kind}: sum over its values in the likelihood"
    if kind in ("FlatRV", "HalfFlatRV"):
        return f"has the improper prior {kind.removesuffix('RV')}: give it a proper one"
    transform = type(model.rvs_to_transforms[rv]).__name__
    if transform not in TRANSFORMS:
        return (
            f"has the transform {transform}, under which PyMC does not normalise its "
            "prior: leave the transform out, or write the model in NumPyro"
        )
    return None


def _compile(inputs, outputs) -> Callable[..., Any]:
    """A PyTensor graph as a function of JAX, whose shared variables are constants."""
    from pymc.sampling.jax import get_jaxified_graph

    try:
        return get_jaxified_graph(inputs=list(inputs), outputs=list(outputs))
    except NotImplementedError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"PyTensor cannot give the model to JAX: {reason}") from None


def _replace(graphs, replacements):
    from pytensor.graph.replace import clone_replace

    return clone_replace(list(graphs), replacements)


def _forward(model):
    """The unbounded value of each parameter."""
    transforms = [model.rvs_to_transforms[rv] for rv in model.free_RVs]
    return [
        rv if transform is None else transform.forward(rv, *rv.owner.inputs)
        for rv, transform in zip(model.free_RVs, transforms, strict=True)
    ]


def _sampler(model, names) -> Callable[[jax.Array], dict[str, jax.Array]]:
    """Draws from the prior as unbounded values, by a key of JAX."""
    from pytensor.graph.traversal import graph_inputs
    from pytensor.link.jax.dispatch.basic import jax_typify
    from pytensor.tensor.random.type import RandomType

    graphs = _forward(model)
    states = [v for v in graph_inputs(graphs) if isinstance(v.type, RandomType)]
    inputs = {state: state.type() for state in states}
    draw = _compile(inputs.values(), _replace(graphs, inputs))
    generators: list[Any] = [jax_typify(np.random.default_rng(0)) for _ in states]

    def sample(key: jax.Array) -> dict[str, Any]:
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
            key = jax.random.key_data(key)
        keys = jax.random.split(key, len(states))
        started = (
            dict(generator, jax_state=k)
            for generator, k in zip(generators, keys, strict=True)
        )
        return dict(zip(names, draw(*started), strict=True))

    return sample
