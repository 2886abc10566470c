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
from privjax.passes import simplify
from privjax.passes.dp import Gaussian, Plan, make_plan
from privjax.passes.dp.clip import run
from privjax.passes.dp.protect import protected_outputs
from privjax.passes.units.states import Public, Zero
from privjax.prg.session import session
from privjax.transforms.base import Transformed, decorator
from privjax.transforms.report import Report, entry, output_names

UNRELEASED = ("refuse", "drop")


@dataclasses.dataclass(frozen=True)
class Releases:
    """What one call of a differentially private function lets out of its units.

    Attributes:
      protected: the jointly clipped and noised sums, each with the user's line.
      mechanism: the noise on them (None when `noise_multiplier` is 0).
      units: how many units the private argument holds.
      dropped: names of outputs that are replaced because they would leak.
      declassified: reasons given for values that the user let out, with their lines.
    """

    protected: tuple[str, ...]
    mechanism: Gaussian | None
    units: int
    dropped: tuple[str, ...]
    declassified: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{len(self.protected)} sums over {self.units} units, clipped jointly"]
        if self.mechanism is None:
            lines[0] += ", WITHOUT noise"
        else:
            lines[0] += f", noise of standard deviation {self.mechanism.sigma:.4g}"
        lines += [f"  {text}" for text in self.protected]
        lines += [f"dropped: {name}" for name in self.dropped]
        lines += [f"declassified: {why}" for why in self.declassified]
        return "\n".join(lines)


