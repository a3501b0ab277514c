"""Training of a latent-variable model: gradient estimators, steps and epochs."""

from ais_jax.training.step import Metrics, TrainState, init, make_train_step

__all__ = ["Metrics", "TrainState", "init", "make_train_step"]
