"""Our own primitives: the places where privacy happens, visible in a printed jaxpr.

=============  ====================================================  ==================
marker         meaning                                               inserted by
=============  ====================================================  ==================
`aggregate`    sum over the leading axis of units or clients         federated pass
`noise`        a mechanism applied to a value of stated sensitivity  dp pass, `release`
`uniform`      each party's share of fresh uniform randomness        protocols
`dealt`        shares of a function of `uniform` values              protocols
`pairwise`     fresh values in common with each neighbour            protocols
`open`         parties exchange shares and learn the value           protocols
`reveal`       the user's statement that a value may be seen         the user
`owned`        the user's statement of who owns a value              the user
`declassify`   the user's statement that a release is acceptable     the user
=============  ====================================================  ==================

`uniform` and `dealt` together are the request for correlated randomness: a Beaver triple
is two `uniform` and one `dealt` of their product. These two, `pairwise` and `open` have
no meaning of their own and must be discharged; the others have a plain default, so that
a program that carries them still runs, and an outer pass may give them another meaning.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters import ad, batching, mlir

from privjax import _compat
from privjax.errors import DifferentiationError, TraceError


def _undischarged(name: str) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise TraceError(
            f"`{name}` is a marker that a privjax runtime must discharge; a program "
            "that still has it cannot run by itself."
        )

    return fail


def marker(
    name: str,
    shape: Callable[..., Any],
    default: Callable[..., Any] | None,
    *,
    multiple_results: bool = False,
) -> Any:
    """A new primitive.

    `shape(*avals, **params)` gives the result's `ShapeDtypeStruct`(s). `default` is what
    the marker means when nothing discharges it, or None when that is an error.
    """
    p = _compat.Primitive(name)
    p.multiple_results = multiple_results

    def abstract(*avals: Any, **params: Any) -> Any:
        out = shape(*avals, **params)
        make = lambda s: jax.core.ShapedArray(s.shape, s.dtype)  # noqa: E731
        return [make(s) for s in out] if multiple_results else make(out)

    p.def_abstract_eval(abstract)
    run = default if default is not None else _undischarged(name)
    p.def_impl(run)
    mlir.register_lowering(p, mlir.lower_fun(run, multiple_results=multiple_results))
    return p


def _same(x: Any, **_: Any) -> Any:
    return x


def _identity_marker(name: str) -> Any:
    """A marker that passes its one operand on, also under vmap and grad."""
    p = marker(name, _same, _same)
    batching.primitive_batchers[p] = lambda args, dims, **params: (
        p.bind(*args, **params),
        dims[0],
    )
    ad.deflinear2(p, lambda cotangent, _, **params: [cotangent])
    return p


reveal_p = _identity_marker("reveal")
owned_p = _identity_marker("owned")
declassify_p = _identity_marker("declassify")


def _refuse_gradient(*_: Any, **__: Any) -> Any:
    raise DifferentiationError(
        "a rewritten program cannot be differentiated; put jax.grad inside the "
        "function that privjax transforms."
    )


# -- aggregate: sum over the leading axis -------------------------------------------


def _aggregate_shape(*args: Any, method: Any, keyed: bool) -> list[Any]:
    xs = args[1:] if keyed else args
    return [jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in xs]


def _aggregate_default(*args: Any, method: Any, keyed: bool) -> list[Any]:
    if keyed:
        return list(method.combine(args[0], list(args[1:])))
    return list(method.combine(None, list(args)))


aggregate_p = marker(
    "aggregate", _aggregate_shape, _aggregate_default, multiple_results=True
)


def _aggregate_batch(args: Any, dims: Any, *, method: Any, keyed: bool) -> Any:
    # A lane of the user's vmap sums its own units: run the default per lane.
    in_axes = [None if d is None else d for d in dims]
    out = jax.vmap(
        lambda *xs: _aggregate_default(*xs, method=method, keyed=keyed), in_axes
    )(*args)
    return out, [0] * len(out)


batching.primitive_batchers[aggregate_p] = _aggregate_batch


def _aggregate_jvp(primals: Any, tangents: Any, *, method: Any, keyed: bool) -> Any:
    # The tangents of a sum are a sum over the same units, and leave them alike.
    if not method.linear:
        _refuse_gradient()
    out = aggregate_p.bind(*primals, method=method, keyed=keyed)
    moving = [k for k, t in enumerate(tangents) if not isinstance(t, ad.Zero)]
    tangents_out = [ad.Zero(jax.typeof(x).to_tangent_aval()) for x in out]
    sums = aggregate_p.bind(*[tangents[k] for k in moving], method=method, keyed=keyed)
    for k, s in zip(moving, sums, strict=True):
        tangents_out[k] = s
    return out, tangents_out


def _aggregate_transpose(cotangents: Any, *xs: Any, method: Any, keyed: bool) -> Any:
    return [
        ad.Zero(x.aval) if isinstance(c, ad.Zero) else jnp.broadcast_to(c, x.aval.shape)
        for c, x in zip(cotangents, xs, strict=True)
    ]


ad.primitive_jvps[aggregate_p] = _aggregate_jvp
ad.primitive_transposes[aggregate_p] = _aggregate_transpose


def aggregate(xs: Sequence[Any], method: Any, key_words: Any = None) -> list[Any]:
    """Sum each of `xs` over its leading axis, all in one step, by `method`.

    `method` is hashable and has
    `combine(key_words or None, list of [units, ...]) -> list of [...]` and `linear`,
    whether the sum may be differentiated (then it takes no key).
    `key_words` is uint32[8] where the method needs randomness.
    """
    if key_words is None:
        return list(aggregate_p.bind(*xs, method=method, keyed=False))
    return list(aggregate_p.bind(key_words, *xs, method=method, keyed=True))


# -- noise: a mechanism ---------------------------------------------------------------


def _noise_shape(key: Any, *xs: Any, mechanism: Any, lanes: int) -> list[Any]:
    return list(xs)


def _noise_default(key: Any, *xs: Any, mechanism: Any, lanes: int) -> list[Any]:
    def run(key: Any, xs: list[Any]) -> list[Any]:
        return mechanism.apply(key, xs)

    for _ in range(lanes):
        run = jax.vmap(run)
    return run(key, list(xs))


noise_p = marker("noise", _noise_shape, _noise_default, multiple_results=True)


def _noise_batch(args: Any, dims: Any, *, mechanism: Any, lanes: int) -> Any:
    if dims[0] is None:
        # One key for several lanes would add equal noise to all of them.
        raise TraceError(
            "noise is drawn for a batch of values with one key; pass one key per lane "
            "(jax.random.split) and map over it."
        )
    size = args[0].shape[dims[0]]
    moved = [
        jnp.broadcast_to(x, (size, *x.shape)) if d is None else jnp.moveaxis(x, d, 0)
        for x, d in zip(args, dims, strict=True)
    ]
    out = noise_p.bind(*moved, mechanism=mechanism, lanes=lanes + 1)
    return out, [0] * len(out)


batching.primitive_batchers[noise_p] = _noise_batch


def noise(key_words: Any, xs: Sequence[Any], mechanism: Any) -> list[Any]:
    """Apply `mechanism` to the arrays `xs`, jointly.

    `key_words` is uint32[8]; `mechanism` is hashable and has
    `apply(key_words, list of arrays) -> list of arrays` of equal shapes and dtypes.
    """
    return list(noise_p.bind(key_words, *xs, mechanism=mechanism, lanes=0))


# -- correlated randomness and opening: what a protocol asks of its runtime ------------


# Domains of elements of 128 bits: low words, then high words, on a first axis.
PLANES = frozenset({"sum128", "xor128"})


def _uniform_shape(*, shape: Any, dtype: Any, domain: str) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype)


uniform_p = marker("uniform", _uniform_shape, None)


def uniform(shape: Sequence[int], dtype: Any, domain: str) -> Any:
    """This party's share of a fresh uniform value: nobody knows the value.

    `domain` is "sum" (shares add up mod 2^bits) or "xor".
    """
    return uniform_p.bind(shape=tuple(shape), dtype=jnp.dtype(dtype), domain=domain)


def _dealt_shape(*xs: Any, fun: Any) -> list[Any]:
    return [
        jax.ShapeDtypeStruct(s.shape, s.dtype) for s in jax.eval_shape(fun.clear, *xs)
    ]


dealt_p = marker("dealt", _dealt_shape, None, multiple_results=True)


def dealt(xs: Sequence[Any], fun: Any) -> list[Any]:
    """Shares of `fun.clear(*values)`, made by the dealer from earlier `uniform` values.

    `xs` are this party's shares of dealer-known values (from `uniform`, `dealt` and
    linear operations on them that act alike on shares and on values). `fun` is hashable
    and has `clear(*values) -> list of values`, `operands` and `results` (domains).
    """
    return list(dealt_p.bind(*xs, fun=fun))


def _pairwise_shape(*, shape: Any, dtype: Any) -> list[Any]:
    return [jax.ShapeDtypeStruct(shape, dtype)] * 2


pairwise_p = marker("pairwise", _pairwise_shape, None, multiple_results=True)


def pairwise(shape: Sequence[int], dtype: Any) -> tuple[Any, Any]:
    """Fresh uniform values that this party has in common with its neighbours.

    The first is known to this party and the one before it, the second to this party and
    the next: it is the next party's first. With three parties nobody knows the third.
    """
    mine, theirs = pairwise_p.bind(shape=tuple(shape), dtype=jnp.dtype(dtype))
    return mine, theirs


def links(domain: str, parties: int) -> list[tuple[int, int]]:
    """Who sends to whom, as (sender, receiver), when one operand of `open` is opened.

    Pairs of a party with itself are what a "send" keeps.
    """
    kind, _, rest = domain.partition(":")
    if kind == "send":
        pairs = [pair.split(">") for pair in rest.split(",")]
        return [(int(a), int(b)) for a, b in pairs]
    if rest == "pairs":
        return [(i, (i + 1) % parties) for i in range(parties)]
    senders = [int(rest)] if kind == "from" else range(parties)
    return [(a, b) for a in senders for b in range(parties) if a != b]


def messages(domain: str, parties: int) -> int:
    """How many messages the opening of one operand takes."""
    return sum(a != b for a, b in links(domain, parties))


def _open_shape(
    *xs: Any, domains: Any, bits: Any, checked: Any, release: bool
) -> list[Any]:
    out = []
    for x, domain in zip(xs, domains, strict=False):
        everybody = int(domain[5:]) if domain.startswith("each:") else 0
        shape = (everybody, *x.shape) if everybody else x.shape
        if domain.endswith(":pairs"):
            shape = x.shape[1:]
        out.append(jax.ShapeDtypeStruct(shape, x.dtype))
    return out


open_p = marker("open", _open_shape, None, multiple_results=True)


def open_values(
    xs: Sequence[Any],
    domains: Sequence[str],
    bits: Sequence[int],
    checks: Sequence[tuple[Any, ...]] | None = None,
    release: bool = False,
) -> list[Any]:
    """All parties exchange their shares `xs` and learn the values: one round.

    Args:
      domains: how shares make a value: "sum", "xor", `PLANES` (two planes in front),
        "from:P" (party P's array), "each:N" (all N parties' arrays, on a new first axis),
        "sum:pairs" and "xor:pairs" (three parties; an operand holds this party's share
        and the next one's on its first axis, so that only one of them is sent),
        "send:0>1,1>0" (for each pair the right one learns what the left one holds; the
        others get zeros; "0>0" keeps, and sends nothing), "zero" (nobody sends anything:
        the value has to be 0, which the check finds out).
      bits: how many bits of each word mean anything (what a wire would carry).
      checks: for each value a tuple of arrays, empty where nothing authenticates it; the
        pass that makes a program verify its openings reads them.
      release: whether the values leave the protocol (masks hide everything else).
    """
    checks = [()] * len(xs) if checks is None else checks
    more = [v for check in checks for v in check]
    params: dict[str, Any] = {
        "domains": tuple(domains),
        "bits": tuple(bits),
        "checked": tuple(map(len, checks)),
        "release": release,
    }
    return list(open_p.bind(*xs, *more, **params))


def open_operands(
    values: Sequence[Any], checked: Sequence[int]
) -> tuple[list[Any], list[Any]]:
    """The operands of an `open` as (shares, checks) in the form of `open_values`."""
    rest = iter(values[len(checked) :])
    checks = [tuple(next(rest) for _ in range(n)) for n in checked]
    return list(values[: len(checked)]), checks


for _p in (noise_p, uniform_p, dealt_p, pairwise_p, open_p):
    ad.primitive_jvps[_p] = _refuse_gradient
