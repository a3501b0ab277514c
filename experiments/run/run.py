"""A trained run as an object: to sample, encode, reconstruct and score."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from ais_jax import sharding
from ais_jax.batching import (
    chain_keys,
    map_examples,
)
from ais_jax.evidence import log_z
from ais_jax.models import latent
from configs import presets
from experiments.data.dataset import GIVEN, Dataset, with_values
from experiments.evaluate.evaluator import (
    AIS,
    Evaluator,
)
from experiments.run import build, folder, parameters
from experiments.run.metrics import read_metrics
from experiments.run.settings import Settings, resolve
from experiments.system.errors import ConfigError, DataError
from experiments.system.files import user_path

_TEST = ("log_p", "elbo", "iwae", "kl", "ess", "accept_prob")


@dataclasses.dataclass(frozen=True)
class Run:
    """One replicate of a trained run; `replicate` gives the others.

    Images x are [N, H, W(, C)] or rows [N, X], of the values that the likelihood takes:
    intensities in [0, 1] for Bernoulli pixels, counts for counts. Results have the
    images' shape. A key is one of `jax.random.key`, or a whole number.

    Attributes:
        folder: of the run.
        config: its resolved config.
        settings: what that means.
        model: its model.
        image_shape: [H, W] or [H, W, C].
        replicates: (theta, phi) of each replicate.
        index: the number of this replicate, from 0.
    """

    folder: Path
    config: ConfigDict
    settings: Settings
    model: latent.LatentVariableModel
    image_shape: tuple[int, ...]
    replicates: tuple[tuple, ...]
    index: int = 0

    def replicate(self, index: int) -> "Run":
        """The same run with another replicate's parameters, from 0."""
        if not 0 <= index < len(self.replicates):
            raise ConfigError(
                f"replicate={index}: {self.folder} has {len(self.replicates)}, from 0"
            )
        return dataclasses.replace(self, index=index)

    @property
    def theta(self):
        """The generative model's parameters."""
        return self.replicates[self.index][0]

    @property
    def phi(self):
        """The inference model's parameters."""
        return self.replicates[self.index][1]

    @property
    def history(self) -> pd.DataFrame:
        """The rows of metrics.jsonl; lists over replicates where there are several."""
        return pd.DataFrame(read_metrics(self.folder / "metrics.jsonl"))

    @property
    def results(self) -> pd.DataFrame:
        """The newest evaluation, a row for each replicate, in nats.

        Columns ending in `_error` are standard errors over images; `monte_carlo` is
        that of the mean log p(x) over chains, `gap` the bidirectional gap, and
        `log_p_all` what is predicted of the whole test set where a part was evaluated.
        """
        content = folder.read(self.folder / "results.json", "replicates")
        return pd.DataFrame([_row(part) for part in content["replicates"]])

    def sample(self, key, num: int) -> np.ndarray:
        """Draws of p(x): f32[num, *image_shape], of the likelihood's values."""
        keys = jax.random.split(_key(key), num)
        draw = jax.jit(jax.vmap(self.model.simulate, (0, None)))
        return self._images(draw(keys, self.theta)[0])

    def encode(self, x) -> tuple[np.ndarray, np.ndarray]:
        """Means and standard deviations of q(z|x): f32[N, D] each."""

        def one(x):
            q = self.model.proposal(self.phi, x)
            return q.mean, q.scale

        return jax.device_get(jax.jit(jax.vmap(one))(self._rows(x)))

    def decode(self, z) -> np.ndarray:
        """Means of p(x|z), f32[N, *image_shape], of latents f32[N, D]."""
        decode = jax.vmap(self.model.decode, (None, 0))
        return self._images(jax.jit(decode)(self.theta, jnp.asarray(z, jnp.float32)))

    def reconstruct(self, x) -> np.ndarray:
        """Means of p(x|z) at the means of q(z|x): f32[N, *image_shape]."""
        return self.decode(self.encode(x)[0])

    def latents(self, key, x, num_samples: int = 1, preset: str = "") -> np.ndarray:
        """Latents given images: f32[N, num_samples, D].

        Draws of q(z|x), or, with a preset of `log_likelihood`, of its annealed chains
        by their weights, which are close to p(z|x).
        """
        key, rows = _key(key), self._rows(x)
        if not preset:

            def draw(index, x):
                keys = chain_keys(jax.random.fold_in(key, index), num_samples)
                return jax.vmap(self.model.proposal(self.phi, x).sample)(keys)

            return np.asarray(jax.jit(jax.vmap(draw))(jnp.arange(len(rows)), rows))
        evaluator = self._evaluator(rows, preset, 0)
        plan, settings = evaluator.tune(), evaluator.settings

        @jax.jit
        def chains(indices, xs):
            def one(index, x):
                chain_key, pick_key = jax.random.split(jax.random.fold_in(key, index))
                path = evaluator.path(evaluator.params, x)
                result = log_z.log_normalizer(
                    chain_key, path, plan, settings.num_chains, evaluator.transition
                )
                shape = (num_samples,)
                picks = jax.random.categorical(pick_key, result.log_w, shape=shape)
                return result.z[picks]

            return map_examples(one, indices, xs)

        return _in_chunks(
            lambda i: {"z": chains(i, evaluator.test_images(i))},
            *(len(rows), settings.chunk_size),
        )["z"]

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
        evaluator = self._evaluator(self._rows(x), preset, seed)
        plan = evaluator.tune()
        values = _in_chunks(
            lambda i: evaluator.ais(plan, i, evaluator.test_images(i)),
            *(len(x), evaluator.settings.chunk_size),
        )
        return pd.DataFrame({name: values[name] for name in AIS})

    def _evaluator(self, rows, preset, seed):
        """An `Evaluator` of rows, whose pilot runs on images drawn from the model."""
        settings = self.settings.evaluation._replace(seed=seed, num_examples=0)
        if preset:
            if preset not in presets.EVALUATION:
                known = ", ".join(presets.EVALUATION)
                raise ConfigError(f"preset={preset!r} is unknown: choose from {known}")
            settings = settings._replace(**presets.EVALUATION[preset])
            settings = settings._replace(num_examples=0)
        pilot = self.sample(seed, settings.num_pilot).reshape(settings.num_pilot, -1)
        dataset = Dataset.from_arrays(pilot, np.asarray(rows), name="x")
        setup = build.Training(
            *(self.settings, self.model, None, sharding.make_mesh(1, 1)),
            *(None, None, 0, 0),
        )
        evaluator = Evaluator(setup, dataset, settings)
        return evaluator.bind(self.replicates[self.index])

    def _rows(self, x):
        """Images as f32[N, X], checked against the likelihood."""
        dataset = Dataset.from_arrays(x, x, name="x")
        size = int(np.prod(self.image_shape))
        if dataset.train.shape[1] != size:
            raise DataError(
                f"x is {list(np.shape(x))}: use images [N, *{self.image_shape}], or "
                f"rows [N, {size}]"
            )
        likelihood = self.settings.model["likelihood"]
        return jnp.asarray(with_values(dataset, likelihood).train)

    def _images(self, rows):
        return np.asarray(rows).reshape(-1, *self.image_shape)


