"""Annealed importance sampling for deep latent-variable models, in JAX."""

from ais_jax import (
    adaptation,
    epochs,
    estimators,
    likelihoods,
    optimizers,
    schedules,
    sharding,
    training,
)
from ais_jax.ais import AISResult, anneal, reverse_anneal
from ais_jax.bounded import bounded
from ais_jax.estimators import Estimator
from ais_jax.evaluation import (
    Bounds,
    LogNormalizer,
    bidirectional_bounds,
    estimate_log_z,
    importance_log_weights,
    log_normalizer,
)
from ais_jax.hmc import HMCInfo, hmc_step
from ais_jax.models import (
    Distribution,
    LatentVariableModel,
    posterior_path,
    prior_path,
    wide_path,
)
from ais_jax.networks import bernoulli_model, latent_model
from ais_jax.numpyro_models import from_numpyro
from ais_jax.path import AnnealingPath, Point, evaluate
from ais_jax.proposals import WeightedSamples, annealed, importance, resample
from ais_jax.trajectory import TrajectoryInfo, trajectory_step
from ais_jax.tuning import Plan, resample_plan, tune, tune_examples

__all__ = [
    "AISResult",
    "AnnealingPath",
    "Bounds",
    "Distribution",
    "Estimator",
    "HMCInfo",
    "LatentVariableModel",
    "LogNormalizer",
    "Plan",
    "Point",
    "TrajectoryInfo",
    "WeightedSamples",
    "adaptation",
    "anneal",
    "annealed",
    "bernoulli_model",
    "bidirectional_bounds",
    "bounded",
    "epochs",
    "estimate_log_z",
    "estimators",
    "evaluate",
    "from_numpyro",
    "hmc_step",
    "importance",
    "importance_log_weights",
    "latent_model",
    "likelihoods",
    "log_normalizer",
    "optimizers",
    "posterior_path",
    "prior_path",
    "resample",
    "resample_plan",
    "reverse_anneal",
    "schedules",
    "sharding",
    "training",
    "trajectory_step",
    "tune",
    "tune_examples",
    "wide_path",
]
__version__ = "0.2.0"
