"""The table of operators: measured on the programs of `examples`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from privjax.core import control
from privjax.errors import UnsupportedError
from privjax.operators.examples import EXAMPLES, Example
from privjax.operators.names import GROUPS
from privjax.passes.shared import placement, refused
from privjax.protocols.fixedpoint import FixedPoint
from privjax.protocols.functions.bounds import BOUNDS
from privjax.transforms.secret_shared import secret_shared
from privjax.transforms.shared_data import SharedArray

# Of the public functions of jax.numpy, jax.lax, jax.nn and jax.scipy.special that plain
# JAX runs under jit: how many give the same on secrets, and how many there are. As found
# by `python -m benchmarks.sweep`.
SWEPT = (603, 612)

PUBLIC_KEYS = "on public operands: that of the plain program"
_BODY = "that of its body"
# Primitives without operands.
SOURCES = frozenset({"iota", "empty", "empty2", "create_token"})

# The total order of floating-point numbers, in which fixed point has no -0; and a
# factorisation that JAX itself writes as another.
SAME_AS = {"eq_to": "eq", "le_to": "le", "lt_to": "lt", "geqp3": "qr"}


@dataclass(frozen=True)
class Row:
    """One primitive.

    Attributes:
      error: a bound, "exact", or for a refused one the reason.
      rounds: of one use by semi2k among 2 parties; None if refused.
      sent, dealt: bytes that both parties together send, and that the dealer sends, per
        element of the largest operand.
    """

    group: str
    name: str
    error: str
    rounds: int | None = None
    sent: float = 0.0
    dealt: float = 0.0

    @property
    def ruled(self) -> bool:
        return self.rounds is not None


def rows(names: Sequence[str] = ()) -> Iterator[Row]:
    """The rows of the table, of `names` or of all primitives."""
    for group, members in GROUPS.items():
        for name in members:
            if not names or name in names:
                yield _row(group, name)


def _row(group: str, name: str) -> Row:
    example = EXAMPLES.get(name)
    if example is None and (group == "random numbers" or name in SOURCES):
        return Row(group, name, PUBLIC_KEYS, 0)
    if example is None and placement.RULES.get(name) is placement.same:
        return Row(group, name, "exact", 0)
    if name in SAME_AS:
        return replace(_row(group, SAME_AS[name]), name=name)
    if example is None and name in control.RULES and name not in placement.RULES:
        return Row(group, name, _BODY, 0)
    if example is None:
        why, instead = refused.reason(name)
        return Row(group, name, f"refused: it {why}. {instead}")
    try:
        cost = _cost(example)
    except UnsupportedError as refusal:
        return Row(group, name, f"refused: {refusal}")
    error = PUBLIC_KEYS if group == "random numbers" else _error(name, example)
    n = example.elements
    return Row(
        group,
        name,
        error,
        cost.rounds,
        cost.sent_bits / 8 / n,
        cost.dealt_bits / 8 / n,
    )


def _cost(example: Example) -> Any:
    """Of a call that takes shares and gives shares: inputs and outputs cost nothing."""
    shared = secret_shared(example.fun, protocol="semi2k", reveal=False)
    return shared.cost(*map(_at_rest, example.args))


def _at_rest(x: Any) -> Any:
    """Shares of an argument, as a type only; scalars that are no reals stay public."""
    kind = np.asarray(x).dtype.kind
    if np.ndim(x) == 0 and kind != "f":
        return x
    fp = FixedPoint()
    name = {"f": "fixed", "b": "boolean"}.get(kind, "integer")
    scale = fp.fractional_bits if kind == "f" else 0
    words = 1 if kind == "b" else fp.ring_bits // 32
    data = jax.ShapeDtypeStruct((*np.shape(x), 2, words), np.uint32)
    return SharedArray(data, name, scale, np.asarray(x).dtype, 2, "semi2k", fp)


def _error(name: str, example: Example) -> str:
    if name in BOUNDS:
        return str(BOUNDS[name])
    return NOTES.get(name, "exact")


_PRODUCT = "2^-17: one truncation"
_STEPS = "2^-17 for each product in it"
NOTES = {
    "convert_element_type": "exact; as a real an integer beyond +-M is +-M",
    "rem": "exact; of reals for quotients below 2^26",
    **dict.fromkeys(("mul", "square", "dot_general", "conv_general_dilated"), _PRODUCT),
    **dict.fromkeys(
        (
            "integer_pow",
            "reduce_prod",
            "cumprod",
            "reduce",
            "reduce_window",
            "fft",
            "ragged_dot_general",
            "scaled_dot",
            "scatter-mul",
            "symmetric_product",
            "custom_linear_solve",
            "hessenberg",
            "cholesky",
            "cholesky_update",
            "eigh",
            "geqrf",
            "householder_product",
            "lu",
            "qr",
            "svd",
            "triangular_solve",
            "tridiagonal",
            "tridiagonal_solve",
        ),
        _STEPS,
    ),
    **dict.fromkeys(
        (
            "scan",
            "while",
            "cond",
            "jit",
            "remat2",
            "remat_opt",
            "composite",
            "closed_call",
            "linear_call",
            "custom_jvp_call",
            "custom_vjp_call",
            "custom_vmap_call",
        ),
        _BODY,
    ),
}


def page(names: Sequence[str] = ()) -> str:
    """The table as a page of Markdown."""
    table = list(rows(names))
    ruled = sum(r.ruled for r in table)
    lines = [
        "# Operators",
        "",
        f"{ruled} of JAX's {len(table)} primitives take secrets; the others are refused "
        "with the reason. Written by `privjax operators`.",
        "",
        "Rounds and bytes are those of one use of semi2k among 2 parties, 64-bit ring, 18 "
        "fractional bits, on shares: bytes sent by both parties together, and by the "
        "dealer, per element of the largest operand, in an example of a few elements "
        "(`privjax/operators/examples.py`). Operations that are taken apart cost what "
        "their parts cost together. Errors are absolute unless relative is said.",
        "",
        f"Of {SWEPT[1]} public functions of jax.numpy, jax.lax, jax.nn and "
        f"jax.scipy.special, called with ordinary arguments, {SWEPT[0]} "
        f"({SWEPT[0] / SWEPT[1]:.1%}) give the same on secrets; "
        "`benchmarks/results/sweep.json` names the others with the reason "
        "(`python -m benchmarks.sweep`).",
    ]
    for group in GROUPS:
        mine = [r for r in table if r.group == group]
        if not mine:
            continue
        lines += ["", f"## {group.capitalize()}", ""]
        lines += [
            "| primitive | error | rounds | sent | dealt |",
            "|---|---|--:|--:|--:|",
        ]
        lines += [line(r) for r in mine]
    return "\n".join(lines) + "\n"


def line(r: Row) -> str:
    """A row of the page."""
    error = r.error.replace("|", "\\|")
    if not r.ruled:
        return f"| `{r.name}` | {error} | | | |"
    return f"| `{r.name}` | {error} | {r.rounds} | {r.sent:.4g} | {r.dealt:.4g} |"
