"""Estimates as objects of ArviZ; the extra `arviz`."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ais_jax.checks import check_count
from ais_jax.evidence.estimates import LogNormalizer
from ais_jax.types import PRNGKey


def to_arviz(key: PRNGKey, result: LogNormalizer, num_draws: int = 1000) -> Any:
    """An estimate's posterior draws with what is known of them, for ArviZ.

    The draws are the ends of chains, drawn again by their weights, so they hold no more
    than `ess` independent ones, whatever ArviZ computes from them: the attribute `ess`
    of the group posterior has the number.

    Args:
        key: draws the chains.
        result: of `estimate_log_z` or `log_normalizer`.
        num_draws: in one chain of ArviZ's.

    Returns:
        A `DataTree`, or an `InferenceData` where ArviZ is installed below version 1.
        Its group sample_stats has each draw's chain and log weight, and, as PyMC names
        it, `log_marginal_likelihood`, with its standard error beside it.

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
    check_count("num_draws", num_draws)
    log_w = np.asarray(result.log_w)
    if not np.any(np.isfinite(log_w)):
        raise ValueError(
            "no chain has a positive weight: there is nothing to draw from"
        )
    index = np.asarray(
        jax.random.categorical(key, jnp.asarray(log_w), shape=(num_draws,))
    )
    z = result.z if isinstance(result.z, dict) else {"z": result.z}
    stats = {
        "log_weight": log_w[index][None],
        "chain_of_draw": index[None],
        "log_marginal_likelihood": np.full((1, num_draws), result.log_z),
        "log_marginal_likelihood_error": np.full((1, num_draws), result.standard_error),
    }
    tree = from_dict(
        {
            "posterior": {str(k): np.asarray(a)[index][None] for k, a in z.items()},
            "sample_stats": stats,
        },
        attrs={"posterior": {"ess": float(result.ess)}},
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
