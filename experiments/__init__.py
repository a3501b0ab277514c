"""Programs that train, evaluate, sweep and report, and a trained run as an object."""


def load_run(workdir, model=None):
    """A trained run as an object: see `experiments.run.loaded.load_run`."""
    from experiments.run import loaded

    return loaded.load_run(workdir, model)
