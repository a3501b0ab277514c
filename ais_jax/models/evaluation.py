"""Log p(x) of every row of a batch, under any decoder, to a wanted error of the mean.

It is the referee of a trained model. Annealed chains start from the encoder, from the
encoder widened or from the prior, and each row gets as many temperatures as it needs.
The bidirectional gap is measured on pairs that the model simulates.
"""

import math
from collections.abc import Callable
from functools import lru_cache, partial

import jax
import numpy as np
from jaxtyping import Array, Float, Int, PyTree, Real

from ais_jax.annealing.clouds import Transition
from ais_jax.annealing.trajectory import trajectory_step
from ais_jax.batching import example_keys
from ais_jax.checks import check_count, lookup
from ais_jax.evidence.allocation import SLOTS
from ais_jax.evidence.compiling import options, quickly
from ais_jax.evidence.row_estimates import (
    LogLikelihood,
    as_result,
    measured_gap,
    posterior_draws,
)
from ais_jax.evidence.row_search import Rule, Run, Search
from ais_jax.evidence.rows import RowChains, Start, row_chains
from ais_jax.models.latent import (
    LatentVariableModel,
    posterior_path,
    prior_path,
    wide_path,
)
from ais_jax.types import AnyArray, Params, PRNGKey

STARTS = {"encoder": posterior_path, "prior": prior_path, "wide": wide_path}
FIRST_STEP_SIZES = {"unit": 0.1, "encoder": 0.5}  # where the pilot begins, by scale
KEPT = 8  # compiled programs, the latest used
JITTER = 0.5  # of the trajectories' step sizes


def log_likelihood(
    key: PRNGKey,
    model: LatentVariableModel,
    x: Real[AnyArray, "N X"],
    params: tuple[Params, Params] = ((), ()),
    *,
    error: float = 0.0,
    num_temperatures: int | None = None,
    num_chains: int = 8,
    num_leapfrog: int = 4,
    start: str = "encoder",
    hmc_scale: str = "encoder",
    num_simulated: int | None = None,
    num_draws: int = 0,
    max_gradients: float = math.inf,
) -> LogLikelihood:
    """Log p(x) of each row, with errors and the bidirectional gap.

    Rows get as many temperatures as the error of the mean over rows needs. Scouts,
    which are thrown away, decide how many; the chains that count have a fixed plan.

    Args:
        key: of all random draws.
        model: such as `from_decoder` gives of any decoder.
        x: the rows.
        params: (theta, phi) of the model; left out where the model holds its own.
        error: wanted of the mean, bias and Monte Carlo together, nats; 0 for a tenth
            of the error over rows or 0.05, whichever is larger.
        num_temperatures: T of every row in place of the rule.
        num_chains: K, at least 2.
        num_leapfrog: L, leapfrog steps of a trajectory.
        start: 'encoder', 'wide' or 'prior'; from the encoder, hard rows try 'wide' too.
        hmc_scale: 'encoder' or 'unit', units of the step sizes.
        num_simulated: pairs (x, z) that the gap is measured on; None for as many as
            the error needs, 64 to 1,024; 0 for none.
        num_draws: posterior draws of each row, of the chains' ends by weight.
        max_gradients: about how many evaluations the chains that count may make. Where
            these are too few for the error, all rows get fewer temperatures.

    Raises:
        ValueError: naming the argument that cannot be, before anything is run.
    """
    check_count("num_chains", num_chains, 2)
    check_count("num_leapfrog", num_leapfrog)
    if num_temperatures is not None:
        check_count("num_temperatures", num_temperatures)
    lookup("start", start, STARTS)
    if not 0.0 <= error < math.inf:
        raise ValueError(f"error={error}: use nats, or 0 for the default")
    names = ("encoder", "wide") if start == "encoder" else (start,)
    xs = np.asarray(x)
    rule = Rule(
        error, num_temperatures, num_chains, max_moves=max_gradients / num_leapfrog
    )
    starts = starts_of(model, names, hmc_scale)
    transition = trajectories(num_leapfrog)
    search_key, pair_key, draw_key = jax.random.split(key, 3)
    search = Search(
        search_key,
        in_memory(compiled(starts, transition, num_chains), params),
        rule,
        num_starts=len(names),
        first_step_size=FIRST_STEP_SIZES[hmc_scale],
    )
    no_draw = no_draws(model, params[0])

    def load(rows):
        return xs[rows], no_draw(len(rows))

    estimate = search.estimate("rows", len(xs), load)
    gap = None
    if num_simulated != 0:

        def pairs(rows):
            like = xs[rows % len(xs)]
            return simulate(model, pair_key, params[0], rows, like)

        gap = measured_gap(search, pairs, estimate, num_simulated)
    draws = posterior_draws(draw_key, estimate, num_draws) if num_draws else None
    spent = num_gradients(search, num_leapfrog)
    return as_result(estimate, spent, num_leapfrog, gap, draws)


