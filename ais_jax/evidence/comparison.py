"""Models of the same data side by side: Bayes factors and probabilities with errors."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from ais_jax.evidence.bridge import BridgeEstimate
from ais_jax.evidence.estimates import LogNormalizer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame


class Comparison(NamedTuple):
    """Models from the best to the worst; `print` it for a table.

    Attributes:
        names: of the models.
        log_z: their log evidences, nats.
        standard_error: of them.
        log_bayes_factor: of each model against the first, nats.
        log_bayes_factor_error: its standard error.
        probability: of each model, given the data and the prior probabilities.
        probability_error: its standard error, by the delta method.
    """

    names: tuple[str, ...]
    log_z: Float[np.ndarray, "M"]
    standard_error: Float[np.ndarray, "M"]
    log_bayes_factor: Float[np.ndarray, "M"]
    log_bayes_factor_error: Float[np.ndarray, "M"]
    probability: Float[np.ndarray, "M"]
    probability_error: Float[np.ndarray, "M"]

    def __str__(self) -> str:
        """A row for each model."""
        width = max(5, *map(len, self.names))
        head = f"{'model':{width}}  {'log Z':>18}  {'log BF to best':>16}  probability"
        rows = [
            f"{name:{width}}  {z:10.2f} +- {z_se:4.2f}  {bf:8.2f} +- {bf_se:4.2f}  "
            f"{p:6.3f} +- {p_se:.3f}"
            for name, z, z_se, bf, bf_se, p, p_se in zip(*self, strict=True)
        ]
        return "\n".join([head, *rows])

    def to_frame(self) -> "DataFrame":
        """A pandas frame with the models as its index."""
        import pandas as pd

        index = pd.Index(self.names, name="model")
        return pd.DataFrame(dict(zip(self._fields[1:], self[1:])), index=index)

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draws log evidences below the best one, with two standard errors."""
        import matplotlib.pyplot as plt

        ax = plt.subplots(layout="constrained")[1] if ax is None else ax
        rows = np.arange(len(self.names))[::-1]
        errors = 2.0 * self.standard_error
        ax.errorbar(self.log_z - self.log_z[0], rows, xerr=errors, fmt="o", capsize=3)
        ax.set_yticks(rows, self.names)
        ax.margins(y=0.2)
        ax.set_xlabel("log evidence below the best model's, nats (bars: 2 errors)")
        ax.set_title("Model comparison")
        return ax


def compare(
    results: Mapping[str, LogNormalizer | BridgeEstimate],
    prior: Mapping[str, float] | None = None,
    *,
    allow_warnings: bool = False,
) -> Comparison:
    """Ranks models of the same data by their evidence.

    Errors are those of independent estimates: use another key for each model.

    Args:
        results: estimates of log Z, by the names of their models.
        prior: a probability of each model, or None for equal ones.
        allow_warnings: whether estimates that warn are taken.

    Raises:
        ValueError: for fewer than two models; for one, named, whose estimate warns or
            holds several log Z, or whose data are known not to be the first one's.
    """
    if not isinstance(results, Mapping):
        raise ValueError(
            f"results is a {type(results).__name__}: give a dict of names to estimates"
        )
    if len(results) < 2:
        raise ValueError(f"results has {len(results)} models: give at least two")
    for name, result in results.items():
        _check(name, result, allow_warnings)
    _check_data({name: r.digest for name, r in results.items()})
    weight = _prior(list(results), prior)
    names = np.array(list(results))
    log_z = np.array([float(r.log_z) for r in results.values()])
    error = np.array([float(r.standard_error) for r in results.values()])
    order = np.argsort(-log_z, kind="stable")
    names, log_z, error, weight = (a[order] for a in (names, log_z, error, weight))
    p = weight * np.exp(log_z - log_z[0])
    p /= p.sum()
    slopes = p[:, None] * (np.eye(len(p)) - p)
    return Comparison(
        names=tuple(map(str, names)),
        log_z=log_z,
        standard_error=error,
        log_bayes_factor=log_z - log_z[0],
        log_bayes_factor_error=np.append(0.0, np.hypot(error[1:], error[0])),
        probability=p,
        probability_error=np.sqrt(slopes**2 @ error**2),
    )


def _check(name, result, allow_warnings):
    if not isinstance(result, LogNormalizer | BridgeEstimate):
        raise ValueError(
            f"results[{name!r}] is a {type(result).__name__}: give what estimate_log_z "
            "or log_z_from_draws returned"
        )
    if np.ndim(result.log_z) > 0:
        raise ValueError(
            f"results[{name!r}] holds {np.size(result.log_z)} estimates: give one"
        )
    if not (np.isfinite(result.log_z) and np.isfinite(result.standard_error)):
        raise ValueError(
            f"results[{name!r}] is {result.log_z} +- {result.standard_error}, no "
            "estimate: use more chains, or another base"
        )
    if result.warnings and not allow_warnings:
        raise ValueError(
            f"results[{name!r}] warns that {result.warnings[0]}; mend it, or compare "
            "with allow_warnings=True"
        )


def _check_data(digests):
    """Refuses models of other data, as far as the digests of their data are known."""
    known = {name: int(digest) for name, digest in digests.items() if int(digest)}
    first = next(iter(known), None)
    for name, digest in known.items():
        if digest != known[first]:
            raise ValueError(
                f"results[{name!r}] and results[{first!r}] are of different data: "
                "evidences can be compared for the same data only"
            )


def _prior(names, prior):
    if prior is None:
        return np.ones(len(names))
    is_dict = isinstance(prior, Mapping) and set(prior) == set(names)
    values = prior.values() if is_dict else ()
    if not values or not all(np.isreal(p) and 0.0 < p < np.inf for p in values):
        raise ValueError(
            f"prior={prior}: give each of {', '.join(names)} a positive number"
        )
    return np.array([float(prior[name]) for name in names])
