"""Annealed importance sampling for deep latent-variable models, in JAX."""

from ais_jax.evaluation import (
    bidirectional_bounds,
    estimate_log_z,
    importance_log_weights,
    log_normalizer,
    tune,
)
from ais_jax.models import (
    Distribution,
    LatentVariableModel,
    bernoulli_model,
    posterior_path,
    prior_path,
)
from ais_jax.path import AnnealingPath

__all__ = [
    "AnnealingPath",
    "Distribution",
    "LatentVariableModel",
    "bernoulli_model",
    "bidirectional_bounds",
    "estimate_log_z",
    "importance_log_weights",
    "log_normalizer",
    "posterior_path",
    "prior_path",
    "tune",
]
__version__ = "0.1.0"
