"""Larochelle's fixed binarization of MNIST: the paper's one-layer model.

python -m experiments.main --config=configs/binarized_mnist.py --config.data_dir=DIR

Not run to the end yet, so there is no number to give.
"""

from configs import default


def get_config(estimator="ais"):
    """Returns the config; the argument picks the estimator, or is "best"."""
    config = default.get_config(estimator)
    config.dataset = "binarized_mnist"
    config.num_epochs = 50
    config.optimizer.schedule = "cosine"
    return config
