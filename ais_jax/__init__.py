"""Annealed importance sampling for deep latent-variable models, in JAX.

Names of `ais_jax.models` and `ais_jax.training`, which need Flax and Optax, are loaded
when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ais_jax.annealing import schedules
from ais_jax.annealing.ais import AISResult, anneal, reverse_anneal
from ais_jax.annealing.hmc import HMCInfo, hmc_step
from ais_jax.annealing.path import AnnealingPath, Point, evaluate
from ais_jax.annealing.proposals import WeightedSamples, annealed, importance, resample
from ais_jax.annealing.trajectory import TrajectoryInfo, trajectory_step
from ais_jax.evidence.bounded import bounded
from ais_jax.evidence.bridge import BridgeEstimate
from ais_jax.evidence.comparison import Comparison, compare
from ais_jax.evidence.estimates import Bounds, LogNormalizer
from ais_jax.evidence.from_draws import log_z_from_draws
from ais_jax.evidence.log_z import (
    bidirectional_bounds,
    estimate_log_z,
    importance_log_weights,
    log_normalizer,
)
from ais_jax.evidence.numpyro_models import from_numpyro
from ais_jax.evidence.paths import between, prequential, tempered
from ais_jax.evidence.plan import Plan, resample_plan, tune, tune_examples
from ais_jax.evidence.pymc_models import from_pymc
from ais_jax.evidence.row_estimates import Gap, LogLikelihood

if TYPE_CHECKING:
    from ais_jax import training
    from ais_jax.models import likelihoods
    from ais_jax.models.decoder import from_decoder
    from ais_jax.models.evaluation import log_likelihood
    from ais_jax.models.latent import (
        Distribution,
        LatentVariableModel,
        posterior_path,
        prior_path,
        wide_path,
    )
    from ais_jax.models.networks import bernoulli_model, latent_model
    from ais_jax.training import epochs, estimators, optimizers, sharding, step_sizes
    from ais_jax.training.estimators import Estimator

_LATENT, _NETWORKS = "ais_jax.models.latent", "ais_jax.models.networks"
_LOADED_ON_USE = {
    "Distribution": _LATENT,
    "Estimator": "ais_jax.training.estimators",
    "LatentVariableModel": _LATENT,
    "bernoulli_model": _NETWORKS,
    "epochs": "ais_jax.training.epochs",
    "from_decoder": "ais_jax.models.decoder",
    "log_likelihood": "ais_jax.models.evaluation",
    "estimators": "ais_jax.training.estimators",
    "latent_model": _NETWORKS,
    "likelihoods": "ais_jax.models.likelihoods",
    "optimizers": "ais_jax.training.optimizers",
    "posterior_path": _LATENT,
    "prior_path": _LATENT,
    "sharding": "ais_jax.training.sharding",
    "step_sizes": "ais_jax.training.step_sizes",
    "training": "ais_jax.training",
    "wide_path": _LATENT,
}

__all__ = [
    "AISResult",
    "AnnealingPath",
    "Bounds",
    "BridgeEstimate",
    "Comparison",
    "Distribution",
    "Estimator",
    "Gap",
    "HMCInfo",
    "LatentVariableModel",
    "LogLikelihood",
    "LogNormalizer",
    "Plan",
    "Point",
    "TrajectoryInfo",
    "WeightedSamples",
    "anneal",
    "annealed",
    "bernoulli_model",
    "between",
    "bidirectional_bounds",
    "bounded",
    "compare",
    "epochs",
    "estimate_log_z",
    "estimators",
    "evaluate",
    "from_decoder",
    "from_numpyro",
    "from_pymc",
    "hmc_step",
    "importance",
    "importance_log_weights",
    "latent_model",
    "likelihoods",
    "log_likelihood",
    "log_normalizer",
    "log_z_from_draws",
    "optimizers",
    "posterior_path",
    "prequential",
    "prior_path",
    "resample",
    "resample_plan",
    "reverse_anneal",
    "schedules",
    "sharding",
    "step_sizes",
    "tempered",
    "training",
    "trajectory_step",
    "tune",
    "tune_examples",
    "wide_path",
]
__version__ = "0.3.0"


def __getattr__(name: str) -> Any:
    """A public name that is loaded on its first use (PEP 562)."""
    if name not in _LOADED_ON_USE:
        raise AttributeError(f"module 'ais_jax' has no attribute {name!r}")
    module = import_module(_LOADED_ON_USE[name])
    is_module = module.__name__.endswith(f".{name}")
    return module if is_module else getattr(module, name)


def __dir__() -> list[str]:
    """The names that are loaded, and those that are loaded on use."""
    return sorted({*globals(), *__all__})
