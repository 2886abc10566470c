"""Run a party program on clear arrays: the three discharges, the parties under `vmap`.

A program is `program(*shares) -> list of opened or shared values`, written as what one
party does. Also counts rounds and bytes of what was traced.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privjax import _compat
from privjax.core import interpret
from privjax.core.interpret import sub_jaxprs
from privjax.prg import chacha20
from privjax.prg.chacha20 import Purpose
from privjax.protocols.interface import Protocol
from privjax.runtimes.discharge import PARTY, Offline, Online, Simulate, Unknown

ROOT_KEY = np.arange(8, dtype=np.uint32)
Program = Callable[..., Sequence[Any]]


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
    with jax.enable_x64(True):
        closed = trace(program, parties, args)
        results = [np.asarray(x) for x in simulate(closed, parties, args)]
    for x in results:
        for other in x[1:]:
            np.testing.assert_array_equal(other, x[0])
    return [x[0] for x in results]


def on_shares(p: Protocol, body: Program) -> Program:
    """A program that shares its arguments from P_0, runs `body`, opens its ring results."""

    def program(*args: Any) -> list[Any]:
        return p.open_arith(list(body(*(p.share_input(x, 0) for x in args))))

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
            for v, bits in zip(eqn.invars, eqn.params["bits"], strict=True):
                sent += v.aval.size * bits / 8
        if eqn.primitive.name == "dealt":
            dealt += sum(v.aval.size * v.aval.dtype.itemsize for v in eqn.outvars)
        for sub in sub_jaxprs(eqn):
            more = traffic(sub)
            sent, dealt = sent + more[0], dealt + more[1]
    return sent, dealt
