"""Control flow, written once for all passes.

Every higher-order primitive is re-entered through JAX's public combinator with a function
that interprets its sub-jaxpr; nothing is re-bound from parameters. Where values carry
static knowledge, the carries of a loop and the results of branches are first brought to
a common form: bodies are traced abstractly until that form is stable, at most once per
carry plus one.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from privjax import _compat
from privjax.core.interpret import Interpreter, Rule, run
from privjax.errors import UnsupportedError


def scan(cx: Interpreter, *values: Any, **params: Any) -> list[Any]:
    """`scan`: the body under `lax.scan`, carries in their common form."""
    n_consts, n_carry = _compat.scan_arity(params, len(values))
    length, jaxpr = params["length"], params["jaxpr"]
    arrays = _arrays(cx, values)
    consts, init = arrays[:n_consts], arrays[n_consts : n_consts + n_carry]
    steps = jnp.arange(length, dtype=jnp.uint32) if cx.needs_index else None
    xs = (steps, cx.sub_inputs(), arrays[n_consts + n_carry :])

    def body(carry: Any, x: Any) -> Any:
        index, inputs, x = x
        child, carry = _child(cx, cx.enter(0, index, inputs), carry)
        out = run(child, jaxpr, [*_renew(consts), *carry, *x])
        return (child.thread(), out[:n_carry]), (out[n_carry:], child.gathered())

    thread = cx.thread()
    first = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), xs)
    init = stable(cx, init, lambda c: jax.eval_shape(body, (thread, c), first)[0][1])

    def stable_body(carry: Any, x: Any) -> Any:
        (after, out), y = body(carry, x)
        return (after, _coerce_all(cx, out, carry[1])), y

    (thread, carry), (ys, gathered) = lax.scan(
        stable_body,
        (thread, init),
        xs,
        length=length,
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    cx.resume(thread)
    cx.deliver(0, gathered)
    return [*carry, *ys]


def while_loop(cx: Interpreter, *values: Any, **params: Any) -> list[Any]:
    """`while`: predicate and body under `lax.while_loop`, with a counter if needed.

    Where a thread runs through the program, it runs through the predicate too. A loop's
    test cannot hand it on, so that the predicate is then found at the end of the body.
    """
    nc, nb = params["cond_nconsts"], params["body_nconsts"]
    arrays = _arrays(cx, values)
    cond_consts, body_consts = arrays[:nc], arrays[nc : nc + nb]

    def test(carry: Any) -> tuple[Any, Any]:
        """(the thread afterwards, whether to go on)"""
        index, threaded = carry
        child, state = _child(cx, cx.enter(0, index), threaded)
        out = run(child, params["cond_jaxpr"], [*_renew(cond_consts), *state])
        return child.thread(), cx.predicate(out[0])

    def body(carry: Any) -> Any:
        index, state = carry
        child, state = _child(cx, cx.enter(1, index), state)
        out = run(child, params["body_jaxpr"], [*_renew(body_consts), *state])
        after = None if index is None else index + jnp.uint32(1)
        return after, (child.thread(), out)

    zero, thread = jnp.uint32(0) if cx.needs_index else None, cx.thread()
    init = stable(
        cx, arrays[nc + nb :], lambda c: jax.eval_shape(body, (zero, (thread, c)))[1][1]
    )

    def stable_body(carry: Any) -> Any:
        index, (after, out) = body(carry)
        return index, (after, _coerce_all(cx, out, carry[1][1]))

    first = zero, (thread, init)
    if thread is None:
        return lax.while_loop(lambda c: test(c)[1], stable_body, first)[1][1]

    def tested(carry: Any) -> Any:
        index, (_, state) = carry
        thread, more = test(carry)
        return (index, (thread, state)), more

    (_, (thread, out)), _ = lax.while_loop(
        lambda c: c[1], lambda c: tested(stable_body(c[0])), tested(first)
    )
    cx.resume(thread)
    return out


def cond(cx: Interpreter, index: Any, *operands: Any, **params: Any) -> list[Any]:
    """`cond`: the branches under `lax.switch`, results in their common form."""
    inputs, arrays = cx.sub_inputs(), _arrays(cx, operands)
    index = cx.predicate(index)

    def branch(part: int) -> Callable[..., Any]:
        def body(thread: Any, *ops: Any) -> Any:
            own = None if inputs is None else inputs[part]
            child, ops = _child(cx, cx.enter(part, inputs=own), (thread, ops))
            out = run(child, params["branches"][part], _renew(ops))
            return child.thread(), out

        return body

    bodies, thread = [branch(i) for i in range(len(params["branches"]))], cx.thread()
    if not cx.tagged:
        thread, out = _switch(index, bodies, thread, *arrays)
        cx.resume(thread)
        return out
    results = [jax.eval_shape(body, thread, *arrays)[1] for body in bodies]
    common = results[0]
    for other in results[1:]:
        common = [_join(cx, a, b) for a, b in zip(common, other, strict=True)]

    def coerced(body: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*ops: Any) -> Any:
            after, out = body(*ops)
            return after, _coerce_all(cx, out, common)

        return wrapped

    thread, out = _switch(index, [coerced(b) for b in bodies], thread, *arrays)
    cx.resume(thread)
    return out


def _switch(index: Any, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
    """`lax.switch`, without its two comparisons where `index` is a predicate."""
    if len(branches) == 2:
        return lax.cond(
            lax.convert_element_type(index, bool), *branches[::-1], *operands
        )
    return lax.switch(index, branches, *operands)


# Where calls keep their jaxpr.
_BODIES = ("call_jaxpr", "jaxpr", "call", "callee", "fwd_jaxpr")


def inline(cx: Interpreter, *values: Any, **params: Any) -> list[Any]:
    """A call whose body is interpreted in place (custom derivative rules are over).

    So are primitives that stand for a program in others, and hold no jaxpr of it.
    """
    if cx.eqn.primitive.name in _compat.UNFOLDED:
        body = _compat.unfolded(cx.eqn)
    else:
        body = next(params[name] for name in _BODIES if name in params)
    child, values = _child(
        cx, cx.enter(0, inputs=cx.sub_inputs()), (cx.thread(), values)
    )
    out = run(child, body, values)
    cx.resume(child.thread())
    cx.deliver(0, child.gathered())
    return out if cx.eqn.primitive.multiple_results else out[0]


def linear_solve(cx: Interpreter, *values: Any, **params: Any) -> list[Any]:
    """`custom_linear_solve`: its solver, in place (it was transposed before)."""
    lengths, jaxprs = params["const_lengths"], params["jaxprs"]
    start = lengths.matvec + lengths.vecmat
    rhs = start + lengths.solve + lengths.transpose_solve
    operands = [*values[start : start + lengths.solve], *values[rhs:]]
    return inline(cx, *operands, jaxpr=jaxprs.solve)


def jit(cx: Interpreter, *values: Any, **params: Any) -> list[Any]:
    """`jit`: the body stays a function of its own."""
    body = _called(cx, params["jaxpr"])
    body.__name__ = params["name"]
    return _call(cx, jax.jit(body), values)


def remat(cx: Interpreter, *values: Any, **params: Any) -> list[Any]:
    """`checkpoint`: recomputation is kept."""
    wrapped = jax.checkpoint(
        _called(cx, params["jaxpr"]),
        prevent_cse=params["prevent_cse"],
        policy=params["policy"],
    )
    return _call(cx, wrapped, values)


def shard_map(cx: Interpreter, *values: Any, **params: Any) -> list[Any]:
    """`shard_map`: the body on each shard; every leaf of a value has its spec."""
    arrays = _arrays(cx, values)
    specs = [
        jax.tree.map(lambda _, s=s: s, v)
        for v, s in zip(arrays, params["in_specs"], strict=True)
    ]

    def body(*vals: Any) -> Any:
        return run(cx.inside(cx.enter(0)), params["jaxpr"], vals)

    return jax.shard_map(
        body,
        mesh=params["mesh"],
        in_specs=tuple(specs),
        out_specs=list(params["out_specs"]),
        check_vma=params["check_vma"],
        axis_names=params["newly_manual_axes"],
    )(*arrays)


RULES: dict[str, Rule] = {
    "scan": scan,
    "while": while_loop,
    "cond": cond,
    "jit": jit,
    "pjit": jit,
    "remat2": remat,
    "checkpoint": remat,
    "custom_jvp_call": inline,
    "custom_vjp_call": inline,
    "custom_vmap_call": inline,
    "custom_lin": inline,
    "closed_call": inline,
    "core_call": inline,
    "composite": inline,
    "eval_jaxpr": inline,
    "linear_call": inline,
    "remat_opt": inline,
    "custom_linear_solve": linear_solve,
    "shard_map": shard_map,
    **dict.fromkeys(_compat.UNFOLDED, inline),
}


def _child(cx: Interpreter, state: Any, threaded: Any) -> tuple[Interpreter, Any]:
    """The interpreter of a sub-jaxpr on `cx`'s thread, and the values beside it."""
    thread, values = threaded
    child = cx.inside(state)
    child.resume(thread)
    return child, values


