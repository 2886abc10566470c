"""Random bits from per-unit keys: axes before those of the key itself are a batch."""

from privjax.passes.units.op import Op, Rule
from privjax.passes.units.rules.elementwise import elementwise
from privjax.passes.units.rules.reduction import leading
from privjax.passes.units.states import State


def batch_of_keys(op: Op) -> State:
    return op.combine(op.keep(i) for i in range(len(op.states)) if op.is_unit(i))


def words_of_keys(op: Op) -> State:
    """The last axes are the words of one key."""
    rank = len(op.out_shapes[0])
    return op.place(0, lambda a: a if a < rank else None, "it makes a key of the units")


def markers(op: Op) -> list[State]:
    """`noise` and `session` under vmap: their lanes are leading axes."""
    lanes = op.params["lanes"]
    state = op.combine(
        op.place(
            i, lambda a: a if a < lanes else None, "it draws for all units at once"
        )
        for i in range(len(op.states))
        if op.is_unit(i)
    )
    return [state] * len(op.out_shapes)


RULES = {
    **dict.fromkeys(
        "random_bits random_split random_seed random_clone".split(),
        Rule(batch_of_keys),
    ),
    "random_unwrap": Rule(batch_of_keys),
    "random_wrap": Rule(words_of_keys),
    "random_fold_in": Rule(elementwise),
    "threefry2x32": Rule(lambda op: [elementwise(op)] * 2),
    "chacha20": Rule(leading(1)),
    "noise": Rule(markers),
    "session": Rule(markers),
}
