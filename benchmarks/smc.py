"""Error of log Z for each gradient: this library beside BlackJAX's tempered SMC.

    python -m benchmarks.smc

Eight densities, the same base, the same HMC (its step sizes and units follow the
particles in both), the same number of gradient evaluations. BlackJAX adapts within the
run. This library adapts before it, in a pilot whose gradients count as its own; the
estimate then has as many chains as make it cost no less.
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

from ais_jax import hmc_step, log_normalizer, tune
from ais_jax.evidence.plan import DEFAULT_JITTER, DEFAULT_TARGET, PILOT_CHAINS
from benchmarks import runner
from benchmarks.densities import DENSITIES

NUM_REPEATS, FEWEST_CHAINS = 60, 100
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
        "AIS": partial(ours, resample_below=0.0),
        "AIS, resampled": partial(ours, resample_below=0.5),
        "BlackJAX": partial(theirs, is_waste_free=False),
        "BlackJAX, waste-free": partial(theirs, is_waste_free=True),
    }.items():
        log_z, cost, pilot = run(keys, density, budget)
        budget = cost if budget is None else budget
        off = log_z - density.log_z
        is_found = np.isfinite(off)
        mean_square = np.mean(off[is_found] ** 2) if is_found.any() else np.nan
        yield {
            "density": name,
            "method": method,
            "gradients, 1e6": cost / 1e6,
            "pilot's share": pilot / cost,
            "mean error, nats": np.mean(off[is_found]) if is_found.any() else np.nan,
            "rms error, nats": np.sqrt(mean_square),
            "square error x gradients, 1e3": mean_square * cost / 1e3,
            "largest error, nats": np.max(np.abs(off), initial=0.0, where=is_found),
            "no number": np.mean(~is_found),
        }


def ours(keys, density, budget, resample_below):
    """(log Z of each key, gradient evaluations in all, those of the pilot)."""
    del budget
    path, moves = density.path(), []
    hmc = partial(hmc_step, num_leapfrog=density.num_leapfrog, jitter=DEFAULT_JITTER)

    def counted(*args):
        jax.debug.callback(lambda: moves.append(1))  # once for all chains
        return hmc(*args)

    def plan(key, transition):
        return tune(
            key,
            path,
            num_temperatures=density.num_temperatures,
            mass_matrix=density.preconditioner,
            transition=transition,
        )

    def estimate(key):
        pilot_key, key = jax.random.split(key)
        return log_normalizer(
            key,
            path,
            plan(pilot_key, hmc),
            num_chains=num_chains,
            transition=hmc,
            resample_below=resample_below,
        ).log_z

    jax.block_until_ready(plan(keys[0], counted))
    jax.effects_barrier()
    pilot = len(moves) * PILOT_CHAINS * density.num_leapfrog
    of_a_chain = (density.num_temperatures - 1) * density.num_leapfrog
    num_chains = max(FEWEST_CHAINS, pilot // of_a_chain)
    log_z = jax.jit(partial(jax.lax.map, estimate))(keys)
    return np.asarray(log_z, float), pilot + num_chains * of_a_chain, pilot


def theirs(keys, density, budget, is_waste_free):
    """As `ours`, without a pilot; as many particles as the budget allows."""
    cost_of = density.num_leapfrog * (NUM_MOVES if not is_waste_free else 1)
    run = partial(tempered, density, is_waste_free)
    num = FIRST_PARTICLES
    few = max(1, len(keys) // 10)
    temperatures = np.mean(run(num, keys[:few])[1])
    num = int(budget / (cost_of * temperatures))
    num = max(num // 10 * 10, 20)
    log_z, temperatures = run(num, keys)
    return np.asarray(log_z, float), num * cost_of * np.mean(temperatures), 0


def tempered(density, is_waste_free, num_particles, keys):
    """BlackJAX's adaptive tempered SMC: (log Z, number of temperatures) of each key."""
    path = density.path()
    is_dense = density.preconditioner == "dense"
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
