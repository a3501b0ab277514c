"""Fixtures that several test files share: tiny models of one and of two layers.

Nearly all of the suite's time is compilation, which the lowest level of optimisation
halves, and the older emitters of code halve again where XLA still has them; a tenth
goes where LLVM's dear passes and most of Python's collections of garbage are left out.
Tests of rounding ask for what users have (`targets.OPTIMIZED`). What one process has
compiled, the other processes of the same run of pytest read from a folder, which ends
with it.
"""

import ctypes
import functools
import gc
import os
import resource
import shutil
import tempfile
import warnings
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

ROOT = Path(__file__).parents[1]
REAL = Path(os.environ.get("AIS_JAX_DATA") or ROOT.parent / "shared" / "data")

UNCHECKED = {  # by the types of their calls: dear files, whose functions others call
    *("annealing/test_ais", "annealing/test_hmc"),
    *("evidence/test_log_z", "evidence/test_numpyro_models"),
    *("models/test_latent", "models/test_networks", "models/test_precision"),
    *("training/test_gradients", "training/test_step"),
    *("experiments/test_cost", "experiments/test_evaluate", "experiments/test_figure1"),
    *("experiments/test_launch", "experiments/test_sweep", "experiments/test_toy"),
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
    """A check of annotations costs as much as the trace of the function."""
    name = f"{item.path.parent.name}/{item.path.stem}"
    jaxtyping.config.update("jaxtyping_disable", name in UNCHECKED)


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


@pytest.fixture(scope="session")
def real_dir(tmp_path_factory):
    """A writable data directory whose originals are links to the real ones."""
    folder = tmp_path_factory.mktemp("real")
    for name in ("mnist", "omniglot", "binarized_mnist"):
        if (REAL / name).is_dir():
            (folder / name).symlink_to(REAL / name)
    return folder


@pytest.fixture(scope="session")
def real(real_dir):
    """Load a real data set once in the session, or skip."""
    from experiments.data import load  # which the library by itself has not

    @functools.cache
    def real_data(name):
        if not (real_dir / name).is_dir():
            pytest.skip(f"no originals in {REAL / name}: set $AIS_JAX_DATA")
        with warnings.catch_warnings():  # The rebuilt Omniglot announces itself.
            warnings.simplefilter("ignore", UserWarning)
            return load.load(name, real_dir)

    return real_data


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
