# %% [markdown]
# # A model of my own images
#
# Train a deep latent-variable model of images in a file, then ask how good it is, and
# how far that number can be from the truth. Run this from the root of the checkout,
# with `PYTHONPATH=.`; it needs `pip install -e ".[experiments]"`.
#
# The images here are grey discs of 20 x 20 pixels. Any `.npz` of arrays `train` and
# `test` will do: bytes are scaled to [0, 1].

# %%
import tempfile
from pathlib import Path

import numpy as np

import experiments
from configs import default
from experiments.run.launch import train_and_evaluate

rng = np.random.default_rng(0)
rows, columns = np.mgrid[:20, :20]


def disc():
    row, column = rng.uniform(6.0, 14.0, size=2)
    distance = np.hypot(rows - row, columns - column)
    return 255.0 / (1.0 + np.exp(2.0 * (distance - rng.uniform(2.0, 6.0))))


folder = Path(tempfile.mkdtemp())
images = np.stack([disc() for _ in range(1200)]).astype(np.uint8)
np.savez(folder / "discs.npz", train=images[:1000], test=images[1000:])

# %% [markdown]
# ## Train
#
# A config is all settings with their defaults. `default.get_config("best")` is the
# preset of [better gradients](../gradients.md).

# %%
config = default.get_config("best")
config.dataset = str(folder / "discs.npz")
config.num_epochs = 30
config.batch_size = 50
config.model.latent_sizes = (4,)
config.model.widths = ((100, 100),)
config.evaluation.num_examples = 50
config.evaluation.num_simulated = 50
train_and_evaluate(config, folder / "run")

# %% [markdown]
# ## Read the numbers
#
# The run's folder can be read at any time, without the data. Log p(x) of the test
# images is a lower bound, in expectation; the bidirectional gap, measured on images
# that the model itself drew, says how loose: log p(x) lies above its estimate by about
# the gap. The ELBO and the IWAE bound are looser.

# %%
run = experiments.load_run(folder / "run")
test = run.results.iloc[0]
print(f"ELBO     {test.elbo:8.2f} +- {test.elbo_error:.2f} nats over images")
print(f"IWAE-100 {test.iwae:8.2f} +- {test.iwae_error:.2f}")
print(f"AIS      {test.log_p:8.2f} +- {test.log_p_error:.2f}")
print(f"gap      {test.gap:8.2f} +- {test.gap_error:.2f}")

# %% [markdown]
# ```text
# ELBO       -49.94 +- 2.13 nats over images
# IWAE-100   -48.70 +- 2.09
# AIS        -48.55 +- 2.09
# gap          0.05 +- 0.04
# ```
#
# The gap is small. Above 0.1 nats the run would warn of it, and a smaller
# `config.evaluation.error` would take more temperatures.
#
# ## Use the model
#
# It scores images it has not seen. A square is no disc, and its log p(x) says so.

# %%
square = np.zeros((1, 20, 20), np.uint8)
square[:, 4:16, 4:16] = 255
scores = run.log_likelihood(np.concatenate([images[1000:1003], square]))
print(scores.to_string(float_format="%.1f"))
samples = run.sample(0, 16)  # and run.encode, run.decode, run.reconstruct, run.latents
print(f"16 samples {samples.shape}")

# %% [markdown]
# ```text
#    log_p  standard_error  ess  num_temperatures  accept_prob
# 0  -32.6             0.1 58.5                 8          0.8
# 1  -55.5             0.0 83.1                 8          0.8
# 2  -44.8             0.1  7.8                 8          0.8
# 3  -67.9             0.1 15.6               128          0.8
# 16 samples (16, 20, 20)
# ```
