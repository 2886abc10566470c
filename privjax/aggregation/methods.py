"""How a sum over clients is formed: in the clear, or so that only the sum is seen.

A method is hashable (it is a parameter of the `aggregate` marker) and has
- `combine(key_words, xs)`: the sum of each of `xs` over its leading axis of clients,
- `prepare(xs)`: what a client does to its own arrays before they are weighted,
- `check(clients, weighted)`: raises where this number of clients cannot be served,
- `needs_key`; `streams`, whether sums of parts may be added up, so that a loop over
  clients keeps one running sum; `linear`, whether the sum may be differentiated;
  `server_sees`, in words.

It may have more:
- `combine_survivors(key_words, xs, survivors)`: the same over the clients of a bool array,
  and `recoverable(key_words, survivors)`, whether that can be done;
- `contribution` and `conclude` (see `clipping.Bounded`): what a client does to its update
  before it is summed, in place of `prepare`, and the server to the sums;
- `begin`, `message` and `finish`: one client after the other, where sums do not stream;
- `event(clients, count)`, `bits_per_client(count, clients)`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from privjax._typing import Array
from privjax.aggregation.clipping import (
    SLACK,
    AdaptiveClip,
    Bounded,
    check_bounds,
    given,
    within,
)
from privjax.aggregation.secure import secure_sum
from privjax.aggregation.spdz import spdz
from privjax.errors import InputError
from privjax.prg.session import session


class Method(Protocol):
    """What `aggregate=` takes; see the module docstring."""

    @property
    def needs_key(self) -> bool: ...

    @property
    def streams(self) -> bool: ...

    @property
    def linear(self) -> bool: ...

    server_sees: ClassVar[str]

    def check(self, clients: int, weighted: bool) -> None: ...

    def prepare(self, xs: Sequence[Array]) -> list[Array]: ...

    def combine(self, key_words: Any, xs: Sequence[Array]) -> list[Array]: ...


@dataclass(frozen=True, repr=False)
class Plain(Bounded):
    """The ordinary sum: the server sees every client's update; see `plain`."""

    server_sees: ClassVar[str] = "the server sees every client's update"

    def __repr__(self) -> str:
        return f"plain({', '.join(given(self))})"

    @property
    def needs_key(self) -> bool:
        return self.noise is not None

    @property
    def streams(self) -> bool:
        # Noise belongs to a whole sum.
        return self.noise is None

    @property
    def linear(self) -> bool:
        return self.noise is None

    def check(self, clients: int, weighted: bool) -> None:
        self.check_bounds("plain", weighted)

    def combine(self, key_words: Any, xs: Sequence[Array]) -> list[Array]:
        """The sums; with noise, of rows that are within their bound for certain."""
        if self.noise is None:
            return [jnp.sum(x, 0, dtype=x.dtype) for x in xs]
        return self._noised(key_words, xs)

    def _noised(self, key_words: Array, xs: Sequence[Array]) -> list[Array]:
        clients = xs[0].shape[0]
        with jax.enable_x64(True):
            key = session(key_words, *xs, context=f"aggregate by {self}")
            rows = [x.reshape(clients, -1).astype(jnp.float64) for x in xs]
            joined = jnp.concatenate(rows, axis=1)
            norm = self.norm(clients)
            total = jnp.sum(jax.vmap(lambda row: within(row, norm))(joined), 0)
            sums = jnp.split(total, np.cumsum([row.shape[1] for row in rows])[:-1])
            count = sum(s.size for s in sums)
            noised = self.mechanism(clients, count).apply(key, sums)
            return [
                s.astype(x.dtype).reshape(x.shape[1:])
                for s, x in zip(noised, xs, strict=True)
            ]

    def mechanism(self, clients: int, count: int) -> Any:
        """The server's mechanism on a sum of `count` values."""
        if self.central is None:
            raise InputError(f"{self}: the server adds no noise.")
        return self.central.mechanism(SLACK * self.norm(clients), count)

    def event(self, clients: int, count: int) -> dict[str, Any]:
        """What one release of the sum costs, for `privjax.accounting`."""
        if self.central is None:
            return {"kind": "non_private"}
        return dict(self.mechanism(clients, count).event())

    def bits_per_client(self, count: int, clients: int) -> dict[str, int]:
        """What one client sends, in bits, for `count` float32 values."""
        return {"update": 32 * count}


def plain(
    *,
    clip: float | AdaptiveClip | None = None,
    max_weight: float | None = None,
    noise: Any = None,
) -> Plain:
    """`aggregate="plain"`: sums in the clear, optionally clipped and with noise.

    Args:
      clip: each client scales its update to this joint L2 norm; or an `AdaptiveClip`.
      max_weight: larger weights count as this one.
      noise: `CentralGaussian`: the server, which sees every update, adds noise to the
        sum, so that whoever sees the result learns little of any single client.

    Raises:
      InputError: an option out of its range.
    """
    check_bounds("plain", clip, max_weight, noise)
    if noise is not None and noise.distributed:
        raise InputError(
            f"plain(noise={noise!r}): parts of noise protect a sum of which nobody sees "
            "the terms; choose secure_sum or spdz, or CentralGaussian."
        )
    return Plain(clip, max_weight, noise)


_NAMED: dict[str, Any] = {"plain": plain, "secure": secure_sum, "spdz": spdz}


def resolve(aggregate: Any) -> Any:
    """The method that `aggregate=` means.

    Raises:
      InputError: an unknown name, or an object without the methods of one.
    """
    if isinstance(aggregate, str):
        if aggregate not in _NAMED:
            raise InputError(
                f"aggregate={aggregate!r}: choose one of {sorted(_NAMED)} or pass a "
                "method such as privjax.secure_sum(...)."
            )
        return _NAMED[aggregate]()
    attributes = ("needs_key", "streams", "linear", "server_sees")
    wanted = ("combine", "prepare", "check", *attributes)
    missing = [name for name in wanted if not hasattr(aggregate, name)]
    if missing or isinstance(aggregate, type):
        raise InputError(
            f"aggregate={aggregate!r} is no aggregation method (it lacks {missing})."
        )
    return aggregate
