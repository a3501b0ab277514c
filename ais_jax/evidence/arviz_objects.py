"""Estimates as objects of ArviZ; the extra `arviz`."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from ais_jax.evidence.estimates import LogNormalizer
from ais_jax.types import PRNGKey


def to_arviz(key: PRNGKey, result: LogNormalizer, num_draws: int = 1000) -> Any:
    """An estimate's posterior draws with what is known of them, for ArviZ.

    The draws are the ends of chains, drawn again by their weights. They are worth fewer
    independent ones than ArviZ computes from them: the attribute `ess` of the group
    posterior says how many.

    Args:
        key: draws the chains.
        result: of `estimate_log_z` or `log_normalizer`.
        num_draws: in one chain of ArviZ's.

    Returns:
        A `DataTree`, or an `InferenceData` where ArviZ is installed below version 1.
        Its group sample_stats has `log_marginal_likelihood`, as PyMC names it, and its
        standard error.

    Raises:
        ImportError: without arviz-base.
        ValueError: where no chain has a positive weight.
    """
    try:
        from arviz_base import from_dict
    except ImportError as error:
        raise ImportError(
            "to_arviz needs arviz-base: pip install arviz-base"
        ) from error
    drawn = result.draws(key, num_draws)
    z = drawn.z if isinstance(drawn.z, dict) else {"z": drawn.z}
    stats = {
        "log_marginal_likelihood": np.full((1, num_draws), result.log_z),
        "log_marginal_likelihood_error": np.full((1, num_draws), result.standard_error),
    }
    tree = from_dict(
        {
            "posterior": {str(name): a[None] for name, a in z.items()},
            "sample_stats": stats,
        },
        attrs={"posterior": {"ess": drawn.ess}},
    )
    return tree if _version("arviz") >= 1 else _inference_data(tree)


def _version(package):
    """The major version of an installed package; of none, 1."""
    try:
        return int(version(package).partition(".")[0])
    except PackageNotFoundError:
        return 1


def _inference_data(tree):
    from arviz import InferenceData

    groups = {name: group.to_dataset() for name, group in tree.children.items()}
    return InferenceData(**groups)
