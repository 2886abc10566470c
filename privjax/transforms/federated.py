"""`privjax.federated`: a client's update becomes a round over clients."""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privjax import _compat
from privjax.aggregation.methods import resolve
from privjax.aggregation.secure import too_few
from privjax.core.trace import Call, Traced
from privjax.errors import InputError, LeakError, RangeError
from privjax.passes import federated as passes
from privjax.prg.chacha20 import Purpose, derive
from privjax.transforms.base import (
    Transformed,
    decorator,
    key_spec,
    typed_key,
    with_inner_key,
)
from privjax.transforms.report import Report, entry, output_names

LEVELS = ("client", "round")
STRATEGIES = ("auto", "scan", "vmap")


@dataclass(frozen=True)
class _Static:
    """What of a call's arguments is not an array: the part JAX compiles anew for."""

    tree: Any
    leaves: tuple[Hashable, ...]
    dynamic: tuple[bool, ...]

    def rebuild(self, values: Sequence[Any]) -> tuple[Any, Any]:
        """(args, kwargs) with these arrays."""
        new, fixed = iter(values), iter(self.leaves)
        leaves = [next(new) if d else next(fixed) for d in self.dynamic]
        return jax.tree.unflatten(self.tree, leaves)


def _split(args: Any, kwargs: Any) -> tuple[_Static, list[Any]]:
    leaves, tree = jax.tree.flatten((args, kwargs))
    dynamic = tuple(_is_array(x) for x in leaves)
    pairs = list(zip(leaves, dynamic, strict=True))
    fixed = tuple(x for x, d in pairs if not d)
    return _Static(tree, fixed, dynamic), [x for x, d in pairs if d]


def _is_array(x: Any) -> bool:
    number = isinstance(x, (bool, int, float, complex))
    return number or (hasattr(x, "shape") and hasattr(x, "dtype"))


