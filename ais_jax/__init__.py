"""Annealed importance sampling for deep latent-variable models, in JAX."""

__version__ = "0.1.0"
