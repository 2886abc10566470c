"""The audit as a command: `python -m privjax.dp file.py:function`.

The function takes no arguments and returns (step, state, batch): a step made by
`privjax.differentially_private`, and what to call it with. Exit status 1 means that the
step's own claim is refuted.
"""

import argparse
import importlib
import runpy
import sys
from collections.abc import Sequence
from typing import Any

from privjax.dp.auditing import audit
from privjax.dp.bounds import TRADE_OFFS
from privjax.errors import InputError


def load(target: str) -> Any:
    """What `file.py:name` or `package.module:name` names."""
    place, _, name = target.rpartition(":")
    if not place:
        raise InputError(f"{target!r} is not of the form file.py:function.")
    if place.endswith(".py"):
        found = runpy.run_path(place)
    else:
        found = vars(importlib.import_module(place))
    if name not in found:
        raise InputError(f"{place} has no {name!r}.")
    return found[name]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.description = "Lower bound on the epsilon of one call of a private step."
    parser.add_argument("target", help="file.py:function or module:function")
    parser.add_argument("--delta", type=float, default=1e-5)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--confidence", type=float, default=0.999)
    parser.add_argument("--trade-off", choices=TRADE_OFFS, default="gaussian")
    parser.add_argument("--canaries", action="store_true")


def run(options: argparse.Namespace) -> int:
    step, state, batch = load(options.target)()
    result = audit(
        step,
        state,
        batch,
        delta=options.delta,
        trials=options.trials,
        confidence=options.confidence,
        trade_off=options.trade_off,
        canaries=options.canaries,
    )
    print(result)
    return int(result.exceeded)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m privjax.dp")
    add_options(parser)
    return run(parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
