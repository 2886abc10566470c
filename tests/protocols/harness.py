"""Run a party program on clear arrays: the three discharges, the parties under `vmap`.

A program is `program(*shares) -> list of opened or shared values`, written as what one
party does. Also counts rounds and bytes of what was traced.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax import _compat
from privjax.core import interpret, markers
from privjax.core.interpret import sub_jaxprs
from privjax.prg import chacha20
from privjax.prg.chacha20 import Purpose
from privjax.protocols.interface import Protocol
from privjax.protocols.party import PARTY
from privjax.protocols.wide import Wide
from privjax.runtimes.discharge import Offline, Online, Simulate, Unknown, receiver

ROOT_KEY = np.arange(8, dtype=np.uint32)
Program = Callable[..., Sequence[Any]]


def to_planes(x: Any) -> Any:
    """A clear array as the programs here take it: of 128 bits two planes behind."""
    if np.asarray(x).dtype.kind != "O":
        return x
    planes = [(x >> at) & (2**64 - 1) for at in (0, 64)]
    return np.stack(planes, -1).astype(np.uint64)


def from_planes(x: Any) -> np.ndarray:
    """The inverse: uint64[..., 2] -> Python integers."""
    low, high = np.moveaxis(np.asarray(x), -1, 0).astype(object)
    return high * 2**64 + low


def element(x: Any, bits: int) -> Any:
    """A program's argument as a ring array."""
    return Wide(x[..., 0], x[..., 1]) if bits == 128 else x


def array(x: Any) -> Any:
    """A ring array as a program's result."""
    return jnp.stack([x.lo, x.hi], -1) if isinstance(x, Wide) else x


def trace(program: Program, parties: int, args: Sequence[Any]) -> Any:
    """The closed jaxpr of one party's part."""
    return jax.make_jaxpr(program, axis_env=[(PARTY, parties)])(*args)


def party_keys(parties: int, root: Any = ROOT_KEY) -> Any:
    """One seed per party, as the dealer and the party know it."""
    return jnp.stack(
        [
            chacha20.derive(jnp.asarray(root), (int(Purpose.PARTY), i, 0))
            for i in range(parties)
        ]
    )


def per_party(fun: Callable[..., Any], keys: Any, *stacked: Any) -> Any:
    """`fun(key, ...)` at every party; arrays in `stacked` have a leading party axis."""
    return jax.vmap(fun, axis_name=PARTY)(keys, *stacked)


def simulate(
    closed: Any, parties: int, args: Sequence[Any], root: Any = ROOT_KEY
) -> Any:
    """All parties and the dealer at once; every result has a leading party axis."""

    @jax.jit
    def run(keys: Any, args: Any) -> Any:
        return per_party(
            lambda key: interpret.run(Simulate(key, parties), closed, args), keys
        )

    return run(party_keys(parties, root), list(args))


def _eager(closed: Any, keys: Any, args: Any) -> Any:
    return per_party(
        lambda key: interpret.run(Simulate(key, len(keys)), closed, args), keys
    )


def _vmap(closed: Any, keys: Any, args: Any) -> Any:
    lanes = len(args[0])
    lane_keys = jax.vmap(
        lambda lane: jax.vmap(lambda k: chacha20.derive(k, (3, lane, 0)))(keys)
    )(jnp.arange(lanes, dtype=np.uint32))
    out = jax.vmap(lambda k, a: _eager(closed, k, a))(lane_keys, args)
    return [jnp.moveaxis(x, 1, 0) for x in out]


MODES: dict[str, Callable[..., Any]] = {
    "eager": _eager,  # operation by operation
    "jit": jax.jit(_eager, static_argnums=0),
    "vmap": jax.jit(_vmap, static_argnums=0),  # arguments have an axis of lanes
    "scan": jax.jit(_eager, static_argnums=0),  # arguments have an axis of steps
}


