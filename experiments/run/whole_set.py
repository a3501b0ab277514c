"""Mean log p(x) of a whole test set of which a part was evaluated."""

import numpy as np

from experiments.run.chunks import run_chunks
from experiments.system.errors import NonFiniteResult
from experiments.system.progress import log

FEWEST = 10  # images that a line is fitted to


def of_all_images(evaluator, log_p, folder):
    """Mean log p(x) of all test images, or None where it cannot be told.

    The first images of a test set are seldom a random part of it. The ELBO costs next
    to nothing, so it is measured on every image, and stands in by `predicted_mean`.

    Args:
        evaluator: `Evaluator` of one replicate.
        log_p: f32[n] of the first n images, in nats.
        folder: where finished chunks are kept.
    """
    num = len(evaluator.dataset.test)
    if not FEWEST <= len(log_p) < num:
        return None
    try:
        elbo = run_chunks(
            folder,
            num,
            evaluator.settings.chunk_size,
            lambda indices: (evaluator.test_images(indices),),
            evaluator.elbo,
            ("elbo",),
            evaluator.mesh.size,
        )["elbo"]
    except NonFiniteResult as error:
        log.warning("Nothing is said of all %d test images: %s", num, error)
        return None
    mean, error = predicted_mean(log_p, elbo)
    return {"mean": mean, "standard_error": error, "num_examples": num}


def predicted_mean(values, covariate) -> tuple[float, float]:
    """The mean of N values of which the first n are known, and its standard error.

    The others are predicted by the least-squares line through the known ones against
    the covariate: the regression estimator of survey sampling (Cochran 1977, Sampling
    Techniques, section 7.1), with the error of prediction (Royall 1970). The known
    values need not be a random part; the line must hold for the others too.

    Args:
        values: f[n], n > 2.
        covariate: f[N], N > n, of all, the known ones first.
    """
    values, covariate = np.asarray(values, float), np.asarray(covariate, float)
    n, rest = len(values), covariate[len(values) :]
    known = covariate[:n] - covariate[:n].mean()
    spread = np.sum(known**2)
    slope = np.sum(known * values) / spread if spread > 0 else 0.0
    away = rest.mean() - covariate[:n].mean()
    residual = values - values.mean() - slope * known
    variance = np.sum(residual**2) / (n - 2)
    unknown = variance * (1 / n + 1 / len(rest))
    if spread > 0:
        unknown += variance * away**2 / spread
    share = len(rest) / len(covariate)
    mean = values.mean() + share * slope * away
    return float(mean), float(share * np.sqrt(unknown))
