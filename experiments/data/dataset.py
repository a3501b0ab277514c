"""A data set as arrays, and what its values must be."""

import hashlib
import math
import warnings
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from experiments.system.errors import DataError

GIVEN = "given"  # the name of a data set that Python gives
TEST_SHARE = 0.1  # this share of one array is for tests
SPLIT_SEED = 0
WHITE = {"uint8": 255, "uint16": 65535}  # type of whole numbers -> its intensity 1


class Dataset(NamedTuple):
    """Images, or other vectors of numbers, as flat rows without labels.

    Values that are missing are NaN. Covariates follow the values of their row.
    """

    name: str  # as `config.dataset` names it
    train: np.ndarray  # f32[N, X], upright images row by row, channels last
    test: np.ndarray  # f32[N_test, X]
    valid: np.ndarray | None  # f32[N_valid, X], or None where the data set has none
    image_shape: tuple[int, ...]  # [H, W] or [H, W, C]; X is their product
    is_binary: bool  # whether the values are 0 or 1 already (a fixed binarization)
    digest: str  # 16 hex digits that name these arrays and their order
    source: str  # one line for reports: where the data come from
    # what 1 stands for in the counts that the data came as, such as 255 of 8-bit
    # images; 1 where the values are those that came
    levels: int = 1
    num_covariates: int = 0  # that follow the X values of each row

    @classmethod
    def from_arrays(
        cls,
        train,
        test=None,
        valid=None,
        *,
        name=GIVEN,
        source="arrays",
        masks=None,
        covariates=None,
        test_share=TEST_SHARE,
        seed=SPLIT_SEED,
    ) -> "Dataset":
        """A data set of your arrays [N, ...]: images [H, W(, C)], or vectors.

        Bytes (uint8) are divided by 255 and uint16 by 65535, unless all of them are 0
        or 1. Other numbers stay as they are.

        Args:
            train: training images.
            test: test images; None takes a share of the others, in the order of a
                permutation.
            valid: validation images, for the pilot of an evaluation.
            name: of the data set, for reports and refusals.
            source: where the data come from, in a line.
            masks: split -> bool array of its shape, False where a value is missing;
                NaN are missing too.
            covariates: split -> numbers [N, c] or [N] that decoder and encoder are
                given with each row; of all splits or of none.
            test_share: share of the images that are for tests where `test` is None.
            seed: of that permutation.

        Raises:
            DataError: for an array that holds no numbers, or infinite ones, or none, or
                has its channels first; and for arrays of different shapes or scales.
        """
        given = {"train": train, "test": test, "valid": valid}
        arrays = {k: _numbers(name, k, a) for k, a in given.items() if a is not None}
        masks = {k: _mask(name, k, m, arrays) for k, m in (masks or {}).items()}
        beside = {k: np.atleast_1d(c) for k, c in (covariates or {}).items()}
        if test is None:
            for each in (arrays, masks, beside):
                if "train" in each:
                    each |= _split(name, each["train"], test_share, seed)
            source += f", split by seed {seed}"
        shapes = {split: a.shape[1:] for split, a in arrays.items()}
        if len(set(shapes.values())) > 1:
            raise DataError(f"dataset={name}: images differ in shape: {shapes}")
        levels = _levels(name, arrays)
        rows = {
            split: a.reshape(len(a), -1).astype(np.float32) / np.float32(levels)
            for split, a in arrays.items()
        }
        for split, mask in masks.items():
            rows[split][~mask.reshape(rows[split].shape)] = np.nan
        is_binary = all(_are_bits(x[~np.isnan(x)]) for x in rows.values())
        shape, size = image_shape(arrays["train"].shape[1:]), rows["train"].shape[1]
        if beside:
            rows = _with_covariates(name, rows, beside)
        return cls(
            name,
            rows["train"],
            rows["test"],
            rows.get("valid"),
            shape,
            is_binary,
            digest(rows),
            source,
            levels,
            rows["train"].shape[1] - size,
        )

    def with_valid(self) -> "Dataset":
        """The data set, a share of whose training images is held out for validation.

        A data set that has validation images stays as it is.
        """
        if self.valid is not None:
            return self
        parts = _split(self.name, self.train, TEST_SHARE, SPLIT_SEED)
        held = self._replace(train=parts["train"], valid=parts["test"])
        return held._replace(digest=digest(held.splits()))

    def splits(self) -> dict[str, np.ndarray]:
        """Name -> array of each split that there is."""
        names = ("train", "test", "valid")
        return {k: getattr(self, k) for k in names if getattr(self, k) is not None}

    @property
    def size(self) -> int:
        """X, the values of a row, which what is given follows."""
        return math.prod(self.image_shape)

    @property
    def limits(self) -> tuple[float, float]:
        """The values that pictures show as black and as white."""
        values = self.train[:, : self.size]
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        return (0.0, 1.0) if low >= 0.0 and high <= 1.0 else (low, high)


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


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """First 16 hex digits of a sha256 over names, shapes, values and order.

    Equal digests mean the same images, as little-endian float32, in the same order.
    """
    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name], dtype="<f4")
        sha.update(f"{name}{array.shape}".encode())
        sha.update(array.data)
    return sha.hexdigest()[:16]


