"""Omniglot in the IWAE study's split: the paper's one-layer model.

python -m experiments.main --config=configs/omniglot.py --config.data_dir=DIR
"""

from configs import default


def get_config(estimator="ais"):
    """Returns the config; the argument picks the estimator."""
    config = default.get_config(estimator)
    config.dataset = "omniglot"
    config.num_epochs = 100
    config.optimizer.schedule = "cosine"
    return config
