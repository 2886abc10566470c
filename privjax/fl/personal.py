"""Personal models: parameters that stay at their client, and fine-tuning.

`Local` splits a pytree of parameters in two by the names of its leaves. With
normalisation layers on the client's side this is FedBN (Li et al. 2021), with the last
layers FedPer (Arivazhagan et al. 2019), with the first ones LG-FedAvg (Liang et al. 2020).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from privjax._typing import PyTree
from privjax.errors import InputError


def named(*words: str) -> Callable[[str], bool]:
    """For `local=`: leaves in whose path (`['norm1']['scale']`) one of `words` occurs."""
    if not words:
        raise InputError("named() needs a word to look for.")
    return lambda path: any(word in path for word in words)


class Local:
    """Parameters in two parts, each a pytree with None where the other part has a leaf.

    Args:
      local: path -> whether the leaf stays with its client.
    """

    def __init__(self, local: Callable[[str], bool]) -> None:
        self.local = local

    def _where(self, params: PyTree, wanted: bool) -> PyTree:
        def keep(path: Any, x: Any) -> Any:
            return x if bool(self.local(jax.tree_util.keystr(path))) == wanted else None

        return jax.tree_util.tree_map_with_path(keep, params)

    def shared(self, params: PyTree) -> PyTree:
        """The part that is averaged."""
        return self._where(params, False)

    def kept(self, params: PyTree) -> PyTree:
        """The part that stays. Raises InputError if either part is empty."""
        mine = self._where(params, True)
        if not jax.tree.leaves(mine) or not jax.tree.leaves(self.shared(params)):
            paths = [
                jax.tree_util.keystr(p)
                for p, _ in jax.tree_util.tree_flatten_with_path(params)[0]
            ]
            raise InputError(f"local= chooses none or all of the parameters {paths}.")
        return mine

    def split(self, params: PyTree) -> tuple[PyTree, PyTree]:
        """(shared, kept)."""
        return self.shared(params), self._where(params, True)

    def merge(self, shared: PyTree, kept: PyTree) -> PyTree:
        """All parameters again."""
        return jax.tree.map(
            lambda a, b: b if a is None else a, shared, kept, is_leaf=_is_none
        )

    def restore(self, params: PyTree, shared: PyTree) -> PyTree:
        """`params` with a new shared part."""
        return self.merge(shared, self._where(params, True))


def _is_none(x: Any) -> bool:
    return x is None


class _Everything:
    """In place of `Local` where nothing stays."""

    def shared(self, params: PyTree) -> PyTree:
        return params

    def kept(self, params: PyTree) -> PyTree:
        return ()

    def split(self, params: PyTree) -> tuple[PyTree, PyTree]:
        return params, ()

    def merge(self, shared: PyTree, kept: PyTree) -> PyTree:
        return shared

    def restore(self, params: PyTree, shared: PyTree) -> PyTree:
        return shared


everything_shared: Any = _Everything()

__all__: Sequence[str] = ("Local", "everything_shared", "named")
