"""MNIST, pixels drawn from their intensities: the paper's one-layer model.

    python -m experiments.main --config=configs/mnist.py --config.data_dir=DIR

With --config.num_epochs=10 --config.evaluation.preset=quick it gave test log p(x) =
-98.48 +- 0.80 nats over 1,000 images (bidirectional gap 0.15 +- 0.11) after 113 s of
training and 27 s of evaluation on two CPU cores; the default 50 epochs were not run.
With

    --config=configs/mnist.py:best --config.num_epochs=41

it gave -84.53 +- 0.18 nats over two seeds on the first 1,000 test images
(bidirectional gaps 0.04 and 1.99) after 51 min of training and 1.0e8 gradient
evaluations a seed, and the first seed -84.41 +- 0.12 over all (docs/gradients.md).
"""

from configs import default


def get_config(estimator="best"):
    """Returns the config for "best" or, by the argument, an estimator."""
    config = default.get_config(estimator)
    config.dataset = "mnist"
    config.num_epochs = 50
    config.optimizer.schedule = "cosine"
    return config
