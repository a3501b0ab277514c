"""The compiled functions of an evaluation."""

import jax
import jax.numpy as jnp
import numpy as np

from ais_jax import evaluation, sharding, tuning
from ais_jax.batching import chain_keys, example_keys, map_examples
from experiments import builders

KL_SAMPLES = 100
SAMPLES_AT_A_TIME = 100  # of the IWAE bound


class Evaluator:
    """The compiled functions of one evaluation, for every replicate and chunk.

    Every example has its own keys, by its index, so that its numbers depend neither on
    the chunk nor on which other examples are evaluated.

    Args:
        config: a checked ConfigDict.
        model: a `LatentVariableModel`.
        dataset: a `datasets.Dataset`.
        settings: of `builders.evaluation_settings`.
    """

    def __init__(self, config, model, dataset, settings):
        self.config, self.model = config, model
        self.mesh = builders.build_mesh(config)
        self.dataset, self.settings = dataset, settings
        names = ("pixels", "pilot", "ais", "iwae", "simulate", "bounds", "kl")
        keys = jax.random.split(jax.random.key(settings["seed"]), len(names))
        self.keys = dict(zip(names, keys))
        self.path = builders.build_path_fn(model, settings)
        self.transition = builders.build_transition(settings)
        self.num_examples = min(
            settings["num_examples"] or len(dataset.test), len(dataset.test)
        )
        self.ais = self._jit(self._ais, settings["num_chains"])
        self.encoder = self._jit(self._encoder, SAMPLES_AT_A_TIME)
        self.bounds = self._jit(self._bounds, settings["num_chains"])
        self._tune = jax.jit(self._pilot)
        self.simulate = jax.jit(
            lambda theta, keys: jax.vmap(lambda key: model.simulate(key, theta))(keys)
        )

    def _jit(self, function, num_chains):
        """Compiles a function of one example for a chunk: (params, args, indices)."""
        pixels = self.dataset.test.shape[1]
        block = builders.block_size(self.config, pixels, num_chains)

        def chunk(params, shared, indices, *examples):
            one = lambda index, *xs: function(params, shared, index, *xs)
            return map_examples(one, indices, *examples, block_size=block)

        return sharding.spread_examples(chunk, self.mesh)

    def _ais(self, params, plan, index, x):
        result = evaluation.log_normalizer(
            jax.random.fold_in(self.keys["ais"], index),
            self.path(*params, x),
            plan,
            self.settings["num_chains"],
            self.transition,
        )
        return {
            "log_p": result.log_z,
            "standard_error": result.standard_error,
            "ess": result.ess,
            "accept_prob": jnp.mean(result.accept_prob),
        }

    def _encoder(self, params, _, index, x):
        theta, phi = params
        q, p = self.model.proposal(phi, x), self.model.prior(theta)
        path = builders.STARTS["encoder"](self.model, theta, phi, x)
        key = jax.random.fold_in(self.keys["iwae"], index)
        log_w = evaluation.importance_log_weights(
            key, path, self.settings["iwae_samples"], SAMPLES_AT_A_TIME
        )
        z = jax.vmap(q.sample)(
            chain_keys(jax.random.fold_in(self.keys["kl"], index), KL_SAMPLES)
        )
        return {
            "elbo": jnp.mean(log_w),
            "iwae": evaluation.log_mean_exp(log_w),
            "iwae_ess": evaluation.effective_sample_size(log_w),
            "kl": jnp.mean(jax.vmap(q.log_prob)(z) - jax.vmap(p.log_prob)(z)),
            "posterior_mean": q.mean,
        }

    def _bounds(self, params, plan, index, x, z):
        bounds = evaluation.bidirectional_bounds(
            jax.random.fold_in(self.keys["bounds"], index),
            self.path(*params, x),
            z,
            plan,
            self.settings["num_chains"],
            self.transition,
        )
        return bounds._asdict()

    def test_images(self, indices):
        """Test images f32[N, X], binarized once and for all by seed and index."""
        return self._binarize(self.dataset.test, indices)

    def _binarize(self, images, indices):
        x = jnp.asarray(images[indices])
        if self.dataset.is_binary:
            return x
        keys = example_keys(self.keys["pixels"], indices)
        draw = lambda key, p: jax.random.bernoulli(key, p).astype(p.dtype)
        return jax.vmap(draw)(keys, x)

    def tune(self, params):
        """The pilot: a `Plan`, from images that are not scored."""
        images = self.dataset.train
        if self.dataset.valid is not None:
            images = self.dataset.valid
        pilot = np.arange(min(self.settings["num_pilot"], len(images)))
        xs = self._binarize(images, pilot)
        if jax.process_count() == 1 and len(pilot) % self.mesh.size == 0:
            xs = jax.device_put(xs, sharding.by_row(self.mesh))
        return self._tune(params, xs)

    def _pilot(self, params, xs):
        first, _, _ = builders.STEP_SIZES[self.settings["preconditioner"]]
        return tuning.tune_examples(
            self.keys["pilot"],
            lambda x: self.path(*params, x),
            xs,
            num_temperatures=self.settings["num_temperatures"],
            schedule=self.settings["schedule"],
            transition=self.transition,
            target=self.settings["target"],
            first_step_size=first,
        )
