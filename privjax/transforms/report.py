"""`explain` and `stages`: what a transformed function will do, before it runs."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax

from privjax.errors import InputError
from privjax.passes.cost import Cost
from privjax.transforms.base import Transformed


@dataclass(frozen=True)
class Entry:
    """One input or output: its name, type (`float32[4,3]`), and what becomes of it."""

    name: str
    type: str
    label: str


@dataclass(frozen=True)
class Report:
    """What a transformed function does with its arguments. Print it.

    Attributes:
      title: the function and the technique.
      inputs, outputs: who sees what.
      releases: every place where something about the data is let out, with lines.
      cost: communication of one call, None where no parties talk.
      notes: numerics, assumptions, and what the user should know.
      inner: the report of the transformed function inside, if there is one.
    """

    title: str
    inputs: tuple[Entry, ...]
    outputs: tuple[Entry, ...]
    releases: tuple[str, ...] = ()
    cost: Cost | None = None
    notes: tuple[str, ...] = ()
    inner: "Report | None" = None

    def __str__(self) -> str:
        lines = [self.title]
        for head, entries in (("inputs", self.inputs), ("outputs", self.outputs)):
            lines.append(f"  {head}:")
            names = max((len(e.name) for e in entries), default=0)
            types = max((len(e.type) for e in entries), default=0)
            lines += [
                f"    {e.name:<{names}}  {e.type:<{types}}  {e.label}" for e in entries
            ]
        lines.append("  releases:")
        lines += [f"    {text}" for text in self.releases or ("none",)]
        if self.cost is not None:
            c = self.cost
            per = " per iteration of a while loop" if c.unbounded else ""
            lines += [
                f"  communication of one call{per}:",
                f"    rounds         {c.rounds}",
                f"    sent           {_size(c.sent_bits / 8)} by all parties together",
                f"    preprocessing  {_size(c.dealt_bits / 8)} from the dealer, "
                f"{_size(c.random_bytes)} expanded by each party from its seed",
            ]
        if self.notes:
            lines.append("  notes:")
            lines += [f"    {text}" for text in self.notes]
        if self.inner is not None:
            lines.append("  inside:")
            lines += [f"    {line}" for line in str(self.inner).splitlines()]
        return "\n".join(lines)

    __repr__ = __str__


class Stages(Mapping[str, Any]):
    """The jaxpr after each pass, by name and in order; printing shows them all."""

    def __init__(self, jaxprs: Mapping[str, Any]) -> None:
        self._jaxprs = dict(jaxprs)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._jaxprs)

    def __getitem__(self, name: str) -> Any:
        return self._jaxprs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._jaxprs)

    def __len__(self) -> int:
        return len(self._jaxprs)

    def __str__(self) -> str:
        return "\n\n".join(f"-- {name} --\n{j}" for name, j in self._jaxprs.items())

    __repr__ = __str__


def explain(fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Report:
    """Who sees what, what is released, what it costs; nothing is run.

    Args:
      fun: a function transformed by privjax.
      *args, **kwargs: as for a call; arrays or `jax.ShapeDtypeStruct`s.

    Raises: what a call would raise while compiling, and `InputError` for a function that
    is not transformed.
    """
    return _transformed(fun, "explain").report(*args, **kwargs)


def stages(fun: Callable[..., Any]) -> Callable[..., Stages]:
    """`stages(fun)(*args)` prints and returns the program after each pass.

    Args:
      fun: a function transformed by privjax.
    """
    transformed = _transformed(fun, "stages")

    def show(*args: Any, **kwargs: Any) -> Stages:
        found = Stages(transformed.stage_jaxprs(*args, **kwargs))
        print(found)
        return found

    return show


def _transformed(fun: Any, name: str) -> Any:
    if not isinstance(fun, Transformed):
        raise InputError(
            f"{name} shows functions transformed by privjax (secret_shared, federated, "
            f"differentially_private); {fun!r} is not one of them."
        )
    return fun


def entry(name: str, aval: Any, label: str) -> Entry:
    """An entry for a value of this type."""
    return Entry(name, short_type(aval), label)


def short_type(aval: Any) -> str:
    """`float32[4,3]`."""
    return f"{aval.dtype}[{','.join(map(str, aval.shape))}]"


def output_names(out_tree: Any) -> list[str]:
    """`result[0]['w']` for every leaf of a function's result."""
    paths, _ = jax.tree_util.tree_flatten_with_path(
        jax.tree.unflatten(out_tree, range(out_tree.num_leaves))
    )
    return [f"result{jax.tree_util.keystr(path)}" for path, _ in paths]


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
