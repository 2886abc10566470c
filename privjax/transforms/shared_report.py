"""What `privjax.explain` says of a secret-shared program."""

from typing import Any

import numpy as np

from privjax import _compat
from privjax.core.trace import Call
from privjax.passes.audit import marked_lines, secrecy
from privjax.transforms.report import Report, entry, output_names, short_type
from privjax.transforms.shared_program import (
    PUBLIC,
    SHARED,
    Options,
    Program,
    owner_of,
    spec,
)

ROUNDING = {
    "probabilistic": "truncation rounds up or down at random, by less than one unit",
    "exact": "truncation rounds to the nearest, at the cost of a comparison",
}
ADVERSARY = {
    "semi2k": "semi-honest: parties follow the protocol; the dealer colludes with nobody",
    "spdz2k": (
        "active with abort: a party that deviates is caught before anything is released, "
        "but for a chance of about 2^-57 (2^-26 in the ring of 32 bits); the dealer is "
        "honest"
    ),
    "replicated3": "semi-honest, and no two of the three parties collude; no dealer",
    "reference": "no protection: every party computes on the values themselves",
}


def shared_report(fun: str, call: Call, program: Program, options: Options) -> Report:
    """Who sees what, what is released, what it costs; `fun` is the function's name."""
    p, fp = options.protocol, options.fixed_point
    labels = {
        PUBLIC: "public: all parties see it",
        SHARED: "secret-shared",
    }
    inputs = [
        entry(
            path,
            spec(x),
            labels.get(
                mode, f"secret, held by party {owner_of(options.owners, arg, path)}"
            ),
        )
        for path, x, mode, arg in zip(
            call.paths, call.leaves, program.modes, call.args, strict=True
        )
    ]
    traced = program.stages["traced"]
    simple = program.stages["simplified"]
    modes = [*([False] * program.inner_key), *(m != PUBLIC for m in program.modes)]
    halves = iter(secrecy(program.pairs.spread(modes), simple))
    secret = [next(halves) | (two and next(halves)) for two in program.pairs.outputs]
    names = output_names(program.out_tree)
    outputs, releases = [], []
    for name, aval, kind, hidden in zip(
        names, traced.out_avals, program.outs, secret, strict=True
    ):
        if kind is not None:
            label = "stays secret-shared"
        elif hidden:
            label = "revealed to all parties"
            releases.append(f"{name}: opened as an output")
        else:
            label = "public"
        outputs.append(entry(name, aval, label))
    releases += marked_lines(traced, ("reveal", "declassify", "noise"))
    rounding = (
        f"{ROUNDING[fp.truncation]}; no large-error case while magnitudes stay below "
        f"{fp.max_value:.4g}"
    )
    return Report(
        f"{fun}: secret-shared among {p.parties} parties by {p.name}",
        tuple(inputs),
        tuple(outputs),
        tuple(releases),
        program.cost,
        (
            f"reals have {fp.fractional_bits} fractional bits in a ring of "
            f"{fp.ring_bits}; {rounding}",
            ADVERSARY[p.name],
            *program.notes,
            *(
                f"public constant {short_type(c)} in the program"
                for c in _consts(traced)
            ),
        ),
    )


def _consts(closed: Any) -> list[Any]:
    return [c for c in _compat.open_jaxpr(closed)[1] if np.ndim(c) > 0]
