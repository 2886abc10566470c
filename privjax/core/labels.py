"""Static labels on every variable of a program, to a fixed point through loops.

An analysis gives a transfer function per primitive and a join; this file walks the jaxpr,
its loops and its branches. The result keeps one label per variable and sub-jaxpr (labels
of a body are those of the last, stable round), so that a rewriting pass can look them up.
"""

from collections.abc import Sequence
from typing import Any

from privjax import _compat
from privjax.errors import UnsupportedError

Label = Any


class Analysis:
    """A lattice and its transfer function. Subclasses override all but the hooks."""

    eqn: Any = None

    def constant(self, value: Any) -> Label:
        """The label of a literal or of a closure constant."""
        raise NotImplementedError

    def transfer(self, eqn: Any, labels: Sequence[Label]) -> list[Label]:
        """Labels of an equation's results; must be monotone in `labels`."""
        raise NotImplementedError

    def join(self, a: Label, b: Label) -> Label:
        """The least label above both."""
        raise NotImplementedError

    def into_scan(self, label: Label) -> Label:
        """A scanned input's label -> the label of one slice along its leading axis."""
        return label

    def out_of_scan(self, label: Label) -> Label:
        """The label of one iteration's output -> that of the stacked outputs."""
        return label

    def carried(self, label: Label) -> Label:
        """A loop iteration's result -> the carry that the next iteration sees."""
        return label

    def through(self, walk: Any, eqn: Any, labels: list[Label]) -> Any:
        """Results and inner labels of a control-flow equation; may walk it again."""
        return walk(self, eqn, labels)

    def control(self, label: Label, outs: Sequence[Label]) -> list[Label]:
        """What a predicate or branch index of this label makes of the results."""
        return list(outs)

    def where(self) -> str:
        """` (file.py:12 (function))` of the current equation, for messages."""
        line = _compat.user_line(self.eqn.source_info) if self.eqn is not None else ""
        return f" ({line})" if line else ""


class Labels:
    """Labels of the variables of one jaxpr and, below each equation, of its bodies."""

    def __init__(self) -> None:
        self.of: dict[Any, Label] = {}
        self.below: dict[int, list[Labels]] = {}

    def __getitem__(self, var: Any) -> Label:
        return self.of[var]


def infer(
    analysis: Analysis, closed: Any, in_labels: Sequence[Label]
) -> tuple[list[Label], Labels]:
    """Labels of a jaxpr's outputs, and of everything inside of it."""
    jaxpr, consts = _compat.open_jaxpr(closed)
    found = Labels()
    for var, const in zip(jaxpr.constvars, consts, strict=True):
        found.of[var] = analysis.constant(const)
    found.of.update(zip(jaxpr.invars, in_labels, strict=True))

    def read(atom: Any) -> Label:
        if isinstance(atom, _compat.Literal):
            return analysis.constant(atom.val)
        return found.of[atom]

    outer = analysis.eqn
    for i, eqn in enumerate(jaxpr.eqns):
        analysis.eqn = eqn
        labels = [read(v) for v in eqn.invars]
        walk = _CONTROL.get(eqn.primitive.name)
        if walk is None:
            out = analysis.transfer(eqn, labels)
        else:
            out, found.below[i] = analysis.through(walk, eqn, labels)
        found.of.update(zip(eqn.outvars, out, strict=True))
    analysis.eqn = outer
    return [read(v) for v in jaxpr.outvars], found


def _call(analysis: Analysis, eqn: Any, labels: list[Label]) -> Any:
    p = eqn.params
    body = p.get("call_jaxpr", p.get("jaxpr", p.get("call")))
    out, inner = infer(analysis, body, labels)
    return out, [inner]


def _scan(analysis: Analysis, eqn: Any, labels: list[Label]) -> Any:
    n_consts, n_carry = _compat.scan_arity(eqn.params, len(labels))
    consts, carry = labels[:n_consts], labels[n_consts : n_consts + n_carry]
    xs = [analysis.into_scan(x) for x in labels[n_consts + n_carry :]]

    def body(carry: list[Label]) -> Any:
        return infer(analysis, eqn.params["jaxpr"], [*consts, *carry, *xs])

    carry, out, inner = _fixed_point(analysis, carry, n_carry, body)
    return [*carry, *map(analysis.out_of_scan, out[n_carry:])], [inner]


def _while(analysis: Analysis, eqn: Any, labels: list[Label]) -> Any:
    nc, nb = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    cond_consts, body_consts = labels[:nc], labels[nc : nc + nb]

    def body(carry: list[Label]) -> Any:
        pred, _ = infer(analysis, eqn.params["cond_jaxpr"], [*cond_consts, *carry])
        out, inner = infer(analysis, eqn.params["body_jaxpr"], [*body_consts, *carry])
        return analysis.control(pred[0], out), inner

    carry, _, inner = _fixed_point(analysis, labels[nc + nb :], None, body)
    _, test = infer(analysis, eqn.params["cond_jaxpr"], [*cond_consts, *carry])
    return carry, [test, inner]


def _cond(analysis: Analysis, eqn: Any, labels: list[Label]) -> Any:
    index, operands = labels[0], labels[1:]
    results = [infer(analysis, b, operands) for b in eqn.params["branches"]]
    outs = results[0][0]
    for other, _ in results[1:]:
        outs = [analysis.join(a, b) for a, b in zip(outs, other, strict=True)]
    return analysis.control(index, outs), [inner for _, inner in results]


def _fixed_point(analysis: Analysis, carry: Any, n_carry: int | None, body: Any) -> Any:
    """Raise the carry's labels until the body maps them below themselves."""
    eqn = analysis.eqn
    for _ in range(8 * (len(carry) + 1)):  # the lattice's height times the carries
        out, inner = body(carry)
        analysis.eqn = eqn
        after = [analysis.carried(label) for label in out[:n_carry]]
        joined = [analysis.join(a, b) for a, b in zip(carry, after, strict=True)]
        if joined == list(carry):
            return carry, out, inner
        carry = joined
    raise UnsupportedError(
        f"{type(analysis).__name__}: labels do not settle in a loop{analysis.where()}."
    )


_CONTROL = {
    "scan": _scan,
    "while": _while,
    "cond": _cond,
    "jit": _call,
    "pjit": _call,
    "remat2": _call,
    "checkpoint": _call,
    "custom_jvp_call": _call,
    "custom_vjp_call": _call,
    "custom_vmap_call": _call,
    "closed_call": _call,
    "core_call": _call,
    "shard_map": _call,
}
