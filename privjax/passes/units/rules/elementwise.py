"""Primitives that act on each element alone: units stay where they are."""

import numpy as np

from privjax.passes.units.op import Op, Rule, all_of, always, one_of, together
from privjax.passes.units.states import PerUnit, State


def elementwise(op: Op) -> State:
    """Operands have one shape, or are scalars that are public or one unit's own."""
    return op.combine(op.states)


def same_values(op: Op) -> State:
    """The same values in another type: a column of unit indices stays one."""
    state = op.states[0]
    kept = op.keep()
    dtype = op.params.get("new_dtype", np.dtype(np.int32))
    wide = dtype.kind in "iu" and dtype.itemsize >= 4  # a narrow one would wrap around
    if isinstance(state, PerUnit) and isinstance(kept, PerUnit) and wide:
        return kept.at(kept.digits, state.own)
    return kept


def same_bits(op: Op) -> State:
    """To a narrower type there is one axis more at the end, to a wider one less."""
    last = len(op.shapes[0]) - 1
    joined = len(op.out_shapes[0]) < len(op.shapes[0])
    return op.place(0, lambda a: None if joined and a == last else a)


def each_alone(op: Op) -> list[State]:
    """One result per operand."""
    return [
        op.keep(i) if op.is_unit(i) else op.states[i] for i in range(len(op.states))
    ]


def to_inexact(op: Op) -> bool:
    """Conversions to floating point are linear (up to rounding), others are not."""
    return op.params["new_dtype"].kind in "fcV"


NONLINEAR = """
    abs integer_pow max min rem sign square pow clamp
    acos acosh asin asinh atan atan2 atanh cbrt ceil cos cosh exp exp2 expm1 floor log
    log1p log2 logistic nextafter one_minus_square reduce_precision round rsqrt sin sinh
    sqrt tan tanh complex
    bessel_i0e bessel_i1e digamma erf erf_inv erfc igamma igamma_grad_a igammac lgamma
    polygamma regularized_incomplete_beta zeta
    and clz mulhi not or population_count shift_left shift_right_arithmetic
    shift_right_logical xor
    eq eq_to ge gt is_finite le le_to lt lt_to ne
    random_gamma
""".split()

RULES = {
    **dict.fromkeys(NONLINEAR, Rule(elementwise)),
    **dict.fromkeys(["add", "add_any", "sub"], Rule(elementwise, together)),
    **dict.fromkeys(["neg", "conj", "imag", "real"], Rule(elementwise, always)),
    "mul": Rule(elementwise, one_of(0, 1)),
    "div": Rule(elementwise, lambda op: op.inexact and one_of(0)(op)),
    "bitcast_convert_type": Rule(same_bits),
    "select_n": Rule(elementwise, lambda op: all_of(*range(1, len(op.states)))(op)),
    "convert_element_type": Rule(same_values, to_inexact),
    "copy": Rule(same_values, always),
    "copy_p": Rule(same_values, always),
    "name": Rule(same_values, always),
    "stop_gradient": Rule(same_values, always),
    "device_put": Rule(each_alone),
    "sharding_constraint": Rule(same_values, always),
    "reveal": Rule(same_values, always),
    "owned": Rule(same_values, always),
}
