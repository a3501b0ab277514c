"""Fixtures that several test files share: tiny models of one and of two layers.

Nearly all of the suite's time is compilation, which the lowest level of optimisation
halves, and the older emitters of code halve again where XLA still has them; tests of
rounding ask for what users have (`targets.OPTIMIZED`).
"""

import os

import jax
import pytest

from ais_jax.models.networks import bernoulli_model

FASTER_COMPILATION = "--xla_backend_optimization_level=0"
if jax.__version__.startswith("0.10."):  # a later XLA ends at a flag that it lacks
    FASTER_COMPILATION += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FASTER_COMPILATION}"

LAYERS = {
    "one_layer": {"latent_sizes": (2,), "widths": ((4, 3),)},
    "two_layers": {"latent_sizes": (2, 1), "widths": ((4, 3), (3,))},
}


@pytest.fixture(scope="session", params=LAYERS)
def model(request):
    """A Bernoulli model of 6 pixels, with one and with two stochastic layers."""
    return bernoulli_model(6, **LAYERS[request.param])


@pytest.fixture(scope="session")
def small_model():
    """A Bernoulli model of 6 pixels and one layer of two latents."""
    return bernoulli_model(6, **LAYERS["one_layer"])


@pytest.fixture(scope="session")
def images():
    """Sixteen binary images of 6 pixels whose halves agree: f32[16, 6]."""
    halves = jax.random.bernoulli(jax.random.key(0), 0.5, (16, 2, 1))
    return jax.numpy.tile(halves, (1, 1, 3)).reshape(16, 6).astype("float32")
