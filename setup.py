"""Packaging of ais_jax: the library, the experiments and their configs."""

import re
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'__version__ = "(.+)"', (HERE / "ais_jax" / "__init__.py").read_text()
).group(1)

setup(
    name="ais_jax",
    version=VERSION,
    description=(
        "Learning and evaluating deep latent-variable models with "
        "annealed importance sampling, in JAX"
    ),
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=["ais_jax", "experiments", "configs"],
    python_requires=">=3.11",
    install_requires=[
        "absl-py>=2.1",
        "array-record>=0.5; platform_system == 'Linux'",
        "flax>=0.12",
        "importlib-resources",  # tensorflow-datasets needs it and does not say so
        "jax>=0.10.2,!=0.11.1,<0.13",
        "jaxlib>=0.10.2,!=0.11.1,<0.13",
        "matplotlib>=3.8",
        "ml-collections>=1.0",
        "numpy>=1.26",
        "optax>=0.2.4",
        "orbax-checkpoint>=0.12",
        "pillow",  # likewise
        "scipy>=1.11",
        "tensorboardX>=2.6",
        "tensorflow-datasets>=4.9.10",
        "tqdm>=4.60",
    ],
    extras_require={
        "digits": ["scikit-learn>=1.3"],
        "cuda12": ["jax[cuda12]"],
        "cuda13": ["jax[cuda13]"],
        "tpu": ["jax[tpu]"],
        "bench": ["blackjax>=1.2", "torch>=2.2", "psutil"],
        "test": ["pytest>=8", "pytest-xdist>=3.6", "ruff==0.17.6", "scikit-learn>=1.3"],
    },
)
