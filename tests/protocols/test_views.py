"""What parties see does not depend on the secrets: statistics of recorded transcripts.

A run computes many lanes of the same secrets at once, each shared by summands of all
parties, and records what every party receives and what it has from its own keys. The
view of a coalition is compared under two sets of secrets with the same outputs:

- each word by itself: chi-square on its lowest and highest four bits;
- every two words: correlations of their lowest, second and highest bits;
- any number of words: linear relations over GF(2) of their lowest bits that hold in all
  lanes (there addition is XOR: a mask that the coalition knows, or one used twice, gives
  a relation that depends on the secret).

Keys and summands are fixed, so that the tests always see the same transcripts.
"""

from collections.abc import Callable
from functools import cache
from itertools import combinations
from typing import Any

import harness
import jax
import numpy as np
import pytest
from jax import lax
from scipy import stats

from privjax.core import markers
from privjax.protocols.semi2k import Semi2k
from privjax.protocols.shares import Arith
from privjax.protocols.table import PROTOCOLS
from privjax.protocols.tuples import MUL, Bilinear

LANES, WINDOW = 1 << 11, 1 << 9
# Two reals and two bits; sums and XORs, which are released, are alike.
SECRETS = ((3, 5, 0, 1), (-(1 << 40), (1 << 40) + 8, 1, 0))
# Some 10^6 statistics in all: of a sound protocol none is below, of a leak all are.
THRESHOLD = 1e-9
BATCHED = Bilinear(
    "dot_general", (("dimension_numbers", (((1,), (1,)), ((0,), (0,)))),)
)

KERNELS: dict[str, Callable[..., Any]] = {
    "share_input": lambda p, x, y, b, c: [x, b],
    "open_arith": lambda p, x, y, b, c: p.open_arith([p.add(x, y)]),
    "open_bits": lambda p, x, y, b, c: p.open_bits([p.xor(b, c)]),
    "product": lambda p, x, y, b, c: p.product(MUL, x, y),
    "dot_general": lambda p, x, y, b, c: p.product(
        BATCHED, *(v.moved(lambda w: w.reshape(-1, 2)) for v in (x, y))
    ),
    "square": lambda p, x, y, b, c: p.square(x),
    "one mask": lambda p, x, y, b, c: [p.product(MUL, x, y), p.square(x)],
    "truncate": lambda p, x, y, b, c: p.truncate(x, 9),
    "and_": lambda p, x, y, b, c: p.and_(b, c),
    "msb": lambda p, x, y, b, c: p.msb(x),
    "is_zero": lambda p, x, y, b, c: p.is_zero(x),
    "bits_of, prefix_or": lambda p, x, y, b, c: p.prefix_or(p.bits_of(x)),
    "to_arith": lambda p, x, y, b, c: p.to_arith(b, np.uint64),
    "bit_times": lambda p, x, y, b, c: p.bit_times(b, x),
}


def summands(value: int, parties: int, bit: bool, seed: int) -> np.ndarray:
    """[parties, lanes]: random words that add up to `value` (bits by XOR) in each lane."""
    rng = np.random.default_rng(seed)
    if bit:
        words = rng.integers(0, 2, (parties, LANES), np.uint8)
        words[-1] = np.bitwise_xor.reduce(words[:-1], 0) ^ np.uint8(value)
    else:
        words = rng.integers(0, 2**64, (parties, LANES), np.uint64)
        words[-1] = np.uint64(value % 2**64) - words[:-1].sum(0, dtype=np.uint64)
    return words


def shared(p: Any, words: Any) -> Any:
    """A secret of which every party holds a summand."""
    bit = words.dtype == np.uint8
    share, add = (p.share_bits, p.xor) if bit else (p.share_input, p.add)
    out = share(words[0], 0)
    for i in range(1, p.parties):
        out = add(out, share(words[i], i))
    return out


def transcripts(protocol: Any, kernels: dict[str, Callable[..., Any]]) -> list[Any]:
    """(summands, records) of one program with all kernels, for each of `SECRETS`."""

    def program(*words: Any) -> list[Any]:
        p = protocol.begin(64)
        secrets, out = [shared(p, w) for w in words], []
        for name, body in kernels.items():
            kernel = lambda *s, body=body: jax.tree.leaves(body(p, *s))  # noqa: E731
            kernel.__name__ = name
            out.append(jax.jit(kernel)(*secrets))
        return out

    n, found = protocol.parties, []
    words = [
        [summands(v, n, i > 1, 10 * k + i) for i, v in enumerate(values)]
        for k, values in enumerate(SECRETS)
    ]
    with jax.enable_x64(True):
        run = harness.recorder(harness.trace(program, n, words[0]), n)
        run = jax.jit(run)
        for k, own in enumerate(words):
            root = harness.ROOT_KEY + np.uint32(100 * k)
            stacked = [np.broadcast_to(w, (n, *w.shape)) for w in own]
            found.append((own, jax.device_get(run(root, *stacked))))
    return found


