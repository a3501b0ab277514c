"""The values of a data set that a likelihood takes, and images in the same units."""

import warnings

import numpy as np

from experiments.data.dataset import WHITE, Dataset
from experiments.system.errors import DataError


def for_likelihood(dataset: Dataset, likelihood: str, missing=False) -> Dataset:
    """The data set `with_values`, where its scale can be right and fits."""
    scaled = with_values(dataset, likelihood, missing)
    if scaled.levels > 1:
        _check_white(dataset)
    if likelihood == "bernoulli":
        values = dataset.train[:, : dataset.size]
        share = np.mean((values > 0.1) & (values < 0.9))
        if share > 0.5:
            warnings.warn(
                f"dataset={dataset.name}: {share:.0%} of the values are neither near 0 "
                "nor near 1, and model.likelihood=bernoulli draws each as 0 or 1: grey "
                "and colour images take discretized_logistic (of bytes) or gaussian",
                stacklevel=3,
            )
    return scaled


def with_values(dataset: Dataset, likelihood: str, missing=False) -> Dataset:
    """The data set with the values that a likelihood takes: counts for counts.

    Values are only missing where they may be. The log of a row's library size, where
    the likelihood has one, is put at its end.
    """
    from ais_jax import likelihoods
    from ais_jax.models.counts import log_library

    family, size = likelihoods.LIKELIHOODS[likelihood], dataset.size
    if family.is_count and dataset.levels > 1:
        splits = {
            k: np.hstack([np.rint(x[:, :size] * dataset.levels), x[:, size:]])
            for k, x in dataset.splits().items()
        }
        dataset = dataset._replace(levels=1, **splits)
    for split, x in dataset.splits().items():
        x = x[:, :size]
        is_missing = np.isnan(x)
        if not missing and is_missing.any():
            raise DataError(
                f"dataset={dataset.name}: {split} has missing values (NaN, or False in "
                "its mask): use model.missing=True"
            )
        try:
            likelihoods.check_values(likelihood, x[~is_missing])
        except ValueError as error:
            raise DataError(f"dataset={dataset.name}: {split}: {error}") from error
    if not family.has_library:
        return dataset
    splits = {
        k: np.column_stack([x, log_library(x[:, :size])])
        for k, x in dataset.splits().items()
    }
    return dataset._replace(**splits)


def in_units(x, levels: int, likelihood: str) -> np.ndarray:
    """Images in the units of data whose whole numbers were divided by `levels`.

    The same numbers are the same images in any type: whole ones are divided, unless all
    of them are 0 or 1, and others are intensities already.
    """
    from ais_jax import likelihoods

    x = np.asarray(x)
    seen = x[~np.isnan(x)] if x.dtype.kind in "uif" else x[:0]
    if not seen.size or (seen != np.rint(seen)).any():
        return x
    low, high = seen.min(), seen.max()
    is_count = likelihoods.LIKELIHOODS[likelihood].is_count
    if levels > 1 and not 0 <= low <= high <= levels:
        raise DataError(
            f"x has whole numbers from {low:g} to {high:g}: those of this run's images "
            f"are 0 to {levels}; give these, or intensities from 0 to 1"
        )
    if x.dtype.name in WHITE and high > 1 and levels == 1 and not is_count:
        raise DataError(
            f"x is {x.dtype}, and this run was trained on numbers in other units: give "
            "floats as its training images had"
        )
    scale = levels if high > 1 else 1
    return x.astype(np.float32) / np.float32(scale)


def _check_white(dataset):
    """Refuses intensities of which none is near white, such as 0 to 16 of 255."""
    splits = dataset.splits().values()
    largest = max(np.nanmax(x[:, : dataset.size]) for x in splits)
    if largest < 0.5:
        level = round(largest * dataset.levels)
        raise DataError(
            f"dataset={dataset.name}: its largest level is {level}, of "
            f"{dataset.levels}: give numbers that are scaled already (x / {level}.0, "
            f"or x / {dataset.levels}.0 of dark images)"
        )
