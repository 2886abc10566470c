"""The pass itself: its answers about secret values, and the table of rules."""

import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privjax.core import control
from privjax.core.interpret import Interpreter, sub_jaxprs
from privjax.errors import LeakError, RangeWarning, TraceError, UnsupportedError
from privjax.passes.shared import (
    arithmetic,
    comparison,
    contraction,
    integers,
    loops,
    marked,
    nonlinear,
    placement,
    refused,
    structural,
)
from privjax.passes.shared.values import SECRET, Boolean, Fixed, Integer
from privjax.protocols.fixedpoint import FixedPoint
from privjax.protocols.interface import Protocol

# Constants from here on stand for infinity: nobody is told that they saturate.
_INFINITE = 1e29


class Shared(Interpreter):
    """Rewrite a program on secrets into what one party of `protocol` does."""

    rules = {
        **control.RULES,
        **loops.RULES,
        **arithmetic.RULES,
        **comparison.RULES,
        **integers.RULES,
        **contraction.RULES,
        **nonlinear.RULES,
        **structural.RULES,
        **placement.RULES,
        **marked.RULES,
    }

    def __init__(self, protocol: Protocol, fixed_point: FixedPoint) -> None:
        self.p, self.fp = protocol, fixed_point
        self.notes: dict[str, None] = {}  # what the user should know, in order

    @property
    def f(self) -> int:
        return self.fp.fractional_bits

    # -- kinds -------------------------------------------------------------------------

    def join(self, a: Any, b: Any) -> Any:
        if isinstance(a, Fixed) and isinstance(b, Fixed):
            if a.scale == b.scale:
                return Fixed.of(a.share, a.scale)
            # Scales that grow by a bit in every step (halving) have no other end.
            least = max(a.scale, b.scale)
            return Fixed.of(a.share, self.f if least <= self.f else 2 * self.f)
        secrets = [v for v in (a, b) if isinstance(v, SECRET)]
        if len({type(v) for v in secrets}) == 1:
            like = secrets[0]
            if isinstance(like, Integer):  # limits would move with every iteration
                return Integer(like.dtype, like.share)
            return like
        return super().join(a, b)

    def coerce(self, value: Any, like: Any) -> Any:
        if isinstance(like, Fixed):
            value = self.fixed(value, like.scale)
            return Fixed.of(self.scaled(value, like.scale), like.scale)
        if isinstance(like, Integer):
            return Integer(
                like.dtype, self.integer(value, like.dtype).share, like.bounds
            )
        if isinstance(like, Boolean):
            return self.boolean(value)
        return value

    def input(self, clear: Any, owner: int) -> Any:
        """A secret of the kind of a clear array that `owner` holds."""
        clear = jnp.asarray(clear)
        if clear.dtype == bool:
            return Boolean(self.p.share_bits(clear.astype(np.uint8), owner))
        if jnp.issubdtype(clear.dtype, jnp.integer):
            if 8 * clear.dtype.itemsize > self.fp.ring_bits:
                raise UnsupportedError(
                    f"a secret of dtype {clear.dtype} does not fit into a ring of "
                    f"{self.fp.ring_bits} bits; use a narrower integer type."
                )
            share = self.p.share_input(self.encode_integer(clear), owner)
            return Integer(clear.dtype, share, integers.limits(clear.dtype))
        if not jnp.issubdtype(clear.dtype, jnp.floating):
            raise UnsupportedError(f"secrets of dtype {clear.dtype} have no encoding.")

        def at(scale: int) -> Any:
            return lambda: self.p.share_input(self.fp.encode(clear, scale), owner)

        return Fixed(clear.shape, 2 * self.f, {s: at(s) for s in (self.f, 2 * self.f)})

    def fixed(self, value: Any, scale: int | None = None) -> Fixed:
        """A real secret from a secret of any kind or a public array."""
        if isinstance(value, Fixed):
            return value
        if isinstance(value, Integer):
            if value.bit is not None:
                return self.fixed(value.bit)
            return integers.as_real(self, value)
        if isinstance(value, Boolean):
            to_arith = self.p.to_arith
            out = Fixed(value.shape, 0, {0: lambda: to_arith(value.bit, self.fp.dtype)})
            out.bit = value
            return out
        scale = self.f if scale is None else scale
        return Fixed.of(self.p.public(self.encode(value, scale)), scale)

    def integer(self, value: Any, dtype: Any = None) -> Integer:
        """An integer secret from one, a boolean secret or a public array."""
        if isinstance(value, Integer):
            return value
        if isinstance(value, Boolean):
            bit, ring = value.bit, self.fp.dtype
            own = np.int32 if dtype is None else dtype
            to_arith = self.p.to_arith
            out = Integer(own, lambda: to_arith(bit, ring), (0, 1), shape=value.shape)
            out.bit = value
            return out
        value = np.asarray(value) if isinstance(value, int) else value
        own = value.dtype if dtype is None else dtype
        share = self.p.public(self.encode_integer(value))
        return Integer(own, share, integers.bounds_of(value))

    def boolean(self, value: Any) -> Boolean:
        if isinstance(value, Boolean):
            return value
        return Boolean(self.p.public_bits(jnp.asarray(value).astype(np.uint8)))

    # -- scales ------------------------------------------------------------------------

    def encode(self, value: Any, scale: int) -> Any:
        """Public reals as ring elements; what does not fit saturates (-inf in a mask)."""
        self.check_constant(value, scale)
        real = jnp.asarray(value).astype(self.fp.real)
        bound = self.fp.max_value * (1 - 2.0**-20)
        return self.fp.encode(jnp.clip(jnp.nan_to_num(real), -bound, bound), scale)

    def addend(self, value: Any) -> Any:
        """A public term or factor; what does not fit is the infinity of some mask.

        It counts as a quarter of the largest value, so that a few masks can be added.
        """
        end = self.fp.max_value
        if isinstance(value, (np.ndarray, np.generic)):
            self._fits(value, end / 4)
            wide = np.asarray(value, np.float64)
            if not np.any(np.isnan(wide) | (np.abs(wide) >= end)):
                return value
            value = wide
            part = np.where(np.abs(value) < end, value, np.sign(value) * end / 4)
            return np.nan_to_num(part)
        value = jnp.asarray(value)
        if value.dtype.itemsize < 4:  # the end has no float16
            value = value.astype(np.float32)
        part = jnp.where(jnp.abs(value) < end, value, jnp.sign(value) * end / 4)
        return jnp.nan_to_num(part)

    def check_constant(self, value: Any, scale: int) -> None:
        """Tell of a constant that is out of range, or rounds to 0."""
        if isinstance(value, (np.ndarray, np.generic)):
            self._fits(value, self.fp.max_value)
            self._resolved(value, scale)

    def _fits(self, value: Any, instead: float) -> None:
        """Warn of a constant out of range, but for what stands for infinity in masks."""
        a = np.abs(np.asarray(value, np.float64))
        if np.any(np.isnan(a)):
            self.note(f"the constant NaN{self.where()} counts as 0")
        large = a[(a >= self.fp.max_value) & (a < _INFINITE)]
        if large.size:
            self.note(
                f"the constant {large.max():.4g}{self.where()} does not fit into fixed "
                f"point: it counts as {instead:.4g}. Rescale, or give "
                "fixed_point= fewer fractional bits.",
                RangeWarning,
            )

    def _resolved(self, value: Any, scale: int) -> None:
        """Note a constant that rounds to 0."""
        a = np.abs(np.asarray(value, np.float64))
        small = a[(a > 0) & (a < 2.0 ** -(scale + 1))]
        if small.size:
            self.note(
                f"the constant {small.max():.4g}{self.where()} is below the resolution "
                f"of {2.0**-scale:.4g} and counts as 0"
            )

    def note(self, text: str, category: type[Warning] | None = None) -> None:
        """Tell the user, once: in the report, and as a warning of `category`."""
        if text in self.notes:
            return
        self.notes[text] = None
        if category is not None:
            warnings.warn(text, category, stacklevel=2)

    def encode_integer(self, value: Any) -> Any:
        return self.fp.encode_integer(value)

    def factor(self, x: Fixed, limit: int | None = None) -> Fixed:
        """`x` at a scale of at most f (or `limit`): fit to be multiplied."""
        limit = self.f if limit is None else limit
        if x.scale <= limit:
            return x
        return Fixed(x.shape, limit, {limit: lambda: self.scaled(x, limit)})

    def scaled(self, x: Fixed, scale: int) -> Any:
        """The share of `x` at exactly `scale`: kept, shifted up, or truncated."""
        if scale not in x.at:
            if scale > x.scale:
                x.at[scale] = self.p.mul_public(x.share, 1 << (scale - x.scale))
            else:
                x.at[scale] = self.p.truncate(x.share, x.scale - scale)
        return x.get(scale)

    def plain(self, values: Sequence[Any]) -> list[Any]:
        """Public equations run as they are; small constants are folded, so that rules
        see the value of `1 / batch` and not only that it is public."""
        constants = all(isinstance(v, (np.ndarray, np.generic)) for v in values)
        small = all(
            v.aval.size <= 4096
            and not jnp.issubdtype(v.aval.dtype, jax.dtypes.extended)
            for v in self.eqn.outvars  # a key has no NumPy form
        )
        if not (values and constants and small) or any(sub_jaxprs(self.eqn)):
            return super().plain(values)
        with jax.ensure_compile_time_eval():
            return [np.asarray(v) for v in super().plain(values)]

    # -- without a rule ----------------------------------------------------------------

    def default(self, values: Sequence[Any]) -> list[Any]:
        name = self.eqn.primitive.name
        why, instead = refused.reason(name)
        error = TraceError if name in refused.TO_HOST else UnsupportedError
        raise error(f"`{name}` on a secret{self.where()} {why}. {instead}")

    def predicate(self, value: Any) -> Any:
        if isinstance(value, SECRET):
            raise LeakError(
                f"a loop depends on a secret predicate{self.where()}: its trip count "
                "would reveal the secret. Use a fixed number of steps and jnp.where, or "
                "reveal the predicate with privjax.reveal."
            )
        return value
