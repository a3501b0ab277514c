"""A trained model: what training gives, and what all that comes after it takes."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from ais_jax import sharding
from ais_jax.batching import chain_keys
from ais_jax.models.latent import LatentVariableModel
from experiments.data.dataset import GIVEN, Dataset, with_values
from experiments.data.units import in_units
from experiments.run import build, folder, parameters
from experiments.run.metrics import read_metrics
from experiments.run.settings import Settings, override, resolve, with_covariates
from experiments.system.errors import ConfigError, DataError
from experiments.system.files import user_path

_TEST = ("log_p", "elbo", "iwae", "kl", "ess", "accept_prob")


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One replicate of a trained run; `replicate` gives the others.

    Images x are [N, H, W(, C)] or rows [N, X], of the values that the likelihood takes:
    intensities in [0, 1] for Bernoulli pixels, counts for counts; or the whole numbers
    that the data came as (`units.in_units`). Where the data have c covariates, x are
    rows [N, X + c], the values and then the covariates. A library size is the total of
    a row's values. Results have the images' shape. A key is one of `jax.random.key`, or
    a whole number.

    Attributes:
        settings: what its config means.
        model: its model.
        replicates: (theta, phi) of each replicate, on the host.
        mesh: the devices that it is evaluated on.
        folder: of the run.
        image_shape: [H, W] or [H, W, C].
        levels: what its data's whole numbers were divided by, 1 where by nothing.
        step: of training.
        index: the number of this replicate, from 0.
    """

    settings: Settings
    model: LatentVariableModel
    replicates: tuple[tuple[Any, Any], ...]
    mesh: jax.sharding.Mesh
    folder: Path
    image_shape: tuple[int, ...]
    levels: int
    step: int
    index: int = 0

    @classmethod
    def load(cls, workdir, model: LatentVariableModel | None = None):
        """The run in a folder at its newest checkpoint. It needs no data.

        Args:
            workdir: the run's folder, or an .npz that `experiments.export` wrote.
            model: of a run whose model was given in Python.

        Raises:
            ConfigError: there is no run, or its model must be given.
            CheckpointError: there is no checkpoint, or it is of another model.
        """
        workdir = user_path(workdir)
        content = folder.saved(workdir)
        settings = resolve(override(content["config"], {}))
        settings = with_covariates(settings, content.get("num_covariates", 0))
        shape, levels = tuple(content["image_shape"]), content["levels"]
        if model is None:
            if settings.factory == GIVEN:
                raise ConfigError(
                    f"{workdir} was trained with a model given in Python: "
                    "load_run(workdir, model=...)"
                )
            model = build.build_model(settings, shape)
        mesh = sharding.make_mesh()
        step, replicates = parameters.read(workdir, model, mesh)
        return cls(settings, model, replicates, mesh, workdir, shape, levels, step)

    def replicate(self, index: int):
        """The same run with another replicate's parameters, from 0."""
        if not 0 <= index < (num := len(self.replicates)):
            raise ConfigError(f"replicate={index}: {self.folder} has {num}, from 0")
        return dataclasses.replace(self, index=index)

    @property
    def params(self) -> tuple[Any, Any]:
        """(theta, phi) of this replicate."""
        return self.replicates[self.index]

    @property
    def theta(self):
        """The generative model's parameters."""
        return self.params[0]

    @property
    def phi(self):
        """The inference model's parameters."""
        return self.params[1]

    @property
    def config(self) -> ConfigDict:
        """The resolved config."""
        return override(self.settings.saved, {})

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
        path = self.folder / "results.json"
        if folder.is_exported(self.folder):
            raise ConfigError(f"{self.folder} has no results: run.log_likelihood(x)")
        if not path.exists():
            raise ConfigError(
                f"{self.folder} is not evaluated: run python -m experiments.main "
                f"--mode=evaluate --workdir={self.folder}"
            )
        content = folder.read(path, "replicates")
        return pd.DataFrame([_row(part) for part in content["replicates"]])

    def sample(self, key, num: int, like=None) -> np.ndarray:
        """Draws of p(x): f32[num, *image_shape], of the likelihood's values.

        Where the model has covariates or a library size, draws have those of the rows
        `like`, in turn.
        """

        def one(key, theta, row):
            return self.model.given(row).simulate(key, theta)[0]

        keys, rows = jax.random.split(as_key(key), num), self._like(like, num)
        return self._images(
            jax.jit(jax.vmap(one, (0, None, 0)))(keys, self.theta, rows)
        )

    def encode(self, x) -> tuple[np.ndarray, np.ndarray]:
        """Means and standard deviations of q(z|x): f32[N, D] each."""
        return self.encode_rows(self._rows(x))

    def encode_rows(self, rows) -> tuple[np.ndarray, np.ndarray]:
        """Does as `encode` for rows as the model takes them."""

        def one(phi, x):
            q = self.model.proposal(phi, x)
            return q.mean, q.scale

        encode = jax.jit(jax.vmap(one, (None, 0)))
        return jax.device_get(encode(self.phi, rows))

    def decode(self, z, like=None) -> np.ndarray:
        """Means of p(x|z), f32[N, *image_shape], of latents f32[N, D].

        Where the model has covariates or a library size, they are those of `like`.
        """
        return self.decode_rows(z, self._like(like, len(z)))

    def decode_rows(self, z, rows) -> np.ndarray:
        """Does as `decode`, given rows as the model takes them; None where it can."""

        def one(theta, z, row):
            return self.model.given(row).decode(theta, z)

        (size,) = jnp.shape(self.model.prior(self.theta).mean)
        if np.ndim(z) != 2 or np.shape(z)[1] != size:
            raise DataError(f"z is {list(np.shape(z))}: use latents [N, {size}]")
        decode, z = jax.jit(jax.vmap(one, (None, 0, 0))), jnp.asarray(z, jnp.float32)
        return self._images(decode(self.theta, z, rows))

    def reconstruct(self, x) -> np.ndarray:
        """Means of p(x|z) at the means of q(z|x): f32[N, *image_shape]."""
        rows = self._rows(x)
        return self.decode_rows(self.encode_rows(rows)[0], rows)

    def latents(self, key, x, num_samples: int = 1) -> np.ndarray:
        """Draws of q(z|x): f32[N, num_samples, D]."""
        key, rows, phi = as_key(key), self._rows(x), self.phi

        def draw(index, x):
            keys = chain_keys(jax.random.fold_in(key, index), num_samples)
            return jax.vmap(self.model.proposal(phi, x).sample)(keys)

        return np.asarray(jax.jit(jax.vmap(draw))(jnp.arange(len(rows)), rows))

    def _rows(self, x):
        """Images as rows that the model takes, checked against the likelihood."""
        return jnp.asarray(self._dataset(x).train)

    def _dataset(self, x):
        """Images as the training and the test images of a data set."""
        model, size = self.settings.model, int(np.prod(self.image_shape))
        x, covariates = np.asarray(x), None
        if num := model["num_covariates"]:
            if x.shape[1:] != (size + num,):
                raise DataError(
                    f"x is {list(x.shape)}: use rows [N, {size} + {num}], the values "
                    "and then the covariates"
                )
            x, beside = np.split(x, [size], axis=1)
            covariates = {"train": beside, "test": beside}
        x = in_units(x, self.levels, model["likelihood"])
        dataset = Dataset.from_arrays(x, x, name="x", covariates=covariates)
        if dataset.size != size:
            raise DataError(
                f"x is {list(np.shape(x))}: use images [N, *{self.image_shape}], or "
                f"rows [N, {size}]"
            )
        return with_values(dataset, model["likelihood"], model["missing"])

    def _like(self, like, num):
        """The rows that so many draws are given, or None where they need none."""
        if self.model.of_row is None:
            return None
        if like is None:
            raise DataError(
                "this run's x depends on covariates or a library size: give like=x, "
                "rows that have those of the draws"
            )
        rows = self._rows(like)
        return rows[jnp.arange(num) % len(rows)]

    def _images(self, rows):
        shape = self.image_shape
        return np.asarray(rows)[:, : int(np.prod(shape))].reshape(-1, *shape)


def as_key(key):
    """A key, of one or of a whole number."""
    return jax.random.key(key) if isinstance(key, int | np.integer) else key


def _row(part):
    test, row = part["test"], {}
    if "name" in part:  # what it differs in from the other replicates
        row["name"] = part["name"]
    for name in _TEST:
        row[name] = test[name]["mean"]
        row[f"{name}_error"] = test[name]["standard_error"]
    row["monte_carlo"] = test["log_p"]["monte_carlo"]
    row |= {name: test[name] for name in ("active_units", "num_examples")}
    if whole := test.get("log_p_all"):
        row |= {"log_p_all": whole["mean"], "log_p_all_error": whole["standard_error"]}
    if gap := part.get("bidirectional"):
        names = (
            "gap",
            "gap_error",
            "median",
        )  # a list of an earlier version ends in it
        row |= {name: np.ravel(gap[name])[-1] for name in names if name in gap}
    return row
