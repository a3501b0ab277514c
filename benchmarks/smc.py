"""log Z by annealed chains and by BlackJAX's tempered SMC, at equal cost in gradients.

    python -m benchmarks.smc

Ours: 100 chains of a plan that a pilot made, independent or resampled where their
effective sample size falls below a half. BlackJAX: adaptive tempered SMC (ESS 0.9, 5
moves at a temperature) and its waste-free form (chains of 10), with as many particles
as the same number of moves allows, by HMC of as many leapfrog steps in units of the
target's standard deviations; its step size is one for all temperatures, the best of
three. The pilot's gradients are not counted, nor the search for that step size.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ais_jax import hmc_step, log_normalizer, tune
from benchmarks import runner
from benchmarks.densities import DENSITIES
from benchmarks.log_z import mean_ratio

NAMES = "walls", "mixture", "Student", "logistic regression", "mixed scales"
NUM_CHAINS, NUM_EACH = 100, 100
STEP_SIZES = 0.3, 0.6, 1.2
TARGET_ESS, MOVES, CHAIN = 0.9, 5, 10


def tables(args):
    """One row for each density and method."""
    names, sizes = (NAMES[:1], (20, 4)) if args.quick else (NAMES, ())
    yield "log Z at equal cost", (r for name in names for r in rows(name, *sizes))


def rows(name, num_chains=NUM_CHAINS, num_each=NUM_EACH):
    """What the methods' estimates of one density say."""
    density = DENSITIES[name]()
    keys = jax.random.split(jax.random.key(1), num_each)
    moves = num_chains * density.num_temperatures
    for label, share in (("ours", 0.0), ("ours, resampled", 0.5)):
        result = ours(keys, density, num_chains, share)
        yield row(name, label, density, result.log_z, moves)
    sd = jnp.std(result.z.reshape(-1, density.size), axis=0)
    for label, is_waste_free in (("BlackJAX", False), ("BlackJAX, waste-free", True)):
        trials = [
            peer(keys, density, sd, step_size, moves, is_waste_free)
            for step_size in STEP_SIZES
        ]
        log_z, made = min(trials, key=lambda trial: rms(trial[0], density))
        yield row(name, label, density, log_z, made)


def ours(keys, density, num_chains, resample_below):
    """A batch of `LogNormalizer` with one plan."""
    path = density.path()
    transition = partial(hmc_step, num_leapfrog=density.num_leapfrog, jitter=0.9)
    settings = {"num_temperatures": density.num_temperatures, "transition": transition}
    units = density.preconditioner
    plan = tune(jax.random.key(0), path, preconditioner=units, **settings)
    run = partial(
        log_normalizer,
        path=path,
        plan=plan,
        num_chains=num_chains,
        transition=transition,
        resample_below=resample_below,
    )
    return jax.jit(jax.vmap(run))(keys)


def peer(keys, density, sd, step_size, moves, is_waste_free):
    """Estimates by BlackJAX, and the moves that one of them made on average."""
    trial = partial(tempered, density, sd, step_size, is_waste_free)
    share = (CHAIN - 1) / CHAIN if is_waste_free else MOVES  # moves of a particle
    stages = jnp.mean(jax.jit(jax.vmap(trial(num=200)))(keys[:10])[1])
    num = CHAIN * max(1, round(moves / (CHAIN * float(stages) * share)))
    log_z, stages = jax.jit(jax.vmap(trial(num=num)))(keys)
    return log_z, float(jnp.mean(stages)) * num * share


def tempered(density, sd, step_size, is_waste_free, num):
    """A function of a key: log Z and the number of temperatures."""
    import blackjax
    from blackjax.smc import resampling, waste_free

    path = density.path()
    kinetic = {
        "step_size": step_size,
        "inverse_mass_matrix": jnp.square(sd),
        "num_integration_steps": density.num_leapfrog,
    }
    update = {}
    if is_waste_free:
        update = {"update_strategy": waste_free.waste_free_smc(num, CHAIN)}
    smc = blackjax.adaptive_tempered_smc(
        path.log_base,
        lambda z: path.log_target(z) - path.log_base(z),
        blackjax.hmc.build_kernel(),
        blackjax.hmc.init,
        jax.tree.map(lambda a: jnp.asarray(a)[None], kinetic),
        resampling.systematic,
        TARGET_ESS,
        num_mcmc_steps=None if is_waste_free else MOVES,
        **update,
    )

    def run(key):
        key, base_key = jax.random.split(key)
        draws = jax.vmap(path.sample_base)(jax.random.split(base_key, num))

        def step(carry):
            key, state, log_z, stages = carry
            key, step_key = jax.random.split(key)
            state, info = smc.step(step_key, state)
            return key, state, log_z + info.log_likelihood_increment, stages + 1

        begin = key, smc.init(draws), jnp.zeros(()), jnp.array(0)
        end = jax.lax.while_loop(
            lambda carry: carry[1].tempering_param < 1, step, begin
        )
        return end[2:]

    return run


def row(name, label, density, log_z, moves):
    """A row of the table."""
    off = np.asarray(log_z, float) - density.log_z
    mean, error = mean_ratio(off)
    gradients = moves * density.num_leapfrog
    return {
        "density": name,
        "method": label,
        "gradients": f"{gradients:.2e}",
        "mean of Z estimates / Z": f"{mean:.4f} +- {error:.4f}",
        "rms error, nats": rms(log_z, density),
        "squared error x gradients": rms(log_z, density) ** 2 * gradients,
    }


def rms(log_z, density):
    """Root mean squared error of estimates, nats."""
    return float(np.sqrt(np.mean(np.square(np.asarray(log_z) - density.log_z))))


if __name__ == "__main__":
    runner.run("smc", __doc__, tables)