def in_mode(program: Program, parties: int, mode: str, *args: Any) -> list[Any]:
    """The public results of a program in one of `MODES`; all parties must agree."""
    with jax.enable_x64(True):
        first = [x[0] for x in args] if mode in ("vmap", "scan") else args

        def steps(*xs: Any) -> Any:
            return lax.scan(lambda _, x: (None, list(program(*x))), None, xs)[1]

        if mode == "scan":
            closed = trace(steps, parties, args)
        else:
            closed = trace(program, parties, first)
        out = MODES[mode](closed, party_keys(parties), list(args))
        results = [np.asarray(x) for x in out]
    for x in results:
        for other in x[1:]:
            np.testing.assert_array_equal(other, x[0])
    return [x[0] for x in results]


def ahead(closed: Any, parties: int, root: Any = ROOT_KEY) -> Any:
    """The dealer's part: material with a leading party axis."""

    @jax.jit
    def deal(keys: Any) -> Any:
        def dealer(key: Any) -> Any:
            cx = Offline(key, parties)
            # The dealer has no arguments: what depends on them is unknown to it.
            interpret.run(cx, closed, [Unknown()] * len(closed.in_avals))
            return cx.gathered()

        return per_party(dealer, keys)

    return deal(party_keys(parties, root))


def online(
    closed: Any, parties: int, args: Sequence[Any], material: Any, root: Any = ROOT_KEY
) -> Any:
    """The parties' part, with material from `ahead`."""

    @jax.jit
    def run(keys: Any, material: Any, args: Any) -> Any:
        def party(key: Any, material: Any) -> Any:
            return interpret.run(Online(key, parties, material), closed, args)

        return per_party(party, keys, material)

    return run(party_keys(parties, root), material, list(args))


def opened(program: Program, parties: int, *args: Any) -> list[Any]:
    """Simulate a program whose results are public, and check that all parties agree."""
    return in_mode(program, parties, "jit", *args)


def on_shares(p: Protocol, body: Program, bits: int | None = None) -> Program:
    """A program that shares its arguments from P_0, runs `body`, opens what it returns.

    The ring is that of the arguments' words unless `bits` are given.
    """

    def program(*args: Any) -> list[Any]:
        k = 8 * np.dtype(args[0].dtype).itemsize if bits is None else bits
        q = p.begin(k)
        shares = [q.share_input(element(x, k), 0) for x in args]
        return [array(v) for v in q.open_arith(list(body(q, *shares)))]

    return program


def rounds(closed: Any) -> int:
    """Openings on the longest path of dependencies, loops taken once."""
    return max(_depths(_compat.open_jaxpr(closed)[0], {}), default=0)


def _depths(jaxpr: Any, known: dict[Any, int]) -> list[int]:
    depth = dict(known)

    def of(atom: Any) -> int:
        return 0 if isinstance(atom, _compat.Literal) else depth.get(atom, 0)

    for eqn in jaxpr.eqns:
        below = max((of(v) for v in eqn.invars), default=0)
        inner = 0
        for sub in sub_jaxprs(eqn):
            inner = max([inner, *_depths(_compat.open_jaxpr(sub)[0], {})])
        for v in eqn.outvars:
            depth[v] = below + inner + (eqn.primitive.name == "open")
    return [of(v) for v in jaxpr.outvars]


def traffic(closed: Any) -> tuple[float, int]:
    """(bytes that a party opens, bytes that the dealer sends), loops taken once."""
    sent, dealt = 0.0, 0
    for eqn in _compat.open_jaxpr(closed)[0].eqns:
        if eqn.primitive.name == "open":
            for v, bits in zip(eqn.outvars, eqn.params["bits"], strict=True):
                sent += v.aval.size * bits / 8
        if eqn.primitive.name == "dealt":
            dealt += sum(v.aval.size * v.aval.dtype.itemsize for v in eqn.outvars)
        for sub in sub_jaxprs(eqn):
            more = traffic(sub)
            sent, dealt = sent + more[0], dealt + more[1]
    return sent, dealt


