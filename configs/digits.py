"""Scikit-learn's bundled 8x8 handwritten digits: the whole system in two minutes.

python -m experiments.main --config=configs/digits.py
"""

from configs import default


def get_config(estimator="ais"):
    """Returns the config; the argument picks the estimator."""
    config = default.get_config(estimator)
    config.dataset = "digits"
    config.num_epochs = 200
    config.batch_size = 100
    config.model.latent_sizes = (10,)
    config.model.widths = ((100, 100),)
    config.optimizer.schedule = "cosine"
    config.optimizer.learning_rate = (3e-3,)
    return config
