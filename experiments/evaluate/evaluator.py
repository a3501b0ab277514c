"""The compiled functions of an evaluation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ais_jax import sharding
from ais_jax.annealing.hmc import hmc_step
from ais_jax.batching import chain_keys, example_keys, map_examples
from ais_jax.evidence import compiling
from ais_jax.evidence.log_z import importance_log_weights
from ais_jax.evidence.row_search import Search
from ais_jax.evidence.rows import row_chains
from ais_jax.models import evaluation
from ais_jax.models.latent import posterior_path
from ais_jax.numerics import effective_sample_size, log_mean_exp
from ais_jax.training.step import draw_pixels
from experiments.evaluate import forecast
from experiments.evaluate.chunks import run_chunks
from experiments.run import build

KL_SAMPLES = 100
ENCODER = ("elbo", "iwae", "iwae_ess", "kl", "posterior_mean")  # what it gives
CHAINS = ("log_w", "log_p", "accept_prob", "num_moves", "variance", "num_increments")
SAMPLES_AT_A_TIME = 100  # of the IWAE bound


class Evaluator:
    """The compiled functions of one evaluation, for every replicate and chunk.

    Params are one replicate's (theta, phi). Every example has keys by its index, so
    that its numbers do not depend on the chunk. `images` i[N] are the indices of the
    test images that are evaluated. `encoder` is a function (params, None, indices
    i32[C], images f32[C, X]) -> dict of arrays [C, ...].
    """

    def __init__(self, run, dataset, settings):
        """Of a `Run`, or of the `build.Training` that is to give it."""
        self.model, self.mesh = _model(run, settings), run.mesh
        self.dataset, self.settings = dataset, settings
        names = ("pixels", "search", "iwae", "simulate", "kl")
        keys = jax.random.split(jax.random.key(settings.seed), len(names))
        self.keys = dict(zip(names, keys))
        self.images = _choose(settings, len(dataset.test))
        self.num_examples = len(self.images)
        self.in_chunks = partial(
            run_chunks, size=settings.chunk_size, multiple=run.mesh.size
        )
        self._draws_pixels = build.draws_pixels(run.settings, dataset)
        self._block_size = partial(
            build.block_size, run.settings, dataset.test.shape[1]
        )
        names, fixed = (settings.start,), settings.num_temperatures
        if fixed is None and settings.start == "encoder":
            names = ("encoder", "wide")  # which hard images try
        self._starts = evaluation.starts_of(self.model, names, settings.preconditioner)
        self._transition = evaluation.trajectories(settings.num_leapfrog)
        if settings.preset == "paper":
            self._transition = partial(hmc_step, num_leapfrog=settings.num_leapfrog)
        self.rule = forecast.rule_of(settings)
        self.encoder = self._compile(self._one_encoder, SAMPLES_AT_A_TIME)
        self._chains = self._compile(self._one_slot, settings.num_chains)
        self._ends = self._compile(self._one_end, settings.num_chains)

    def search(self, params, folder=None, tell=None, with_ends=False):
        """A `Search` of one replicate, whose chunks a folder keeps.

        Args:
            params: (theta, phi).
            folder: or None to keep nothing.
            tell: called with a stage and the moves of its chains, as they are made.
            with_ends: whether the ends z of the chains are given.
        """
        settings = self.settings
        program, names = self._chains, CHAINS
        if with_ends:
            program, names = self._ends, (*CHAINS, "z")

        def run(stage, work, slots, load):
            rows, replicates = slots
            moves = settings.num_chains * (int(work.num_temperatures) - 1)
            num = settings.num_simulated  # of it the other stages know nothing
            name = f"{stage} of {num}" if num and "pairs" in stage else stage
            chunks = folder and folder / name.replace(" ", "_")
            return self.in_chunks(
                chunks,
                np.stack([rows, replicates], axis=1).astype(np.int32),
                lambda slot, *data: program(params, work, *slot.T, *data),
                names,
                load=lambda slot: load(slot[:, 0]),
                tell=None if tell is None else lambda n: tell(stage, n * moves),
            )

        return Search(
            self.keys["search"],
            run,
            self.rule,
            num_starts=len(self._starts),
            first_step_size=evaluation.FIRST_STEP_SIZES[settings.preconditioner],
        )

    def num_gradients(self, search):
        """Gradient evaluations of a search so far."""
        return evaluation.num_gradients(search, self.settings.num_leapfrog)

    def rows(self, params):
        """The test images as a search loads them: places -> (images, no draws)."""
        no_draw = evaluation.no_draws(self.model, params[0])
        return lambda places: (
            self.test_images(self.images[places]),
            no_draw(len(places)),
        )

    def simulate(self, params, indices):
        """Pairs (images f32[C, X], z f32[C, D]) drawn from the model.

        Images have the covariates and the library sizes of test images.
        """
        return self._simulated(params, indices, np.nan_to_num(self._like(indices)))

    def pairs(self, params, indices):
        """Does as `simulate`; what a test image lacks, its pair lacks too."""
        return self._simulated(params, indices, self._like(indices))

    def _simulated(self, params, indices, like):
        key = self.keys["simulate"]
        return evaluation.simulate(self.model, key, params[0], indices, like)

    def _like(self, indices):
        return self.dataset.test[self.images[indices % self.num_examples]]

    def test_images(self, indices):
        """Test images f32[C, X], binarized once and for all by seed and index."""
        return self._binarize(self.dataset.test, indices)

    def _compile(self, function, num_chains):
        """A function of one example, for a chunk: (params, shared, indices, ...)."""
        block = self._block_size(num_chains)

        def chunk(params, shared, indices, *examples):
            one = partial(function, params, shared)
            return map_examples(one, indices, *examples, block_size=block)

        return sharding.spread_examples(chunk, self.mesh, compiling.options(1))

    def _one_slot(self, *args):
        chains = self._one_end(*args)
        del chains["z"]
        return chains

    def _one_end(self, params, work, row, *slot):
        chains = row_chains(
            self._starts,
            self._transition,
            self.settings.num_chains,
            params,
            work,
            row,
            *slot,
        )
        return {"log_p": log_mean_exp(chains.log_w), **chains._asdict()}

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

    def _binarize(self, images, indices):
        x = jnp.asarray(images[indices])
        if not self._draws_pixels:
            return x
        keys = example_keys(self.keys["pixels"], jnp.asarray(indices))
        return draw_pixels(keys, x)


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
