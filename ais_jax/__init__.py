"""Annealed importance sampling for deep latent-variable models, in JAX."""

from ais_jax import adaptation, estimators, optimizers, schedules, sharding, training
from ais_jax.evaluation import (
    bidirectional_bounds,
    estimate_log_z,
    importance_log_weights,
    log_normalizer,
)
from ais_jax.models import (
    Distribution,
    LatentVariableModel,
    posterior_path,
    prior_path,
)
from ais_jax.networks import bernoulli_model
from ais_jax.path import AnnealingPath
from ais_jax.tuning import Plan, tune, tune_examples

__all__ = [
    "AnnealingPath",
    "Distribution",
    "LatentVariableModel",
    "Plan",
    "adaptation",
    "bernoulli_model",
    "bidirectional_bounds",
    "estimate_log_z",
    "estimators",
    "importance_log_weights",
    "log_normalizer",
    "optimizers",
    "posterior_path",
    "prior_path",
    "schedules",
    "sharding",
    "training",
    "tune",
    "tune_examples",
]
__version__ = "0.1.0"
