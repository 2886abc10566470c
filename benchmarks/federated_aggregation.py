"""Sums of 100 clients x 100,000 parameters: by whom, with how many dropped, at what cost.

Simulated: one process does the work of all clients and of the server. `exact` says that
the result is the plain sum of the survivors' quantised values, bit for bit. Bytes are what
one client sends in all steps, and what the server receives.
"""

import math
import time
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from privjax.aggregation import plain, secure_sum, spdz
from privjax.aggregation.quantised import quantised
from privjax.prg.keys import insecure_key, key_words

CLIENTS, SIZE = 100, 100_000
CLIP = 1.0
DROPPED = (0.0, 0.1, 0.3)


class Case(NamedTuple):
    name: str
    method: Any
    dropped: tuple[float, ...] = DROPPED


# With 16 neighbours and 30 of 100 dropped some client has fewer than 4 left in one round
# of a thousand; the default, one of a million, would need more neighbours.
RING: dict[str, Any] = {"bits": 32, "clip": CLIP}
CASES = (
    Case("plain", plain(), (0.0,)),
    Case("secure, full graph, all stay", secure_sum(**RING), (0.0,)),
    Case("secure, full graph", secure_sum(**RING, dropped=0.3)),
    Case(
        "secure, 16 neighbours",
        secure_sum(**RING, dropped=0.3, neighbours=16, correctness=10),
    ),
    Case(
        "secure, smallest graph for 2^-40",
        secure_sum(**RING, dropped=0.3, neighbours="auto"),
    ),
    Case(
        "secure, 16 neighbours, 16 bits rotated",
        secure_sum(
            16, clip=CLIP, rotate=True, dropped=0.3, neighbours=16, correctness=10
        ),
    ),
    Case("spdz, 3 parties, additive", spdz(3, protocol="semi2k", **RING)),
    Case("spdz, 3 parties, MACs", spdz(3, **RING), (0.0, 0.3)),
    Case("quantised to 4 bits, rotated", quantised(4), (0.0,)),
)


def updates() -> Any:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(CLIENTS, SIZE)).astype("f4")
    return jnp.asarray(x * (CLIP / np.linalg.norm(x, axis=1, keepdims=True)))


@partial(jax.jit, static_argnums=0)
def combine(method: Any, key: Any, x: Any, survivors: Any) -> Any:
    if not hasattr(method, "combine_survivors"):
        return method.combine(key, [x])[0]
    return method.combine_survivors(key, [x], survivors)[0]


def ring_sum(method: Any, x: Any, survivors: np.ndarray) -> np.ndarray | None:
    """The survivors' sum of rounded values in NumPy; None where values are not rounded to
    a grid that all have in common, or only after a rotation."""
    if not hasattr(method, "fraction") or method.rotate:
        return None
    f = method.fraction(CLIENTS, SIZE)
    whole = np.rint(np.asarray(x, "f8")[survivors] * 2.0**f)
    return (whole.sum(0) * 2.0**-f).astype("f4")


def fastest(run: Any) -> float:
    """Least seconds of a few runs; the first one compiles."""
    jax.block_until_ready(run())
    best, until = math.inf, time.perf_counter() + 6.0
    while best == math.inf or time.perf_counter() < until:
        start = time.perf_counter()
        jax.block_until_ready(run())
        best = min(best, time.perf_counter() - start)
    return best


def rows() -> list[dict[str, Any]]:
    x, key = updates(), key_words(insecure_key(0))
    clear = np.asarray(x, "f8")
    out = []
    for case in CASES:
        method = case.method
        for dropped in case.dropped:
            there = np.arange(CLIENTS) >= round(dropped * CLIENTS)
            run = partial(combine, method, key, x, jnp.asarray(there))
            got, want = np.asarray(run()), ring_sum(method, x, there)
            error = np.max(np.abs(got - clear[there].sum(0)))
            sent = method.bits_per_client(SIZE, CLIENTS)
            row = {
                "name": case.name,
                "dropped": int(CLIENTS - there.sum()),
                "s": fastest(run),
                "exact": "" if want is None else str(np.array_equal(got, want)),
                "largest error": float(error),
                "kB per client": sum(sent.values()) / 8e3,
                "of it updates": max(sent.values()) / 8e3,
                "MB received": sum(sent.values()) * there.sum() / 8e6,
            }
            if hasattr(method, "exposure"):
                r = method.round(CLIENTS)
                row |= {"neighbours": r.circle.degree, "threshold": r.threshold}
                row |= {"log2 exposure": bounded(method.exposure(CLIENTS))}
                row |= {"log2 failure": bounded(method.failure(CLIENTS))}
            out.append(row)
    return out


def bounded(log2: float) -> float | str:
    """JSON has no infinity."""
    return log2 if math.isfinite(log2) else "never"
