"""Oblivious-transfer extension: from 128 base transfers to as many as are wanted.

Ishai, Kilian, Nissim and Petrank (CRYPTO 2003). The party that chooses (R) holds both
base keys of each column, the other one (S) key number Delta_c of column c:

    1. R: t_c = G(k_c^0); sends u_c = G(k_c^0) + G(k_c^1) + x for its choice bits x.
    2. S: q_c = G(k_c^(Delta_c)) + Delta_c u_c, so that in rows q_j = t_j + x_j Delta.
    3. S has the pads H(j, q_j) and H(j, q_j + Delta), R the one of them that is
       H(j, t_j).

G is ChaCha20, H is BLAKE2s with the session, the call and j in front, as a random
oracle (for semi-honest parties correlation robustness of H is enough). Sixteen bytes
from R to S per transfer. With `active` the columns pass the check of `consistency`
before any pad is used, against a cheating R; a cheating S has no message to deviate in.

Both directions run at once. Here a party's own choices are `bits`; what it offers to
the other party's choices is `values`. Either may be absent.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax._typing import Array
from privjax.errors import ProtocolError
from privjax.preprocessing import bitmatrix, consistency
from privjax.preprocessing.bitmatrix import bucket
from privjax.preprocessing.exchange import Message, Side
from privjax.preprocessing.groups import Group
from privjax.preprocessing.host import concatenate, host, padded, stack
from privjax.preprocessing.session import ROW_WORDS, Session, Setup, expand
from privjax.prg.blake2s import blake2s
from privjax.prg.chacha20 import Purpose, keystream

_HASH = 0x5041442F  # domain of the pads: nothing else hashes rows
# Rows hashed at a time on the way to the pads; their state stays in the cache.
_CHUNK = 256
_MASK_WORDS = consistency.BLOCK // 32


def _widen(x: Array, to: int) -> Array:
    """Zeros behind the last axis."""
    return padded(x.T, to).T


@jax.jit
def _choose(pairs: Array, call: Array, choices: Array) -> tuple[Array, Array]:
    """R: columns t uint32[c, w] and the message u of the same shape."""
    streams = expand(pairs, call, choices.shape[0])
    return streams[:, 0], streams[:, 0] ^ streams[:, 1] ^ choices


@jax.jit
def _follow(chosen: Array, delta: Array, call: Array, u: Array) -> Array:
    """S: columns q uint32[c, w]."""
    bits = bitmatrix.unpack(delta, u.shape[0]).astype(np.uint32)
    return expand(chosen, call, u.shape[1]) ^ (u * bits[:, None])


_rows = jax.jit(bitmatrix.rows)
_pack = jax.jit(bitmatrix.pack)


def received_as(message: Message, shape: tuple[int, ...], dtype: Any) -> Array:
    """What the other party sent, if it has the form that the protocol asks for."""
    array = jnp.asarray(message) if message is not None else None
    if array is None or array.shape != shape or array.dtype != np.dtype(dtype):
        raise ProtocolError(f"a message of another form than {dtype}{shape} came in.")
    return array


def extend(
    me: Session,
    mine: Array | None,
    theirs: int,
    *,
    active: bool,
    keys: Setup | None = None,
) -> Side[tuple[Array | None, Array | None]]:
    """The columns of both directions. One round, with `active` three.

    Args:
      mine: bool or uint8[m], my choices, or None.
      theirs: how many choices the other party has; 0 for none.
      keys: the base keys; None: the session's 128. There may be more of them.

    Returns: my rows as R, uint32[>= m, 4], and my rows as S, uint32[>= theirs, 4]; None
    where a direction is empty. Rows beyond the last choice are of no use. Four words are
    those of 128 base keys.

    Raises: MacCheckError if the other party's columns are inconsistent.
    """
    call = me.call()
    keys = me.keys if keys is None else keys
    t = u = words = q = None

    def width(choices: int) -> int:
        """Words per column: whole blocks of the check, and its mask behind them."""
        least = bitmatrix.words_for(choices)
        return least + least % 2 + _MASK_WORDS if active else least

    if mine is not None:
        have, want = bitmatrix.words_for(mine.shape[0]), width(mine.shape[0])
        # Choices that nobody asked for, the mask among them, are random.
        fill = me.draw((want - have,), np.uint32)
        words = concatenate(host([_pack(mine), fill]))
        t, u = host(_choose(keys.pairs, call, _widen(words, bucket(want))))
        u = u[:, :want]
    received = yield u
    if theirs:
        want = width(theirs)
        other = received_as(received, (keys.pairs.shape[0], want), np.uint32)
        wide = _widen(host(other), bucket(want))
        q = host(_follow(keys.chosen, keys.delta, call, wide))
    if active:
        claims = None if t is None or words is None else (t[:, : words.shape[0]], words)
        theirs_q = None if q is None else q[:, : width(theirs)]
        yield from _consistent(me, keys, claims, theirs_q)
    return None if t is None else _rows(t), None if q is None else _rows(q)


def _hash(columns: Array, coin: Array) -> Array:
    body, mask = columns[:, :-_MASK_WORDS], columns[:, -_MASK_WORDS:]
    return consistency.universal_hash(_widen(body, bucket(body.shape[1])), mask, coin)


@jax.jit
def _agree(hashes: Array, claim: Array, delta: Array) -> Array:
    bits = bitmatrix.unpack(delta, claim.shape[0] - 1).astype(np.uint64)
    return jnp.all(hashes[:-1] == claim[:-1] ^ (bits * claim[-1]))


def _consistent(
    me: Session, keys: Setup, claims: tuple[Array, Array] | None, q: Array | None
) -> Side[None]:
    """The check of both directions: coins, then claims. Two rounds."""
    coin = me.draw((8,), np.uint32) if q is not None else None
    theirs = yield coin
    claim = None
    if claims is not None:
        theirs = received_as(theirs, (8,), np.uint32)
        claim = _hash(concatenate([claims[0], claims[1][None]]), theirs)
    theirs = yield claim
    if q is not None and coin is not None:
        theirs = received_as(theirs, (q.shape[0] + 1,), np.uint64)
        # A row of zeros, so that both directions are compiled once.
        hashes = _hash(padded(q, q.shape[0] + 1), coin)
        passed = _agree(hashes, theirs, keys.delta)
        me.require(passed, "the consistency check of oblivious transfers")


# -- pads ------------------------------------------------------------------------------


@partial(jax.jit, static_argnames="words")
def pads(rows: Array, number: Array, call: Array, *, words: int) -> Array:
    """H(session, call, j, row j) for every row, uint32[m, words].

    Up to eight words are a digest; more are the keystream of the digest as a key.
    """
    m = rows.shape[0]
    chunk = min(m, _CHUNK)
    steps = -(-m // chunk)
    padded = jnp.pad(rows, ((0, steps * chunk - m), (0, 0)))
    index = lax.iota(np.uint32, steps * chunk)
    head = jnp.stack([jnp.uint32(_HASH), jnp.uint32(words), number, call])
    tweak = jnp.broadcast_to(head, (chunk, 4))

    def piece(part: tuple[Array, Array]) -> Array:
        some, j = part
        message = jnp.concatenate([tweak, j[:, None], some], axis=1)
        digest = blake2s(message, digest_words=min(words, 8))
        if words <= 8:
            return digest
        nonce = (Purpose.RAW, 0, 0)
        return jax.vmap(lambda key: keystream(key, nonce, words))(digest)

    parts = (padded.reshape(steps, chunk, ROW_WORDS), index.reshape(steps, chunk))
    return lax.map(piece, parts).reshape(steps * chunk, words)[:m]


def both_pads(me: Session, rows: Array, call: Array, words: int) -> tuple[Array, Array]:
    """S: the pads of choice 0 and of choice 1, uint32[rows, words] each."""
    pair = (rows, rows ^ me.keys.delta)
    zero, one = (pads(r, me.number, call, words=words) for r in pair)
    return zero, one


# -- correlated transfers --------------------------------------------------------------


def _elements(group: Group, own: Array, lead: tuple[int, ...]) -> Array:
    return group.from_words(own[: lead[0]].reshape(*lead, group.words))


def _width(group: Group, shape: tuple[int, ...]) -> int:
    """Words of pad per transfer for values of this shape (limbs not included)."""
    return group.words * int(np.prod(shape[1:], dtype=np.int64))


@partial(jax.jit, static_argnames="group")
def offer(
    both: tuple[Array, Array], values: Array, *, group: Group
) -> tuple[Array, Array]:
    """S: its shares, and the corrections pad0 - pad1 + value."""
    lead = values.shape[: values.ndim - bool(group.limbs)]
    zero, one = (_elements(group, pad, lead) for pad in both)
    message = group.pack(group.add(group.sub(zero, one), values))
    return group.sub(jnp.zeros_like(zero), zero), message


@partial(jax.jit, static_argnames=("group", "lead"))
def take(
    own: Array, bits: Array, message: Array, *, group: Group, lead: tuple[int, ...]
) -> Array:
    """R: its shares pad + bit * correction."""
    pad = _elements(group, own, lead)
    limbs = (group.limbs,) if group.limbs else ()
    corrections = group.unpack(message, (*lead, *limbs))
    bit = bits.reshape(-1, *(1 for _ in lead[1:])).astype(np.uint8)
    return group.add(pad, group.select(bit, corrections))


def _form(group: Group, lead: tuple[int, ...]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of the corrections for values of shape `lead`."""
    if group.words == 1 and group.dtype == np.uint8:
        return (bitmatrix.words_for(int(np.prod(lead))),), np.dtype(np.uint32)
    return (*lead, *((group.limbs,) if group.limbs else ())), group.dtype


