"""Numbers with MACs that are made of a party's own bits: proofs in both directions.

Party P has bits x_j, which an extension binds it to, and values v_n with MACs, which
only P knows; it says that v_n = sum_h w_nh x_nh mod 2^128. The other party V:

1. V chooses a key g mod 2^128 and, for each bit, sends H(K_j) - H(K_j + D) + g, where
   K_j, K_j + x_j D are the keys of bit j under its D, made for this proof alone. P now has
   p_j, V k_j with p_j + k_j = g x_j.
2. After a coin chi, P tells X = sum chi_n v_n + y and the same sum of its parts of
   alpha_V v_n, and commits to the same sum of p_j (y is random, made of 128 bits itself).
3. V shows D and g; P makes V's messages again and goes on only if they were these.
4. P opens its commitment. V checks X under g, which is about bits, and under alpha_V,
   which is about values.

A wrong v_n takes a guess of g or alpha_V times an error mod 2^128 that is not 0 (not 0
mod 2^64 before chi): 2^-64 65. X is masked by y; a V that sends anything else, or shows
another D, has to have guessed the 128 bits of y to pass step 3: it learns nothing. What
V does not send in step 4 it cannot make depend on P's bits. (The two checks are those of
subfield VOLE with one key each, over Z_2^k as in Baum et al., CRYPTO 2022.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax._typing import Array
from privjax.preprocessing import bitmatrix
from privjax.preprocessing.agree import sealed, toss
from privjax.preprocessing.authenticated import RING
from privjax.preprocessing.authenticated_bits import LONG
from privjax.preprocessing.exchange import Side
from privjax.preprocessing.extension import offer, pads, received_as, take
from privjax.preprocessing.host import host
from privjax.preprocessing.session import ROW_WORDS, Session, Setup
from privjax.prg.chacha20 import Purpose, bits

WIDTH = 128
_CHI = 10


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Parts:
    """Per value, uint64[n, 2] each: x this party's own number, own its part of the other's
    alpha x, held its part of alpha times the other's number."""

    x: Array
    own: Array
    held: Array


@jax.jit
def weighed(v: Array, shift: Array, least: Array, most: Array) -> Array:
    """sum over bits h in [least, most) of 2^(h - shift) v_h: [n, 128, 2] -> [n, 2]."""
    h = lax.iota(np.int32, WIDTH)[None]
    at = h - shift[:, None]
    on = (h >= least[:, None]) & (h < most[:, None])
    one = jnp.where(on, np.uint64(1), np.uint64(0)) << (at & 63).astype(np.uint64)
    zero = jnp.zeros_like(one)
    weights = jnp.stack(
        [jnp.where(at < 64, one, zero), jnp.where(at < 64, zero, one)], -1
    )
    return RING.sum(RING.mul(v, weights), 1)


@jax.jit
def _keyed(
    q: Array, d: Array, number: Array, call: Array, g: Array
) -> tuple[Array, Array]:
    """V's k_j and messages for rows q, uint32[m, 4]."""
    pair = tuple(pads(r, number, call, words=RING.words) for r in (q, q ^ d))
    values = jnp.broadcast_to(g, (q.shape[0], RING.limbs))
    return offer(pair, values, group=RING)


@jax.jit
def _again(t: Array, x: Array, d: Array, number: Array, call: Array, g: Array) -> Array:
    """The messages that an honest V sends for P's rows t."""
    q = t ^ x.astype(np.uint32)[:, None] * d
    return _keyed(q, d, number, call, g)[1]


@jax.jit
def _received(t: Array, x: Array, message: Array, number: Array, call: Array) -> Array:
    """P's p_j."""
    pad = pads(t, number, call, words=RING.words)
    return take(pad, x, message, group=RING, lead=x.shape)


@jax.jit
def _mixed(v: Array, coin: Array) -> Array:
    """sum chi_n v_n + v_last, chi_n in Z_2^64."""
    chi = bits(coin, (Purpose.RAW, _CHI, 0), (v.shape[0] - 1,), np.uint64)
    chi = jnp.concatenate([chi, jnp.ones((1,), np.uint64)])
    return RING.sum(RING.mul(v, chi[:, None]), 0)


@jax.jit
def _agree(x: Array, y: Array, total: Array, key: Array) -> Array:
    """x + y = key total."""
    return jnp.all(RING.add(x, y) == RING.mul(total, key))


