"""The experiments: command-line programs around the pure library `ais_jax`."""
