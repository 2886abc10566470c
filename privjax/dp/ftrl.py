"""Train steps whose noise is correlated over steps: DP-FTRL and matrix factorisation.

    step = privjax.differentially_private(train_step, noise_multiplier=2.0)
    step = privjax.dp.correlated(step, privjax.dp.BandedToeplitz, steps=400, bands=8,
                                 participations=4)
    noise = step.start(params, batch)
    for batch in batches:
        params, noise = step(params, batch, noise=noise)

The step is checked and clipped as before. What is added to the clipped sums comes from
the mechanism, whose state is explicit; `fit` keeps it. What a run of `steps` calls costs
depends on how often, and how far apart, a unit takes part: the sampler says so
(`Sampler.charge_run`), not the user.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from privjax import _compat
from privjax._typing import Array
from privjax.core.trace import Call
from privjax.dp.correlated import BandedToeplitz, TreeAggregation
from privjax.errors import InputError, RandomKeyError
from privjax.passes.dp import Gaussian, Plan
from privjax.passes.dp.clip import run
from privjax.transforms.base import key_spec
from privjax.transforms.differentially_private import DifferentiallyPrivate

Mechanism = TreeAggregation | BandedToeplitz


class CorrelatedStep(DifferentiallyPrivate):
    """The result of `correlated`: takes `noise=` and returns (result, next noise).

    Every state of the noise is to be used once. It holds the noise's key: whoever reads
    it can remove the noise.
    """

    def __init__(
        self, step: DifferentiallyPrivate, kind: type[Mechanism], settings: Any
    ) -> None:
        super().__init__(step.fun, step.private, step.options)
        if self.noise_multiplier == 0:
            raise InputError("correlated noise with noise_multiplier=0 is none.")
        if self.options.adapts:
            raise InputError(
                "clipping='adaptive' changes the scale of the sums from step to step, and "
                "noise of one scale would no longer cancel. Use a fixed clip_norm."
            )
        self.kind = kind
        self.settings = dict(settings)
        self.noise_name = "noise"
        if "noise" in self.signature.parameters:
            self.noise_name = "privacy_noise"
        # Wrong settings are to be found now.
        kind(self.noise_multiplier, 1.0, count=1, **self.settings)

    @property
    def steps(self) -> int:
        """The length of a run: how many calls one state of the noise is good for."""
        return int(self.settings["steps"])

    def with_noise(self, noise_multiplier: float) -> "CorrelatedStep":
        """The same step and mechanism with another noise multiplier."""
        options = dataclasses.replace(self.options, noise_multiplier=noise_multiplier)
        step = DifferentiallyPrivate(self.fun, self.private, options)
        return CorrelatedStep(step, self.kind, self.settings)

    def mechanism(self, *args: Any, **kwargs: Any) -> Mechanism:
        """The noise of a run of calls with arguments like these."""
        call, rows = self._arguments(args, kwargs)
        _, plan, units = self._plan(call, call.leaves)
        return self._noise(plan, self._settings(units, rows, self._none(), self._parts))

    def start(self, *args: Any, **kwargs: Any) -> Any:
        """The state of the noise before the first call of a run.

        Args: those of a call; `key=privjax.random.key()`, which is drawn from the
          operating system outside of traces.
        """
        key = self.pop_key(kwargs)
        made = self.mechanism(*args, **kwargs)
        call, _ = self._arguments(args, kwargs)
        return made.start(jax.numpy.asarray(self.call_key(key, call.leaves)))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        state = kwargs.pop(self.noise_name, None)
        if state is None:
            raise InputError(
                f"{self.__name__} has correlated noise: pass {self.noise_name}=, which "
                ".start(...) makes and every call returns anew."
            )
        if _compat.under_trace() and not isinstance(state[0], _compat.Tracer):
            raise RandomKeyError(
                f"{self.noise_name}= of {self.__name__} is a constant of the traced "
                "program: every call of it would repeat its noise. Make it an argument "
                "of the outer function, or a loop's carry."
            )
        if self.pop_key(kwargs) is not None:
            raise InputError(f"the key of {self.__name__} is for .start(..., key=).")
        extra = self._pop_extra(kwargs)
        call = self.call(args, kwargs)
        self._check(call, extra)
        static = (call.static, call.paths)
        program = self._programs.get(static)
        if program is None:
            program = self._compile(dataclasses.replace(call, leaves=()))
            self._programs[static] = program
        return program(state, extra, *call.leaves)

    def epsilon(self, **_: Any) -> float:
        """Raises InputError: what a run costs is for the sampler to say."""
        raise InputError(
            "correlated noise is not accounted for step by step: use privjax.dp.fit, or "
            "ledger.spend what sampler.charge_run(step.mechanism(...)) returns."
        )

    def noise_for(self, **_: Any) -> "DifferentiallyPrivate":
        """Raises InputError; see `epsilon`."""
        raise InputError(
            "correlated noise is calibrated with the sampler that it is for: "
            "privjax.dp.fit(..., epsilon=)."
        )

    def stage_jaxprs(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The function as given, and the first call of a run."""
        own = {k: v for k, v in kwargs.items() if k in self.signature.parameters}

        def first(key: Any, args: Any, own: Any) -> Any:
            state = self.start(*args, **own, **{self.key_name: key})
            return self(*args, **own, **{self.noise_name: state})

        return {
            "traced": jax.make_jaxpr(self.fun)(*args, **own),
            "rewritten": jax.make_jaxpr(first)(key_spec(), args, own),
        }

    # -- inside ------------------------------------------------------------------------

    @property
    def _parts(self) -> int:
        return self.options.microbatches

    def _none(self) -> dict[str, Any]:
        return {name: None for name in self._extra}

    def _arguments(self, args: Any, kwargs: Any) -> tuple[Call, int]:
        own = {k: v for k, v in kwargs.items() if k in self.signature.parameters}
        call = self.call(args, own)
        return call, self._check(call, self._none())

    def _noise(self, plan: Plan, settings: Any) -> Mechanism:
        if plan.asked:
            raise InputError(
                "privjax.release has noise of its own at every step and does not go with "
                "correlated noise."
            )
        count = sum(math.prod(r.shape) for r in plan.releases)
        if count == 0:
            raise InputError(f"{self.__name__} releases no sums over units.")
        made: Mechanism = self.kind(
            self.noise_multiplier, settings.moves, count=count, **self.settings
        )
        return made

    def _mechanism(self, plan: Plan, units: int) -> Gaussian:
        """The fresh noise of a step."""
        settings = self._settings(units, units, self._none(), self._parts)
        return self._noise(plan, settings).mechanism

    def _compile(self, call: Call) -> Callable[..., Any]:
        def program(state: Any, extra: dict[str, Any], *leaves: Array) -> Any:
            mine = self.argument_leaves(call, self.private)
            rows = next(np.shape(x)[0] for x, m in zip(leaves, mine, strict=True) if m)
            traced, plan, units = self._plan(call, leaves)
            settings = self._settings(units, rows, extra, self._parts)
            mechanism = self._noise(plan, settings)
            after = state

            def noise(sums: list[Any], bound: float, share: float, place: str) -> Any:
                nonlocal after
                after, noised = mechanism.step(state, sums)
                return noised

            flat, _ = run(plan, leaves, settings, noise)
            filled = [
                jax.numpy.full(
                    aval.shape,
                    jax.numpy.nan
                    if jax.numpy.issubdtype(aval.dtype, jax.numpy.inexact)
                    else 0,
                    aval.dtype,
                )
                if x is None
                else x
                for x, aval in zip(flat, traced.out_avals, strict=True)
            ]
            return jax.tree.unflatten(traced.out_tree, filled), after

        program.__name__ = f"private_{self.__name__}"
        return jax.jit(program)


