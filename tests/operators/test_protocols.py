"""The table of primitives x protocols x (eager, jit, vmap), against float64.

Primitives that a protocol never sees are taken apart first, by passes that do not know
it: `test_examples_equal_jax` runs all of them on `reference`, and here the rest runs on
every protocol, many rows to a program.

Functions are composed of kernels that the conformance suite finds equal on all protocols;
of each way to compose them one is run on every protocol, and all of them, eagerly too, in
a run with PRIVJAX_WHOLE_TABLE=1 (ten minutes or more).
"""

import os
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import protocol_rows as table
import pytest

import privjax
from privjax import operators
from privjax.core import control
from privjax.core.interpret import run
from privjax.operators.names import GROUPS
from privjax.passes.shared.interpreter import Shared
from privjax.passes.taint import Tainted, TaintPass, raw
from privjax.protocols.functions import BOUNDS

WHOLE = bool(os.environ.get("PRIVJAX_WHOLE_TABLE"))
PROGRAMS = {
    "local": (table.LOCAL, (table.X, table.INTS, table.T)),
    "products": (table.PRODUCTS, (table.X, table.Y, table.INTS)),
    "gates": (
        table.GATES,
        (table.X, table.Y, table.INTS, table.MORE, table.T, table.U),
    ),
    "functions": (
        table.FUNCTIONS if WHOLE else {n: table.FUNCTIONS[n] for n in table.WAYS},
        (table.P,),
    ),
}
PARTIES = {"reference": 2, "semi2k": 2, "spdz2k": 2, "replicated3": 3}

# Compiling is what costs here: a quarter of the time without these.
FAST: dict[str, Any] = {"xla_backend_optimization_level": 0}
if jax.__version_info__ < (0, 11):  # unknown to later ones
    FAST["xla_cpu_use_fusion_emitters"] = False


def check(rows: Any, got: Any, args: Any) -> None:
    def plain(*args: Any) -> Any:
        return {n: row(*args) for n, row in rows.items()}

    like = jax.eval_shape(plain, *args)
    with jax.enable_x64(True):
        wide = [np.asarray(a, np.float64) if a.dtype.kind == "f" else a for a in args]
        exact = jax.jit(plain)(*wide)
    fp = privjax.FixedPoint()
    for name in rows:
        for g, e, aval in zip(
            *map(jax.tree.leaves, (got[name], exact[name], like[name])), strict=True
        ):
            assert g.shape == aval.shape and g.dtype == aval.dtype, name
            g, e = np.asarray(g, np.float64), np.asarray(e, np.float64)
            if aval.dtype.kind != "f":
                allowed = np.zeros_like(e)
            elif name in BOUNDS:
                allowed = BOUNDS[name].allowed(fp, e)
            else:  # factors have 18 bits, and so has a constant's mantissa
                allowed = 2.0**-15 * (1 + np.abs(e))
            np.testing.assert_array_less(np.abs(g - e), allowed + 2.0**-36, name)


def shared(rows: Any, protocol: str) -> Any:
    def everything(*args: Any) -> Any:
        return {n: row(*args) for n, row in rows.items()}

    return privjax.secret_shared(
        everything, protocol=protocol, parties=PARTIES[protocol]
    )


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("protocol", PARTIES)
def test_jit_of_vmap(protocol: str, program: str) -> None:
    rows, args = PROGRAMS[program]
    if (protocol, program) == ("reference", "functions"):
        rows = table.FUNCTIONS
    if (protocol, program) == ("spdz2k", "functions") and not WHOLE:  # the slowest
        rows = {n: rows[n] for n in table.WAYS[:2]}
    fun = shared(rows, protocol)
    lanes = [np.stack([a, a[::-1]]) for a in args]
    keys = jax.random.split(privjax.random.key(), 2)
    mapped = jax.vmap(lambda key, *args: fun(*args, key=key))
    got = jax.jit(mapped, compiler_options=FAST)(keys, *lanes)
    for lane in range(2):
        mine = jax.tree.map(lambda v, lane=lane: v[lane], got)
        check(rows, mine, [a[lane] for a in lanes])


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("protocol", PARTIES if WHOLE else ["reference"])
def test_eager(protocol: str, program: str) -> None:
    rows, args = PROGRAMS[program]
    check(rows, shared(rows, protocol)(*args), args)


@pytest.mark.parametrize("protocol", PARTIES)
def test_eager_on_every_protocol(protocol: str) -> None:
    rows = {"mul": lambda x, y: x * y, "lt": lambda x, y: x < y}
    args = (table.X, table.Y)
    check(rows, shared(rows, protocol)(*args), args)