def _called(cx: Interpreter, jaxpr: Any) -> Callable[..., Any]:
    """A sub-jaxpr as a function of its own."""

    def body(state: Any, thread: Any, *vals: Any) -> Any:
        child, vals = _child(cx, state, (thread, vals))
        out = run(child, jaxpr, vals)
        return out, child.thread(), child.gathered()

    return body


def _call(cx: Interpreter, body: Callable[..., Any], values: Sequence[Any]) -> Any:
    state = cx.enter(0, inputs=cx.sub_inputs())
    out, thread, gathered = body(state, cx.thread(), *_arrays(cx, values))
    cx.resume(thread)
    cx.deliver(0, gathered)
    return out


def _arrays(cx: Interpreter, values: Sequence[Any]) -> list[Any]:
    """Values with literals turned into arrays of their exact type."""
    return [jnp.asarray(v) if cx.is_plain(v) else v for v in values]


def _renew(values: Sequence[Any]) -> list[Any]:
    """Fresh nodes around the same arrays: nothing memoised on a value may cross."""
    return [jax.tree.map(lambda x: x, v) for v in values]


def _join(cx: Interpreter, a: Any, b: Any) -> Any:
    return a if _same_form(a, b) else cx.join(a, b)


def _coerce_all(cx: Interpreter, values: Sequence[Any], like: Sequence[Any]) -> Any:
    return [
        v if _same_form(v, k) else cx.coerce(v, k)
        for v, k in zip(values, like, strict=True)
    ]


def stable(
    cx: Interpreter, init: list[Any], body: Callable[[list[Any]], list[Any]]
) -> list[Any]:
    """`init` in a static form that `body` maps to itself."""
    if not cx.tagged:
        return init
    for _ in range(len(init) + 1):
        out = body(init)
        joined = [_join(cx, a, b) for a, b in zip(init, out, strict=True)]
        if all(map(_same_form, joined, init)):
            return init
        init = _coerce_all(cx, init, joined)
    raise UnsupportedError(
        f"{type(cx).__name__}: the loop{cx.where()} has no stable form of its carries."
    )


def _same_form(a: Any, b: Any) -> bool:
    form: Any = jax.tree.structure(a)
    return bool(form == jax.tree.structure(b))
