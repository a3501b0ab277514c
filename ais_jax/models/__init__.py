"""Latent-variable models as bundles of pure functions."""
