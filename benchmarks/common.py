"""The workload that the benchmarks share, and its programs on one device."""

import itertools
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ais_jax import estimators, optimizers, schedules, training
from ais_jax.annealing.hmc import hmc_step
from ais_jax.batching import chain_keys, map_examples
from ais_jax.evidence import log_z
from ais_jax.evidence import plan as tuning
from ais_jax.models.latent import posterior_path
from ais_jax.models.networks import bernoulli_model
from ais_jax.training.step_sizes import StepSizeRule
from benchmarks import launcher

GRID = ((1, 5), (1, 11), (5, 5), (5, 11), (50, 5), (50, 11))  # (K, T) of the paper
QUICK_GRID = ((3, 2),)
FORCES = {  # of HMC
    "float32": {},
    "tf32": {"force_precision": "tf32"},
    "bf16": {"force_precision": "bf16"},
}


class Workload(NamedTuple):
    """One model and batch: the paper's, or a small one for smoke tests.

    Attributes:
        batch: B.
        data_size: X.
        latent: D.
        widths: hidden widths of the encoder.
        num_leapfrog: L.
        force: of `FORCES`.
    """

    batch: int = 128
    data_size: int = 784
    latent: int = 50
    widths: tuple = (200, 200)
    num_leapfrog: int = 5
    force: str = "float32"

    def model(self):
        """The `LatentVariableModel`."""
        return bernoulli_model(
            self.data_size,
            latent_sizes=(self.latent,),
            widths=(self.widths,),
            **FORCES[self.force],
        )

    def images(self):
        """Random binary images f32[B, X]."""
        shape = (self.batch, self.data_size)
        return jax.random.bernoulli(jax.random.key(1), 0.3, shape).astype(jnp.float32)

    def pass_flops(self):
        """Matrix-product FLOPs of one pass forward and backward in z of the decoder."""
        sizes = (self.latent, *self.widths[::-1], self.data_size)
        return 2 * 2 * sum(a * b for a, b in itertools.pairwise(sizes))

    def minimum_flops(self, num_samples, num_moves):
        """The analytic minimum of sampling: 1 + L*M passes for every chain."""
        passes = 1 + self.num_leapfrog * num_moves
        return passes * num_samples * self.batch * self.pass_flops()


SMALL = Workload(batch=4, data_size=12, latent=3, widths=(8, 6), num_leapfrog=2)


def workload(is_quick):
    """The paper's workload, or the small one."""
    return SMALL if is_quick else Workload()


def on_gpu():
    """Whether the benchmarks run on a GPU."""
    return jax.default_backend() == "gpu"


def forces(is_quick):
    """The forces to measure: all on a GPU, elsewhere float32; two in smoke tests."""
    if is_quick:
        return "float32", "bf16"
    return tuple(FORCES) if on_gpu() else ("float32",)


def grid(is_quick):
    """Workloads with K and T: the paper's grid with every force."""
    for row in QUICK_GRID if is_quick else GRID:
        for force in forces(is_quick):
            yield workload(is_quick)._replace(force=force), *row


def estimator(work, num_samples, num_temperatures):
    """The paper's AIS estimator: unit mass, a move at every temperature."""
    return estimators.ais(
        work.model(),
        num_samples=num_samples,
        num_temperatures=num_temperatures,
        num_leapfrog=work.num_leapfrog,
    )


def chain_gradients(work, num_samples, num_temperatures):
    """Gradient evaluations of a training step for one example."""
    return num_samples * (2 + work.num_leapfrog * num_temperatures) + 1


def make_sampler(estimate, block):
    """Builds the sampler: (key, theta, phi, x f32[B, X], step_sizes) -> samples."""

    def sample(key, theta, phi, x, step_sizes):
        def one(key, x):
            return estimate.sample(key, theta, phi, x, step_sizes)

        keys = chain_keys(key, len(x))
        return map_examples(one, keys, x, block_size=block)

    return sample


def sampler_arguments(work, num_moves):
    """Arguments of `make_sampler`'s function."""
    theta, phi = work.model().init(jax.random.key(0))
    step_sizes = jnp.full((num_moves,), 0.1)
    return jax.random.key(2), theta, phi, work.images(), step_sizes


def make_step(estimate, block):
    """The training step as the launcher makes it, images drawn at each visit."""
    rule = StepSizeRule()
    return training.make_train_step(estimate, rule, binarize=True, block_size=block)


def initial_state(work, estimate, key):
    """The training state of a workload's model."""
    optimizer = optimizers.make(schedule="constant", num_steps=1)
    both = optimizers.Optimizers(optimizer, optimizer)
    return training.init(
        key, work.model(), estimate, both, 0.1, learning_rates=jnp.full(2, 1e-3)
    )


def step_arguments(work, estimate):
    """Arguments of `make_step`'s function."""
    state = jax.jit(partial(initial_state, work, estimate))(jax.random.key(0))
    return state, jax.random.key(2), work.images()


def compiled_step(work, num_samples, num_temperatures):
    """`compiled` of the AIS training step."""
    estimate = estimator(work, num_samples, num_temperatures)
    step = make_step(estimate, launcher.block_size(num_samples))
    return compiled(step, *step_arguments(work, estimate))


def replicated_step(work, num_samples, num_temperatures, replicates):
    """A training step of several replicates in one program, ready to call."""
    estimate = estimator(work, num_samples, num_temperatures)
    block = launcher.block_size(num_samples)
    step = jax.vmap(make_step(estimate, block), (0, 0, None))
    keys = jax.random.split(jax.random.key(0), replicates)
    states = jax.vmap(partial(initial_state, work, estimate))(keys)
    return compiled(step, states, keys, work.images())[0]


def compiled_evaluation(work, num_chains, num_temperatures, num_leapfrog):
    """AIS log-likelihoods of a batch by a frozen plan, ready to call."""
    model = work.model()
    betas = jnp.asarray(schedules.linear(num_temperatures))
    plan = tuning.Plan(betas, jnp.full((num_temperatures - 1,), 0.1))
    transition = partial(hmc_step, num_leapfrog=num_leapfrog)

    def evaluate(key, theta, phi, x):
        def one(key, x):
            path = posterior_path(model, theta, phi, x)
            return log_z.log_normalizer(key, path, plan, num_chains, transition)

        keys = jax.random.split(key, len(x))
        block = launcher.block_size(num_chains)
        return map_examples(one, keys, x, block_size=block)

    return compiled(evaluate, *sampler_arguments(work, 1)[:4])[0]


def compiled(function, *args):
    """Compiles a function: (callable of no arguments that waits, executable)."""
    program = jax.jit(function).lower(*args).compile()
    return partial(_wait, program, args), program


def _wait(program, args):
    return jax.block_until_ready(program(*args))
