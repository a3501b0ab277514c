"""A run that was loaded: a `Run` whose images can be scored by annealed chains."""

import numpy as np
import pandas as pd

from ais_jax.evidence.row_estimates import as_result, posterior_draws
from configs import presets
from experiments.data.dataset import Dataset
from experiments.evaluate.evaluator import Evaluator
from experiments.run.run import Run, as_key

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

    def _estimate(self, x, error, seed, with_ends=False):
        rows = np.asarray(self._rows(x))
        asked = presets.EVALUATION["default"] | {"num_temperatures": None}
        asked |= {"error": error, "seed": seed, "num_examples": 0}
        settings = self.settings.evaluation._replace(**asked)
        evaluator = Evaluator(self, Dataset.from_arrays(rows, rows, name="x"), settings)
        search = evaluator.search(self.params, with_ends=with_ends)
        load = evaluator.rows(self.params)
        return search.estimate("x", len(rows), load), search, evaluator
