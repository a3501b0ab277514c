"""The precision of HMC's force that this machine computes fastest.

A coarse force gets its values apart, at the model's precision: once a move, or at every
point where a trajectory's points are averaged. So no table of devices says what is
fastest; it is measured, on the run's own model and rows.
"""

import math
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ais_jax import sharding
from experiments.run import build, folder
from experiments.run.build import AUTO
from experiments.run.settings import resolve, with_forces
from experiments.system.progress import log

GAIN = 1.1  # times as fast a coarse force must be: a few more moves are rejected
SECONDS = 0.3  # of measuring


def settle(settings, workdir, image_shape):
    """The settings with values where the precision of a force is "auto".

    The run that the folder holds keeps its own; of a new one, or without a folder, the
    fastest is taken.
    """
    asked = settings.model["force_precision"], settings.evaluation.force_precision
    if AUTO not in asked:
        return settings
    if workdir is not None and (Path(workdir) / "config.json").exists():
        saved = resolve(folder.saved_config(workdir))
        kept = saved.model["force_precision"], saved.evaluation.force_precision
        found = [k if a == AUTO else a for a, k in zip(asked, kept)]
    else:
        measures = _training, _evaluation
        found = [
            measure(settings, image_shape) if name == AUTO else name
            for name, measure in zip(asked, measures)
        ]
    return with_forces(settings, *found)


def fastest(own, seconds, values_per_step):
    """The precision whose leapfrog steps take the least time, and those times.

    Args:
        own: the model's precision, of a force that gives its values too.
        seconds: of a gradient by the precision's name, and of "values" alone.
        values_per_step: how often a coarse force needs the values.
    """
    extra = values_per_step * seconds["values"]
    times = {n: s + extra * (n != own) for n, s in seconds.items() if n != "values"}
    best = min(times, key=lambda n: times[n] * (1.0 if n == own else GAIN))
    return best, times


def _training(settings, image_shape):
    estimator = settings.estimator
    if "num_leapfrog" not in estimator:
        return settings.model["precision"]
    is_everywhere = estimator["average"] == "points"
    share = 1.0 if is_everywhere else 1.0 / estimator["num_leapfrog"]
    num = settings.batch_size // build.build_mesh(settings).shape[sharding.DATA]
    chains = num, estimator["num_samples"]
    return _measure(settings, image_shape, "training", *chains, share)


def _evaluation(settings, image_shape):
    evaluation = settings.evaluation
    num = evaluation.chunk_size // build.build_mesh(settings).size
    chains = max(1, num), evaluation.num_chains
    share = 1.0 / evaluation.num_leapfrog
    return _measure(settings, image_shape, "evaluation", *chains, share)


def _measure(settings, image_shape, what, num_examples, num_chains, values_per_step):
    """The fastest precision for so many chains of so many examples."""
    own = settings.model["precision"]
    if settings.factory:  # the user's model, whose force is its own
        return own
    block = build.block_size(settings, math.prod(image_shape), num_chains)
    rows = min(num_examples, block or num_examples) * num_chains
    on_gpu = ("tf32",) if jax.default_backend() == "gpu" else ()
    coarse = [name for name in (*on_gpu, "bf16") if name != own]
    functions = {own: _program(settings, image_shape, own, rows)}
    functions |= {n: _program(settings, image_shape, n, rows) for n in coarse}
    functions["values"] = _program(settings, image_shape, own, rows, only_values=True)
    best, times = fastest(own, _least_seconds(functions), values_per_step)
    names = list(times)
    best = names[int(sharding.from_first(np.array(names.index(best))))]
    log.info(
        "HMC's force in %s: %s (ms for a leapfrog step of %d chains: %s).",
        *(what, best, rows, ", ".join(f"{1e3 * t:.3g} {n}" for n, t in times.items())),
    )
    return best


def _program(settings, image_shape, precision, rows, only_values=False):
    """The log density and its gradient, or one of them, for rows of chains."""
    settings = with_forces(settings, precision, precision)
    model = build.build_model(settings, image_shape)
    if only_values:
        function = model.log_joint
    elif precision == settings.model["precision"]:
        function = jax.value_and_grad(model.log_joint, 2)
    else:
        function = lambda *args: model.target_with_residuals(*args)[1]
    theta, _ = jax.eval_shape(model.init, jax.random.key(0))
    theta = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), theta)
    x = jnp.zeros((rows, math.prod(image_shape)))
    z = jnp.zeros((rows, sum(settings.model["latent_sizes"])))
    return partial(jax.jit(jax.vmap(function, (None, 0, 0))), theta, x, z)


def _least_seconds(functions):
    """The least time of each over rounds by turns, since other work only adds."""
    least = dict.fromkeys(functions, math.inf)
    for function in functions.values():
        jax.block_until_ready(function())
    started = time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        for name, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function())
            least[name] = min(least[name], time.perf_counter() - start)
    return least