# -- a simulation that remembers what every party sends, receives and draws ----------------

OWN = "own"  # not sent: what the party expands from its keys


@jax.tree_util.register_pytree_node_class
class Record:
    """One array of every party ([parties, ...]) and what becomes of it.

    `domain` says who gets it (`markers.links`), "to:P" that the dealer sends it to
    party P, OWN that the party has it from its keys. `label` is the outermost named
    function (`jax.jit`) that it belongs to.
    """

    def __init__(self, data: Any, domain: str, bits: int, label: str) -> None:
        self.data, self.domain, self.bits, self.label = data, domain, bits, label

    def tree_flatten(self) -> Any:
        return (self.data,), (self.domain, self.bits, self.label)

    @classmethod
    def tree_unflatten(cls, meta: Any, children: Any) -> "Record":
        return cls(children[0], *meta)

    def known_to(self, party: int) -> list[Any]:
        """What `party` learns by this: messages, and the value that they open."""
        if self.domain == OWN:
            return [self.data[party]]
        if self.domain.startswith("to:"):
            return [self.data[0]] if int(self.domain[3:]) == party else []
        links = markers.links(self.domain, len(self.data))
        sent = self.data[:, 0] if self.domain.endswith(":pairs") else self.data
        received = [sent[a] for a, b in links if b == party != a]
        kind = self.domain.removesuffix(":pairs")
        if kind == "sum":
            received.append(np.sum(sent, 0, dtype=sent.dtype))
        if kind == "xor":
            received.append(np.bitwise_xor.reduce(sent, 0))
        return received

    def sent_bits(self) -> int:
        """Bits that all parties together send."""
        planes = 2 if self.domain.endswith(":pairs") else 1
        size = math.prod(self.data.shape[1:]) // planes
        return size * self.bits * markers.messages(self.domain, len(self.data))


class Recorder(Simulate):
    """The simulation; `gathered` hands out the records of everything that moved."""

    def __init__(self, key: Any, parties: int) -> None:
        super().__init__(key, parties)
        self.records: list[Record] = []

    def inside(self, state: Any) -> "Recorder":
        return Recorder(state[0], self.parties)

    def gathered(self) -> Any:
        return self.records

    def deliver(self, part: int, gathered: Any) -> None:
        name = str(self.eqn.params.get("name", ""))
        for r in gathered:
            self.records.append(Record(r.data, r.domain, r.bits, name or r.label))

    def record(self, value: Any, domain: str, bits: int = 0) -> None:
        data = lax.all_gather(value, PARTY)
        self.records.append(Record(data, domain, bits, ""))

    def draw(self, *args: Any) -> Any:
        out = super().draw(*args)
        self.record(out, OWN)
        return out

    def pairwise(self, shape: Any, dtype: Any) -> Any:
        out = super().pairwise(shape, dtype)
        for x in out:
            self.record(x, OWN)
        return out

    def receive(self, sent: Any, domain: str, result: int) -> Any:
        self.record(sent, f"to:{receiver(domain, self.parties)}")
        return super().receive(sent, domain, result)


def _recorded_open(
    cx: Recorder, *values: Any, domains: Any, bits: Any, **_: Any
) -> list[Any]:
    shares = values[: len(domains)]
    for share, domain, width in zip(shares, domains, bits, strict=True):
        cx.record(share, domain, width)
    return [cx.exchanged(s, d) for s, d in zip(shares, domains, strict=True)]


Recorder.rules = Simulate.rules | {"open": _recorded_open}


def recorder(closed: Any, parties: int) -> Callable[..., Any]:
    """A function (root key, arguments with a leading party axis) -> records of the run."""

    def party(key: Any, *args: Any) -> Any:
        cx = Recorder(key, parties)
        interpret.run(cx, closed, args)
        return cx.records

    run = jax.vmap(party, axis_name=PARTY, out_axes=None)
    return lambda root, *stacked: run(party_keys(parties, root), *stacked)