def view(coalition: Any, kernel: str, own: Any, records: Any) -> list[list[np.ndarray]]:
    """Everything that the coalition knows: arrays over lanes, only bits that are sent.

    In windows of a few hundred words of the kernel, each with all words of the inputs:
    among more words than lanes there are relations by chance.
    """
    inputs, rest = [w[i] for w in own for i in coalition], []
    for r in records:
        if r.label in ("", kernel):
            used = r.bits or 8 * r.data.dtype.itemsize
            mask = np.array((1 << used) - 1, r.data.dtype)
            for i in coalition:
                found = [np.asarray(x) & mask for x in r.known_to(i)]
                rows = [row for x in found for row in _lanes(x)]
                (rest if r.label else inputs).extend(rows)
    starts = range(0, max(1, len(rest) - WINDOW // 2), WINDOW // 2)
    windows = [[*inputs, *rest[i : i + WINDOW]] for i in starts]
    assert all(len(w) < LANES - 128 for w in windows)
    return windows


def _lanes(x: np.ndarray) -> np.ndarray:
    """An array's words, one row over the lanes each; what has no lanes is left out."""
    return x.reshape(-1, LANES) if x.size >= LANES else x.reshape(-1, x.size)[:0]


def bits_of_views(views: list[np.ndarray], at: Callable[[int], int]) -> np.ndarray:
    """uint8[items, lanes]: the bit at a position that depends on the word's width."""
    return np.stack(
        [((x >> x.dtype.type(at(8 * x.itemsize))) & 1).astype(np.uint8) for x in views]
    )


def by_itself(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    """The smallest p-value of chi-square tests on single words (two samples alike)."""
    smallest = 1.0
    for x, y in zip(a, b, strict=True):
        for shift in (0, 8 * x.itemsize - 4):
            m, n = (
                np.bincount((v >> v.dtype.type(shift)) & 15, minlength=16)
                for v in (x, y)
            )
            seen = m + n > 0
            statistic = ((m - n)[seen] ** 2 / (m + n)[seen]).sum()
            smallest = min(smallest, stats.chi2.sf(statistic, max(1, seen.sum() - 1)))
    return smallest


def two_by_two(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    """The smallest p-value of a difference in the correlation of two bits."""

    def agreement(views: list[np.ndarray]) -> np.ndarray:
        places = (lambda w: 0, lambda w: min(1, w - 1), lambda w: w - 1)
        bits = np.concatenate([bits_of_views(views, at) for at in places])
        signs = (1 - 2 * bits.astype(np.int8)).astype(np.float32)
        return signs @ signs.copy().T / LANES  # a copy: not BLAS's symmetric product

    z = np.abs(agreement(a) - agreement(b)) * np.sqrt(LANES / 2)
    return float(2 * stats.norm.sf(z.max()))


def relations(views: list[np.ndarray]) -> list[int]:
    """A canonical basis of the linear relations of lowest bits, and the constant 1."""
    bits = bits_of_views(views, lambda w: 0)
    bits = np.concatenate([np.ones((1, LANES), np.uint8), bits])
    rows = [int.from_bytes(np.packbits(b).tobytes(), "big") for b in bits]
    pivots: dict[int, tuple[int, int]] = {}
    found = []
    for i, row in enumerate(rows):
        combination = 1 << i
        while row and row.bit_length() in pivots:
            other, by = pivots[row.bit_length()]
            row, combination = row ^ other, combination ^ by
        if row:
            pivots[row.bit_length()] = row, combination
        else:
            found.append(combination)
    return found


def coalitions(protocol: Any) -> list[tuple[int, ...]]:
    """All that the protocol withstands: one party with an honest majority, else n - 1."""
    n = protocol.parties
    return list(combinations(range(n), 1 if protocol.name == "replicated3" else n - 1))


# With the fewest parties, and coalitions of two in one protocol.
PLACES = [
    *((name, p.min_parties) for name, p in PROTOCOLS.items() if name != "reference"),
    ("semi2k", 3),
]


@cache
def recorded(name: str, parties: int) -> list[Any]:
    return transcripts(PROTOCOLS[name](parties), KERNELS)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name,parties", PLACES)
def test_views_do_not_depend_on_secrets(name: str, parties: int, kernel: str) -> None:
    for coalition in coalitions(PROTOCOLS[name](parties)):
        views = [view(coalition, kernel, *t) for t in recorded(name, parties)]
        for a, b in zip(*views, strict=True):
            assert by_itself(a, b) > THRESHOLD, coalition
            assert two_by_two(a, b) > THRESHOLD, coalition
            assert relations(a) == relations(b), coalition


# -- the tests see leaks -----------------------------------------------------------------


def clear(p: Any, x: Arith, *_: Any) -> Any:
    """No mask."""
    return p.open_arith([x])


def known_mask(p: Any, x: Arith, *_: Any) -> Any:
    """A mask that P_0 has from its keys."""
    r = markers.uniform(x.shape, np.uint64, "sum")
    here = lax.broadcast(lax.axis_index("party") == 0, x.shape)
    masked = x.value + lax.select(here, r, lax.full_like(r, 0))
    return markers.open_values([masked], ("sum",), (64,))


def mask_used_twice(p: Any, x: Arith, y: Arith, *_: Any) -> Any:
    """x + r and x + y + r for a dealer's r."""
    r = markers.uniform(x.shape, np.uint64, "sum")
    return markers.open_values(
        [x.value + r, x.value + y.value + r], ("sum", "sum"), (64, 64)
    )


LEAKS = {"clear": clear, "known mask": known_mask, "mask used twice": mask_used_twice}


@cache
def leaking() -> list[Any]:
    return transcripts(Semi2k(2), LEAKS)


@pytest.mark.parametrize("leak", LEAKS)
def test_leaks_are_seen(leak: str) -> None:
    (a,), (b,) = (view((0,), leak, *t) for t in leaking())
    found = by_itself(a, b), two_by_two(a, b), relations(a) == relations(b)
    assert (found[0] < THRESHOLD) == (leak == "clear")
    assert found[1] < THRESHOLD
    assert not found[2]
    # Who lacks the mask sees nothing.
    if leak == "known mask":
        (a,), (b,) = (view((1,), leak, *t) for t in leaking())
        assert two_by_two(a, b) > THRESHOLD and relations(a) == relations(b)
