"""What all transformations share: decorators, argument names, and the `key=` contract.

Randomness is explicit. Outside of a trace a missing key is drawn from the operating
system; inside jit, vmap or scan a missing key is an error, and so is a key that is a
constant of the traced program (every call of the compiled program would repeat it).
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax

from privjax import _compat
from privjax.core.trace import Call, flatten_call
from privjax.errors import InputError, RandomKeyError
from privjax.prg.keys import IMPL, insecure_key, key_words
from privjax.prg.keys import key as fresh_key
from privjax.prg.session import session

_REST, _MORE = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD


class Transformed:
    """A function rewritten by privjax; callable like the function, plus `key=`.

    Attributes:
      fun: the function that was given.
      signature: its signature (without the key).
      key_name: the name of the key argument: "key", or "privacy_key" where the function
        has a parameter "key" of its own.
      needs_key: whether a call draws randomness.
    """

    needs_key = True
    __name__: str

    def __init__(self, fun: Callable[..., Any]) -> None:
        if not callable(fun):
            raise InputError(f"expected a function, got {type(fun).__name__}: {fun!r}")
        # Not `__dict__`: another transformation's attributes are not this one's.
        functools.update_wrapper(self, fun, updated=())
        self.__name__ = getattr(fun, "__name__", type(fun).__name__)
        self.fun = fun
        self.signature = inspect.signature(fun)
        self.key_name = "privacy_key" if "key" in self.signature.parameters else "key"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def call(self, args: Sequence[Any], kwargs: dict[str, Any], **options: Any) -> Call:
        """Bind and flatten a call of the wrapped function."""
        return flatten_call(self.fun, self.signature, args, kwargs, **options)

    def pop_key(self, kwargs: dict[str, Any]) -> Any:
        """Take the key out of the keyword arguments (None when it is missing)."""
        return kwargs.pop(self.key_name, None)

    def session_key(self, key: Any, values: Sequence[Any], program: str = "") -> Any:
        """uint32[8] for one call: derived from `key` and all `values` (see prg.session).

        `key` may be None outside of traces. Raises `RandomKeyError` as the module says.
        """
        return session(self.call_key(key, values), *values, context=program)

    def call_key(self, key: Any, values: Sequence[Any]) -> Any:
        """The words of `key` itself, or of a fresh one: uint32[8]. Raises likewise."""
        name = getattr(self, "__name__", "the function")
        traced = _compat.under_trace()
        if key is None:
            if traced or any(isinstance(v, _compat.Tracer) for v in values):
                raise RandomKeyError(
                    f"{name} draws randomness and is called under jit, vmap, scan or "
                    f"another transformation without {self.key_name}=. Pass a key as an "
                    f"argument of the outer function: {self.key_name}="
                    "privjax.random.key() outside, jax.random.split(key) per lane or "
                    "step inside."
                )
            key = fresh_key()
        elif traced and not isinstance(key, _compat.Tracer):
            raise RandomKeyError(
                f"the {self.key_name}= of {name} is a constant of the traced program: "
                "every call of the compiled program would repeat its masks and noise. "
                "Make the key an argument of the outer function."
            )
        return key_words(key)

    # -- looking inside (see `explain` and `stages`) ----------------------------------

    def report(self, *args: Any, **kwargs: Any) -> Any:
        """A `report.Report` of one call. Every transformation has its own."""
        raise NotImplementedError(type(self).__name__)

    def stage_jaxprs(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The function as given, and the program that it becomes."""
        own = {k: v for k, v in kwargs.items() if k in self.signature.parameters}
        key = {self.key_name: key_spec()} if self.needs_key else {}
        inner: Any = self.fun
        inner_key = {inner.key_name: key_spec()} if with_inner_key(inner) else {}
        return {
            "traced": jax.make_jaxpr(inner)(*args, **own, **inner_key),
            "rewritten": jax.make_jaxpr(self)(*args, **own, **key),
        }

    def argument_leaves(self, call: Call, names: Sequence[str]) -> list[bool]:
        """For each flat input, whether it belongs to one of the arguments `names`."""
        leaves = zip(call.args, call.paths, strict=True)
        return [named(names, arg, path) is not None for arg, path in leaves]

    def argument_names(self, spec: Any, option: str) -> tuple[str, ...]:
        """Names of arguments from a name, a position, or a sequence of these.

        A position from that of `*args` on, and a name that only `**kwargs` can take, say
        which of these is meant: "args[1]", "kwargs['lr']".
        """
        items = [spec] if isinstance(spec, (str, int)) else list(spec)
        return tuple(self._argument_name(item, spec, option) for item in items)

    def _argument_name(self, item: Any, spec: Any, option: str) -> str:
        parameters = self.signature.parameters
        names = list(parameters)
        kinds = {p.kind: name for name, p in parameters.items()}
        rest, more = (kinds.get(k) for k in (_REST, _MORE))
        if isinstance(item, int):
            if rest is not None and item >= names.index(rest):
                return f"{rest}[{item - names.index(rest)}]"
            if -len(names) <= item < len(names):
                return names[item]
        elif item in names:
            return str(item)
        elif more is not None and isinstance(item, str):
            return f"{more}[{item!r}]"
        raise InputError(
            f"{option}={spec!r}: {getattr(self, '__name__', 'the function')}"
            f"{self.signature} has no argument {item!r}."
        )


def named(names: Iterable[str], arg: str, path: str) -> str | None:
    """Which of `names` a leaf belongs to, by its argument or its place in `*args`."""
    for name in names:
        if name in (arg, path) or path.startswith((f"{name}[", f"{name}.")):
            return name
    return None


def decorator(make: Callable[..., Any]) -> Callable[..., Any]:
    """Let `make(fun, **options)` also be used as `@make` and `@make(**options)`."""

    @functools.wraps(make)
    def wrapper(fun: Any = None, *args: Any, **options: Any) -> Any:
        if fun is None:
            return lambda f: make(f, *args, **options)
        return make(fun, *args, **options)

    return wrapper


def with_inner_key(fun: Any) -> bool:
    """Whether `fun` is itself a transformation that must be handed a key."""
    return isinstance(fun, Transformed) and fun.needs_key


def key_spec() -> Any:
    """The type of a key, for tracing."""
    return jax.eval_shape(lambda: insecure_key(0))


def typed_key(words: Any) -> Any:
    """A JAX typed key from uint32[..., 8]."""
    return jax.random.wrap_key_data(words, impl=IMPL)