def _of_numbers(v: Array, layout: "Layout") -> Array:
    """The values' sums of something per bit, uint64[bits, 2]."""
    split = WIDTH * layout.numbers
    rows = v[:split].reshape(-1, WIDTH, 2)
    whole = weighed(rows, *layout.whole())
    parts = weighed(rows[layout.of], *layout.parts())
    singles = v[split : split + layout.singles]
    last = v[split + layout.singles :].reshape(1, WIDTH, 2)
    mask = weighed(last, *Layout(1, 0, (), 0).whole())
    return jnp.concatenate([whole, parts, singles, mask])


@dataclass(frozen=True)
class Layout:
    """What is proven: `numbers` of 128 bits each; then `cut`, parts of them as (number,
    least bit, end); then `singles`, bits by themselves; then the mask y.

    Bits are in the order of numbers, singles, y.
    """

    numbers: int
    singles: int
    cut: tuple[tuple[int, int, int], ...]
    masks: int = 1

    @property
    def bits(self) -> int:
        return WIDTH * (self.numbers + self.masks) + self.singles

    @property
    def of(self) -> np.ndarray:
        return np.array([n for n, _, _ in self.cut], np.int32)

    def whole(self) -> tuple[np.ndarray, ...]:
        zero = np.zeros((self.numbers,), np.int32)
        return zero, zero, zero + np.int32(WIDTH)

    def parts(self) -> tuple[np.ndarray, ...]:
        least, end = (np.array([c[i] for c in self.cut], np.int32) for i in (1, 2))
        return least, least, end


_sums = partial(jax.jit, static_argnames="layout")(_of_numbers)


def parts_of(numbers: Array, layout: Layout) -> Array:
    """The values that `cut` names, of numbers uint64[n, 2]: uint64[cut, 2]."""
    if not layout.cut:
        return numbers[:0]
    return host(_parts(numbers[layout.of], *layout.parts()))


@jax.jit
def _parts(numbers: Array, shift: Array, least: Array, most: Array) -> Array:
    flat = bitmatrix.bits_of(numbers).reshape(-1, WIDTH)
    rows = jnp.stack([flat, jnp.zeros_like(flat)], -1).astype(np.uint64)
    return weighed(rows, shift, least, most)


def _several(message: Any, count: int) -> Sequence[Any]:
    """The parts of a message, if there are as many."""
    whole = isinstance(message, tuple) and len(message) == count
    return message if whole else (None,) * count


def prove(
    me: Session,
    keys: Setup,
    alpha: Array,
    x: Array,
    t: Array,
    q: Array,
    values: Parts,
    layout: Layout,
) -> Side[None]:
    """Prove `layout` of my bits, and check the other party's proof. Six rounds.

    Args:
      keys: base keys, those for this proof alone behind the first 192.
      x: my bits, uint8[bits]; t, q: uint32[bits, 10], rows of them.
      values: of numbers, cut, singles and y.

    Raises: MacCheckError if the other party was caught.
    """
    call = me.call()
    d = keys.delta[LONG:]
    g = me.draw((RING.limbs,), np.uint64)
    t, q = t[:, LONG:], q[:, LONG:]
    k, message = _keyed(q, d, me.number, call, g)
    received = yield message
    theirs = received_as(received, message.shape, np.uint64)
    p = _received(t, x, theirs, me.number, call)
    coin = yield from toss(me)
    told = [_mixed(v, coin) for v in (values.x, values.own)]
    proof = _mixed(_sums(p, layout=layout), coin)
    nonce = me.draw((8,), np.uint32)
    words = lax.bitcast_convert_type(proof, np.uint32).reshape(-1)
    received = yield (*told, sealed(me, me.index, call, words, nonce))
    form = _several(received, 3)
    total, part = (received_as(v, (2,), np.uint64) for v in form[:2])
    promise = received_as(form[2], (8,), np.uint32)
    received = yield (d, g)
    form = _several(received, 2)
    shown = received_as(form[0], (ROW_WORDS,), np.uint32)
    key = received_as(form[1], (RING.limbs,), np.uint64)
    same = jnp.all(_again(t, x, shown, me.number, call, key) == theirs)
    me.require(same, "the other party's part in a proof about bits")
    received = yield (proof, nonce)
    form = _several(received, 2)
    other = received_as(form[0], (2,), np.uint64)
    their_nonce = received_as(form[1], (8,), np.uint32)
    words = lax.bitcast_convert_type(other, np.uint32).reshape(-1)
    opened = sealed(me, 1 - me.index, call, words, their_nonce)
    me.require(jnp.all(opened == promise), "a proof about bits")
    kept = _mixed(_sums(k, layout=layout), coin)
    held = _mixed(values.held, coin)
    about_bits = _agree(other, kept, total, g)
    about_values = _agree(part, held, total, alpha)
    me.require(about_bits & about_values, "the proof about bits")