def correlated(
    me: Session,
    group: Group,
    bits: Array | None,
    values: Array | None,
    expect: tuple[int, ...] | None,
    *,
    active: bool = False,
) -> Side[tuple[Array | None, Array | None]]:
    """Shares of (bit of one party) x (value of the other), both ways at once.

    Two rounds, with `active` four. Per transfer 16 bytes from the chooser and the
    packed value from the other party. A cheating party may use values of its own
    choice for every transfer: what is built on this has to check them.

    Args:
      group: in which the shares add up.
      bits: bool or uint8[m], my choices, or None.
      values: elements [m', ...] of `group`, one row for every choice of the other
        party, or None. The same row may repeat.
      expect: the shape of the other party's values, limbs not counted; its first axis
        is m. None with `bits`.

    Returns: my shares of my bits times its values, of shape `expect`, and my shares of
    its bits times my values, of the values' shape.
    """
    theirs = 0 if values is None else values.shape[0]
    rows, offered = yield from extend(me, bits, theirs, active=active)
    call = me.call()
    mine = message = None
    if values is not None and offered is not None:
        lead = values.shape[: values.ndim - bool(group.limbs)]
        two = both_pads(me, offered, call, _width(group, lead))
        mine, message = offer(two, values, group=group)
    received = yield message
    other = None
    if bits is not None and rows is not None and expect is not None:
        received = received_as(received, *_form(group, expect))
        pad = pads(rows, me.number, call, words=_width(group, expect))
        other = take(pad, bits, received, group=group, lead=expect)
    return other, mine


def random_transfers(
    me: Session, bits: Array, words: int, *, active: bool = False
) -> Side[tuple[Array, Array]]:
    """Random transfers both ways: m pads chosen by me, m pairs to choose from.

    One round, with `active` three; no corrections travel.

    Returns: uint32[m, words], the pads that I chose, and uint32[2, m, words], the pads
    between which the other party chose.
    """
    count = bits.shape[0]
    rows, offered = yield from extend(me, bits, count, active=active)
    call = me.call()
    assert rows is not None and offered is not None
    chosen = host(pads(rows, me.number, call, words=words))[:count]
    zero, one = host(both_pads(me, offered, call, words))
    return chosen, stack([zero[:count], one[:count]])
