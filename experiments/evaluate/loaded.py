"""A run that was loaded: a `Run` whose images can be scored by annealed chains."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from ais_jax.batching import map_examples
from ais_jax.checks import unknown_name
from ais_jax.evidence.log_z import log_normalizer
from configs import presets
from experiments.data.dataset import Dataset
from experiments.evaluate.evaluator import AIS, Evaluator
from experiments.run.run import Run, as_key
from experiments.system.errors import ConfigError


class LoadedRun(Run):
    """A `Run` with the methods that need an evaluation's functions."""

    def latents(self, key, x, num_samples: int = 1, preset: str = "") -> np.ndarray:
        """Latents given images: f32[N, num_samples, D].

        Draws of q(z|x) or, with a preset, of annealed chains, close to p(z|x).
        """
        if not preset:
            return super().latents(key, x, num_samples)
        key, params, rows = as_key(key), self.params, self._rows(x)
        evaluator = _evaluator(self, rows, preset, 0)
        plan, settings = evaluator.tune(params), evaluator.settings

        @jax.jit
        def chains(indices, xs):
            def one(index, x):
                chain_key, pick_key = jax.random.split(jax.random.fold_in(key, index))
                path = evaluator.path(params, x)
                result = log_normalizer(
                    chain_key, path, plan, settings.num_chains, evaluator.transition
                )
                shape = (num_samples,)
                picks = jax.random.categorical(pick_key, result.log_w, shape=shape)
                return {"z": result.z[picks]}

            return map_examples(one, indices, xs)

        return _in_chunks(evaluator, chains)["z"]

    def log_likelihood(self, x, preset: str = "quick", seed: int = 0) -> pd.DataFrame:
        """Log p(x) of images by AIS: a row each, in nats.

        Columns: `log_p`, a lower bound in expectation; `standard_error` over chains;
        `ess`, of so many chains; `accept_prob` of HMC. Temperatures and step sizes are
        tuned on images drawn from the model, then frozen. Intensities are drawn to
        pixels once, by the seed and the image's place.

        Args:
            x: images.
            preset: of `configs/presets.py`, or "" for the run's evaluation settings.
            seed: of pixels, pilot and chains.
        """
        params, evaluator = self.params, _evaluator(self, self._rows(x), preset, seed)
        plan = evaluator.tune(params)
        values = _in_chunks(evaluator, lambda i, xs: evaluator.ais(params, plan, i, xs))
        return pd.DataFrame({name: values[name] for name in AIS})


def _evaluator(run, rows, preset, seed):
    """An `Evaluator` of rows, whose pilot runs on images drawn from the model."""
    settings = run.settings.evaluation
    if preset:
        if preset not in presets.EVALUATION:
            raise ConfigError(unknown_name("preset", preset, presets.EVALUATION))
        settings = settings._replace(**presets.EVALUATION[preset])
    settings = settings._replace(seed=seed, num_examples=0)
    pilot = run.sample(seed, settings.num_pilot).reshape(settings.num_pilot, -1)
    dataset = Dataset.from_arrays(pilot, np.asarray(rows), name="x")
    return Evaluator(run, dataset, settings)


def _in_chunks(evaluator, function):
    """A function of indices and images, for all of them, chunks of one size each."""
    num, parts = evaluator.num_examples, []
    size = min(evaluator.settings.chunk_size, num)
    for first in range(0, num, size):
        indices = np.arange(first, first + size) % num
        images = evaluator.test_images(indices)
        part = jax.device_get(function(jnp.asarray(indices), images))
        parts.append({k: v[: num - first] for k, v in part.items()})
    return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
