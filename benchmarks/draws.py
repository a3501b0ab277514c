"""Evidence from draws of NumPyro's NUTS, of posteriors with certified evidences.

    python -m benchmarks.draws

Three keys of each: four NUTS chains of 1,000 draws after as many for warming up, and
`log_z_from_draws` at its defaults. Seconds are of the processor, and include
compilation.
"""

import time
from functools import partial

import jax
import numpy as np
from numpyro.infer import MCMC, NUTS

from ais_jax import log_z_from_draws
from benchmarks import runner
from benchmarks.posteriors import POSTERIORS

NAMES = (
    "pima, 6",
    "turtles, clutches",
    "sonar",
    "ionosphere",
    "German credit",
    "seeds",
    "turtles",
    "eight schools",
    "radiata pine, density",
    "radiata pine, adjusted",
)
QUICK, NUM_CHAINS, NUM_DRAWS, NUM_KEYS = "discoveries", 4, 1000, 3


def sample(key, path, num):
    """Draws of NUTS, in the user's coordinates."""
    like = jax.eval_shape(path.sample_base, key)
    noise = np.random.default_rng(0)
    start = jax.tree.map(
        lambda a: noise.uniform(-1.0, 1.0, (NUM_CHAINS, *a.shape)).astype(a.dtype), like
    )
    kernel = NUTS(potential_fn=lambda z: -path.log_target(z))
    settings = {"num_warmup": num, "num_samples": num, "num_chains": NUM_CHAINS}
    mcmc = MCMC(kernel, **settings, chain_method="vectorized", progress_bar=False)
    mcmc.run(key, init_params=start)
    draws = mcmc.get_samples(group_by_chain=True)
    if path.coordinates is None:
        return draws
    return jax.jit(jax.vmap(jax.vmap(path.coordinates.constrain)))(draws)


def rows(names, num_draws, num_keys):
    """A row for each posterior and key."""
    for name in names:
        posterior = POSTERIORS[name]()
        for i in range(num_keys):
            nuts_key, key = jax.random.split(jax.random.key(i))
            start = time.process_time()
            draws = jax.block_until_ready(
                sample(nuts_key, posterior.user_path, num_draws)
            )
            drawn = time.process_time()
            found = log_z_from_draws(key, posterior.user_path, draws)
            seconds = time.process_time() - drawn
            yield {
                "posterior": name,
                "D": posterior.size,
                "key": i,
                "off": found.log_z - posterior.log_z,
                "standard error": found.standard_error,
                "bounds apart": found.upper - found.lower,
                "T": found.num_temperatures,
                "R-hat": found.r_hat,
                "warnings": "; ".join(found.warnings),
                "NUTS, CPU s": drawn - start,
                "CPU s": seconds,
            }
        jax.clear_caches()


def tables(args):
    """All posteriors, or a small one."""
    measure = partial(rows, NAMES, NUM_DRAWS, NUM_KEYS)
    return [("log Z from draws", rows([QUICK], 200, 1) if args.quick else measure())]


if __name__ == "__main__":
    runner.run("draws", __doc__, tables)
