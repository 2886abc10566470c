"""Shared pytrees: `share`, `reveal`, and the opaque leaf they are made of."""

import functools
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax import _compat
from privjax._typing import Array, PyTree
from privjax.core import markers
from privjax.errors import InputError, MacCheckError
from privjax.protocols.fixedpoint import FixedPoint
from privjax.protocols.interface import Protocol
from privjax.protocols.party import PARTY
from privjax.protocols.table import DEFAULT, protocol_for
from privjax.runtimes.simulate import simulation
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
      kind: "fixed", "complex" (the words of the real parts, then those of the imaginary
        ones), "integer" or "boolean"; `scale` the fractional bits of the first two.
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
        """uint32[parties, *shape, words]: each party's share, as its protocol packs it."""
        return jnp.moveaxis(self.data, -2, 0)


def together(words: Any) -> Any:
    """uint32[parties, *shape, words] -> the `data` of a SharedArray."""
    return jnp.moveaxis(words, 0, -2)


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
    protocol: str = DEFAULT,
    key: Any = None,
    fixed_point: FixedPoint | None = None,
) -> PyTree:
    """Secret-share every array of a pytree (in simulation: all shares on this device).

    Args:
      tree: arrays of reals or complex numbers (as fixed point), integers or booleans.
      parties: number of parties.
      protocol: the one that will compute on the shares, as of `secret_shared`.
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
    proto.check_ring(fp.ring_bits)
    leaves, tree_def = jax.tree.flatten(tree)
    named, _ = jax.tree_util.tree_flatten_with_path(tree)
    names = ["tree" + jax.tree_util.keystr(path) for path, _ in named]
    for leaf, name in zip(leaves, names, strict=True):
        if not isinstance(leaf, _compat.Tracer):
            fp.check(leaf, name)
    leaves = [jnp.asarray(x) for x in leaves]
    formats = [_format(x, fp, n) for x, n in zip(leaves, names, strict=True)]
    # Equal values in two formats must not be masked alike: the format is in the key.
    words = _Share().session_key(key, leaves, f"share {proto} {fp}")
    with jax.enable_x64(True):
        run = _sharing(proto, fp, tuple((x.shape, x.dtype) for x in leaves))
        flat = run(words, *leaves)
    out = [
        SharedArray(together(w), *form, x.dtype, parties, protocol, fp)
        for w, x, form in zip(flat, leaves, formats, strict=True)
    ]
    return jax.tree.unflatten(tree_def, out)


def _format(x: Array, fp: FixedPoint, name: str) -> tuple[str, int]:
    """(kind, scale) with which an array is shared."""
    if x.dtype == bool:
        return "boolean", 0
    if jnp.issubdtype(x.dtype, jnp.integer):
        return "integer", 0
    if jnp.issubdtype(x.dtype, jnp.floating):
        return "fixed", fp.fractional_bits
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        return "complex", fp.fractional_bits
    raise InputError(f"{name}: values of dtype {x.dtype} cannot be shared.")


@functools.lru_cache(maxsize=256)
def _sharing(proto: Protocol, fp: FixedPoint, specs: Any) -> Callable[..., list[Any]]:
    """The compiled sharing of arrays of these (shape, dtype), held by party 0."""

    def one(p: Protocol, x: Array) -> Any:
        kind, scale = _format(x, fp, "tree")
        if kind == "boolean":
            return p.pack(p.share_bits(x.astype(np.uint8), 0))
        if kind == "complex":
            rings = [fp.encode(part, scale) for part in (x.real, x.imag)]
            return jnp.concatenate([p.pack(p.share_input(r, 0)) for r in rings], -1)
        ring = fp.encode_integer(x) if kind == "integer" else fp.encode(x, scale)
        return p.pack(p.share_input(ring, 0))

    def party(*xs: Array) -> list[Any]:
        p = proto.begin(fp.ring_bits)
        return [one(p, x) for x in xs]

    inputs = [jax.ShapeDtypeStruct(*s) for s in specs]
    program = jax.make_jaxpr(party, axis_env=[(PARTY, proto.parties)])(*inputs)
    n = len(inputs)
    return jax.jit(simulation(program, proto.parties, [False] * n, [True] * n))


# Arrays of shares that went into a call which was aborted, by id: what honest parties say
# in a failed check tells a cheater something about their keys.
_burned: dict[int, weakref.ref[Any]] = {}


def burn(shared: Iterable[SharedArray]) -> None:
    """Shares that no later call accepts, as the call that they went into was aborted."""
    for x in shared:
        if not isinstance(x.data, _compat.Tracer):
            place = id(x.data)
            gone = lambda _, place=place: _burned.pop(place, None)  # noqa: E731
            _burned[place] = weakref.ref(x.data, gone)


def refuse_burned(x: SharedArray, name: str) -> None:
    """Raises MacCheckError for what `burn` got."""
    if id(x.data) in _burned:
        raise MacCheckError(
            f"{name} went into a call that was aborted because a party cheated: these "
            "shares are not used again. Find out who, and share the data anew."
        )


def reveal(tree: PyTree) -> PyTree:
    """Reconstruct shared arrays; inside a secret-shared function, allow a value to open.

    Outside of a transformed function every `SharedArray` becomes the clear array of its
    dtype. Inside of one, reveal states that all parties may learn the value: it becomes
    public from there on, which costs one round and shows up in the report.

    Raises:
      MacCheckError: the shares were tampered with (protocols with MACs; under a trace
        the result is NaN, or 0 where there is none).
    """

    def one(x: Any) -> Any:
        return (
            _reconstruct(x) if is_shared(x) else markers.reveal_p.bind(jnp.asarray(x))
        )

    return jax.tree.map(one, tree, is_leaf=is_shared)


def _reconstruct(x: SharedArray) -> Any:
    refuse_burned(x, repr(x))
    proto, fp = protocol_for(x.protocol, x.parties), x.fixed_point
    with jax.enable_x64(True):
        if x.kind == "boolean":
            value, sound = proto.combine_bits(x.words())
            return withheld(value.astype(x.dtype), sound)
        if x.kind == "complex":
            real = np.zeros((), x.dtype).real.dtype
            halves = jnp.split(x.words(), 2, -1)
            both = [proto.combine_arith(half, fp.dtype) for half in halves]
            parts = [fp.decode(value, x.scale, real) for value, _ in both]
            return withheld(lax.complex(*parts), both[0][1] & both[1][1])
        value, sound = proto.combine_arith(x.words(), fp.dtype)
        if x.kind == "fixed":
            return withheld(fp.decode(value, x.scale, x.dtype), sound)
        return withheld(fp.decode_integer(value, x.dtype), sound)


def withheld(value: Any, sound: Any) -> Any:
    """`value` if the shares are sound; else an error, or under a trace no value."""
    if isinstance(sound, _compat.Tracer):
        nothing = jnp.nan if jnp.issubdtype(value.dtype, jnp.inexact) else 0
        return jnp.where(sound, value, jnp.asarray(nothing, value.dtype))
    if not np.all(sound):
        raise MacCheckError(
            "the shares do not match their MACs: somebody changed them. Nothing was "
            "revealed."
        )
    return value
