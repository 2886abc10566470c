"""`secret_shared`: run an ordinary function on secret shares."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax import _compat
from privjax.core.trace import Call
from privjax.errors import (
    InputError,
    MacCheckError,
    ProtocolError,
    RandomKeyError,
    TraceError,
)
from privjax.passes.cost import Cost
from privjax.preprocessing.simulated import Transfers, demand
from privjax.prg import chacha20
from privjax.prg.chacha20 import Purpose
from privjax.protocols.fixedpoint import FixedPoint
from privjax.protocols.table import DEFAULT, protocol_for
from privjax.runtimes import material
from privjax.runtimes.distributed import local_input
from privjax.runtimes.simulate import party_keys
from privjax.transforms.base import Transformed, decorator, named
from privjax.transforms.report import Report
from privjax.transforms.shared_data import (
    SharedArray,
    burn,
    is_shared,
    refuse_burned,
    together,
    withheld,
)
from privjax.transforms.shared_program import (
    CLEAR,
    PUBLIC,
    SHARED,
    Options,
    Program,
    compile_program,
    owner_of,
    spec,
)
from privjax.transforms.shared_report import shared_report


class SecretShared(Transformed):
    """A function that computes on secret shares; see `secret_shared`."""

    def __init__(
        self,
        fun: Callable[..., Any],
        parties: int,
        protocol: str,
        fixed_point: FixedPoint,
        reveal: bool,
        public: Any,
        owners: Mapping[str, int] | None,
        runtime: Any,
        preprocessing: str,
        max_steps: int | None,
    ) -> None:
        super().__init__(fun)
        self.protocol = protocol_for(protocol, parties)
        self.fixed_point = fixed_point
        if not isinstance(self.fixed_point, FixedPoint):
            raise InputError(
                f"fixed_point={fixed_point!r}: expected a privjax.FixedPoint."
            )
        self.protocol.check_ring(fixed_point.ring_bits)
        self.reveal = reveal
        self.public = self.argument_names(public, "public")
        held = owners or {}
        own = self.argument_names(list(held), "owners")
        self.owners = dict(zip(own, held.values(), strict=True))
        for name, owner in self.owners.items():
            if owner not in range(parties):
                raise InputError(
                    f"owners: {name!r} belongs to party {owner!r}, but the parties are "
                    f"0 to {parties - 1}."
                )
        self.runtime = runtime
        self.preprocessing = self._preprocessing(preprocessing)
        if self.preprocessing == "sacrifice":
            self.protocol = self.protocol.checking_triples()
        if max_steps is not None and (not isinstance(max_steps, int) or max_steps < 0):
            raise InputError(f"max_steps={max_steps!r}: expected a count, or None.")
        self.max_steps = max_steps
        self._transfers: Transfers | None = None
        self._programs: dict[Any, Program] = {}
        self._online: dict[Program, Any] = {}
        self._digests: dict[Program, str] = {}

    # -- calling -----------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        key = self.pop_key(kwargs)
        call = self.call(args, kwargs, is_leaf=is_shared)
        program = self.program(call)
        if self.runtime is not None:
            return self._call_distributed(program, call, key)
        arrays = [x.data if is_shared(x) else jnp.asarray(x) for x in call.leaves]
        consts = _compat.open_jaxpr(program.stages["traced"])[1]
        words = self.session_key(key, [*arrays, *consts], self._digest(program))
        with jax.enable_x64(True):
            if self.preprocessing == "ot":
                corrections = self._transferred(program, words)
                flat = program.run_online(words, corrections, *arrays)
            else:
                flat = program.run(words, *arrays)
        try:
            flat = self._sound(program, flat)
        except MacCheckError:
            burn(filter(is_shared, call.leaves))
            raise
        return self.unflatten(program, flat)

    # -- without a dealer -----------------------------------------------------------------

    def _preprocessing(self, name: str) -> str:
        if name not in ("dealer", "sacrifice", "ot"):
            raise InputError(
                f"preprocessing={name!r} is unknown; choose 'dealer', 'sacrifice' or "
                "'ot'."
            )
        p = self.protocol
        two = p.name in ("semi2k", "spdz2k") and p.parties == 2
        if name == "ot" and not two:
            raise ProtocolError(
                "preprocessing='ot' is for semi2k and spdz2k between two parties, not "
                f"for {p.name} among {p.parties}: use a dealer."
            )
        if name == "ot" and self.fixed_point.two_words:
            raise ProtocolError(
                "preprocessing='ot' makes correlated randomness for rings of 32 and 64 "
                f"bits, not of {self.fixed_point.ring_bits}: use a dealer."
            )
        if name == "ot" and self.runtime is not None:
            raise ProtocolError(
                "preprocessing='ot' is simulated only; processes take their material "
                "from `fun.deal(...)`."
            )
        return name

    def _transferred(self, program: Program, words: Any) -> Any:
        """The corrections of one call, made by both parties by oblivious transfer."""
        if _compat.under_trace() or isinstance(words, _compat.Tracer):
            raise TraceError(
                f"{self.__name__} prepares by oblivious transfer, which draws keys from "
                "the operating system and cannot run under jit, vmap or scan. Call it "
                "directly, or use preprocessing='dealer'."
            )
        if self.protocol.name == "spdz2k" and SHARED in program.modes:
            raise ProtocolError(
                f"{self.__name__} takes shares that another call kept, which are under "
                "that call's MAC keys: preprocessing='ot' has no protocol to bring them "
                "under new ones. Pass the values in clear, or use preprocessing='dealer'."
            )
        if self._transfers is None:
            self._transfers = Transfers()
        seeds = party_keys(words, self.protocol.parties)
        try:
            return self._transfers.corrections(program.party, seeds)[0]
        except MacCheckError:
            self._transfers = None  # a failed check may have told a bit of the setup
            raise

    def transfer_cost(self, *args: Any, **kwargs: Any) -> Any:
        """Rounds and bytes of one call's preprocessing by oblivious transfer."""
        return demand(self.compiled(*args, **kwargs).party)

    def _sound(self, program: Program, flat: Sequence[Any]) -> Sequence[Any]:
        """The outputs of a checked program, unless a check failed."""
        if not program.checked:
            return flat
        *flat, sound = flat
        return [withheld(x, sound) for x in flat]

    def unflatten(self, program: Program, flat: Sequence[Any]) -> Any:
        """Flat outputs (arrays, or packed shares) -> the function's structure."""
        dtypes, weak = program.out_dtypes, program.out_weak
        out = [
            (_weak(x) if w else x) if kind is None else self._shared(x, kind, dtype)
            for x, kind, dtype, w in zip(flat, program.outs, dtypes, weak, strict=True)
        ]
        return jax.tree.unflatten(program.out_tree, out)

    def _shared(self, data: Any, kind: Any, dtype: Any) -> SharedArray:
        p = self.protocol
        name, scale = kind
        return SharedArray(
            data, name, scale, dtype, p.parties, p.name, self.fixed_point
        )

    # -- separate processes ------------------------------------------------------------

    def deal(
        self,
        *args: Any,
        directory: str | Path,
        sessions: int = 1,
        **kwargs: Any,
    ) -> None:
        """The dealer's part: make the preprocessing of `sessions` calls ahead.

        Arguments are those of the call (arrays or `jax.ShapeDtypeStruct`s: the dealer
        needs shapes only), plus `key=`. Writes `directory/party<i>/<number>.npz`; hand
        each party its own folder over a private channel.
        """
        key = self.pop_key(kwargs)
        program = self.program(self.call(args, kwargs, is_leaf=is_shared))
        parties, directory = self.protocol.parties, Path(directory)
        root = self.session_key(key, [], self._digest(program))
        with jax.enable_x64(True):
            offline = jax.jit(material.offline(program.party, parties))
            first = material.next_number(directory, range(parties))
            for number in range(first, first + sessions):
                session = secrets.token_bytes(16).hex()
                words = material.session_words(root, session)
                seeds, corrections = offline(words)
                material.write(
                    directory,
                    number,
                    self._digest(program),
                    session,
                    seeds,
                    chacha20.derive(words, (int(Purpose.CALL), 0, 0)),
                    corrections,
                    material.receivers(program.party, parties),
                )

    def _digest(self, program: Program) -> str:
        if program not in self._digests:
            p = self.protocol
            found = material.program_hash(program.party, p.parties, p.name)
            self._digests[program] = found
        return self._digests[program]

    def _call_distributed(self, program: Program, call: Call, key: Any) -> Any:
        runtime, parties = self.runtime, self.protocol.parties
        runtime.go_on()
        if runtime.parties != parties:
            raise ProtocolError(
                f"the runtime has {runtime.parties} parties, {self.__name__} is for "
                f"{parties}."
            )
        if key is not None:
            raise RandomKeyError(
                f"{self.__name__} runs in separate processes: its randomness comes from "
                f"the dealer's material; do not pass {self.key_name}=."
            )
        inputs = []
        for x, mode, arg, path in zip(
            call.leaves, program.modes, call.args, call.paths, strict=True
        ):
            if mode == SHARED:
                inputs.append(x)
            elif mode == PUBLIC:
                inputs.append(jnp.asarray(x))
            else:
                owner = owner_of(self.owners, arg, path)
                mine = owner == runtime.party
                inputs.append(local_input(x, mine, path, owner, runtime.party))
        with jax.enable_x64(True):
            digest = self._digest(program)
            specs = jax.eval_shape(
                lambda w: material.offline(program.party, parties)(w)[1],
                jax.ShapeDtypeStruct((8,), np.uint32),
            )
            owners = material.receivers(program.party, parties)
            mine = runtime.store.take(digest, specs, owners)
            runtime.agree(digest, mine.session)
            inputs = [
                x.words()[0] if mode == SHARED else x  # one party holds one share
                for x, mode in zip(inputs, program.modes, strict=True)
            ]
            if program.inner_key:
                inputs = [mine.shared_words, *inputs]
            online = self._online.get(program)
            if online is None:
                own = [k is not None for k in program.outs]
                online = runtime.online(
                    program.party, [*own, *([False] * program.checked)]
                )
                self._online[program] = online
            flat = runtime.execute(online, mine, inputs)
            try:
                flat = self._sound(program, flat)
            except MacCheckError:
                runtime.aborted = True
                raise
            flat = [
                x if kind is None else together(jnp.asarray(x))
                for x, kind in zip(flat, program.outs, strict=True)
            ]
        return self.unflatten(program, flat)

    # -- compiling ---------------------------------------------------------------------

    def program(self, call: Call) -> Program:
        """The compiled program for a call's shapes, dtypes and static arguments."""
        modes = tuple(
            self._mode(x, arg, path)
            for x, arg, path in zip(call.leaves, call.args, call.paths, strict=True)
        )
        key: Any = (
            modes,
            tuple(_signature(x) for x in call.leaves),
            call.static,
            jax.dtypes.canonicalize_dtype(np.float64),  # the x64 mode
        )
        try:
            cached = self._programs.get(key)
        except TypeError:  # a static argument that cannot be compared
            key, cached = None, None
        if cached is None:
            cached = compile_program(call, modes, self._options())
            consts = _compat.open_jaxpr(cached.stages["traced"])[1]
            if key is not None and not any(
                isinstance(c, _compat.Tracer) for c in consts
            ):
                self._programs[key] = cached
        return cached

    def _mode(self, x: Any, arg: str, path: str) -> str:
        if is_shared(x):
            refuse_burned(x, path)
            ours = (self.protocol.parties, self.protocol.name, self.fixed_point)
            if (x.parties, x.protocol, x.fixed_point) != ours:
                raise InputError(
                    f"{path} is shared as ({x.parties} parties, {x.protocol}, "
                    f"{x.fixed_point}), but {self.__name__} computes as {ours}."
                )
            if named(self.public, arg, path) is not None:
                raise InputError(f"{path} is secret-shared and cannot be public.")
            return SHARED
        aval = jax.typeof(jnp.asarray(x)) if not hasattr(x, "dtype") else x
        dtype = aval.dtype
        public = named(self.public, arg, path) is not None
        if public or jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
            return PUBLIC
        if not jnp.issubdtype(dtype, jnp.inexact) and aval.shape == ():
            return PUBLIC  # step counters and flags
        if jnp.issubdtype(dtype, jnp.inexact) or np.dtype(dtype).kind in "iub":
            if not isinstance(x, (_compat.Tracer, jax.ShapeDtypeStruct)):
                self.fixed_point.check(x, path)
            return CLEAR
        raise InputError(
            f"{path} has dtype {dtype}, which cannot be shared; pass it as public= or "
            "convert it."
        )

    def _options(self) -> Options:
        return Options(
            self.protocol,
            self.fixed_point,
            self.reveal,
            self.owners,
            self.max_steps,
        )

    # -- looking inside ----------------------------------------------------------------

    def compiled(self, *args: Any, **kwargs: Any) -> Program:
        """The compiled program for these arguments (arrays or shape structs)."""
        self.pop_key(kwargs)
        return self.program(self.call(args, kwargs, is_leaf=is_shared))

    def cost(self, *args: Any, **kwargs: Any) -> Cost:
        """Rounds and bytes of one call, counted on the program."""
        return self.compiled(*args, **kwargs).cost

    def stage_jaxprs(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """traced, simplified, shared (what one party does), scheduled."""
        return self.compiled(*args, **kwargs).stages

    def report(self, *args: Any, **kwargs: Any) -> Report:
        """See `privjax.explain`."""
        self.pop_key(kwargs)
        call = self.call(args, kwargs, is_leaf=is_shared)
        return shared_report(self.__name__, call, self.program(call), self._options())


def _signature(x: Any) -> Any:
    if is_shared(x):
        return x.tree_flatten()[1], tuple(x.data.shape)
    own = spec(x)
    return own.shape, own.dtype, own.weak_type


def _weak(x: Any) -> Any:
    """An array that gives way to the types of others, as a Python number does."""
    primitive = lax.convert_element_type_p
    return primitive.bind(x, new_dtype=x.dtype, weak_type=True, sharding=None)


@decorator
def secret_shared(
    fun: Callable[..., Any],
    parties: int = 2,
    protocol: str = DEFAULT,
    fixed_point: FixedPoint = FixedPoint(),  # noqa: B008  (frozen)
    *,
    reveal: bool = True,
    public: Any = (),
    owners: Mapping[str, int] | None = None,
    runtime: Any = None,
    preprocessing: str = "dealer",
    max_steps: int | None = None,
) -> SecretShared:
    """Rewrite `fun` to compute on secret shares among `parties` parties.

    The result takes the function's arguments in clear (then their owner shares them in
    the first round) or already shared (`privjax.share`), plus `key=`. All floating-point
    arguments and all integer and boolean arrays are secret; integer and boolean scalars
    (step counters), random keys and the arguments named in `public` are public.

    Args:
      fun: a pure JAX function; `jax.grad` may be inside.
      parties: number of parties, 2 or more.
      protocol: "spdz2k" (any n - 1 parties may be corrupt, and are caught when they
        deviate; dealer), "semi2k" (the same for parties that follow the protocol, several
        times faster), "replicated3" (three parties of which one may be corrupt,
        semi-honest, no dealer), or
        "reference" (no protection: the values themselves, for comparison).
      fixed_point: `FixedPoint(ring_bits, fractional_bits)`; 128 ring bits by semi2k and
        reference only.
      reveal: open the outputs; False returns `SharedArray` leaves instead, which the
        next call accepts.
      public: names or positions of arguments that all parties may see.
      owners: which party holds an argument that is given in clear (default party 0).
      runtime: None simulates all parties in this process; `privjax.distributed(...)`
        runs this process's party.
      preprocessing: "dealer"; "sacrifice", where "spdz2k" checks the dealer's triples, each
        by a second one (errors of the dealer in products end in `MacCheckError`); or "ot":
        two parties of "semi2k" or "spdz2k" make the correlated randomness themselves, by
        oblivious transfer (slow; not under jit).
      max_steps: how often a `while` loop with a secret predicate runs: its state is kept
        once the predicate is false. A loop that needs more steps stops early, which
        nobody can see; None refuses such loops.

    Returns:
      A function with the results of `fun`, in their shapes and dtypes.

    Raises:
      MacCheckError: when called, if a party was caught cheating; nothing is released.
    """
    return SecretShared(
        fun,
        parties,
        protocol,
        fixed_point,
        reveal,
        public,
        owners,
        runtime,
        preprocessing,
        max_steps,
    )
