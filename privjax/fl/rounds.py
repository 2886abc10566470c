"""An algorithm as three pure functions, and the round that is made of them.

    public         = offer(params, server)          what every client receives
    Sent           = client(public, Client(...))    one client's work
    params, server = finish(params, server, sums)   the server's work

`Algorithm.round` runs them for a cohort. Each can be used on its own: the client's
function can be exported and run on a real client, whose sums another runtime forms.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp

from privjax import _compat
from privjax._typing import Array, PyTree
from privjax.aggregation.methods import resolve
from privjax.aggregation.secure import too_few
from privjax.aggregation.sparse import TopK
from privjax.core import markers
from privjax.errors import InputError, RangeError
from privjax.fl import mapping
from privjax.fl import runtime as runtimes
from privjax.fl.cohorts import Cohort, as_cohorts
from privjax.fl.mapping import Sent
from privjax.fl.reports import report
from privjax.fl.states import (
    Client,
    State,
    alive_in,
    scattered,
    who_answers,
)
from privjax.prg.chacha20 import Purpose, derive
from privjax.transforms.base import Transformed, key_spec
from privjax.transforms.report import Report


@dataclass(frozen=True, eq=False)
class Algorithm:
    """A federated algorithm.

    Attributes:
      name: for reports.
      start: params -> server state.
      enrol: params -> the first state of one client, () for clients without states.
      offer, client, finish: see the module's docstring. `finish` takes the sums, with
        "clients", the number of those who answered; and after them the result of
        `robust` on the rows where there is one.
      robust: None, or what is done with single updates in place of a sum.
      clips: whether clients bound what they send as `aggregate` asks; then `client` and
        `finish` also take `clients=`, how many there are in the round.
      event: (clients, params) -> what a round costs, for `privjax.dp.Ledger`, or None.
      sparse: None, or what makes a client's message sparse, for counting its bits.
      aggregate, runtime: see `RoundOptions`.
      draws: whether clients need a key.
    """

    name: str
    start: Callable[[PyTree], PyTree]
    enrol: Callable[[PyTree], PyTree]
    offer: Callable[[PyTree, PyTree], PyTree]
    client: Callable[..., Sent]
    finish: Callable[..., tuple[PyTree, PyTree, dict[str, Array]]]
    robust: Any = None
    clips: bool = False
    event: Callable[[int, PyTree], dict[str, Any] | None] = lambda clients, params: None
    sparse: Any = None
    aggregate: Any = "plain"
    runtime: Any = "auto"
    draws: bool = False

    def init(self, params: PyTree, clients: int | None = None) -> State:
        """The state before the first round.

        Args:
          params: a pytree of arrays.
          clients: how many clients there are in all; needed where they have states.
        """
        params = jax.tree.map(jnp.asarray, params)
        one = jax.tree.map(jnp.asarray, self.enrol(params))
        if jax.tree.leaves(one):
            if clients is None:
                raise InputError(
                    f"clients of {self.name} have states: give init(params, clients=N)."
                )
            one = jax.tree.map(
                lambda x: jnp.broadcast_to(x, (clients, *x.shape)).copy(), one
            )
        return State(params, self.start(params), one, jnp.int32(0))

    @cached_property
    def round(self) -> "Round":
        """`round(state, cohort, key=None) -> (state, metrics)`; see `Round`."""
        return Round(self)


class Round(Transformed):
    """One round of an algorithm, compiled; works under jit, vmap, scan and grad.

    Called with a `State` and a `Cohort` (or a tuple of them: buckets of clients of like
    size; or bare arrays [clients, examples, ...] of all clients). Returns the next state
    and metrics, scalars by name. `key=` is needed where sums are secure or clients
    shuffle. `privjax.explain(algorithm.round, state, cohort)` says who sees what.

    Raises:
      InputError: shapes that do not fit; clients with states and no `ids`.
      LeakError: a client's data is handed to the host.
      RangeError: secure sums of values that are not finite or too large.
      ProtocolError: too few survivors for a secure sum to recover the others' masks; or,
        with several processes, another one is gone.
    """

    def __init__(self, algorithm: Algorithm) -> None:
        def one_round(state: State, cohort: Cohort) -> Any:
            return self(state, cohort)

        one_round.__name__ = algorithm.name
        super().__init__(one_round)
        self.algorithm = algorithm
        self.method = resolve(algorithm.aggregate)
        self.runtime = runtimes.check(algorithm.runtime)
        self.needs_key = self.method.needs_key or algorithm.draws
        if getattr(self.method, "clip", None) is not None and not algorithm.clips:
            raise InputError(
                f"clients of {algorithm.name} send more than their change of the model, "
                f"and {self.method} would clip all of it together. Use fedavg or one of "
                "its kin, or a method without clip=."
            )
        self._compiled = jax.jit(self._run, static_argnums=(0,))
        self._in_place = jax.jit(self._run, static_argnums=(0,), donate_argnums=(1,))

    def __call__(
        self, state: State, cohort: Any, *, key: Any = None
    ) -> tuple[State, dict[str, Array]]:
        return self._call(self._compiled, state, cohort, key)

    def in_place(
        self, state: State, cohort: Any, *, key: Any = None
    ) -> tuple[State, dict[str, Array]]:
        """The same, in the memory of `state`, which is used up."""
        return self._call(self._in_place, state, cohort, key)

    def _call(self, run: Any, state: State, cohort: Any, key: Any) -> Any:
        cohorts = as_cohorts(cohort)
        words = None
        if self.needs_key:
            words = self.call_key(key, jax.tree.leaves((state, cohorts)))
        check = self.method.needs_key and not _compat.under_trace()
        if check:
            self._recoverable(words, cohorts)
        with runtimes.others(self.runtime):
            out, fits = run(check, state, cohorts, words)
        if check and not isinstance(fits, _compat.Tracer) and not fits:
            raise RangeError(
                f"{self.__name__}: some client's update is not finite, or too large "
                f"for {self.method}; nothing was summed."
            )
        return out

    def _recoverable(self, words: Any, cohorts: Sequence[Cohort]) -> None:
        """Before anything is computed: whether the method can do without the absent."""
        test = getattr(self.method, "recoverable", None)
        if test is None or all(c.survivors is None for c in cohorts):
            return
        there = jnp.concatenate([who_answers(c, self.method) for c in cohorts])
        found = jax.jit(test)(_sums_key(words), there)
        if not isinstance(found, _compat.Tracer) and not found:
            raise too_few(self.method, there)

    # -- traced ------------------------------------------------------------------------

    def _run(
        self, check: bool, state: State, cohorts: tuple[Cohort, ...], words: Any
    ) -> Any:
        a = self.algorithm
        total = sum(c.clients for c in cohorts)
        self.method.check(total, False)
        client, finish = self._parts(total)
        public = a.offer(state.params, state.server)
        sums_key = _sums_key(words) if self.method.needs_key else None
        collected, alive, clients = [], [], state.clients
        answering = [who_answers(c, self.method) for c in cohorts]
        program: Any = None
        for k, cohort in enumerate(cohorts):
            mine = None if words is None else derive(words, (Purpose.LOOP, k, 0))
            own, ids = self._own(state, cohort, mine)
            program = mapping.trace(client, public, own, self.__name__)
            found = mapping.collect(
                program,
                public,
                own,
                alive=cohort.survivors,
                answering=None if cohort.survivors is None else answering[k],
                before=own.state,
                method=self.method,
                runtime=self.runtime,
                key_words=sums_key if len(cohorts) == 1 else None,
            )
            collected.append(found)
            alive.append(alive_in(cohort))
            clients = scattered(clients, found.kept, ids, cohort.survivors)
        there = jnp.concatenate(alive)
        everybody = all(c.survivors is None for c in cohorts)
        sums = mapping.combine(
            program,
            collected,
            self.method,
            sums_key,
            None if everybody else jnp.concatenate(answering),
        )
        extra = []
        if a.robust is not None:
            rows = jax.tree.map(
                lambda *xs: jnp.concatenate(xs), *[c.rows for c in collected]
            )
            extra = [a.robust(rows, there, self._totals(words))]
        answered = jnp.sum(there, dtype=jnp.float32)
        params, server, metrics = finish(
            state.params, state.server, {**sums, "clients": answered}, *extra
        )
        metrics = {"clients": answered, **metrics}
        new = State(params, server, clients, state.rounds + 1)
        return (new, metrics), _finite(sums) if check else None

    def _parts(self, clients: int) -> tuple[Any, Any]:
        """The client's and the server's function for so many clients."""
        a = self.algorithm
        if not a.clips:
            return a.client, a.finish
        return partial(a.client, clients=clients), partial(a.finish, clients=clients)

    def _totals(self, words: Any) -> Any:
        """Sums over clients by the method, each call with a key of its own."""
        calls = itertools.count(1)

        def totals(xs: list[Array]) -> list[Array]:
            key = None
            if self.method.needs_key:
                key = derive(words, (Purpose.CALL, next(calls), 0))
            return markers.aggregate(xs, self.method, key)

        return totals

    def _own(self, state: State, cohort: Cohort, words: Any) -> tuple[Client, Any]:
        """The clients' own inputs, [clients, ...], and their ids."""
        ids, mine = cohort.ids, state.clients
        if jax.tree.leaves(mine):
            total = jax.tree.leaves(mine)[0].shape[0]
            if ids is None and cohort.clients != total:
                raise InputError(
                    f"{self.__name__}: its {total} clients have states, and a cohort of "
                    f"{cohort.clients} does not say which they are: give Cohort(ids=)."
                )
            if ids is not None:
                ids = jnp.asarray(ids)
                mine = jax.tree.map(lambda x: x[ids], mine)
        keys = None
        if self.algorithm.draws:
            index = jnp.arange(cohort.clients, dtype=jnp.uint32)
            keys = jax.vmap(lambda i: derive(words, (Purpose.PARTY, i, 0)))(index)
        data, mask, steps = jax.tree.map(
            jnp.asarray, (cohort.data, cohort.mask, cohort.steps)
        )
        return Client(mine, data, mask, steps, keys), ids

    # -- looking inside ----------------------------------------------------------------

    def _program(self, state: State, cohort: Cohort, total: int) -> mapping.Program:
        """One client's program, from types alone."""
        a = self.algorithm

        def inputs(state: State, cohort: Cohort, words: Any) -> Any:
            return a.offer(state.params, state.server), self._own(state, cohort, words)[
                0
            ]

        words = jax.ShapeDtypeStruct((8,), jnp.uint32)
        public, own = jax.eval_shape(inputs, state, cohort, words)
        return mapping.trace(self._parts(total)[0], public, own, self.__name__)

    def bits_per_client(self, state: State, cohort: Any) -> dict[str, int]:
        """What one client sends in a round, in bits, by kind of message."""
        cohorts = as_cohorts(cohort)
        total = sum(c.clients for c in cohorts)
        sent = self._program(state, cohorts[0], total).sent
        rows = sum(math.prod(x.shape) * 8 * x.dtype.itemsize for x in _flat(sent.rows))
        sizes = [math.prod(x.shape) for x in _flat(sent.sums)]
        alone = {"alone": sizes.count(1)} if hasattr(self.method, "spares") else {}
        found = dict(self.method.bits_per_client(sum(sizes), total, **alone))
        if isinstance(self.algorithm.sparse, TopK):
            # Of a dense vector only the largest entries travel, with their places.
            offered = jax.eval_shape(self.algorithm.enrol, state.params)[1]
            dense = sum(math.prod(x.shape) for x in _flat(offered))
            found["update"] -= 32 * dense
            found |= self.algorithm.sparse.bits_per_client(offered)
        return found | ({"row": rows} if rows else {})

    def stage_jaxprs(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """One client's program, and the round."""
        state, cohort = args
        key = {"key": key_spec()} if self.needs_key else {}
        cohorts = as_cohorts(cohort)
        total = sum(c.clients for c in cohorts)
        return {
            "client": self._program(state, cohorts[0], total).closed,
            "round": jax.make_jaxpr(self.__call__)(state, cohort, **{**kwargs, **key}),
        }

    def report(self, *args: Any, **kwargs: Any) -> Report:
        """See `privjax.explain`."""
        state, cohort = args
        cohorts = as_cohorts(cohort)
        total = sum(c.clients for c in cohorts)
        self.method.check(total, False)
        after = jax.eval_shape(
            lambda s, c, k: self(s, c, **({"key": k} if self.needs_key else {})),
            state,
            cohort,
            key_spec(),
        )
        return report(
            self.__name__,
            {"state": state._asdict(), "cohort": cohorts[0]._asdict()},
            {"state": after[0]._asdict(), "metrics": after[1]},
            self._program(state, cohorts[0], total),
            clients=total,
            method=self.method,
            runtime=self.runtime,
            robust=self.algorithm.robust,
        )


def _flat(types: PyTree) -> list[Any]:
    return list(jax.tree.leaves(types))


def _sums_key(words: Any) -> Array:
    """The key of the sums, from that of the round."""
    return derive(words, (Purpose.CALL, 0, 0))


def _finite(sums: PyTree) -> Array:
    real = [x for x in jax.tree.leaves(sums) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.all(jnp.stack([jnp.bool_(True), *(jnp.isfinite(x).all() for x in real)]))
