"""Packaging of ais_jax: the library; its experiments run from the checkout."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'__version__ = "(.+)"', (HERE / "ais_jax" / "__init__.py").read_text()
).group(1)

LIBRARY = [
    "flax>=0.12",
    "jax>=0.10.2,!=0.11.1,<0.13",
    "jaxlib>=0.10.2,!=0.11.1,<0.13",
    "jaxtyping>=0.3",
    "numpy>=1.26",
    "optax>=0.2.6",
]
EXPERIMENTS = [  # what the folders experiments and configs import
    "absl-py>=2.1",
    "array-record>=0.5; platform_system == 'Linux'",
    "filelock>=3.12",
    "importlib-resources",  # tensorflow-datasets needs it and does not say so
    "matplotlib>=3.8",
    "ml-collections>=1.0",
    "orbax-checkpoint>=0.12",
    "pandas>=2.2",
    "pillow",  # likewise
    "pooch>=1.8",
    "scipy>=1.11",
    "tabulate>=0.9",
    "tensorboardX>=2.6",
    "tensorflow-datasets>=4.9.10",
    "tqdm>=4.60",
]
NUMPYRO = ["numpyro>=0.22"]
DIGITS = [*EXPERIMENTS, "scikit-learn>=1.3"]

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
    license_files=["LICENSE"],
    packages=find_packages(include=["ais_jax*", "configs*", "experiments*"]),
    package_data={"ais_jax": ["py.typed"]},
    python_requires=">=3.11",
    install_requires=LIBRARY,
    extras_require={
        "experiments": EXPERIMENTS,
        "digits": DIGITS,
        "numpyro": NUMPYRO,
        "docs": [
            "mkdocs>=1.6,<2",
            "mkdocs-material>=9.5",
            "mkdocstrings[python]>=0.30",
        ],
        "bench": [*EXPERIMENTS, "blackjax>=1.2", "torch>=2.2"],
        "test": [
            *DIGITS,
            *NUMPYRO,
            "beartype>=0.20",
            "build>=1.2",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff==0.17.6",
            "twine>=6",
        ],
        "cuda12": ["jax[cuda12]"],
        "cuda13": ["jax[cuda13]"],
        "tpu": ["jax[tpu]"],
    },
)
