"""Both parties of the preprocessing protocols, for the tests of this folder."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from privjax.preprocessing import curve
from privjax.preprocessing.exchange import run
from privjax.preprocessing.session import Session, Setup, open_session, setup

# The order of the base point of curve25519 (RFC 7748, section 4.1).
ORDER = 2**252 + 27742317777372353535851937790883648493
_numbers = iter(range(1, 2**32))


@functools.cache
def setups() -> tuple[Setup, Setup]:
    one, two, _ = run(setup(0, b"tests"), setup(1, b"tests"))
    return one, two


def sessions(number: int | None = None) -> list[Session]:
    number = next(_numbers) if number is None else number
    return [open_session(i, keys, number) for i, keys in enumerate(setups())]


def play(side: Callable, number: int | None = None) -> tuple:
    """Run `side(session)` for both parties: (party 0's, party 1's output, cost)."""
    return run(*(side(me) for me in sessions(number)))


def play_tampered(side: Callable, cheater: int, change: Callable) -> Session:
    """Run with `change(round, message)` applied to all that one party sends.

    Returns the honest party's session; errors of its side come through.
    """
    pair = sessions()
    sides = [side(me) for me in pair]
    with jax.enable_x64(True):
        messages = [next(s) for s in sides]
        for step in range(1000):
            said = jax.tree.map(jnp.asarray, messages[cheater])
            messages[cheater] = change(step, said)
            sent = list(messages)
            try:
                # The honest party first: what it says about this round is the result.
                for who in (1 - cheater, cheater):
                    messages[who] = sides[who].send(sent[1 - who])
            except StopIteration:
                return pair[1 - cheater]
    raise AssertionError("a protocol of a thousand rounds")


def join(a, b, kind: str = "sum") -> np.ndarray:
    a, b = np.asarray(a), np.asarray(b)
    return a + b if kind == "sum" else a ^ b


def uniform(*shape: int, dtype=np.uint64, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng([seed, *shape])
    return draw.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def limbs_to_int(x) -> list[int]:
    """uint64[n, limbs] -> Python integers."""
    rows = np.asarray(x).tolist()
    return [sum(limb << 64 * i for i, limb in enumerate(row)) for row in rows]


def int_to_limbs(values: list[int], limbs: int) -> np.ndarray:
    out = [[(v >> 64 * i) % 2**64 for i in range(limbs)] for v in values]
    return np.array(out, np.uint64)


def times(scalar: int, point: curve.Point) -> curve.Point:
    out = curve.NEUTRAL
    for bit in bin(scalar)[2:]:
        out = curve.add(out, out)
        if bit == "1":
            out = curve.add(out, point)
    return out