def image_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """[H, W] or [H, W, C] of an image's array; vectors of a square's size are one."""
    if len(shape) == 3 and shape[2] == 1:
        return shape[:2]
    if len(shape) != 1:
        return shape
    side = math.isqrt(shape[0])
    return (side, side) if side**2 == shape[0] else (1, *shape)


def _levels(name, arrays):
    """What whole numbers are divided by: the white of their type, or 1 where bits."""
    if all(map(_are_bits, arrays.values())):
        return 1
    levels = {WHITE.get(a.dtype.name, 1) for a in arrays.values()}
    if len(levels) > 1:
        types = ", ".join(f"{split} is {a.dtype}" for split, a in arrays.items())
        raise DataError(f"dataset={name}: {types}: give all arrays in one type")
    white = levels.pop()
    bits = [split for split, a in arrays.items() if _are_bits(a) and a.any()]
    if white > 1 and bits:
        raise DataError(
            f"dataset={name}: {bits[0]} holds 0 and 1 alone and other arrays do not: "
            "give all arrays in the same numbers"
        )
    return white


def _are_bits(array):
    return ((array == 0) | (array == 1)).all()


def _mask(name, split, mask, arrays):
    """Whether each value of a split is there, as bools of its array's shape."""
    mask, shape = np.asarray(mask), arrays[split].shape if split in arrays else None
    if mask.shape != shape or not _are_bits(mask):
        raise DataError(
            f"dataset={name}: the mask of {split} is {mask.dtype}{list(mask.shape)}: "
            f"use bools {'of an array that is there' if shape is None else list(shape)}"
        )
    return mask.astype(bool)


def _with_covariates(name, rows, covariates):
    """Rows with their covariates behind their values."""
    found = {k: c.reshape(len(c), -1) for k, c in covariates.items() if c.ndim < 3}
    want = {split: len(x) for split, x in rows.items()}
    is_one = len({c.shape[1] for c in found.values()}) == 1
    is_number = all(c.dtype.kind in "buif" for c in found.values())
    if {k: len(c) for k, c in found.items()} != want or not is_one or not is_number:
        shapes = {k: f"{c.dtype}{list(c.shape)}" for k, c in covariates.items()}
        raise DataError(
            f"dataset={name}: covariates are {shapes}: use numbers [N, c] of every "
            f"split, N as in {want}"
        )
    if not all(np.isfinite(c).all() for c in found.values()):
        raise DataError(f"dataset={name}: covariates are infinite, or NaN, in places")
    return {k: np.hstack([x, np.float32(found[k])]) for k, x in rows.items()}


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


def _numbers(name, split, array):
    """An array of at least one image of numbers, finite where they are not missing."""
    array = np.asarray(array)
    if array.dtype.kind not in "buif" or not 2 <= array.ndim <= 4 or not array.size:
        raise DataError(
            f"dataset={name}: {split} is {array.dtype}{list(array.shape)}: use numbers "
            "[N, H, W], [N, H, W, C] or [N, X]"
        )
    if np.isinf(array).any() or np.isnan(array).all():
        raise DataError(f"dataset={name}: {split} has infinite values, or NaN alone")
    if array.dtype.itemsize >= 4 and array.dtype != np.float32 and _is_lost(array):
        raise DataError(
            f"dataset={name}: {split} has values that float32 cannot tell apart: "
            "subtract their mean, and divide by their standard deviation"
        )
    first, height, width = array.shape[1:] if array.ndim == 4 else (1, 1, 1)
    if first < min(height, width) and (first <= 4 < width or height == width):
        raise DataError(
            f"dataset={name}: {split} is {list(array.shape)}, channels first: use "
            "x.transpose(0, 2, 3, 1), or rows [N, X] where they are none"
        )
    return array


def _is_lost(array):
    """Whether float32 rounds numbers by a tenth of their standard deviation or more."""
    with np.errstate(over="ignore"):
        rounded = array.astype(np.float32)
    if np.isinf(rounded).any():
        return True
    return np.nanmax(np.abs(array - rounded)) > 0.1 * np.nanstd(array) > 0.0


def _split(name, images, test_share, seed):
    num_test = round(test_share * len(images))
    if not 1 <= num_test < len(images):
        raise DataError(
            f"dataset={name}: {len(images)} images cannot be split by test_share="
            f"{test_share}: give test images"
        )
    order = np.random.default_rng(seed).permutation(len(images))
    return {"train": images[order[num_test:]], "test": images[order[:num_test]]}
