"""Table 2: IWAE-DReG, MH-HMC and AIS on Omniglot, by the authors' protocol.

python -m experiments.sweep --config=configs/table2.py --workdir=runs/tables

12 models, of which five are Table 1's: in the same --workdir they are trained once. The
table's costs are matched roughly, K of IWAE-DReG being L * K * T of AIS. The argument
after the colon is that of `configs/table1.py`.
"""

from configs import table1

ROWS = [  # method, K, T as the paper prints it
    ("dreg", 55, None),
    ("ais", 1, 11),
    ("dreg", 275, None),
    ("ais", 5, 11),
    ("dreg", 2750, None),
    ("ais", 50, 11),
    ("mh_hmc", 5, 5),
    ("ais", 5, 5),
    ("mh_hmc", 5, 11),
    ("mh_hmc", 50, 5),
    ("ais", 50, 5),
    ("mh_hmc", 50, 11),
]
PAPER = {  # the paper's test log p(x) of each row, nats
    "omniglot": [
        *(-103.85, -102.45, -103.13, -101.94, -102.40, -101.64),
        *(-102.57, -102.47, -101.32, -102.32, -102.03, -101.25),
    ]
}


def get_config(structure=""):
    """Returns the sweep's config; the argument restricts or changes it."""
    return table1.restricted(table1.protocol(2, tuple(PAPER)), structure)
