"""Warnings of an evaluation whose numbers cannot be trusted, and what to do."""

import numpy as np

from configs import presets
from experiments.run.train import LOW_ACCEPTANCE
from experiments.system.progress import log

LOW_ESS = 1.5  # of several chains
GAP_THRESHOLD = 0.1  # nats; a tenth of what the paper's methods differ by


def of_few_images(settings, dataset):
    """Says so where more test images than there are were asked for by name."""
    num, preset = len(dataset.test), presets.EVALUATION[settings.preset]
    if num < settings.num_examples != preset["num_examples"]:
        log.warning(
            "evaluation.num_examples=%d: %s has %d test images, and all are evaluated.",
            *(settings.num_examples, dataset.name, num),
        )


def of_sampling(ais, test, settings):
    """Says so where the chains of most images amount to one, or hardly moved."""
    if settings.num_chains > 2 and np.median(ais["ess"]) < LOW_ESS:
        log.warning(
            "ESS is below %g of %d chains for most test images: one chain has nearly "
            "all the weight, and log p(x) is too low. Raise "
            "evaluation.num_temperatures=%d.",
            *(LOW_ESS, settings.num_chains, settings.num_temperatures),
        )
    if test["log_p"]["monte_carlo"] > GAP_THRESHOLD:
        log.warning(
            "The Monte Carlo error of log p(x), %.3g nats, is above %g; %d of %d "
            "images have an error above 1 nat. Raise evaluation.num_temperatures=%d.",
            *(test["log_p"]["monte_carlo"], GAP_THRESHOLD),
            *(np.sum(ais["standard_error"] > 1.0), len(ais["standard_error"])),
            settings.num_temperatures,
        )
    if settings.num_temperatures > 1 and np.mean(ais["accept_prob"]) < LOW_ACCEPTANCE:
        log.warning(
            "HMC accepted %.1g of its moves in the evaluation: the chains stood still. "
            "Use evaluation.preconditioner=unit (here %s).",
            *(np.mean(ais["accept_prob"]), settings.preconditioner),
        )
    if not test["elbo"]["mean"] < test["iwae"]["mean"] < test["log_p"]["mean"]:
        log.warning(
            "ELBO %.2f, IWAE %.2f and AIS %.2f are not in the order that enough "
            "samples give: raise evaluation.num_temperatures=%d.",
            *(test[name]["mean"] for name in ("elbo", "iwae", "log_p")),
            settings.num_temperatures,
        )


def of_gap(gaps, settings):
    """Says so where bounds on simulated data are further apart than was asked for."""
    if np.mean(gaps) > GAP_THRESHOLD:
        log.warning(
            "The bidirectional gap, %.3f nats, is above %g, and that of %d of %d "
            "simulated examples above 1 nat: log p(x) may be off by as much. Raise "
            "evaluation.num_temperatures=%d or, where few examples make it, try "
            "evaluation.start=wide (here %s).",
            *(np.mean(gaps), GAP_THRESHOLD, np.sum(gaps > 1.0), len(gaps)),
            *(settings.num_temperatures, settings.start),
        )
