"""From a Python function to a closed jaxpr, and from any jaxpr back to a function."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from privjax import _compat
from privjax.errors import InputError, TraceError

_PYTHON_LOOKED = (
    jax.errors.TracerBoolConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.TracerArrayConversionError,
    jax.errors.ConcretizationTypeError,
    jax.errors.NonConcreteBooleanIndexError,
)


@dataclass(frozen=True)
class Call:
    """One call of a Python function, flattened.

    `leaves` are the array-like leaves of the arguments in the order of the signature;
    `paths` name them as the user would (`params['w1']`), `args` give the argument each
    belongs to. Leaves that are no arrays or numbers (functions, strings) are static:
    they stay with the function; `static` is what to compare of them and the structure.
    """

    fun: Callable[..., Any]
    leaves: tuple[Any, ...]
    paths: tuple[str, ...]
    args: tuple[str, ...]
    rebuild: Callable[[Sequence[Any]], tuple[tuple[Any, ...], dict[str, Any]]]
    static: Any

    @property
    def name(self) -> str:
        return getattr(self.fun, "__name__", type(self.fun).__name__)

    def trace(
        self,
        leaves: Sequence[Any] | None = None,
        extra: Sequence[Any] = (),
        wrap: Callable[..., Any] | None = None,
    ) -> "Traced":
        """Trace the function on these leaves (or on others of the same structure).

        With `extra` inputs, traced before the leaves, `wrap(extra, args, kwargs)` is
        called in place of `fun(*args, **kwargs)`.
        """
        out_tree = None

        def flat_fun(*values: Any) -> list[Any]:
            nonlocal out_tree
            args, kwargs = self.rebuild(values[len(extra) :])
            if wrap is None:
                out = self.fun(*args, **kwargs)
            else:
                out = wrap(values[: len(extra)], args, kwargs)
            flat, out_tree = jax.tree.flatten(out)
            return flat

        leaves = self.leaves if leaves is None else leaves
        closed = trace_flat(flat_fun, *extra, *leaves, name=self.name)
        return Traced(closed, out_tree, self.paths, self.args, self.name)


@dataclass(frozen=True)
class Traced:
    """A function as a jaxpr, with the names of its flat inputs."""

    closed: Any
    out_tree: Any
    paths: tuple[str, ...]
    args: tuple[str, ...]
    name: str

    @property
    def consts(self) -> tuple[Any, ...]:
        """Arrays that the function closed over (maybe tracers of an outer trace)."""
        return tuple(_compat.open_jaxpr(self.closed)[1])

    @property
    def in_avals(self) -> list[Any]:
        return list(self.closed.in_avals)

    @property
    def out_avals(self) -> list[Any]:
        return list(self.closed.out_avals)


def flatten_call(
    fun: Callable[..., Any],
    signature: inspect.Signature,
    args: Sequence[Any],
    kwargs: Any,
    is_leaf: Callable[[Any], bool] | None = None,
) -> Call:
    """Bind and flatten a call. Raises `InputError` when it does not fit `signature`."""
    name = getattr(fun, "__name__", type(fun).__name__)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as e:
        raise InputError(f"{name}{signature}: {e}") from None
    entries = list(bound.arguments.items())
    named, tree = jax.tree_util.tree_flatten_with_path(
        [value for _, value in entries], is_leaf=is_leaf
    )
    dynamic = [i for i, (_, x) in enumerate(named) if _is_array(x, is_leaf)]
    # Arrays are left out: a cached call must not keep them alive.
    fixed = [None if i in dynamic else x for i, (_, x) in enumerate(named)]

    def rebuild(values: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        leaves = list(fixed)
        for i, v in zip(dynamic, values, strict=True):
            leaves[i] = v
        again = dict(
            zip(bound.arguments, jax.tree.unflatten(tree, leaves), strict=True)
        )
        full = inspect.BoundArguments(signature, again)
        return full.args, full.kwargs

    owners = [entries[named[i][0][0].idx][0] for i in dynamic]
    paths = [
        owner + jax.tree_util.keystr(named[i][0][1:])
        for owner, i in zip(owners, dynamic, strict=True)
    ]
    leaves = tuple(named[i][1] for i in dynamic)
    static = tuple(x for i, (_, x) in enumerate(named) if i not in set(dynamic))
    return Call(fun, leaves, tuple(paths), tuple(owners), rebuild, (tree, static))


def _is_array(x: Any, is_leaf: Callable[[Any], bool] | None) -> bool:
    if is_leaf is not None and is_leaf(x):
        return True
    if isinstance(x, (bool, int, float, complex)):
        return True
    return hasattr(x, "shape") and hasattr(x, "dtype")


def trace_flat(
    fun: Callable[..., Any], *leaves: Any, name: str = "function", axis_env: Any = None
) -> Any:
    """Trace a flat function (arrays in, list of arrays out) to a closed jaxpr.

    `axis_env` is a sequence of (axis name, size) that collectives may refer to. Raises
    `TraceError`, naming the user's line, where Python branches on a value, turns it into
    a number or hands it to NumPy.
    """
    try:
        return jax.make_jaxpr(fun, axis_env=axis_env)(*leaves)
    except _PYTHON_LOOKED as e:
        raise TraceError(
            f"{name}: Python looked into a value that is only known as a traced (or "
            f"secret) array, at {line_of(e)}. Use jnp.where, jax.lax.cond or a mask "
            f"instead of a Python if/while, int() or numpy on it.\n{_first_line(e)}"
        ) from e


def _first_line(e: Exception) -> str:
    return str(e).strip().splitlines()[0]


def line_of(e: Exception) -> str:
    """The innermost line of user code in the exception's traceback."""
    tb, best = e.__traceback__, None
    while tb is not None:
        file = tb.tb_frame.f_code.co_filename
        inside = any(f"/{pkg}/" in file.replace("\\", "/") for pkg in _LIBRARIES)
        if not inside:
            best = (file, tb.tb_lineno, tb.tb_frame.f_code.co_name)
        tb = tb.tb_next
    return f"{best[0]}:{best[1]} ({best[2]})" if best else "an unknown line"


_LIBRARIES = ("jax", "jaxlib", "privjax", "flax", "optax", "numpy", "contextlib.py")
