"""The manifest of a checkpoint: what proves that its arrays are those saved."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class Damaged(Exception):
    """A checkpoint is not sound: the message says why."""


def make(leaves: dict[str, Any], values: dict[str, np.ndarray]) -> dict[str, Any]:
    """The manifest of leaves: path -> [shape, dtype, sha256], with its own sha256.

    Leaves without values, which are empty, have no digest.
    """
    entries = shapes(leaves)
    for path, value in values.items():
        entries[path].append(_sha256(value.tobytes()))
    return {"leaves": entries, "sha256": _sha256_of_json(entries)}


def read(manifest: dict[str, Any]) -> dict[str, list]:
    """The leaves of a manifest, which is refused where it is not what was written."""
    leaves = {path: list(entry) for path, entry in manifest["leaves"].items()}
    if manifest.get("sha256") != _sha256_of_json(leaves):
        raise Damaged("its manifest is not what was written")
    return leaves


def verify(values: dict[str, np.ndarray], saved: dict[str, list]) -> None:
    """Raises `Damaged` where an array is not the one saved, or is not finite."""
    for path, value in values.items():
        if saved[path][2:] != [_sha256(value.tobytes())]:
            raise Damaged(f"{path} is not what was saved")
    if (path := first_non_finite(values)) is not None:
        raise Damaged(f"{path} is not finite")


def first_non_finite(values: dict[str, np.ndarray]) -> str | None:
    """The path of an array that is not finite, or None."""
    for path, value in values.items():
        is_real = jnp.issubdtype(value.dtype, jnp.inexact)
        if is_real and not np.all(np.isfinite(value.astype(np.float64))):
            return path
    return None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _sha256_of_json(obj: Any) -> str:
    return _sha256(json.dumps(obj, sort_keys=True).encode())


def leaves_by_path(tree: Any) -> dict[str, Any]:
    """Returns `{path: leaf}` in the tree's order, numbers as arrays."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): (
            leaf if hasattr(leaf, "sharding") else jnp.asarray(leaf)
        )
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def shapes(leaves: dict[str, Any]) -> dict[str, list]:
    """Path -> [shape, dtype]."""
    return {k: [list(leaf.shape), leaf.dtype.name] for k, leaf in leaves.items()}


def first_difference(saved: dict[str, list], expected: dict[str, list]) -> str | None:
    """Says where two manifests first differ, or returns None if they are equal."""
    for path in expected | saved:
        have, want = (
            f"shape {tuple(m[path][0])} {m[path][1]}" if path in m else None
            for m in (saved, expected)
        )
        if have is None:
            return f"it has no {path}, expected {want}"
        if want is None:
            return f"it has {path} {have}, which is not expected"
        if have != want:
            return f"{path} has {have}, expected {want}"
    return None
