"""The command line: `privjax demo`, `privjax audit`, `privjax operators`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import privjax
from privjax import demo, operators
from privjax.dp import __main__ as auditing
from privjax.errors import InputError, PrivacyError

DATA = ("boston", "pima")
DEFAULT_PLOT = Path("demo-output") / "learning_curves.png"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0, 1 for an error of privjax, 2 for bad usage."""
    arguments = parser().parse_args(argv)
    try:
        return int(arguments.command(arguments))
    except PrivacyError as error:
        print(f"privjax: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="privjax",
        description="Rewrites ordinary JAX functions into federated, secret-shared or "
        "differentially private ones.",
    )
    top.add_argument(
        "--version", action="version", version=f"privjax {privjax.__version__}"
    )
    commands = top.add_subparsers(required=True, metavar="command")
    add_demo(commands.add_parser("demo", help="train on two real data sets, compare"))
    audit = commands.add_parser("audit", help="test a private step's claimed epsilon")
    auditing.add_options(audit)
    audit.set_defaults(command=auditing.run)
    table = commands.add_parser(
        "operators", help="what can be computed on secrets, at which error and cost"
    )
    table.add_argument(
        "names", nargs="*", help="primitives, as in a jaxpr (default: all)"
    )
    table.set_defaults(command=run_operators)
    return top


def run_operators(arguments: argparse.Namespace) -> int:
    known = {name for group in operators.GROUPS.values() for name in group}
    unknown = sorted(set(arguments.names) - known)
    if unknown:
        raise InputError(f"no primitive of JAX is named {unknown[0]!r}.")
    print(operators.page(arguments.names), end="")
    return 0


def add_demo(sub: argparse.ArgumentParser) -> None:
    sub.description = (
        "Trains on Boston Housing and Pima Indians Diabetes with plain JAX, federated, "
        "secret-shared, differentially private, and all together; prints a table for "
        "each and draws the learning curves."
    )
    sub.add_argument("--data", choices=(*DATA, "all"), default="all")
    sub.add_argument("--epochs", type=_positive, help="default 10; 1 with --quick")
    sub.add_argument(
        "--quick",
        action="store_true",
        help="few rows and small models: shows that everything runs, nothing more",
    )
    sub.add_argument(
        "--plot",
        type=_png,
        metavar="PATH",
        help=f"where the PNG goes (default {DEFAULT_PLOT})",
    )
    sub.add_argument(
        "--drop-b",
        action="store_true",
        help="leave out Boston's column b, which encodes race",
    )
    sub.add_argument(
        "--seed",
        type=_count,
        default=0,
        help="of initial parameters and batches; masks and noise are always fresh",
    )
    sub.set_defaults(command=run_demo)


def run_demo(arguments: argparse.Namespace) -> int:
    default = DEFAULT_PLOT if demo.plot.available() else None
    if arguments.plot is None and default is None:
        print(f"privjax: no plot: {demo.plot.MISSING}", file=sys.stderr)
    demo.run(
        DATA if arguments.data == "all" else (arguments.data,),
        epochs=arguments.epochs or (1 if arguments.quick else 10),
        quick=arguments.quick,
        drop_b=arguments.drop_b,
        seed=arguments.seed,
        plot_path=arguments.plot or default,
    )
    return 0


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def _png(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() != ".png":
        raise argparse.ArgumentTypeError(f"{text} does not end in .png")
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder")
    return path
