"""Names of annotated arrays and keys."""

import jax
from jaxtyping import PRNGKeyArray, ScalarLike

Array = jax.Array
PRNGKey = PRNGKeyArray
"""One key: of `jax.random.key`, or the older uint32[2] of `jax.random.PRNGKey`."""
Scalar = ScalarLike
"""A number: of Python, of NumPy, or an array without axes."""
