"""Presets: settings that go together, under one name."""

EVALUATION = {  # evaluation.preset -> what every None of config.evaluation becomes
    "default": {
        "num_chains": 8,
        "num_leapfrog": 4,
        "schedule": "adaptive",
        "preconditioner": "encoder",
        "iwae_samples": 100,
    },
    "paper": {
        "num_chains": 16,
        "num_temperatures": 10000,
        "num_leapfrog": 10,
        "schedule": "linear",
        "preconditioner": "unit",
        "iwae_samples": 5000,
        "num_simulated": 100,
    },
}
BEST = {  # the argument "best" of a config, in place of an estimator: one trajectory
    # from the encoder whose points are averaged, in the end the second of two, which is
    # less biased; an encoder that is trained more; and Muon for theta at a rate that
    # serves runs of any length
    "estimator": {
        "num_temperatures": 1,
        "num_leapfrog": 7,
        "late_moves": 2,
        "average": "points",
        "phi_loss": "stl",
        "num_phi_samples": 4,
    },
    "optimizer": {
        "schedule": "wsd",
        "name": "muon",
        "learning_rate": (1.5e-2,),
        "phi": {"name": "adam", "learning_rate": (2e-3,)},
    },
}
STEP_SIZES = {  # preconditioner -> HMC's step sizes; "unit" has the paper's
    "unit": {"first": 0.1, "smallest": 0.001, "largest": 0.3},
    "encoder": {"first": 0.2, "smallest": 0.01, "largest": 1.5},
}
