"""Fixtures that several test files share: tiny models of one and of two layers.

Nearly all of the suite's time is compilation, which the lowest level of optimisation
halves, and the older emitters of code halve again where XLA still has them; a tenth
goes where LLVM's dear passes and most of Python's collections of garbage are left out.
Tests of rounding ask for what users have (`targets.OPTIMIZED`). What one process has
compiled, the other processes of the same run of pytest read from a folder, which ends
with it.
"""

import ctypes
import gc
import os
import resource
import shutil
import tempfile
from pathlib import Path

import jax
import jaxtyping
import pytest

from ais_jax.models.networks import bernoulli_model

FASTER_COMPILATION = "--xla_backend_optimization_level=0"
FASTER_COMPILATION += " --xla_llvm_disable_expensive_passes=true"
if jax.__version__.startswith("0.10."):  # a later XLA ends at a flag that it lacks
    FASTER_COMPILATION += " --xla_cpu_use_fusion_emitters=false"
    FASTER_COMPILATION += " --xla_cpu_parallel_codegen_split_count=1"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FASTER_COMPILATION}"

CHECKED = {  # together they call every annotated function
    *("test_shapes", "test_docs", "test_batching", "test_numerics"),
    *("test_proposals", "test_smc", "test_trajectory"),
    *("test_evaluation", "test_likelihoods", "test_outer_products"),
    *("test_estimators", "test_optimizers", "test_run"),
    *("test_bounded", "test_from_draws", "test_numpyro_runs", "test_paths"),
    *("test_plan", "test_positions", "test_refine"),
}

CACHE = {
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


def pytest_configure(config):
    """A folder of compiled programs for this process and those that it starts."""
    if os.environ.get("JAX_COMPILATION_CACHE_DIR") is None:
        folder = tempfile.mkdtemp(prefix="ais_jax_compiled_")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
        settings = {**CACHE, "jax_compilation_cache_dir": folder}
        os.environ.update({name.upper(): str(a) for name, a in settings.items()})
        for name, value in settings.items():
            jax.config.update(name, value)


def pytest_collection_finish(session):
    """Nothing imported is ever garbage, and tracing makes little of it at a time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 10, 10)


def pytest_runtest_setup(item):
    """Annotations are checked as a file of `CHECKED` runs: a check costs as a trace."""
    jaxtyping.config.update("jaxtyping_disable", item.path.stem not in CHECKED)


LAYERS = {
    "one_layer": {"latent_sizes": (2,), "widths": ((4, 3),)},
    "two_layers": {"latent_sizes": (2, 1), "widths": ((4, 3), (3,))},
}


@pytest.fixture(autouse=True)
def forget_programs():
    """Compiled programs end with a test where the process holds 1.5 gigabytes."""
    yield
    if resident_bytes() > 1.5e9:
        jax.clear_caches()
        gc.collect()
        if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
            trim(0)  # glibc keeps for itself what is freed


def resident_bytes():
    """What this process holds of memory: at most so far where Linux is not asked."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(statm.read_text().split()[1]) * resource.getpagesize()


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
