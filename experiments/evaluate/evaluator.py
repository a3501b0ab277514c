"""The compiled functions of an evaluation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ais_jax import sharding
from ais_jax.annealing.hmc import hmc_step
from ais_jax.batching import chain_keys, example_keys, map_examples
from ais_jax.evidence.log_z import (
    bidirectional_bounds,
    importance_log_weights,
    log_normalizer,
)
from ais_jax.evidence.plan import tune_examples
from ais_jax.models.latent import posterior_path
from ais_jax.numerics import effective_sample_size, log_mean_exp
from configs import presets
from experiments.evaluate.chunks import run_chunks
from experiments.run import build

KL_SAMPLES = 100
ELBO_SAMPLES = 10  # where it is measured on all test images
AIS = ("log_p", "standard_error", "ess", "accept_prob")  # what each function gives
ENCODER = ("elbo", "iwae", "iwae_ess", "kl", "posterior_mean")
SAMPLES_AT_A_TIME = 100  # of the IWAE bound


class Evaluator:
    """The compiled functions of one evaluation, for every replicate and chunk.

    Params are one replicate's (theta, phi). Every example has keys by its index, so
    that its numbers depend neither on the chunk nor on which others are evaluated.
    `images` i[N] are the indices of the test images that are evaluated. `ais`,
    `encoder`, `elbo` and `bounds` are functions (params, plan or None, indices i32[C],
    images f32[C, X]) -> dict of arrays [C, ...]; `bounds`, of pairs drawn from the
    model, takes z f32[C, D] too.
    """

    def __init__(self, run, dataset, settings):
        """Of a `Run`, or of the `build.Training` that is to give it."""
        self.model, self.mesh = _model(run, settings), run.mesh
        self.dataset, self.settings = dataset, settings
        names = ("pixels", "pilot", "ais", "iwae", "simulate", "bounds", "kl")
        keys = jax.random.split(jax.random.key(settings.seed), len(names))
        self.keys = dict(zip(names, keys))
        self.images = _choose(settings, len(dataset.test))
        self.num_examples = len(self.images)
        self.in_chunks = partial(
            run_chunks,
            load=lambda indices: (self.test_images(indices),),
            size=settings.chunk_size,
            multiple=run.mesh.size,
        )
        self.transition = partial(hmc_step, num_leapfrog=settings.num_leapfrog)
        self._draws_pixels = build.draws_pixels(run.settings, dataset)
        self._block_size = partial(
            build.block_size, run.settings, dataset.test.shape[1]
        )
        self.ais = self._compile(self._one_ais, settings.num_chains)
        self.encoder = self._compile(self._one_encoder, SAMPLES_AT_A_TIME)
        self.elbo = self._compile(self._one_elbo, ELBO_SAMPLES)
        self.bounds = self._compile(self._one_bounds, settings.num_chains)
        self._tune = jax.jit(self._pilot)
        simulate = jax.vmap(self.model.simulate, (0, None))
        self._simulate = jax.jit(lambda theta, keys: simulate(keys, theta))

    def path(self, params, x):
        """The `AnnealingPath` of an image f32[X] by (theta, phi)."""
        start = build.STARTS[self.settings.start]
        return start(self.model, *params, x, self.settings.preconditioner)

    def tune(self, params):
        """The pilot: a `Plan`, from images that are not scored."""
        images = self.dataset.train
        if self.dataset.valid is not None:
            images = self.dataset.valid
        pilot = np.arange(min(self.settings.num_pilot, len(images)))
        xs = self._binarize(images, pilot)
        if jax.process_count() == 1 and len(pilot) % self.mesh.size == 0:
            xs = jax.device_put(xs, sharding.by_row(self.mesh))
        return self._tune(params, xs)

    def simulate(self, params, indices):
        """Pairs drawn from the model: (images f32[C, X], z f32[C, D])."""
        keys = example_keys(self.keys["simulate"], jnp.asarray(indices))
        return self._simulate(params[0], keys)

    def test_images(self, indices):
        """Test images f32[C, X], binarized once and for all by seed and index."""
        return self._binarize(self.dataset.test, indices)

    def _compile(self, function, num_chains):
        """A function of one example, for a chunk: (params, shared, indices, ...)."""
        block = self._block_size(num_chains)

        def chunk(params, shared, indices, *examples):
            one = partial(function, params, shared)
            return map_examples(one, indices, *examples, block_size=block)

        return sharding.spread_examples(chunk, self.mesh)

    def _one_ais(self, params, plan, index, x):
        result = log_normalizer(
            jax.random.fold_in(self.keys["ais"], index),
            self.path(params, x),
            plan,
            self.settings.num_chains,
            self.transition,
        )
        moves = result.accept_prob  # none where T is 1, and none rejected
        return {
            "log_p": result.log_z,
            "standard_error": result.standard_error,
            "ess": result.ess,
            "accept_prob": jnp.mean(moves) if moves.size else jnp.ones(()),
        }

    def _one_encoder(self, params, _, index, x):
        theta, phi = params
        q, p = self.model.proposal(phi, x), self.model.prior(theta)
        log_w = importance_log_weights(
            jax.random.fold_in(self.keys["iwae"], index),
            posterior_path(self.model, theta, phi, x),
            self.settings.iwae_samples,
            SAMPLES_AT_A_TIME,
        )
        z = jax.vmap(q.sample)(
            chain_keys(jax.random.fold_in(self.keys["kl"], index), KL_SAMPLES)
        )
        return {
            "elbo": jnp.mean(log_w),
            "iwae": log_mean_exp(log_w),
            "iwae_ess": effective_sample_size(log_w),
            "kl": jnp.mean(jax.vmap(q.log_prob)(z) - jax.vmap(p.log_prob)(z)),
            "posterior_mean": q.mean,
        }

    def _one_elbo(self, params, _, index, x):
        log_w = importance_log_weights(
            jax.random.fold_in(self.keys["iwae"], index),
            posterior_path(self.model, *params, x),
            *(ELBO_SAMPLES, ELBO_SAMPLES),
        )
        return {"elbo": jnp.mean(log_w)}

    def _one_bounds(self, params, plan, index, x, z):
        bounds = bidirectional_bounds(
            jax.random.fold_in(self.keys["bounds"], index),
            self.path(params, x),
            z,
            plan,
            self.settings.num_chains,
            self.transition,
        )
        return bounds._asdict()

    def _binarize(self, images, indices):
        x = jnp.asarray(images[indices])
        if not self._draws_pixels:
            return x
        keys = example_keys(self.keys["pixels"], jnp.asarray(indices))
        return jax.vmap(lambda key, p: jax.random.bernoulli(key, p).astype(p.dtype))(
            keys, x
        )

    def _pilot(self, params, xs):
        return tune_examples(
            self.keys["pilot"],
            lambda x: self.path(params, x),
            xs,
            num_temperatures=self.settings.num_temperatures,
            schedule=self.settings.schedule,
            transition=self.transition,
            first_step_size=presets.STEP_SIZES[self.settings.preconditioner]["first"],
        )


def _choose(settings, num):
    """Indices of the test images that are evaluated: i[N], prefixes of each other."""
    size = min(settings.num_examples or num, num)
    if size == num or settings.subset == "first":
        return np.arange(size)
    return np.random.default_rng(settings.seed).permutation(num)[:size]


def _model(run, settings):
    """The model of the run, with the evaluation's force where it has another."""
    trained, precision = run.settings, settings.force_precision
    if trained.factory or precision in (build.AUTO, trained.model["force_precision"]):
        return run.model
    model = trained.model | {"force_precision": precision}
    return build.build_model(trained._replace(model=model), run.image_shape)