class DifferentiallyPrivate(Transformed):
    """The result of `differentially_private`; called like the plain step, plus `key=`."""

    def __init__(
        self,
        fun: Callable[..., Any],
        private: Any,
        clip_norm: float,
        noise_multiplier: float,
        denominator: float | None,
        protected: Any,
        outputs_unreleased: str,
    ) -> None:
        super().__init__(fun)
        _positive("clip_norm", clip_norm)
        if not 0 <= noise_multiplier < math.inf:
            raise InputError(f"noise_multiplier={noise_multiplier} is not at least 0.")
        if denominator is not None:
            _positive("denominator", denominator)
        if outputs_unreleased not in UNRELEASED:
            raise InputError(
                f"outputs_unreleased={outputs_unreleased!r} is none of {UNRELEASED}."
            )
        self.private = self.argument_names(private, "private")
        self.clip_norm = float(clip_norm)
        self.noise_multiplier = float(noise_multiplier)
        self.denominator = denominator
        self.protected = protected
        self.drop = outputs_unreleased == "drop"
        self.needs_key = self.noise_multiplier > 0
        self._programs: dict[Any, Callable[..., Any]] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        key = self.pop_key(kwargs)
        call = self.call(args, kwargs)
        self._units(call)
        words = self.call_key(key, call.leaves) if self.needs_key else None
        static = (call.static, call.paths)
        program = self._programs.get(static)
        if program is None:
            program = self._compile(dataclasses.replace(call, leaves=()))
            self._programs[static] = program
        return program(words, *call.leaves)

    def releases(self, *args: Any, **kwargs: Any) -> Releases:
        """What a call with these arguments releases; nothing is computed.

        Raises: `LeakError` where the call itself would.
        """
        self.pop_key(kwargs)
        call = self.call(args, kwargs)
        units = self._units(call)
        traced, plan, _ = self._plan(call, call.leaves)
        return Releases(
            tuple(map(str, plan.releases)),
            self._mechanism(plan, units) if self.needs_key else None,
            units,
            tuple(output_names(traced.out_tree)[i] for i in plan.dropped),
            plan.declassified,
        )

    def report(self, *args: Any, **kwargs: Any) -> Report:
        """See `privjax.explain`."""
        self.pop_key(kwargs)
        call = self.call(args, kwargs)
        found = self.releases(*args, **kwargs)
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
        return DifferentiallyPrivate(
            self.fun,
            self.private,
            self.clip_norm,
            noise,
            self.denominator,
            self.protected,
            UNRELEASED[self.drop],
        )

    # -- inside ------------------------------------------------------------------------

    def _units(self, call: Call) -> int:
        """The number of units; checks the private leaves."""
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
        units = next(iter(sizes.values()))
        if units == 0:
            raise InputError(f"the private argument {self.private} has no units.")
        return units

    def _compile(self, call: Call) -> Callable[..., Any]:
        def program(words: Any, *leaves: Any) -> Any:
            traced, plan, units = self._plan(call, leaves)

            def noise(sums: list[Any]) -> list[Any]:
                if words is None:
                    return sums
                # Other sums, or another scale, get other noise also where a key is reused.
                mechanism = self._mechanism(plan, units)
                key = session(words, *sums, context=repr(mechanism))
                return markers.noise(key, sums, mechanism)

            flat = run(plan, leaves, self._bound(units), noise)
            filled = [
                _nothing(aval) if x is None else x
                for x, aval in zip(flat, traced.out_avals, strict=True)
            ]
            return jax.tree.unflatten(traced.out_tree, filled)

        program.__name__ = f"private_{self.__name__}"
        return jax.jit(program)

    def _plan(self, call: Call, leaves: Sequence[Any]) -> tuple[Traced, Plan, int]:
        traced = call.trace(leaves)
        mine = self.argument_leaves(call, self.private)
        units = next(
            aval.shape[0] for aval, m in zip(traced.in_avals, mine, strict=True) if m
        )
        shapes = iter(traced.in_avals)
        args, kwargs = call.rebuild([next(shapes) for _ in mine])
        bound = self.signature.bind(*args, **kwargs)
        public = [x for name, x in bound.arguments.items() if name not in self.private]
        output = jax.tree.unflatten(traced.out_tree, traced.out_avals)
        protected = protected_outputs(self.protected, public, output)
        if not any(protected):
            raise LeakError(
                f"no part of the result of {self.__name__} has the structure of one of "
                "its public arguments, so it is not clear what is to be clipped and "
                'noised. Say so with protected="all", or with the positions or keys of '
                "these parts of the result."
            )
        closed = simplify.dce(simplify.inline(traced.closed, remat=True))
        axes = [0 if m else None for m in mine]
        plan = make_plan(
            closed, axes, protected, output_names(traced.out_tree), self.drop
        )
        return traced, plan, units

    def _bound(self, units: int) -> float:
        return self.clip_norm / (
            units if self.denominator is None else self.denominator
        )

    def _mechanism(self, plan: Plan, units: int) -> Gaussian:
        count = sum(math.prod(r.shape) for r in plan.releases)
        return Gaussian.of(self.noise_multiplier, self._bound(units), count)


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

    Returns:
      A function like `step` that also takes `key=` (`privjax.random.key()`), with
      `.epsilon(steps=, sampling_rate=, delta=)`, `.noise_for(epsilon=, ...)` and
      `.releases(*args)`.

    Raises, when called:
      LeakError: something would leave that is not clipped and noised.
      InputError: no such argument, no units, or arrays that disagree on their number.
      RandomKeyError: no key under jit, vmap or scan.

    Guarantee: for neighbouring batches (one unit added or removed, the denominator kept),
    the result is that of a Gaussian mechanism with this noise multiplier; up to the
    rounding errors of floating-point sums, which are not accounted for.
    """
    return DifferentiallyPrivate(
        step,
        private,
        clip_norm,
        noise_multiplier,
        denominator,
        protected,
        outputs_unreleased,
    )


def _positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise InputError(f"{name}={value} is not a positive number.")


def _nothing(aval: Any) -> Any:
    """A value that cannot be taken for a result."""
    inexact = jax.numpy.issubdtype(aval.dtype, jax.numpy.inexact)
    return jax.numpy.full(aval.shape, jax.numpy.nan if inexact else 0, aval.dtype)