class Federated(Transformed):
    """A round over clients; see `federated`."""

    def __init__(
        self,
        fun: Callable[..., Any],
        clients: Any,
        *,
        level: str,
        weights: Any,
        aggregate: Any,
        strategy: str,
    ) -> None:
        super().__init__(fun)
        if level not in LEVELS:
            raise InputError(f"level={level!r}: choose one of {LEVELS}.")
        if strategy not in STRATEGIES:
            raise InputError(f"strategy={strategy!r}: choose one of {STRATEGIES}.")
        if level == "round" and weights is not None:
            raise InputError(
                "weights= belongs to level='client'; a function written over the "
                "clients axis weighs its clients itself."
            )
        self.method = resolve(aggregate)
        if level == "round" and getattr(self.method, "clip", None) is not None:
            raise InputError(
                "secure_sum(clip=...) belongs to level='client'; a function written "
                "over the clients axis clips its clients itself. Give fractional_bits=."
            )
        self.clients = self.argument_names(clients, "clients")
        self.level = level
        self.adaptive = getattr(self.method, "adaptive", None)
        self.strategy = strategy
        self.weights = weights
        self.needs_key = self.method.needs_key or with_inner_key(fun)
        self.weights_name = self._keyword("weights")
        self.survivors_name = self._keyword("survivors")
        self.clip_name = self._keyword("clip")
        self._compiled = jax.jit(self._federated_round, static_argnums=(0, 1))

    def _keyword(self, name: str) -> str:
        """What an argument of the round is called where `fun` has one of its name."""
        return f"client_{name}" if name in self.signature.parameters else name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        key = self.pop_key(kwargs)
        weights = kwargs.pop(self.weights_name, None)
        weights = self.weights if weights is None else weights
        survivors = kwargs.pop(self.survivors_name, None)
        if survivors is not None:
            survivors = _checked_survivors(survivors, self.survivors_name)
        clip = self._clip(kwargs)
        static, values = _split(args, kwargs)
        if weights is not None:
            if self.level == "round":
                raise InputError("weights= has no meaning at level='round'.")
            weights = _checked_weights(weights)
        words = None
        if self.needs_key:
            # Masks and noise come from sessions bound to what they protect.
            words = self.call_key(key, [*values, weights, survivors, clip])
        # Under an outer trace nobody can look: sums out of range stay NaN there.
        check = self.method.needs_key and not _compat.under_trace()
        if check:
            self._recoverable(words, survivors)
            self._of_many(weights, survivors)
        given = (weights, survivors, clip)
        out, fits = self._compiled(static, check, values, given, words)
        if check and not isinstance(fits, _compat.Tracer) and not fits:
            raise RangeError(
                f"{self.__name__}: some client's update is not finite, or too large "
                f"for {self.method}; nothing was summed."
            )
        return out

    def _clip(self, kwargs: dict[str, Any]) -> Any:
        """This round's clip norm, where the method adapts it; else None."""
        if self.adaptive is None:
            return None
        clip = kwargs.pop(self.clip_name, None)
        return jnp.float32(self.adaptive.initial if clip is None else clip)

    def _recoverable(self, words: Any, survivors: Any) -> None:
        """Before anything is computed: whether the method can do without the others."""
        test = getattr(self.method, "recoverable", None)
        if test is None or survivors is None or len(survivors) < 2:
            return
        found = jax.jit(test)(_sums_key(words), survivors)
        if not isinstance(found, _compat.Tracer) and not found:
            raise too_few(self.method, survivors)

    def _of_many(self, weights: Any, survivors: Any) -> None:
        """A hidden sum in which one client has all the weight hides nothing."""
        known = [x for x in (weights, survivors) if x is not None]
        noisy = getattr(self.method, "noise", None) is not None
        if (
            weights is None
            or noisy
            or any(isinstance(x, _compat.Tracer) for x in known)
        ):
            return
        if len({x.shape for x in known}) > 1:
            return  # refused when the clients are counted
        there = np.all([np.asarray(x) > 0 for x in known], axis=0)
        if there.size > 1 and np.sum(there) == 1:
            raise LeakError(
                f"{self.__name__}: of {there.size} clients only client "
                f"{int(np.argmax(there))} has a weight in {self.weights_name}=, so that "
                f"{self.method} would give away its update. Weigh more clients, or leave "
                "the round out."
            )

    # -- traced ------------------------------------------------------------------------

    def _federated_round(
        self, static: _Static, check: bool, values: Any, given: Any, words: Any
    ) -> Any:
        weights, survivors, clip = given
        args, kwargs = static.rebuild(values)
        call = self.call(args, kwargs)
        own, clients = self._clients(call, weights, survivors)
        traced = self._trace(call, own)
        needs = self.method.needs_key
        sums_key = _sums_key(words) if needs else None
        leaves = list(call.leaves)
        own = self._keyed(own)
        if with_inner_key(self.fun):
            leaves = [client_keys(words, clients) if own[0] else words, *leaves]
        if self.level == "round":
            out, left = passes.round_program(traced, own).run(
                leaves, method=self.method, key_words=sums_key, survivors=survivors
            )
        else:
            program = passes.client_program(traced, own)
            out, left, clip = passes.mean_over_clients(
                program,
                leaves,
                clients=clients,
                method=self.method,
                strategy=self._strategy(program, clients),
                weights=weights,
                survivors=survivors,
                clip=clip,
                key_words=sums_key,
            )
        tree = jax.tree.unflatten(traced.out_tree, out)
        if self.adaptive is not None:
            tree = tree, clip
        return tree, _all_finite(left) if check else None

    def _clients(
        self, call: Call, weights: Any, survivors: Any = None
    ) -> tuple[list[bool], int]:
        """Which flat inputs are the clients', and how many clients there are."""
        own = self.argument_leaves(call, self.clients)
        clients = count_clients(call, own, self.clients)
        self.method.check(clients, weights is not None)
        given = {self.weights_name: weights, self.survivors_name: survivors}
        for name, x in given.items():
            if x is not None and x.shape != (clients,):
                raise InputError(
                    f"{name}= has shape {x.shape}; {clients} clients need ({clients},)."
                )
        return own, clients

    def _slices(self, call: Call, own: Sequence[bool]) -> list[Any]:
        """The inputs as the function sees them: at level "client" those of one client."""
        if self.level == "round":
            return list(call.leaves)
        return [
            jax.ShapeDtypeStruct(x.shape[1:], x.dtype) if mine else x
            for x, mine in zip(call.leaves, own, strict=True)
        ]

    def _trace(self, call: Call, own: Sequence[bool]) -> Traced:
        """The function as a jaxpr; the words of its key, if it takes one, come first."""
        with passes.one_client_alone(self.__name__):
            return self._traced(call, self._slices(call, own))

    def _traced(self, call: Call, leaves: Sequence[Any]) -> Traced:
        if not with_inner_key(self.fun):
            return call.trace(leaves)
        inner: Any = self.fun

        def keyed(extra: Any, args: Any, kwargs: Any) -> Any:
            return inner(*args, **kwargs, **{inner.key_name: typed_key(extra[0])})

        return call.trace(leaves, [jax.ShapeDtypeStruct((8,), jnp.uint32)], keyed)

    def _strategy(self, program: Any, clients: int) -> str:
        if self.strategy == "auto":
            return passes.choose_strategy(program, clients)
        return self.strategy

    # -- looking inside ----------------------------------------------------------------

    def _own_arguments(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Keyword arguments without those of the round."""
        names = [self.weights_name, self.survivors_name, self.key_name]
        if self.adaptive is not None:
            names.append(self.clip_name)
        return {k: v for k, v in kwargs.items() if k not in names}

    def event(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """What one call with these arguments (or shapes) costs, for `privjax.accounting`.

        About one client's update, whatever data it has: its whole part is replaced by
        zeros, or it is one client more or less. Charge it to a `Ledger`; where clients
        are sampled, inside of the event of the sampling.

        Raises: InputError for a method without noise of its own.
        """
        if getattr(self.method, "noise", None) is None:
            raise InputError(
                f"{self.__name__}: aggregate={self.method} adds no noise; give noise=."
            )
        weighted = kwargs.get(self.weights_name, self.weights) is not None
        call = self.call(args, self._own_arguments(kwargs))
        own, clients = self._clients(call, None)
        program = passes.client_program(self._trace(call, own), self._keyed(own))
        sizes = [math.prod(program.closed.out_avals[k].shape) for k in program.averaged]
        count = sum(sizes) + weighted + (self.adaptive is not None)
        return dict(self.method.event(clients, count))

    def _keyed(self, own: Sequence[bool]) -> list[bool]:
        """Which inputs of the traced program are the clients' own, the key's included."""
        return [self.level == "client", *own] if with_inner_key(self.fun) else [*own]

    def stage_jaxprs(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """One client's program (or the round as it was written), and the round."""
        call = self.call(args, self._own_arguments(kwargs))
        own, _ = self._clients(call, None)
        key = {self.key_name: key_spec()} if self.needs_key else {}
        return {
            "traced": self._trace(call, own).closed,
            "rewritten": jax.make_jaxpr(self.__call__)(*args, **{**kwargs, **key}),
        }

    def report(self, *args: Any, **kwargs: Any) -> Report:
        """See `privjax.explain`."""
        weighted = kwargs.get(self.weights_name, self.weights) is not None
        call = self.call(args, self._own_arguments(kwargs))
        own, clients = self._clients(call, None)
        traced = self._trace(call, own)
        public = "public: sent to every client" if self.level == "client" else "public"
        inputs = [
            entry(
                path,
                jax.eval_shape(lambda v: v, x),
                "each client keeps its own slice" if mine else public,
            )
            for path, x, mine in zip(call.paths, call.leaves, own, strict=True)
        ]
        if self.level == "client":
            program = passes.client_program(traced, self._keyed(own))
            leaving = set(program.averaged)
            runs = f"one device, by {self._strategy(program, clients)} over clients"
        else:
            outs = passes.round_program(traced, self._keyed(own)).outs
            leaving = {k for k, state in enumerate(outs) if state.level}
            runs = "one device, as written"
        label = {
            "client": "weighted mean over clients" if weighted else "mean over clients",
            "round": "from sums over clients",
        }[self.level]
        names = output_names(traced.out_tree)
        outputs = [
            entry(
                name, aval, label if k in leaving else "does not depend on the clients"
            )
            for k, (name, aval) in enumerate(zip(names, traced.out_avals, strict=True))
        ]
        inner = None
        if isinstance(self.fun, Transformed):
            inner_args, inner_kwargs = call.rebuild(self._slices(call, own))
            inner = self.fun.report(*inner_args, **inner_kwargs)
        releases = [
            f"{names[k]}: a sum over {clients} clients; {self.method.server_sees}"
            for k in sorted(leaving)
        ]
        if self.adaptive is not None:
            releases.append(
                "how many clients are within the clip norm, in the same sum"
            )
        notes = [f"simulated: {runs}; the process sees the data of all clients"]
        if getattr(self.method, "noise", None) is not None:
            notes.append(
                f"client-level differential privacy: {self.event(*args, **kwargs)}"
            )
        return Report(
            f"{self.__name__}: federated over {clients} clients "
            f"({', '.join(self.clients)}), aggregate {self.method}",
            tuple(inputs),
            tuple(outputs),
            tuple(releases),
            notes=tuple(notes),
            inner=inner,
        )


def _sums_key(words: Any) -> Any:
    """The key of the sums, from that of the round."""
    return derive(words, (Purpose.CALL, 0, 0))


def _all_finite(xs: Sequence[Any]) -> Any:
    real = [x for x in xs if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.all(jnp.stack([jnp.bool_(True), *(jnp.isfinite(x).all() for x in real)]))


def client_keys(words: Any, clients: int) -> Any:
    """uint32[clients, 8]: each client's own key, derived from that of the round."""
    indices = jnp.arange(clients, dtype=jnp.uint32)
    return jax.vmap(lambda i: derive(words, (Purpose.PARTY, i, 0)))(indices)


def count_clients(call: Call, own: Sequence[bool], names: Sequence[str]) -> int:
    """The common leading extent of the clients' leaves.

    Raises: InputError naming the leaf that has none, or another one.
    """
    found: dict[str, int] = {}
    for x, path, mine in zip(call.leaves, call.paths, own, strict=True):
        if not mine:
            continue
        shape = np.shape(x)
        if not shape:
            raise InputError(
                f"{call.name}: `{path}` belongs to the clients and has no leading "
                "clients axis; it is a scalar."
            )
        found[path] = shape[0]
    if not found:
        raise InputError(f"{call.name}: {list(names)} carry no arrays of clients.")
    (first, clients), *rest = found.items()
    for path, n in rest:
        if n != clients:
            raise InputError(
                f"{call.name}: `{path}` has {n} clients along its leading axis and "
                f"`{first}` has {clients}."
            )
    if clients == 0:
        raise InputError(f"{call.name}: `{first}` has no clients (leading axis of 0).")
    return clients


def _checked_weights(weights: Any) -> Any:
    """As a floating-point array; checked as far as it is concrete."""
    if not _is_array(weights):
        weights = np.asarray(weights)
    kind = jnp.result_type(weights)
    if not (jnp.issubdtype(kind, jnp.floating) or jnp.issubdtype(kind, jnp.integer)):
        raise InputError(f"weights= must be real numbers, not {kind}.")
    if not isinstance(weights, _compat.Tracer):
        clear = np.asarray(weights)
        if not np.all(np.isfinite(clear)) or np.any(clear < 0):
            raise InputError(f"weights= must be finite and nonnegative: {clear}.")
        if clear.size and not np.sum(clear) > 0:
            raise InputError("weights= sum to zero; at least one must be positive.")
    return jnp.asarray(weights, jnp.promote_types(kind, jnp.float32))


def _checked_survivors(survivors: Any, name: str) -> Any:
    """As bool[...]; checked as far as it is concrete."""
    if not _is_array(survivors):
        survivors = np.asarray(survivors)
    kind = jnp.result_type(survivors)
    if kind != np.bool_:
        raise InputError(f"{name}= must be bool[clients], not {kind}.")
    if not isinstance(survivors, _compat.Tracer) and not np.any(survivors):
        raise InputError(f"{name}=: no client is left.")
    return jnp.asarray(survivors)


@decorator
def federated(
    fun: Callable[..., Any],
    clients: Any = "data",
    *,
    level: str = "client",
    weights: Any = None,
    aggregate: Any = "plain",
    strategy: str = "auto",
) -> Any:
    """Turn an ordinary client update into a federated round.

    Args:
      fun: at level "client" the update of one client, such as
        `fun(params, data) -> params`; any arguments, any pytree of results.
      clients: name(s) or position(s) of the arguments that belong to the clients. The
        result takes them with a leading clients axis on every leaf.
      level: "client", or "round" for a function already written over the clients axis.
      weights: default of the call's `weights=`.
      aggregate: "plain", "secure" (one server, masks between clients), "spdz" (a few
        aggregators that hold shares), or one of these with options: drop-outs, clipping,
        noise, compression, such as `privjax.secure_sum(bits=32, clip=1.0)`. See
        `privjax.aggregation`.
      strategy: "scan" runs clients one after the other, "vmap" all at once, "auto"
        chooses: vmap on accelerators and for clients that together stay in the cache.

    Returns:
      A function of the same arguments plus keywords `weights=` (nonnegative, [clients];
      `client_weights=` if `fun` has a parameter `weights`), `survivors=` (bool[clients],
      who answers in this round, likewise `client_survivors=`; an array like any other, so
      that nothing is compiled anew; the mean is over those) and `key=` (where sums are
      secure or `fun` itself draws randomness; required under jit, vmap and scan).
      It returns the mean over clients of what `fun` returns, weighted by `weights`, in
      the same shapes and types; with an `AdaptiveClip` the pair of that and the next
      round's clip norm, a scalar to be passed as `clip=` (or `client_clip=`). Results
      that do not depend on the clients' data (Optax's step counts) are returned as they
      are. It works under jit, vmap, scan, and, with plain sums, grad.

    Raises:
      InputError: names, shapes or weights that do not fit; an integer result that
        depends on the clients' data.
      LeakError: client data would be handed to the host, or (level "round") something
        other than a sum over clients would leave the clients; weights of zero for all
        clients but one, where sums are secure.
      RangeError: secure sums of values that are not finite or too large. Under jit the
        result is NaN instead, and weights that sum to zero give NaN.
      ProtocolError: too few survivors for the method to recover the others' masks;
        nothing is unmasked. Under jit the result is NaN, and the method's `recoverable`
        is the flag that says so.
      RandomKeyError: a key is missing under jit, vmap or scan.
    """
    return Federated(
        fun,
        clients,
        level=level,
        weights=weights,
        aggregate=aggregate,
        strategy=strategy,
    )


__all__ = ["Federated", "federated"]
