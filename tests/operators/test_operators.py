"""The table of operators: every example right, the page up to date, refusals explained."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

import privjax
from privjax import operators
from privjax.core.interpret import mentions
from privjax.operators import table
from privjax.operators.names import GROUPS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "OPERATORS.md"
NAMES = [name for members in GROUPS.values() for name in members]
TOGETHER = {
    group: [name for name in members if name in operators.EXAMPLES]
    for group, members in GROUPS.items()
}


@pytest.mark.parametrize("name", operators.EXAMPLES)
def test_example_uses_its_primitive(name):
    example = operators.EXAMPLES[name]
    assert mentions(jax.make_jaxpr(example.fun)(*example.args), frozenset({name}))


@pytest.mark.parametrize("group", [g for g, names in TOGETHER.items() if names])
def test_examples_equal_jax(group):
    """All of a group in one program, with the numbers of every protocol."""
    names = TOGETHER[group]

    def everything(args):
        return {n: operators.EXAMPLES[n].fun(*args[n]) for n in names}

    args = {n: operators.EXAMPLES[n].args for n in names}
    got = privjax.secret_shared(everything, protocol="reference")(args)
    want = jax.jit(everything)(args)
    for name in names:
        tolerance = operators.EXAMPLES[name].tolerance
        for a, b in zip(*map(jax.tree.leaves, (got[name], want[name])), strict=True):
            assert a.shape == b.shape and a.dtype == b.dtype, name
            a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
            error = np.max(np.abs(a - b) / (1 + np.abs(b)), initial=0)
            assert error <= tolerance, (name, error)


def test_most_primitives_are_ruled():
    text = PAGE.read_text()
    ruled = len(NAMES) - text.count("| refused: ")
    assert text.startswith(f"# Operators\n\n{ruled} of JAX's {len(NAMES)} primitives")
    assert ruled >= 185


def test_most_functions_pass():
    """At least 90 % of the functions that plain JAX runs, and no crash."""
    found = json.loads((ROOT / "benchmarks" / "results" / "sweep.json").read_text())
    assert (found["passed"], found["ran"]) == table.SWEPT
    assert found["passed"] >= 0.9 * found["ran"]
    assert not [v for v in found["functions"].values() if v.startswith("crash")]


def test_the_page_is_current():
    """Errors, rounds and bytes of every primitive as measured now."""
    now, page = operators.page([]).splitlines(), PAGE.read_text().splitlines()
    assert now == page, f"run: privjax operators > {PAGE.name}"


@pytest.mark.parametrize(
    "fun, reason",
    [
        (lambda x: jnp_eig(x), "eigenvalues"),
        (lambda x: jax.random.uniform(jax.random.key(x.astype(np.int32)[0, 0])), "key"),
        (lambda x: jax.lax.bitcast_convert_type(x, np.int32), "IEEE"),
        (lambda x: (jax.debug.print("{}", x), x)[1], "to the host"),
    ],
)
def test_refusals_say_why_and_where(fun, reason):
    with pytest.raises(privjax.PrivacyError, match=reason) as found:
        privjax.secret_shared(fun, protocol="reference")(np.eye(2, dtype=np.float32))
    assert "test_operators.py" in str(found.value)


def jnp_eig(x):
    return jax.numpy.linalg.eigvals(x).real