class Seen(TaintPass):
    """Which primitives have a secret operand."""

    rules = control.RULES

    def __init__(self) -> None:
        self.names: set[str] = set()

    def default(self, values: Any) -> list[Any]:
        self.names.add(self.eqn.primitive.name)
        return super().default(values)


@pytest.mark.parametrize("group", GROUPS)
def test_every_other_primitive_is_taken_apart(group: str) -> None:
    """No example of the page leaves more to a protocol than the rows above."""
    tried = {*table.LOCAL, *table.PRODUCTS, *table.GATES, *table.FUNCTIONS}
    assert tried <= set(Shared.rules) | {"name"}
    for name in GROUPS[group]:
        if name not in operators.EXAMPLES:
            continue
        example, seen = operators.EXAMPLES[name], Seen()
        fun = privjax.secret_shared(example.fun, protocol="reference")
        call = fun.call(example.args, {})
        program = fun.program(call)
        modes = [m != "public" for m in program.modes]
        plain = program.stages["simplified"]

        def walk(*xs: Any, plain: Any = plain, modes: Any = modes, seen: Any = seen):
            values = [Tainted(x) if s else x for x, s in zip(xs, modes, strict=True)]
            return [raw(v) for v in run(seen, plain, values)]

        with jax.enable_x64(True):
            jax.make_jaxpr(walk)(*map(_like, plain.in_avals))
        assert seen.names <= tried, (name, seen.names - tried)


def _like(aval: Any) -> Any:
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype)


# -- edges ---------------------------------------------------------------------------------

TOP = privjax.FixedPoint().max_value * (1 - 2.0**-18)
EDGES = np.array(
    [0.0, -0.0, 2.0**-18, -(2.0**-18), TOP, -TOP, 1.0, 1.0, -1.0], np.float32
)
SHAPES = {"empty": (0,), "scalar": (), "one": (1,), "odd": (3, 5), "no rows": (0, 3)}

ORDER = {
    "sort": jnp.sort,
    "argsort": jnp.argsort,
    "argmax": jnp.argmax,
    "argmin": jnp.argmin,
    "max": jnp.max,
    "cummax": partial(jax.lax.cummax, axis=0),
    "sign": jnp.sign,
    "abs": jnp.abs,
    "floor": jnp.floor,
    "round": jnp.round,
    "lt": lambda x: x < x[::-1],
    "eq": lambda x: x == 1.0,
    "relu": jax.nn.relu,
    "clip": lambda x: jnp.clip(x, -1.0, 2.0),
    "signbit": lambda x: jnp.signbit(x + 0.0),
    "sum": lambda x: x.sum(),
    "unique": lambda x: jnp.unique(x, size=9),
}


def test_edges() -> None:
    """Both zeros, the resolution, the largest magnitudes, and ties: exactly."""

    def everything(x: Any) -> Any:
        return {n: fun(x) for n, fun in ORDER.items()}

    got = privjax.secret_shared(everything, protocol="reference")(EDGES)
    want = jax.jit(everything)(np.where(EDGES == 0, 0.0, EDGES).astype(np.float32))
    for name in ORDER:
        for g, w in zip(*map(jax.tree.leaves, (got[name], want[name])), strict=True):
            np.testing.assert_array_equal(g, w, name)


ANY_SHAPE = {
    "add": lambda x: x + 1.0,
    "mul": lambda x: x * x,
    "relu": jax.nn.relu,
    "exp": jnp.exp,
    "sum": jnp.sum,
    "reshape": jnp.ravel,
    "concatenate": lambda x: jnp.concatenate([jnp.ravel(x), jnp.ravel(x)]),
    "where": lambda x: jnp.where(x > 0, x, 2.0),
    "convert": lambda x: x.astype(np.int32),
    "sort": lambda x: jnp.sort(jnp.ravel(x)),
    "cumsum": lambda x: jnp.cumsum(x),
    "prod": jnp.prod,
    "mean of rows": lambda x: jnp.atleast_2d(x) @ jnp.atleast_2d(x).T,
    "any": lambda x: jnp.any(x > 0.5),
    "top_k": lambda x: jax.lax.top_k(jnp.ravel(x), min(1, x.size)),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_shapes(shape: tuple[int, ...]) -> None:
    def everything(x: Any) -> Any:
        return {n: fun(x) for n, fun in ANY_SHAPE.items()}

    x = np.random.default_rng(2).uniform(-1.2, 1.2, shape).astype(np.float32)
    got = privjax.secret_shared(everything, protocol="reference")(x)
    want = jax.jit(everything)(x)
    for name in ANY_SHAPE:
        for g, w in zip(*map(jax.tree.leaves, (got[name], want[name])), strict=True):
            assert g.shape == w.shape and g.dtype == w.dtype, name
            np.testing.assert_allclose(g, w, rtol=2e-4, atol=2e-4, err_msg=name)
