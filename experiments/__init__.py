"""The programs around the pure library `ais_jax`, and a trained run as an object."""

import sys

from experiments.system import signals

if sys.argv[0] == "-m":  # one of the programs starts: no import of it is unguarded
    signals.watch()


def load_run(workdir, model=None):
    """A trained run as an object: see `experiments.run.loaded.load_run`."""
    from experiments.run import run

    return run.load_run(workdir, model)
