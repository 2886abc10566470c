"""A party that deviates: an online run in which one message or share is changed.

`Attack` says what is changed, as traced numbers, so that one compiled program serves
thousands of attacks. Places are numbered in the order of the program: every operand of
every opening (what a party sends), and every result of every dealt tuple (what it holds).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.core.interpret import run
from privjax.protocols.party import PARTY
from privjax.runtimes.combined import total
from privjax.runtimes.discharge import Online
from privjax.runtimes.material import offline

FLIP, REPLACE, SWAP, PAIR = 0, 1, 2, 3


class Attack(NamedTuple):
    """What party `party` changes at `place` in iteration `step` of the innermost loop.

    mode FLIP flips `bit` of `element`; REPLACE puts `words` (of another session's
    message) in its place; SWAP moves every element to the next one's place; PAIR flips
    `bit` of `element` and of the next one. `victim` is
    the one receiver who sees it, or -1 for all.
    """

    place: Any
    element: Any
    bit: Any
    step: Any
    party: Any
    victim: Any
    mode: Any
    words: Any


class Place(NamedTuple):
    """What can be changed: kind "open", "release" or "dealt", its domain, number of
    elements, bits per element, and iterations of the loop around."""

    kind: str
    domain: str
    size: int
    bits: int
    steps: int


# The longest message that can be replaced.
LONGEST = 256


class Adversary(Online):
    """The parties' part with one change; the dealer's part is honest."""

    def __init__(
        self,
        key: Any,
        parties: int,
        material: Any,
        attack: Attack,
        places: dict[Any, Any],
        step: Any,
    ) -> None:
        super().__init__(key, parties, material)
        self.attack, self.places_seen, self.step = attack, places, step
        self.length = 1
        self.said = jnp.zeros((LONGEST,), np.uint64)

    def thread(self) -> Any:
        return self.said

    def resume(self, thread: Any) -> None:
        self.said = thread

    def enter(self, part: int, index: Any = None, inputs: Any = None) -> Any:
        state = super().enter(part, index, inputs)
        return state, self.step if index is None else index

    def inside(self, state: Any) -> "Adversary":
        (key, material), step = state
        more = (self.attack, self.places_seen, step)
        child = Adversary(key, self.parties, material or {}, *more)
        child.length = int(self.eqn.params.get("length", self.length))
        return child

    def place(self, which: int, kind: str, domain: str, x: Any, bits: int) -> int:
        """The number of an operand or result of the current equation."""
        name = id(self.eqn), kind, which
        if name not in self.places_seen:
            place = Place(kind, domain, x.size, bits, self.length)
            self.places_seen[name] = len(self.places_seen), place
        return self.places_seen[name][0]

    def changed(self, x: Any, place: int) -> Any:
        a, flat = self.attack, x.reshape(-1)
        hit = (a.place == place) & (a.step == self.step)
        hit &= a.party == lax.axis_index(PARTY)
        flip = jnp.asarray(1, x.dtype) << a.bit.astype(x.dtype)
        flipped = jnp.where(jnp.arange(x.size) == a.element, flat ^ flip, flat)
        words = jnp.resize(a.words, (x.size,)).astype(x.dtype)
        two = (jnp.arange(x.size) - a.element) % x.size < 2
        choices = [flipped, words, jnp.roll(flat, 1), jnp.where(two, flat ^ flip, flat)]
        wrong = lax.select_n(jnp.clip(a.mode, 0, 3).astype(np.int32), *choices)
        own = jnp.resize(flat, (LONGEST,)).astype(np.uint64)
        self.said = jnp.where(hit, own, self.said)
        return jnp.where(hit, wrong, flat).reshape(x.shape)

    def opened(self, x: Any, domain: str, bits: int, which: int, release: bool) -> Any:
        kind = "release" if release and not domain.startswith("each") else "open"
        place = self.place(which, kind, domain, x, bits)
        honest, wrong = total(x, domain), total(self.changed(x, place), domain)
        victim = self.attack.victim
        return jnp.where(
            (victim < 0) | (victim == lax.axis_index(PARTY)), wrong, honest
        )

    def dealt(self, shares: Sequence[Any], fun: Any) -> list[Any]:
        out = super().dealt(shares, fun)
        return [
            self.changed(
                x, self.place(i, "dealt", domain, x, 8 * np.dtype(x.dtype).itemsize)
            )
            for i, (x, domain) in enumerate(zip(out, fun.results, strict=True))
        ]


def _open(
    cx: Adversary, *values: Any, domains: Any, bits: Any, release: bool, **_: Any
) -> list[Any]:
    return [
        cx.opened(x, d, b, i, release)
        for i, (x, d, b) in enumerate(zip(values, domains, bits, strict=False))
    ]


Adversary.rules = {**Online.rules, "open": _open}


def attacked(
    program: Any, parties: int, inputs: Sequence[Any]
) -> tuple[Callable[..., Any], list[Place]]:
    """(compiled `(key words, attack) -> outputs, one per party`, the places).

    `program` is a checked party program, whose last output says whether checks held; one
    more follows here, what the party had said at the attacked place.
    """
    seen: dict[Any, Any] = {}

    def fun(words: Any, attack: Attack) -> Any:
        seeds, sent = offline(program, parties)(words)

        def party(key: Any) -> list[Any]:
            cx = Adversary(key, parties, sent, attack, seen, jnp.uint32(0))
            return [*run(cx, program, inputs), cx.said]

        return jax.vmap(party, axis_name=PARTY, axis_size=parties)(seeds)

    with jax.enable_x64(True):
        words = jax.ShapeDtypeStruct((8,), np.uint32)
        number = jax.ShapeDtypeStruct((), np.int64)
        message = jax.ShapeDtypeStruct((LONGEST,), np.uint64)
        lowered = jax.jit(jax.vmap(fun)).lower(
            *jax.tree.map(
                lambda s: jax.ShapeDtypeStruct((LANES, *s.shape), s.dtype),
                (words, Attack(*[number] * 7, message)),
            )
        )
        compiled = lowered.compile()
    return compiled, [place for _, place in seen.values()]


# Attacks tried at once by one call of the compiled program.
LANES = 64


def attempts(compiled: Any, attacks: Sequence[Attack], seed: int) -> list[Any]:
    """Outputs for each attack, stacked, each with randomness of its own."""
    rng = np.random.default_rng(seed)
    rounds = math.ceil(len(attacks) / LANES)
    padded = [*attacks, *[attacks[-1]] * (rounds * LANES - len(attacks))]
    parts = []
    with jax.enable_x64(True):
        for i in range(rounds):
            lanes = padded[i * LANES : (i + 1) * LANES]
            columns = list(zip(*lanes, strict=True))
            numbers = [np.array(v, np.int64) for v in columns[:-1]]
            stacked = Attack(*numbers, np.array(columns[-1], np.uint64))
            words = rng.integers(0, 2**32, (LANES, 8), np.uint32)
            parts.append([np.asarray(x) for x in compiled(words, stacked)])
    return [np.concatenate(v)[: len(attacks)] for v in zip(*parts, strict=True)]
