"""A run that was loaded: a `Run` whose images can be scored by annealed chains."""

import jax
import numpy as np
import pandas as pd

from ais_jax.evidence.row_estimates import as_result, posterior_draws
from configs import presets
from experiments.evaluate.evaluator import Evaluator
from experiments.run.run import Run, as_key
from experiments.system.errors import ConfigError, DataError

NUM_CHAINS = presets.EVALUATION["default"]["num_chains"]
MOST_CHAINS = 64  # of an image that is imputed
COLUMNS = ("log_p", "standard_error", "ess", "num_temperatures", "accept_prob")


class LoadedRun(Run):
    """A `Run` with the methods that need an evaluation's functions."""

    def latents(self, key, x, num_samples: int = 1, annealed=False) -> np.ndarray:
        """Latents given images: f32[N, num_samples, D].

        Draws of q(z|x) or, annealed, of chains that end close to p(z|x).
        """
        if not annealed:
            return super().latents(key, x, num_samples)
        estimate, _, _ = self._estimate(x, 0.0, 0, with_ends=True)
        return posterior_draws(as_key(key), estimate, num_samples)

    def impute(self, key, x, mask=None, num_samples=8, means=False) -> np.ndarray:
        """Images given their observed values: f32[N, num_samples, *image_shape].

        Observed values stay. The others are drawn from p(x|z), z by annealed chains
        that end close to p(z|observed): a chain for each draw, of 8 to 64.

        Args:
            key: of the draws.
            x: images, whose missing values are NaN.
            mask: bools of their shape, False where a value is missing; of rows with
                covariates, of the values alone.
            num_samples: draws of each image.
            means: whether to give the means of p(x|z) in place of draws.
        """
        if not means and self.model.observe is None:
            raise ConfigError("the run's model has no `observe`: use means=True")
        if mask is not None:
            if num := self.settings.model["num_covariates"]:
                ends = np.ones((len(mask), num), bool)  # covariates are all there
                mask = np.hstack([np.reshape(mask, (len(mask), -1)), ends])
            if np.shape(mask) != np.shape(x):
                raise DataError(
                    f"mask={np.shape(mask)}: use the shape of x, {np.shape(x)}"
                )
            x = np.where(mask, x, np.nan)
        z_key, x_key = jax.random.split(as_key(key))
        num_chains = int(np.clip(num_samples, NUM_CHAINS, MOST_CHAINS))
        estimate, _, _ = self._estimate(x, 0.0, 0, True, num_chains)
        z = posterior_draws(z_key, estimate, num_samples)
        flat, rows = z.reshape(-1, z.shape[-1]), np.asarray(self._rows(x))
        given = np.repeat(rows, num_samples, axis=0)
        if means:
            found = self.decode_rows(flat, given)
        else:

            def draw(key, theta, z, row):
                return self.model.given(row).observe(key, theta, z)

            each = jax.jit(jax.vmap(draw, (0, None, 0, 0)))
            found = each(jax.random.split(x_key, len(flat)), self.theta, flat, given)
        found = np.reshape(found, (*z.shape[:2], -1))
        rows = rows[:, None, : found.shape[-1]]
        found = np.where(np.isnan(rows), found, rows)
        return found.reshape(*z.shape[:2], *self.image_shape)

    def log_likelihood(self, x, error: float = 0.0, seed: int = 0) -> pd.DataFrame:
        """Log p(x) of images by AIS: a row each, in nats.

        Columns: `log_p`, a lower bound in expectation; `standard_error` over chains;
        `ess`, of 8 chains or more; `num_temperatures` and `accept_prob` of the moves.
        Intensities are drawn to pixels once, by the seed and the image's place.

        Args:
            x: images.
            error: wanted of their mean, nats; 0 as in an evaluation.
            seed: of pixels, pilot and chains.
        """
        estimate, search, evaluator = self._estimate(x, error, seed)
        spent, num_leapfrog = evaluator.num_gradients(search), 1
        found = as_result(estimate, spent, num_leapfrog)
        return pd.DataFrame({name: getattr(found, name) for name in COLUMNS})

    def _estimate(self, x, error, seed, with_ends=False, num_chains=NUM_CHAINS):
        dataset = self._dataset(x)
        asked = presets.EVALUATION["default"] | {"num_temperatures": None}
        asked |= {"error": error, "seed": seed, "num_examples": 0}
        asked |= {"num_chains": num_chains}
        settings = self.settings.evaluation._replace(**asked)
        evaluator = Evaluator(self, dataset, settings)
        search = evaluator.search(self.params, with_ends=with_ends)
        load = evaluator.rows(self.params)
        return search.estimate("x", len(dataset.test), load), search, evaluator
