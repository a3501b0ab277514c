"""Names that annotations share; sizes are letters, as in the equations.

B examples, K chains or samples, M moves, T temperatures, D latents, X pixels.
"""

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Float, Key, PRNGKeyArray, PyTree, ScalarLike, UInt32

Array = jax.Array
AnyArray = jax.Array | np.ndarray
PRNGKey = PRNGKeyArray
"""One key: of `jax.random.key`, or the older uint32 array of `jax.random.PRNGKey`."""
PRNGKeys = Key[Array, "*B"] | UInt32[Array, "*B words"]
"""Keys of examples or chains, with their leading axes."""
Scalar = Float[Array, ""]
Params = PyTree
"""Parameters of a model, or any other pytree of arrays."""

__all__ = [
    "AnyArray",
    "Array",
    "PRNGKey",
    "PRNGKeys",
    "Params",
    "Scalar",
    "ScalarLike",
    "is_traced",
]


def is_traced(tree: PyTree) -> bool:
    """Whether an array of a pytree is traced, so that its values are not known."""
    return any(isinstance(a, Tracer) for a in jax.tree.leaves(tree))
