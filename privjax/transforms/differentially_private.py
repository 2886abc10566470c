"""`differentially_private`: an ordinary train step becomes DP-SGD."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from privjax import accounting
from privjax.core import markers
from privjax.core.trace import Call, Traced
from privjax.errors import InputError, LeakError
from privjax.passes.dp import Gaussian, Plan, make_plan
from privjax.passes.dp.clip import Settings, diagnose, run
from privjax.passes.dp.findings import Diagnosis, Releases
from privjax.passes.dp.mechanisms import Divided
from privjax.passes.dp.modes import Adaptive
from privjax.passes.dp.options import Options
from privjax.passes.dp.prepare import prepare
from privjax.passes.dp.protect import protected_outputs
from privjax.passes.dp.summed import Owners
from privjax.passes.units.states import Public, Zero
from privjax.prg.chacha20 import Purpose, derive
from privjax.prg.session import hashed_rows, session
from privjax.transforms.base import Transformed, decorator
from privjax.transforms.report import Report, entry, output_names


class DifferentiallyPrivate(Transformed):
    """The result of `differentially_private`; called like the plain step, plus `key=`.

    Also `mask=` ([rows], false for rows that count as no unit), `units=` ([rows], the
    number of the unit that each row belongs to) and, where the clip norm adapts,
    `clip_norm=`; each is called `privacy_mask=` and so on where the step has an argument
    of that name.
    """

    def __init__(self, fun: Callable[..., Any], private: Any, options: Options) -> None:
        super().__init__(fun)
        self.options = options
        self.private = self.argument_names(private, "private")
        self.needs_key = options.noise_multiplier > 0
        self._extra = {
            name: f"privacy_{name}" if name in self.signature.parameters else name
            for name in ("mask", "units", "clip_norm")
        }
        self._programs: dict[Any, Callable[..., Any]] = {}

    @property
    def clip_norm(self) -> float:
        return float(self.options.clip_norm)

    @property
    def noise_multiplier(self) -> float:
        return float(self.options.noise_multiplier)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        key = self.pop_key(kwargs)
        extra = self._pop_extra(kwargs)
        call = self.call(args, kwargs)
        self._check(call, extra)
        values = [*call.leaves, *(x for x in extra.values() if x is not None)]
        words = self.call_key(key, values) if self.needs_key else None
        static = (call.static, call.paths)
        program = self._programs.get(static)
        if program is None:
            program = self._compile(dataclasses.replace(call, leaves=()))
            self._programs[static] = program
        return program(words, extra, *call.leaves)

    def diagnose(self, *args: Any, **kwargs: Any) -> Diagnosis:
        """The norms of the units' contributions: for the eyes of who holds the data.

        Takes the arguments of a call. Nothing of it is private: do not publish it.
        """
        self.pop_key(kwargs)
        extra = self._pop_extra(kwargs)
        call = self.call(args, kwargs)
        rows = self._check(call, extra)
        _, plan, units = self._plan(call, call.leaves)
        found = diagnose(plan, call.leaves, self._settings(units, rows, extra, 1))
        scale = self.options.scale(units)
        norms = np.asarray(found.norms) / scale
        return Diagnosis(norms, np.asarray(found.kept))

    def releases(self, *args: Any, **kwargs: Any) -> Releases:
        """What a call with these arguments releases; nothing is computed.

        Raises: `LeakError` where the call itself would.
        """
        self.pop_key(kwargs)
        extra = self._pop_extra(kwargs)
        call = self.call(args, kwargs)
        self._check(call, {name: None for name in extra})
        traced, plan, units = self._plan(call, call.leaves)
        return Releases(
            tuple(map(str, plan.releases)),
            self._mechanism(plan, units) if self.needs_key and plan.releases else None,
            units,
            tuple(output_names(traced.out_tree)[i] for i in plan.dropped),
            plan.declassified,
            tuple(f"{share:g} of the budget at {line}" for line, share in plan.asked),
            tuple(
                f"{jax.numpy.result_type(x)}{list(np.shape(x))}" for x in traced.consts
            ),
        )

    def report(self, *args: Any, **kwargs: Any) -> Report:
        """See `privjax.explain`."""
        found = self.releases(*args, **kwargs)
        self.pop_key(kwargs)
        self._pop_extra(kwargs)
        call = self.call(args, kwargs)
        traced, plan, units = self._plan(call, call.leaves)
        mine = self.argument_leaves(call, self.private)
        inputs = [
            entry(path, aval, f"private: {units} units on axis 0" if m else "public")
            for path, aval, m in zip(call.paths, traced.in_avals, mine, strict=True)
        ]
        names = output_names(traced.out_tree)
        outputs = []
        for i, (name, aval, state) in enumerate(
            zip(names, traced.out_avals, plan.analysis.outs, strict=True)
        ):
            label = "from released sums"
            if i in plan.dropped:
                label = "dropped: it would leak"
            elif isinstance(state, Zero) or state == Public():
                label = "independent of the private data"
            outputs.append(entry(name, aval, label))
        noise = (
            f"noise multiplier {self.noise_multiplier:g}, clip norm {self.clip_norm:g}"
            if self.needs_key
            else "noise_multiplier=0: NOTHING IS PRIVATE, epsilon is infinite"
        )
        return Report(
            f"{self.__name__}: differentially private in {', '.join(self.private)}",
            tuple(inputs),
            tuple(outputs),
            tuple(str(found).splitlines()),
            notes=(
                f"{noise}; .epsilon(steps=, sampling_rate=, delta=) gives the budget",
                "neighbouring batches differ by one unit added or removed",
            ),
        )

    def epsilon(
        self,
        *,
        steps: int,
        sampling_rate: float,
        delta: float,
        neighbours: str = "add_or_remove_one",
    ) -> float:
        """Epsilon of `steps` calls, each on a Poisson sample of the units.

        See `privjax.accounting.epsilon` for the arguments.
        """
        return accounting.epsilon(
            noise_multiplier=self.noise_multiplier,
            steps=steps,
            sampling_rate=sampling_rate,
            delta=delta,
            neighbours=neighbours,
        )

    def noise_for(
        self,
        *,
        epsilon: float,
        steps: int,
        sampling_rate: float,
        delta: float,
        neighbours: str = "add_or_remove_one",
    ) -> "DifferentiallyPrivate":
        """The same function with the least noise that keeps `steps` calls to `epsilon`."""
        noise = accounting.calibrate(
            epsilon=epsilon,
            steps=steps,
            sampling_rate=sampling_rate,
            delta=delta,
            neighbours=neighbours,
        )
        options = dataclasses.replace(self.options, noise_multiplier=noise)
        return DifferentiallyPrivate(self.fun, self.private, options)

    # -- inside ------------------------------------------------------------------------

    def _pop_extra(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        return {name: kwargs.pop(word, None) for name, word in self._extra.items()}

    def _check(self, call: Call, extra: dict[str, Any]) -> int:
        """The number of rows of the private leaves, which must agree."""
        sizes = {}
        flags = self.argument_leaves(call, self.private)
        for path, mine, x in zip(call.paths, flags, call.leaves, strict=True):
            if mine:
                shape = np.shape(x)
                if not shape:
                    raise InputError(f"{path} is private and has no axis of units.")
                sizes[path] = shape[0]
        if not sizes:
            raise InputError(f"the private argument {self.private} has no arrays.")
        if len(set(sizes.values())) > 1:
            raise InputError(
                f"private arrays have different numbers of units: {sizes}."
            )
        rows = int(next(iter(sizes.values())))
        if rows == 0:
            raise InputError(f"the private argument {self.private} has no units.")
        for name in ("mask", "units"):
            if extra[name] is not None and np.shape(extra[name]) != (rows,):
                raise InputError(
                    f"{self._extra[name]}= has the shape {np.shape(extra[name])}; there "
                    f"are {rows} rows."
                )
        o = self.options
        if rows % o.microbatches:
            raise InputError(f"{o.microbatches} microbatches of {rows} rows.")
        if 1 < o.microbatches == rows:
            raise InputError("microbatches have to hold at least two rows each.")
        if o.microbatches > 1 and extra["units"] is not None:
            raise InputError(
                "units= with microbatches: a unit may have rows in several."
            )
        if extra["clip_norm"] is not None and not o.adapts:
            raise InputError("clip_norm= of a call is for clipping='adaptive'.")
        return rows

    def _compile(self, call: Call) -> Callable[..., Any]:
        def program(words: Any, extra: dict[str, Any], *leaves: Any) -> Any:
            mine = self.argument_leaves(call, self.private)
            rows = next(np.shape(x)[0] for x, m in zip(leaves, mine, strict=True) if m)
            traced, plan, units = self._plan(call, leaves)

            def noise(sums: list[Any], bound: float, share: float, place: str) -> Any:
                if words is None:
                    return sums
                count = sum(math.prod(np.shape(x)) for x in sums)
                mechanism = self._gaussian(bound, share, count)
                # Other sums, or another scale, get other noise also where a key is reused.
                context = f"{mechanism} of {place}"
                if not self.options.divided:
                    mine = session(words, *sums, context=context)
                    return markers.noise(mine, sums, mechanism)
                key = derive(words, (Purpose.HASH, 0, 2))
                parts = [hashed_rows(key, x) if x.ndim else x for x in sums]
                # Rows are filled up with zeros: their lengths are to count as well.
                context = (
                    f"{context}, divided {[(x.shape, str(x.dtype)) for x in sums]}"
                )
                mine = session(words, *parts, context=context)
                return markers.noise(mine, sums, Divided(mechanism))

            pieces = self.options.microbatches
            settings = self._settings(units, rows, extra, pieces)
            flat, within = run(plan, leaves, settings, noise)
            filled = [
                _nothing(aval) if x is None else x
                for x, aval in zip(flat, traced.out_avals, strict=True)
            ]
            out = jax.tree.unflatten(traced.out_tree, filled)
            if within is None:
                return out
            return out, self._next_clip_norm(extra, within, rows)

        program.__name__ = f"private_{self.__name__}"
        return jax.jit(program)

    def _settings(
        self, units: int, rows: int, extra: dict[str, Any], pieces: int
    ) -> Settings:
        o = self.options
        owners = clip = None
        if extra["units"] is not None:
            owners = Owners(
                jax.numpy.asarray(extra["units"]).astype("int32"), o.max_units or rows
            ).proper()
        if o.adapts:
            clip = self._clip_norm(extra) * o.scale(units)
        return Settings(
            o.bound(units),
            o.mode,
            clip,
            o.scale(units),
            owners,
            extra["mask"],
            pieces,
            o.denominator is None,
            o.rescale(rows),
        )

    def _clip_norm(self, extra: dict[str, Any]) -> Any:
        given = extra["clip_norm"]
        start = self.clip_norm if given is None else given
        return jax.numpy.asarray(start, jax.numpy.float32)

    def _next_clip_norm(self, extra: dict[str, Any], within: Any, rows: int) -> Any:
        o, mode = self.options, self.options.mode
        assert isinstance(mode, Adaptive)
        units = o.expected_units or o.max_units or rows
        fraction = jax.numpy.clip((within / units + 1) / 2, 0, 1)
        change = jax.numpy.exp(-mode.rate * (fraction - mode.quantile))
        return (self._clip_norm(extra) * change).astype(jax.numpy.float32)

    def _plan(self, call: Call, leaves: Sequence[Any]) -> tuple[Traced, Plan, int]:
        mine = self.argument_leaves(call, self.private)
        parts = self.options.microbatches
        traced = call.trace(
            [_part(x, parts) if m else x for x, m in zip(leaves, mine, strict=True)]
        )
        units = next(
            aval.shape[0] for aval, m in zip(traced.in_avals, mine, strict=True) if m
        )
        shapes = iter(traced.in_avals)
        args, kwargs = call.rebuild([next(shapes) for _ in mine])
        bound = self.signature.bind(*args, **kwargs)
        public = [x for name, x in bound.arguments.items() if name not in self.private]
        output = jax.tree.unflatten(traced.out_tree, traced.out_avals)
        protected = protected_outputs(self.options.protected, public, output)
        if not any(protected):
            raise LeakError(
                f"no part of the result of {self.__name__} has the structure of one of "
                "its public arguments, so it is not clear what is to be clipped and "
                'noised. Say so with protected="all", or with the positions or keys of '
                "these parts of the result."
            )
        closed = prepare(traced.closed)
        axes = [0 if m else None for m in mine]
        drop = self.options.outputs_unreleased == "drop"
        plan = make_plan(closed, axes, protected, output_names(traced.out_tree), drop)
        if plan.asked and parts > 1:
            raise InputError("privjax.release does not work with microbatches.")
        return traced, plan, units

    def _mechanism(self, plan: Plan, units: int) -> Gaussian:
        count = sum(math.prod(r.shape) for r in plan.releases) + self.options.adapts
        o = self.options
        moves = o.bound(units) / (o.microbatches if o.denominator is None else 1)
        return self._gaussian(moves, plan.share, count)

    def _gaussian(self, bound: float, share: float, count: int) -> Gaussian:
        return Gaussian.of(self.noise_multiplier / math.sqrt(share), bound, count)


@decorator
def differentially_private(
    step: Callable[..., Any],
    private: Any = "batch",
    clip_norm: float = 1.0,
    noise_multiplier: float = 1.1,
    *,
    denominator: float | None = None,
    protected: Any = "state",
    outputs_unreleased: str = "refuse",
    clipping: Any = "flat",
    microbatches: int = 1,
    expected_units: float | None = None,
    max_units: int | None = None,
    divided: bool = False,
) -> DifferentiallyPrivate:
    """Turn an ordinary train step, with `jax.grad` inside, into DP-SGD.

    The step is traced, and every place where the units' axis is summed is found: the
    gradients. Each unit's contributions to all of them are clipped jointly to `clip_norm`
    and Gaussian noise is added to the sums (Abadi et al. 2016). A program that would let
    out anything else about the units is refused, with the line that does.

    Args:
      step: a function; its results keep their shapes and dtypes. Use it as `@...` too.
      private: the argument (name, position, or several of these) whose leaves have the
        units on axis 0, all of them equally many.
      clip_norm: bound on the Euclidean norm of one unit's gradient over all parameters.
      noise_multiplier: standard deviation of the noise, in units of `clip_norm`. 0 adds
        none: then nothing is private, and epsilon is infinite.
      denominator: the fixed number by which the step's loss divides its sum over units;
        by default how many units there are, as for a mean. 1 for a loss that is a sum,
        the expected batch size where batches are padded.
      protected: which parts of the result are to be clipped and noised: "state" (those
        that look like a public argument: parameters, optimiser state), "all", or
        positions or keys.
      outputs_unreleased: what becomes of other outputs that depend on the units, such as
        the loss: "refuse" the program, or "drop" them (replaced by NaN, or 0 for integers).
      clipping: "flat", "per_layer", "automatic", "adaptive", or one of
        `privjax.dp` with its settings: `Grouped`, `Automatic`, `Adaptive`.
      microbatches: in how many parts the batch is worked on, one after the other. The
        step is traced for one part; where its loss is a mean, the means are averaged.
      expected_units: what a mean is to divide by in place of the number of rows: the
        expected batch size, where batches are padded and `mask=` says which rows count.
      max_units: how many units there are at most, where `units=` says which unit each row
        belongs to; by default as many as rows.
      divided: whether parameters are divided over devices (by `jax.sharding`). Every
        device then draws the noise of its own part, and of a sum only a hash is gathered,
        an eighth of its size. The noise is another than without this option.

    Returns:
      A function like `step` that also takes `key=` (`privjax.random.key()`), `mask=` and
      `units=`, with `.epsilon(steps=, sampling_rate=, delta=)`,
      `.noise_for(epsilon=, ...)`, `.releases(*args)` and `.diagnose(*args)`.

    Raises, when called:
      LeakError: something would leave that is not clipped and noised.
      InputError: no such argument, no units, or arrays that disagree on their number.
      RandomKeyError: no key under jit, vmap or scan.

    Guarantee: for neighbouring batches (one unit added or removed, the denominator kept),
    the result is that of a Gaussian mechanism with this noise multiplier; up to the
    rounding errors of floating-point sums, which are not accounted for.
    """
    options = Options(
        clip_norm,
        noise_multiplier,
        denominator,
        protected,
        outputs_unreleased,
        clipping,
        microbatches,
        expected_units,
        max_units,
        divided,
    )
    return DifferentiallyPrivate(step, private, options)


def _part(x: Any, parts: int) -> Any:
    """The shape of one of `parts` equal parts of the rows."""
    if parts == 1:
        return x
    x = jax.typeof(x) if hasattr(x, "dtype") else x
    return jax.ShapeDtypeStruct((x.shape[0] // parts, *x.shape[1:]), x.dtype)


def _nothing(aval: Any) -> Any:
    """A value that cannot be taken for a result."""
    inexact = jax.numpy.issubdtype(aval.dtype, jax.numpy.inexact)
    return jax.numpy.full(aval.shape, jax.numpy.nan if inexact else 0, aval.dtype)