def load_run(workdir, model: latent.LatentVariableModel | None = None) -> Run:
    """A run at its newest checkpoint, as an object. It needs no data.

    Args:
        workdir: the run's folder.
        model: of a run whose model was given in Python.

    Raises:
        ConfigError: there is no run, or its model must be given.
        CheckpointError: there is no checkpoint, or it is of another model.
    """
    workdir = user_path(workdir)
    config = folder.saved_config(workdir)
    settings = resolve(config)
    content = folder.read(workdir / "config.json", "image_shape")
    shape = tuple(content["image_shape"])
    if model is None:
        if settings.factory == GIVEN:
            raise ConfigError(
                f"{workdir} was trained with a model given in Python: "
                "load_run(workdir, model=...)"
            )
        model = build.build_model(settings, shape)
    both = tuple(parameters.read(workdir, model))
    return Run(workdir, config, settings, model, shape, both)


def _row(part):
    test, row = part["test"], {}
    for name in _TEST:
        row[name] = test[name]["mean"]
        row[f"{name}_error"] = test[name]["standard_error"]
    row["monte_carlo"] = test["log_p"]["monte_carlo"]
    row |= {name: test[name] for name in ("active_units", "num_examples")}
    if whole := test.get("log_p_all"):
        row |= {"log_p_all": whole["mean"], "log_p_all_error": whole["standard_error"]}
    if gap := part.get("bidirectional"):
        row |= {"gap": gap["gap"][-1], "gap_error": gap["gap_error"][-1]}
    return row


def _key(key):
    return jax.random.key(key) if isinstance(key, int | np.integer) else key


def _in_chunks(function, num, size):
    """A function of indices i32[C] for all of them, a chunk of one size at a time."""
    size, parts = min(size, num), []
    for first in range(0, num, size):
        indices = np.arange(first, first + size) % num
        part = jax.device_get(function(jnp.asarray(indices)))
        parts.append({k: v[: num - first] for k, v in part.items()})
    return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
