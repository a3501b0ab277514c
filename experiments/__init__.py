"""The programs around the pure library `ais_jax`, and a trained run as an object."""

import sys

from experiments.system import signals

if sys.argv[0] == "-m":  # one of the programs starts: no import of it is unguarded
    signals.watch()


def load_run(workdir, model=None):
    """A trained run as an object: see `experiments.run.run.Run`.

    `model` is that of a run whose model was given in Python.
    """
    from experiments.evaluate.loaded import LoadedRun

    return LoadedRun.load(workdir, model)