@lru_cache(maxsize=KEPT)
def starts_of(
    model: LatentVariableModel, names: tuple[str, ...], hmc_scale: str
) -> tuple[Start, ...]:
    """The starts of a model as functions of (params, x), the same ones each time."""

    def start(name, params, x):
        theta, phi = params
        return STARTS[name](model, theta, phi, x, hmc_scale)

    return tuple(partial(start, name) for name in names)


@lru_cache(maxsize=KEPT)
def trajectories(num_leapfrog: int) -> Transition:
    """The transition: `trajectory_step` with jitter, the same function each time."""
    return partial(trajectory_step, num_leapfrog=num_leapfrog, jitter=JITTER)


@lru_cache(maxsize=KEPT)
def compiled(
    starts: tuple[Start, ...], transition: Transition, num_chains: int
) -> Callable[..., RowChains]:
    """The one program: (params, work, rows, replicates, x, z) -> `RowChains`."""

    def chunk(params, work, *slots):
        one = partial(row_chains, starts, transition, num_chains, params, work)
        return jax.vmap(one)(*slots)

    return jax.jit(chunk, compiler_options=options(1))


def in_memory(program: Callable[..., RowChains], params: PyTree) -> Run:
    """Runs slots `SLOTS` at a time, and keeps all that they give."""

    def run(stage, work, slots, load):
        parts = []
        for first in range(0, slots.shape[1], SLOTS):
            rows, replicates = slots[:, first : first + SLOTS]
            chains = program(params, work, rows, replicates, *load(rows))
            parts.append(jax.device_get(chains))
        chains = jax.tree.map(lambda *a: np.concatenate(a), *parts)
        return chains._asdict()

    return run


def no_draws(model: LatentVariableModel, theta: Params) -> Callable[[int], np.ndarray]:
    """N -> zeros f32[N, D], in place of draws z of rows that have none."""
    shape = jax.eval_shape(lambda theta: model.prior(theta).mean, theta).shape
    return lambda num: np.zeros((num, *shape), np.float32)


def simulate(
    model: LatentVariableModel,
    key: PRNGKey,
    theta: Params,
    rows: Int[AnyArray, "N"],
    like: Real[AnyArray, "N X"] | None = None,
) -> tuple[Real[AnyArray, "N X"], Float[Array, "N D"]]:
    """Pairs (x, z) drawn from the model, each by its number.

    Where they are to be like others, they have their covariates and library size, and
    lack the values that they lack.
    """
    x, z = _simulator(model)(key, theta, np.asarray(rows), like)
    return x if like is None else np.where(np.isnan(like), like, x), z


@lru_cache(maxsize=KEPT)
def _simulator(model):
    def pair(key, theta, like):
        return model.given(like).simulate(key, theta)

    def pairs(key, theta, rows, like):
        keys = example_keys(key, rows)
        return jax.vmap(pair, (0, None, 0))(keys, theta, like)

    return quickly(pairs)


def num_gradients(search: Search, num_leapfrog: int) -> int:
    """Gradient evaluations of a search's chains: L a move, and each base draw."""
    return num_leapfrog * search.num_moves + (num_leapfrog + 1) * search.num_draws
