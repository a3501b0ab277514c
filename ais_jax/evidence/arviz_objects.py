"""Estimates as objects of ArviZ; the extra `arviz`."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax
import numpy as np

from ais_jax.types import PRNGKey


def to_arviz(key: PRNGKey, result: Any, num_draws: int) -> Any:
    """An estimate's posterior draws with what is known of them, for ArviZ.

    The draws are the ends of chains, drawn again by their weights. They are worth fewer
    independent ones than ArviZ computes from them: the attribute `ess` of the group
    posterior says how many.

    Args:
        key: draws the chains.
        result: a `LogNormalizer` of one estimate.
        num_draws: in one chain of ArviZ's.

    Returns:
        A `DataTree`, or an `InferenceData` where ArviZ is installed below version 1.
        Its group sample_stats has `log_marginal_likelihood`, as PyMC names it, its
        standard error, the `log_weight` of the chain that each draw ends, and `lp`, the
        log target there.

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
    leaves = jax.tree_util.tree_leaves_with_path(drawn.z)
    stats = {
        "log_marginal_likelihood": np.full((1, num_draws), result.log_z),
        "log_marginal_likelihood_error": np.full((1, num_draws), result.standard_error),
        "log_weight": drawn.log_w[None],
        "lp": drawn.log_target[None],
    }
    tree = from_dict(
        {
            "posterior": {_name(place): a[None] for place, a in leaves},
            "sample_stats": stats,
        },
        attrs={"posterior": {"ess": drawn.ess}},
    )
    return tree if _version("arviz") >= 1 else _inference_data(tree)


def _name(place):
    """Of a variable, by its place in a position; of a lone array, z."""
    return jax.tree_util.keystr(place, simple=True, separator=".") or "z"


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
