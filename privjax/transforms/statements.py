"""What a user says about values inside of a function: who owns, what may be released."""

from typing import Any

import jax
import jax.numpy as jnp

from privjax._typing import PyTree
from privjax.core import markers
from privjax.errors import InputError


def owned(tree: PyTree, by: str) -> PyTree:
    """State that `by` owns these values; the audit lists it. The values are unchanged."""
    if not isinstance(by, str):
        raise InputError(f"by={by!r}: name the owner with a string.")
    return _each(markers.owned_p, tree, by=by)


def declassify(tree: PyTree, why: str) -> PyTree:
    """State that releasing these values is acceptable, and why; the audit lists it.

    Inside of a differentially private function the values count as public afterwards:
    their release is outside of the guarantee.
    """
    if not isinstance(why, str) or not why.strip():
        raise InputError("declassify needs why=: a reason that the audit can show.")
    return _each(markers.declassify_p, tree, why=why)


def _each(primitive: Any, tree: PyTree, **params: Any) -> PyTree:
    return jax.tree.map(lambda x: primitive.bind(jnp.asarray(x), **params), tree)
