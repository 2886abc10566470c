"""Auditing: a lower bound on epsilon, with confidence, from what a program releases.

An audit that finds a lower bound above the claim has found a bug; one that does not
proves nothing. Two tests:

- `distinguish` runs a release many times with and without one unit and looks how well a
  threshold on its projection tells them apart, with Clopper-Pearson bounds of both error
  rates (Jagielski et al. 2020; Nasr et al. 2023 for the Gaussian trade-off, which is far
  more powerful and right where the release is a Gaussian mechanism without sampling).
- `one_run` includes each of many canaries with probability 1/2 in a *single* run and
  guesses from the result which ones were (Steinke, Nasr and Jagielski 2023).

`audit` runs the first on a step made by `privjax.differentially_private`, or on any
function that is claimed to be like one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privjax import random
from privjax.dp.bounds import clopper_pearson, epsilon_from_errors, one_run_epsilon
from privjax.dp.training import with_noise
from privjax.errors import InputError
from privjax.transforms.differentially_private import DifferentiallyPrivate


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
      lower_bound: epsilon is at least this at `delta`, except with probability
        1 - confidence.
      claim: the epsilon that was claimed, if any.
      exceeded: whether the claim is refuted.
      detail: the counts behind the bound, in words.
    """

    lower_bound: float
    delta: float
    confidence: float
    claim: float | None
    detail: str

    @property
    def exceeded(self) -> bool:
        return self.claim is not None and self.lower_bound > self.claim

    def __str__(self) -> str:
        text = (
            f"epsilon >= {self.lower_bound:.3g} at delta {self.delta:g} with confidence "
            f"{self.confidence:g} ({self.detail})"
        )
        if self.claim is None:
            return text
        verdict = "REFUTED" if self.exceeded else "not refuted"
        return f"{text}; the claim of {self.claim:.3g} is {verdict}"


def distinguish(
    run: Callable[[Any, Any], Any],
    *,
    delta: float,
    claim: float | None = None,
    trials: int = 4000,
    confidence: float = 0.999,
    trade_off: str = "any",
    key: Any = None,
    batch: int = 1000,
) -> Audit:
    """Tell releases with a unit from releases without it.

    Args:
      run: `run(key, present)`, a JAX function: one release (any pytree of floats) with a
        typed privjax key, where `present` is a boolean scalar.
      delta, claim: what is claimed.
      trials: releases of each kind. Half of them choose a direction and a threshold, the
        other half are counted.
      confidence: of the lower bound.
      trade_off: see `epsilon_from_errors`.
      key: from the operating system by default.
      batch: how many releases are computed at once.
    """
    _confidence(confidence)
    if trials < 20:
        raise InputError(f"trials={trials} is less than 20.")
    keys = jax.random.split(random.key() if key is None else key, 2 * trials)

    def release(key: Any, present: Any) -> Any:
        leaves = jax.tree.leaves(run(key, present))
        return jnp.concatenate([jnp.ravel(x).astype(np.float32) for x in leaves])

    many = jax.jit(jax.vmap(release, in_axes=(0, None)))

    def sample(keys: Any, present: bool) -> np.ndarray:
        parts = [
            np.asarray(many(keys[i : i + batch], np.bool_(present)), np.float64)
            for i in range(0, trials, batch)
        ]
        return np.nan_to_num(np.concatenate(parts))

    absent, present = sample(keys[:trials], False), sample(keys[trials:], True)
    half = trials // 2
    direction = present[:half].mean(axis=0) - absent[:half].mean(axis=0)
    spread = absent[:half].var(axis=0) + present[:half].var(axis=0)
    # Fisher's discriminant for independent coordinates; without noise any gap decides.
    direction = direction / np.maximum(spread, 1e-12 * max(1e-30, spread.max()))
    out, inside = absent @ direction, present @ direction
    threshold = _best_threshold(out[:half], inside[:half], delta, confidence, trade_off)
    counted = trials - half
    positives = int(np.count_nonzero(out[half:] > threshold))
    negatives = int(np.count_nonzero(inside[half:] <= threshold))
    each = 1 - (1 - confidence) / 2
    bound = epsilon_from_errors(
        clopper_pearson(positives, counted, each),
        clopper_pearson(negatives, counted, each),
        delta,
        trade_off,
    )
    detail = f"{positives} false positives and {negatives} false negatives in {counted}"
    if trade_off == "gaussian":
        detail += ", if the trade-off is a Gaussian's"
    return Audit(bound, delta, confidence, claim, detail)


def _best_threshold(
    out: np.ndarray, inside: np.ndarray, delta: float, confidence: float, trade_off: str
) -> float:
    """Where the bound would be best on these samples.

    By the rule of "any", also for a Gaussian trade-off, whose own best is the middle.
    """
    if trade_off == "gaussian":
        return float((out.mean() + inside.mean()) / 2)
    each, n = 1 - (1 - confidence) / 2, len(out)
    best, where = -1.0, float(np.median(np.concatenate([out, inside])))
    for t in np.quantile(np.concatenate([out, inside]), np.linspace(0.001, 0.999, 200)):
        found = epsilon_from_errors(
            clopper_pearson(int(np.count_nonzero(out > t)), n, each),
            clopper_pearson(int(np.count_nonzero(inside <= t)), n, each),
            delta,
        )
        if found > best:
            best, where = found, float(t)
    return where


