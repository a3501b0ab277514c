"""Figure 1: q_IS and q_AIS for a correlated Gaussian, at equal cost.

python -m experiments.figure1 --config=configs/figure1.py

Squared MMD to the target, with standard errors; q has 0.2473 +- 0.0019:

cost      q_IS               q_AIS, K = 1         q_AIS, K = 5
  25  0.1333 +- 0.0016   0.01250 +- 0.00080   0.01884 +- 0.00097
 100  0.0980 +- 0.0014   0.00368 +- 0.00042   0.00983 +- 0.00070
 250  0.0810 +- 0.0013   0.00078 +- 0.00019   0.00353 +- 0.00043
1000  0.0613 +- 0.0011   0.00016 +- 0.00011   0.00021 +- 0.00011
2500  0.0518 +- 0.0010   0.00002 +- 0.00007   0.00003 +- 0.00005

HMC accepted 93-94% of its moves. It took 61 s of CPU time, most of it compilation: 2
minutes on 2 CPU cores that other work kept busy.
"""

import ml_collections


def get_config():
    """Settings of `experiments.figure1`."""
    config = ml_collections.ConfigDict()
    config.correlation = 0.95
    config.costs = (25, 100, 250, 1000, 2500)  # K of q_IS; L*K*T of q_AIS
    config.num_samples = (1, 5)  # K of q_AIS: one curve each; T is what is left
    config.num_leapfrog = 5  # L
    config.step_size = 1.0  # in units of the target's narrowest standard deviation
    config.schedule = "linear"  # a name in ais_jax.schedules.SCHEDULES
    config.num_draws = 10_000  # of each distribution
    config.bandwidth = 0.5  # of the discrepancy's kernel
    config.seed = 0
    return config
