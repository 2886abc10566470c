"""Which outputs are a new version of an input: the state that training updates.

`step(params, opt_state, batch) -> (params, opt_state, loss)` returns two of its arguments
again and one new thing. The sums over units in the former are what DP training clips and
noises; the latter is another release. Structure, shapes and dtypes decide; a scalar by
itself never counts as state (a loss looks just like one).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax

from privjax.errors import InputError


def protected_outputs(spec: Any, inputs: Sequence[Any], output: Any) -> list[bool]:
    """Per output leaf, whether it is protected.

    Args:
      spec: "state" (decide by structure), "all", or the positions or dictionary keys
        of the protected parts of the result.
      inputs: the public arguments, as pytrees of shapes.
      output: the result, as a pytree of shapes.

    Raises:
      InputError: `spec` names no part of the result.
    """
    if isinstance(spec, str) and spec == "all":
        return [True] * len(jax.tree.leaves(output))
    if isinstance(spec, str) and spec == "state":
        return _by_structure(inputs, output)
    chosen = [spec] if isinstance(spec, str | int) else list(spec)
    children = dict(_children(output))
    missing = [c for c in chosen if c not in children]
    if missing:
        raise InputError(
            f"protected={spec!r}: the result has no part {missing[0]!r}; its parts are "
            f"{list(children)}."
        )
    flags = []
    for name, child in children.items():
        flags += [name in chosen] * len(jax.tree.leaves(child))
    return flags


def _by_structure(inputs: Sequence[Any], output: Any) -> list[bool]:
    pool: dict[Any, list[frozenset[int]]] = {}
    leaves: list[Any] = []

    def collect(tree: Any) -> frozenset[int]:
        start = len(leaves)
        children = list(_children(tree))
        if not children:
            leaves.extend(jax.tree.leaves(tree))
        for _, child in children:
            collect(child)
        members = frozenset(range(start, len(leaves)))
        pool.setdefault(_look(tree), []).append(members)
        return members

    for tree in inputs:
        collect(tree)
    used: set[int] = set()

    def match(tree: Any) -> list[bool]:
        children = list(_children(tree))
        count = len(jax.tree.leaves(tree))
        scalar = not children and count == 1 and _shape(tree) == ()
        if count and not scalar:
            for members in pool.get(_look(tree), []):
                if not members & used:
                    used.update(members)
                    return [True] * count
        if not children:
            return [False] * count
        return [flag for _, child in children for flag in match(child)]

    return match(output)


def _look(tree: Any) -> Any:
    """What must be equal: the structure, and the leaves' shapes and dtypes."""
    leaves, treedef = jax.tree.flatten(tree)
    return treedef, tuple((_shape(x), str(getattr(x, "dtype", ""))) for x in leaves)


def _shape(leaf: Any) -> tuple[int, ...]:
    return tuple(getattr(leaf, "shape", ()))


def _children(tree: Any) -> Iterator[tuple[Any, Any]]:
    """(position or key, child) of a pytree's own children; none for a leaf."""
    below, _ = jax.tree_util.tree_flatten_with_path(
        tree, is_leaf=lambda x: x is not tree
    )
    for path, child in below:
        if path:
            step = path[0]
            name = getattr(
                step, "key", getattr(step, "idx", getattr(step, "name", None))
            )
            yield name, child
