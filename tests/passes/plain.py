"""Running a decomposed program as plain JAX, and looking for what should be gone."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun

from privjax.core import control
from privjax.core.interpret import run
from privjax.passes import simplify
from privjax.passes.decompose import RULES, decompose
from privjax.passes.taint import Tainted, TaintPass, raw

# Primitives that may stay where their indices, from this operand on, are public.
INDICES = {
    "gather": slice(1, None),
    "dynamic_slice": slice(1, None),
    "dynamic_update_slice": slice(2, None),
    "scatter": slice(1, 2),
    "scatter-add": slice(1, 2),
}


class Remaining(TaintPass):
    """Refuses what the shared pass would not find a rule for."""

    rules = control.RULES

    def default(self, values):
        name = self.eqn.primitive.name
        assert name not in RULES and name not in ("scatter-mul", "sort"), name
        if name in INDICES:
            index = values[INDICES[name]]
            assert not any(isinstance(v, Tainted) for v in index), name
        return super().default(values)


def decomposed(fun, *args, secret=None):
    """The jaxpr of `fun` after the pass; all arguments are secret by default."""
    flags = [True] * len(args) if secret is None else secret
    closed = simplify.inline(jax.make_jaxpr(lambda *a: jax.tree.leaves(fun(*a)))(*args))
    with jax.enable_x64(True):  # as the compiler does
        plain = simplify.dce(simplify.inline(decompose(closed, flags)))

        def check(*xs):
            values = [Tainted(x) if s else x for x, s in zip(xs, flags, strict=True)]
            return [raw(v) for v in run(Remaining(), plain, values)]

        jax.make_jaxpr(check)(*args)
    return plain


def agrees(fun, *args, secret=None, rtol=0.0):
    """The decomposed program computes what JAX does (0 where JAX has NaN)."""
    plain = decomposed(fun, *args, secret=secret)
    with jax.enable_x64(True):
        got = jax.jit(jaxpr_as_fun(plain))(*args)
    want = jax.tree.leaves(fun(*map(jnp.asarray, args)))
    for g, w in zip(got, want, strict=True):
        assert g.dtype == w.dtype and g.shape == w.shape
        g, w = (np.where(np.isnan(v), 0, v) for v in (g, w))
        np.testing.assert_allclose(g, w, rtol=rtol, atol=rtol)


def count(closed, *names):
    """How often primitives occur, at any depth."""
    return sum(e.primitive.name in names for e in equations(closed))


def equations(closed):
    """All equations, those of loop bodies once."""
    for eqn in getattr(closed, "jaxpr", closed).eqns:
        yield eqn
        for value in eqn.params.values():
            for item in value if isinstance(value, (tuple, list)) else (value,):
                if hasattr(item, "eqns") or hasattr(item, "jaxpr"):
                    yield from equations(item)