def correlated(
    step: DifferentiallyPrivate,
    kind: type[Mechanism] = BandedToeplitz,
    *,
    steps: int,
    **settings: Any,
) -> CorrelatedStep:
    """A differentially private step with noise that is correlated over steps.

    Args:
      step: `privjax.differentially_private(...)` of an ordinary train step. Its
        `noise_multiplier` is the deviation of the fresh noise over what one unit moves
        in a whole run; its clipping, denominator and microbatches stay what they are.
      kind: `BandedToeplitz` or `TreeAggregation`; the norm of a contribution and the
        number of values are found in the step.
      steps: the length of a run, after which the noise starts anew. An epoch, for
        `TreeAggregation`.
      settings: those of `kind`: `bands=`, `participations=`, `rate=`.

    Returns: a step that takes `noise=`, the state that `.start(*args, key=)` makes, and
      returns (result, next state). `fit` takes it as it is.

    Raises:
      InputError: settings out of range, adaptive clipping, no noise.
      LeakError: when called; see `differentially_private`.

    Guarantee: given the clipped sums of a run in which units take part as the mechanism
      assumes (`charge_run` checks that the sampler sees to it), all results of the run
      together are one release of the Gaussian mechanism with this noise multiplier; also
      where each step's parameters depend on earlier results (Denisov et al. 2022,
      "Improved differential privacy for SGD via optimal private linear operators on
      adaptive streams").
    """
    if not isinstance(step, DifferentiallyPrivate):
        raise InputError(
            "correlated takes a step made by privjax.differentially_private, not "
            f"{type(step).__name__}."
        )
    return CorrelatedStep(step, kind, {"steps": steps, **settings})
