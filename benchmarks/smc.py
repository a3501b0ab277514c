"""Error of log Z for each gradient: this library beside BlackJAX's tempered SMC.

    python -m benchmarks.smc

Eight densities and the same base. `estimate_log_z` is called at its defaults. BlackJAX
gets as many gradients as that took, its pilot and its confirmation included, with HMC
whose step sizes and mass matrix follow the particles, and whose length and kind of mass
matrix suit the density.
"""

from functools import partial

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.smc import resampling
from blackjax.smc.inner_kernel_tuning import StateWithParameterOverride
from blackjax.smc.tempered import TemperedSMCState
from blackjax.smc.tuning.from_kernel_info import update_scale_from_acceptance_rate
from blackjax.smc.tuning.from_particles import (
    particles_covariance_matrix,
    particles_stds,
)
from blackjax.smc.waste_free import waste_free_smc

from ais_jax import estimate_log_z
from ais_jax.evidence.plan import DEFAULT_TARGET
from benchmarks import runner
from benchmarks.densities import DENSITIES

NUM_REPEATS = 60
NUM_LEAPFROG = 10  # of a move of `estimate_log_z`
NUM_MOVES = 5  # of BlackJAX's particles at each temperature
TARGET_ESS = 0.5  # of BlackJAX's particles, where it places the next temperature
FIRST_PARTICLES = 200  # of the run that tells how many temperatures it takes
PENALTY = -1e4  # nats, for -inf: at temperature 0 BlackJAX makes a NaN of it


def tables(args):
    """One row for each density and method."""
    repeats = 3 if args.quick else NUM_REPEATS
    names = list(DENSITIES)[:1] if args.quick else DENSITIES
    yield "Error of log Z", (row for name in names for row in rows(name, repeats))


def rows(name, num_repeats):
    """All methods on one density, at the cost of the first."""
    density = DENSITIES[name]()
    keys = jax.random.split(jax.random.key(0), num_repeats)
    budget = None
    for method, run in {
        "ais_jax": ours,
        "BlackJAX": partial(theirs, is_waste_free=False),
        "BlackJAX, waste-free": partial(theirs, is_waste_free=True),
    }.items():
        log_z, cost = run(keys, density, budget)
        budget = cost if budget is None else budget
        off = log_z - density.log_z
        is_found = np.isfinite(off)
        mean_square = np.mean(off[is_found] ** 2) if is_found.any() else np.nan
        yield {
            "density": name,
            "method": method,
            "gradients, 1e6": cost / 1e6,
            "mean error, nats": np.mean(off[is_found]) if is_found.any() else np.nan,
            "rms error, nats": np.sqrt(mean_square),
            "square error x gradients, 1e3": mean_square * cost / 1e3,
            "largest error, nats": np.max(np.abs(off), initial=0.0, where=is_found),
            "no number": np.mean(~is_found),
        }


def ours(keys, density, budget):
    """(log Z of each key, gradient evaluations of a call: a pilot's are among them)."""
    del budget
    path = density.path()
    found = [estimate_log_z(key, path) for key in keys]
    num_moves = np.mean([result.num_moves for result in found])
    return np.array([float(result.log_z) for result in found]), num_moves * NUM_LEAPFROG


def theirs(keys, density, budget, is_waste_free):
    """As `ours`; as many particles as the budget allows."""
    cost_of = density.num_leapfrog * (NUM_MOVES if not is_waste_free else 1)
    run = partial(tempered, density, is_waste_free)
    num = FIRST_PARTICLES
    few = max(1, len(keys) // 10)
    temperatures = np.mean(run(num, keys[:few])[1])
    num = int(budget / (cost_of * temperatures))
    num = max(num // 10 * 10, 20)
    log_z, temperatures = run(num, keys)
    return np.asarray(log_z, float), num * cost_of * np.mean(temperatures)


def tempered(density, is_waste_free, num_particles, keys):
    """BlackJAX's adaptive tempered SMC: (log Z, number of temperatures) of each key."""
    path = density.path()
    is_dense = density.mass_matrix == "dense"
    length = 10  # of a waste-free chain
    extra = (
        {
            "num_mcmc_steps": None,
            "update_strategy": waste_free_smc(num_particles, length),
        }
        if is_waste_free
        else {"num_mcmc_steps": NUM_MOVES}
    )

    def log_likelihood(z):
        return jnp.maximum(path.log_target(z) - path.log_base(z), PENALTY)

    def inverse_mass(particles):
        if is_dense:
            return particles_covariance_matrix(particles)[None]
        return particles_stds(particles)[None] ** 2

    def follow(step_size, state, info):
        accept = jnp.mean(info.update_info.acceptance_rate)[None]
        step_size = update_scale_from_acceptance_rate(step_size, accept, DEFAULT_TARGET)
        return {
            "step_size": step_size,
            "inverse_mass_matrix": inverse_mass(state.particles),
        }

    def step(key, state):
        step_size = state.parameter_override["step_size"]
        kernel = blackjax.inner_kernel_tuning(
            smc_algorithm=blackjax.adaptive_tempered_smc,
            logprior_fn=path.log_base,
            loglikelihood_fn=log_likelihood,
            mcmc_step_fn=partial(
                blackjax.hmc.build_kernel(), num_integration_steps=density.num_leapfrog
            ),
            mcmc_init_fn=blackjax.hmc.init,
            resampling_fn=resampling.systematic,
            mcmc_parameter_update_fn=lambda _, *after: follow(step_size, *after),
            initial_parameter_value=state.parameter_override,
            target_ess=TARGET_ESS,
            **extra,
        )
        return kernel.step(key, state)

    def run(key):
        base_key, key = jax.random.split(key)
        particles = jax.vmap(path.sample_base)(
            jax.random.split(base_key, num_particles)
        )
        weights = jnp.full((num_particles,), 1.0 / num_particles)
        parameters = {
            "step_size": jnp.full((1,), density.size**-0.25),
            "inverse_mass_matrix": inverse_mass(particles),
        }
        state = StateWithParameterOverride(
            TemperedSMCState(particles, weights, jnp.zeros(())), parameters
        )

        def is_unfinished(carry):
            _, state, log_z, _ = carry
            return (state.sampler_state.tempering_param < 1.0) & jnp.isfinite(log_z)

        def body(carry):
            i, state, log_z, key = carry
            key, step_key = jax.random.split(key)
            state, info = step(step_key, state)
            return i + 1, state, log_z + info.log_likelihood_increment, key

        carry = jnp.zeros((), int), state, jnp.zeros(()), key
        num, _, log_z, _ = jax.lax.while_loop(is_unfinished, body, carry)
        return log_z, num

    return jax.device_get(jax.jit(partial(jax.lax.map, run))(keys))


if __name__ == "__main__":
    runner.run("smc", __doc__, tables)
