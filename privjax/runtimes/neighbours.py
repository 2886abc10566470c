"""Keys that a party has in common with its neighbours, and messages between parties.

A protocol without a dealer expands its randomness from keys that two parties share
(Araki et al. 2016, section 3.4). Party i draws its key from its own seed and tells it to
the party before it: one message of 256 bits, sent before a program's first round. Scopes
derive all of a party's keys alike, so that two parties stay in step.

A party's keys are uint32[8] (its own), or uint32[n, 8]: its own, the one in common with
the party before it and, in a real run, the one in common with the next.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from privjax.prg import chacha20
from privjax.prg.chacha20 import Purpose
from privjax.protocols.party import PARTY

PAIRWISE = frozenset({"pairwise"})
Links = Sequence[tuple[int, int]]


def own(keys: Any) -> Any:
    """The key that no other party has."""
    return keys if keys.ndim == 1 else keys[0]


def agreed(key: Any) -> Any:
    """The key that the party with the seed `key` shares with the one before it."""
    return chacha20.derive(key, (int(Purpose.PAIR), 0, 0))


def derive(keys: Any, nonce: Any) -> Any:
    """Child keys of all of a party's keys."""
    if keys.ndim == 1:
        return chacha20.derive(keys, nonce)
    return jax.vmap(lambda key: chacha20.derive(key, nonce))(keys)


def backward(parties: int) -> list[tuple[int, int]]:
    """The links by which every party learns something of the next one."""
    return [((i + 1) % parties, i) for i in range(parties)]


def looked_up(x: Any, links: Links) -> Any:
    """What each party is sent, where one process holds the values of all of them.

    A contraction with a matrix of zeros and ones. XLA fuses any choice between arrays
    with what is done to the result, and then computes the values of earlier rounds anew
    in every later one (15 times as slow for a comparison); it does not do so here.
    """
    everybody, here = lax.all_gather(x, PARTY), lax.axis_index(PARTY)
    chosen = [
        sum(((here == b) for a, b in links if a == i), jnp.bool_(False))
        for i in range(everybody.shape[0])
    ]
    flat = everybody.reshape(len(chosen), -1)
    out = lax.dot_general(
        jnp.stack(chosen).astype(x.dtype),
        flat,
        (((0,), (0,)), ((), ())),
        preferred_element_type=x.dtype,
    )
    return out.reshape(x.shape)


def passed(x: Any, links: Links) -> Any:
    """What each party is sent, by messages between processes; zeros for nothing.

    JAX wants a permutation of all parties: one that has nothing to say sends zeros.
    """
    parties = lax.axis_size(PARTY)
    if all(a == b for a, b in links):
        return x
    senders, receivers = zip(*links, strict=True)
    idle, others = set(range(parties)) - {*senders}, set(range(parties)) - {*receivers}
    itself = [(i, i) for i in idle & others]
    rest = zip(sorted(idle - others), sorted(others - idle), strict=True)
    here = lax.axis_index(PARTY)
    speaks = jnp.isin(here, jnp.array(senders))
    said = lax.select(lax.broadcast(speaks, x.shape), x, jnp.zeros_like(x))
    return lax.ppermute(said, PARTY, [*links, *itself, *rest])