def one_run(
    run: Callable[[Any, Any], Any],
    canaries: int,
    *,
    delta: float,
    claim: float | None = None,
    guesses: int | None = None,
    confidence: float = 0.95,
    key: Any = None,
) -> Audit:
    """Audit with a single run that includes each canary with probability 1/2.

    Args:
      run: `run(key, included)` with boolean[canaries] trains or releases once and gives a
        score for each canary: the higher, the more it looks included.
      guesses: how many canaries are guessed: the highest and the lowest scores, half of
        each. A third of them by default; fixed before looking.
      delta, claim, confidence, key: as in `distinguish`.
    """
    _confidence(confidence)
    if canaries < 2:
        raise InputError(f"canaries={canaries} is less than 2.")
    count = canaries // 3 if guesses is None else guesses
    if not 1 <= count <= canaries:
        raise InputError(f"guesses={count} is not in 1 ... {canaries}.")
    run_key, coins_key = jax.random.split(random.key() if key is None else key)
    coins = np.asarray(jax.random.bits(coins_key, (canaries,), "uint32")) & 1
    included = coins.astype(bool)
    scores = np.nan_to_num(np.asarray(run(run_key, jnp.asarray(included)), np.float64))
    if scores.shape != (canaries,):
        raise InputError(
            f"run gives scores of shape {scores.shape}, not ({canaries},)."
        )
    order = np.argsort(scores, kind="stable")
    low, high = order[: count // 2], order[canaries - (count - count // 2) :]
    correct = int(np.count_nonzero(included[high]) + np.count_nonzero(~included[low]))
    bound = one_run_epsilon(canaries, count, correct, delta, confidence)
    detail = f"{correct} of {count} guesses about {canaries} canaries are right"
    return Audit(bound, delta, confidence, claim, detail)


def audit(
    step: Callable[..., Any],
    state: Any,
    batch: Any,
    *,
    delta: float,
    epsilon: float | None = None,
    unit: int | None = None,
    mask: str | None = None,
    trials: int = 2000,
    confidence: float = 0.999,
    trade_off: str = "gaussian",
    canaries: bool = False,
    key: Any = None,
) -> Audit:
    """Audit one call of a private step on a batch: all units against all but one.

    Args:
      step: made by `differentially_private`, of a function (state, batch); or any
        function that is called as step(state, batch, key=key), whose batch is a
        dictionary in which `mask` says which rows are units.
      epsilon: the claim for one call on this batch (no sampling); by default what the
        step says itself, if it can.
      unit: the row that is left out; by default the one whose squared entries are
        largest. Put a canary there: an extreme row is the best test of clipping.
      canaries: instead, every row is a canary of `one_run`: one private call, in which
        each is included with probability 1/2 and scored by how far the result went where
        it alone would have moved it. Needs a step made by `differentially_private`, and
        about as many parameters as rows to see much.
      trials, confidence, trade_off, key: see `distinguish`.
    """
    ours = isinstance(step, DifferentiallyPrivate)
    full = jax.tree.map(jnp.asarray, batch)
    if mask is not None and isinstance(full, dict) and mask in full:
        weights = np.asarray(full[mask], np.float32)
    elif ours and mask is None:
        weights = np.ones(jax.tree.leaves(full)[0].shape[0], np.float32)
    else:
        raise InputError(
            "leaving a unit out must not change shapes: name the leaf of the batch that "
            "says which rows are units by mask=."
        )
    if epsilon is None and isinstance(step, DifferentiallyPrivate):
        epsilon = step.epsilon(steps=1, sampling_rate=1, delta=delta)
    if canaries:
        if not isinstance(step, DifferentiallyPrivate) or mask is not None:
            raise InputError("canaries need a step made by differentially_private.")
        run_once = _canary_run(step, state, full)
        return one_run(
            run_once,
            len(weights),
            delta=delta,
            claim=epsilon,
            confidence=confidence,
            key=key,
        )
    chosen = _largest(full, weights) if unit is None else unit
    if not 0 <= chosen < len(weights) or weights[chosen] == 0:
        raise InputError(f"unit={chosen} is no row whose mask is set.")

    def run(key: Any, present: Any) -> Any:
        keep = jnp.asarray(weights).at[chosen].multiply(present.astype(np.float32))
        given = full
        if mask is not None:
            given = {**full, mask: keep.astype(full[mask].dtype)}
        return step(state, given, key=key, **({"mask": keep != 0} if ours else {}))

    return distinguish(
        run,
        delta=delta,
        claim=epsilon,
        trials=trials,
        confidence=confidence,
        trade_off=trade_off,
        key=key,
    )


def _canary_run(step: DifferentiallyPrivate, state: Any, batch: Any) -> Any:
    """(key, included) -> how far the state went in the direction of each row."""
    silent = with_noise(step, 0.0)
    rows = jax.tree.leaves(batch)[0].shape[0]

    def flat(tree: Any) -> Any:
        leaves = jax.tree.leaves(tree)
        return jnp.concatenate([jnp.ravel(x).astype(np.float32) for x in leaves])

    def alone(keep: Any) -> Any:
        return flat(silent(state, batch, mask=keep))

    nobody = alone(jnp.zeros(rows, bool))
    moves = jax.lax.map(alone, jnp.eye(rows, dtype=bool)) - nobody
    moves = moves / jnp.maximum(jnp.linalg.norm(moves, axis=1, keepdims=True), 1e-30)

    @jax.jit
    def run(key: Any, included: Any) -> Any:
        return moves @ (flat(step(state, batch, mask=included, key=key)) - nobody)

    return run


def _largest(batch: Any, weights: np.ndarray) -> int:
    rows = [np.asarray(x, np.float64) for x in jax.tree.leaves(batch)]
    size = sum(np.square(x).reshape(len(x), -1).sum(axis=1) for x in rows)
    return int(np.argmax(np.where(weights != 0, size, -1.0)))


def _confidence(confidence: float) -> None:
    if not 0.5 <= confidence < 1:
        raise InputError(f"confidence={confidence} is not in [0.5, 1).")
