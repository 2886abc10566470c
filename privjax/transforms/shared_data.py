"""Shared pytrees: `share`, `reveal`, and the opaque leaf they are made of."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privjax import _compat
from privjax._typing import Array, PyTree
from privjax.core import markers
from privjax.errors import InputError
from privjax.prg import chacha20
from privjax.prg.chacha20 import Purpose
from privjax.protocols.fixedpoint import FixedPoint
from privjax.protocols.table import protocol_for
from privjax.transforms.base import Transformed, decorator

__all__ = ["SharedArray", "decorator", "reveal", "share"]


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class SharedArray:
    """A secret-shared array; a pytree node that privjax functions take and return.

    The one leaf `data` is uint32 of shape `shape + (parties, words)`: 32-bit words, so
    that shares survive in programs that run with 64-bit types switched off. Leading axes
    are those of the value, so that vmap, scan and slicing act on the value.

    Attributes:
      kind: "fixed", "integer" or "boolean"; `scale` the fractional bits of a fixed one.
      dtype: the dtype that revealing gives back.
    """

    data: Any
    kind: str
    scale: int
    dtype: Any
    parties: int
    protocol: str
    fixed_point: FixedPoint

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the value."""
        return tuple(self.data.shape[:-2])

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def tree_flatten(self) -> Any:
        meta = (self.kind, self.scale, self.dtype)
        return (self.data,), (*meta, self.parties, self.protocol, self.fixed_point)

    @classmethod
    def tree_unflatten(cls, meta: Any, children: Any) -> "SharedArray":
        return cls(children[0], *meta)

    def __repr__(self) -> str:
        shape = getattr(self.data, "shape", None)
        shown = "?" if shape is None else str(tuple(shape[:-2]))
        return (
            f"SharedArray({np.dtype(self.dtype).name}{shown}, {self.protocol}, "
            f"{self.parties} parties)"
        )

    def words(self) -> Any:
        """Ring elements (or bits as uint8) with a leading party axis."""
        moved = jnp.moveaxis(self.data, -2, 0)
        if self.kind == "boolean":
            return moved[..., 0].astype(np.uint8)
        return from_words(moved, self.fixed_point.dtype)


def from_words(words: Any, dtype: Any) -> Any:
    """uint32 words on the trailing axis (low first) -> ring elements."""
    if np.dtype(dtype).itemsize == 4:
        return words[..., 0]
    return jax.lax.bitcast_convert_type(words, dtype)


def to_words(ring: Any) -> Any:
    """Ring elements (or bits) -> uint32 words on a new trailing axis, low first."""
    if ring.dtype.itemsize <= 4:
        return ring.astype(np.uint32)[..., None]
    return jax.lax.bitcast_convert_type(ring, np.uint32)


def pack(shares: Any) -> Any:
    """[parties, ...] ring elements -> the `data` of a SharedArray."""
    return jnp.moveaxis(to_words(shares), 0, -2)


def is_shared(x: Any) -> bool:
    return isinstance(x, SharedArray)


def _tree(tree: PyTree) -> PyTree:
    return tree


class _Share(Transformed):
    """The sharing of one pytree, with the common treatment of keys."""

    def __init__(self) -> None:
        super().__init__(_tree)
        self.__name__ = "share"


def share(
    tree: PyTree,
    parties: int = 2,
    protocol: str = "semi2k",
    key: Any = None,
    fixed_point: FixedPoint | None = None,
) -> PyTree:
    """Secret-share every array of a pytree (in simulation: all shares on this device).

    Args:
      tree: arrays of reals (as fixed point), integers or booleans.
      parties: number of parties.
      protocol: name of the protocol that will compute on the shares.
      key: a privjax key; outside of traces None draws one from the operating system.
      fixed_point: format of reals; FixedPoint() by default.

    Returns:
      The same structure with a `SharedArray` for every array.

    Raises:
      RangeError: a clear value is NaN, infinite or too large.
      RandomKeyError: no key in a traced context.
    """
    proto = protocol_for(protocol, parties)
    fp = fixed_point or FixedPoint()
    leaves, tree_def = jax.tree.flatten(tree)
    named, _ = jax.tree_util.tree_flatten_with_path(tree)
    names = ["tree" + jax.tree_util.keystr(path) for path, _ in named]
    for leaf, name in zip(leaves, names, strict=True):
        if not isinstance(leaf, _compat.Tracer):
            fp.check(leaf, name)
    # Equal values in two formats must not be masked alike: the format is in the key.
    words = _Share().session_key(key, leaves, f"share {proto} {fp}")
    with jax.enable_x64(True):
        out = [
            _share_leaf(jnp.asarray(x), i, n, proto.parties, protocol, fp, words)
            for i, (x, n) in enumerate(zip(leaves, names, strict=True))
        ]
    return jax.tree.unflatten(tree_def, out)


def _share_leaf(
    x: Array, index: int, name: str, parties: int, protocol: str, fp: Any, words: Any
) -> SharedArray:
    dtype, scale = x.dtype, 0
    if x.dtype == bool:
        kind, ring = "boolean", x.astype(np.uint8)
    elif jnp.issubdtype(x.dtype, jnp.integer):
        kind, ring = "integer", x.astype(fp.signed).astype(fp.dtype)
    elif jnp.issubdtype(x.dtype, jnp.floating):
        kind, scale = "fixed", fp.fractional_bits
        ring = fp.encode(x, scale)
    else:
        raise InputError(f"{name}: values of dtype {x.dtype} cannot be shared.")
    draws = [
        chacha20.bits(words, (int(Purpose.REQUEST), index, i), ring.shape, ring.dtype)
        for i in range(parties - 1)
    ]
    last = ring
    if kind == "boolean":
        draws = [d & np.uint8(1) for d in draws]
        for d in draws:
            last = last ^ d
    else:
        for d in draws:
            last = last - d
    data = pack(jnp.stack([*draws, last]))
    return SharedArray(data, kind, scale, dtype, parties, protocol, fp)


def reveal(tree: PyTree) -> PyTree:
    """Reconstruct shared arrays; inside a secret-shared function, allow a value to open.

    Outside of a transformed function every `SharedArray` becomes the clear array of its
    dtype. Inside of one, reveal states that all parties may learn the value: it becomes
    public from there on, which costs one round and shows up in the report.
    """

    def one(x: Any) -> Any:
        return (
            _reconstruct(x) if is_shared(x) else markers.reveal_p.bind(jnp.asarray(x))
        )

    return jax.tree.map(one, tree, is_leaf=is_shared)


def _reconstruct(x: SharedArray) -> Any:
    with jax.enable_x64(True):
        shares = x.words()
        if x.kind == "boolean":
            return jax.lax.reduce_xor(shares, (0,)).astype(x.dtype)
        value = jnp.sum(shares, axis=0, dtype=shares.dtype)
        if x.kind == "fixed":
            return x.fixed_point.decode(value, x.scale, x.dtype)
        return value.astype(x.fixed_point.signed).astype(x.dtype)
