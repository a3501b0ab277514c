# %% [markdown]
# # Why one trajectory is worth many samples
#
# The gradient of log p(x) is a mean over the posterior of z. Every method estimates it
# from a few z, and pays for them in evaluations of the model's gradient. What does it
# get: how much noise, and how much bias? This measures both at a model of
# scikit-learn's digits. Run it from the root of the checkout, with `PYTHONPATH=.`; it
# needs `pip install -e ".[digits]"`. The methods are explained in [better
# gradients](../gradients.md).

# %%
import tempfile
from pathlib import Path

from configs import digits
from experiments.paper import gradients
from experiments.run.launch import train_and_evaluate

config = digits.get_config("ais")
config.num_epochs = 40
workdir = Path(tempfile.mkdtemp()) / "run"
train_and_evaluate(config, workdir, mode="train")

# %% [markdown]
# All methods estimate theta's gradient at this one model, on the same 40 batches. The
# unit is the noise that the choice of the batch gives to the exact gradient. Noise is
# what the draws of z add to it, bias the squared length of the mean error; the cost is
# gradient evaluations of an image in one step.

# %%
TRAJECTORY = "ais-K1-T1+final_moves=2+num_leapfrog=12"
METHODS = {
    "VAE": "vae-K1",
    "IWAE-DReG, 5 samples": "dreg-K5",
    "IWAE-DReG, 50 samples": "dreg-K50",
    "AIS, one chain": "ais-K1-T5",
    "AIS, five chains": "ais-K5-T5",
    "one trajectory, its end": TRAJECTORY,
    "one trajectory, all points": TRAJECTORY + "+average=points",
}
measured = gradients.run(workdir, list(METHODS.values()), num_batches=40)
rows = {row["name"]: row for row in measured["rows"]}
print(f"{'':28} {'cost':>4} {'noise':>14} {'bias':>16}")
for label, name in METHODS.items():
    row = rows[name]
    print(
        f"{label:28} {row['cost']:4d} {row['noise']:6.2f} +- {row['noise_error']:.2f}"
        f" {row['bias']:7.3f} +- {row['bias_error']:.3f}"
    )

# %% [markdown]
# ```text
#                              cost          noise             bias
# VAE                             2   1.16 +- 0.03   0.155 +- 0.010
# IWAE-DReG, 5 samples           10   0.39 +- 0.02   0.019 +- 0.004
# IWAE-DReG, 50 samples         100   0.10 +- 0.01   0.004 +- 0.003
# AIS, one chain                 28   1.00 +- 0.03   0.025 +- 0.006
# AIS, five chains              136   0.33 +- 0.02   0.003 +- 0.003
# one trajectory, its end        27   1.02 +- 0.03   0.038 +- 0.007
# one trajectory, all points     39   0.15 +- 0.01   0.005 +- 0.003
# ```
#
# The points of one trajectory have a seventh of the noise of its end, for 12
# evaluations more: theta's gradient is taken at 13 points, and the 24 leapfrog steps
# were paid anyway. Their bias is within two of its errors of none. Five annealed chains
# have twice the noise at 3.5 times the cost. Importance samples are cheap where the
# encoder is as good as here: five have little noise, and a bias that the points have
# not; fifty have the lower noise, at 2.6 times the cost.
