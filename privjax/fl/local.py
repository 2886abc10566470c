"""What a client does with its examples: local steps of an Optax optimiser.

A *loss* is a function (params, batch) -> losses, one per example: an array whose leading
axis is the batch. Their mean is minimised, over the real examples where a client's data
are padded. Two more forms are understood:

- a scalar, the mean over the batch, for clients whose examples are all real;
- (losses, changed), where `changed` is a dictionary of top-level entries of `params`
  that the loss computes anew, such as Flax's {"batch_stats": ...}.

`proximal` and `frozen` are Optax transformations that local training needs beyond
Optax's own.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]
from jax import lax

from privjax._typing import Array, PyTree
from privjax.errors import InputError
from privjax.transforms.base import typed_key

Loss = Callable[[PyTree, PyTree], Any]


class LocalOptions(TypedDict, total=False):
    """How a client goes through its examples: what every algorithm takes besides.

    epochs: how often. Default 1.
    batch_size: examples per local step; None (the default): all of them. The last batch
      of an epoch may be smaller.
    shuffle: in an order of their own in every epoch; then a round needs `key=`. The
      default, False, is the order of the data.
    """

    epochs: int
    batch_size: int | None
    shuffle: bool


class Trained(NamedTuple):
    """The result of local training.

    Attributes:
      params: after the last step.
      steps: float32, how many local steps were taken.
      loss: the mean over examples of the losses before each step.
    """

    params: PyTree
    steps: Array
    loss: Array


def mean_loss(loss: Loss) -> Callable[[PyTree, PyTree, Any], tuple[Array, Any]]:
    """`loss` as a function (params, batch, mask) -> (mean over real examples, changed).

    The second result is the dictionary of entries that the loss computed anew.
    """

    def mean(params: PyTree, batch: PyTree, mask: Any) -> tuple[Array, Any]:
        out = loss(params, batch)
        changed: dict[str, Any] = {}
        if isinstance(out, tuple):
            out, changed = _pair(out, params)
        out = jnp.asarray(out)
        examples = np.shape(jax.tree.leaves(batch)[0])[0]
        if out.ndim == 0:
            if mask is not None:
                raise InputError(
                    "the loss returns a scalar, and some examples are padding. Return "
                    "one loss per example, without the mean over the batch."
                )
            return out, changed
        if out.shape[0] != examples:
            raise InputError(
                f"the loss returns shape {out.shape} for {examples} examples. Return "
                "one loss per example, or their mean."
            )
        out = jnp.mean(out.reshape(examples, -1), axis=1)
        if mask is None:
            value = jnp.mean(out)
        else:
            real = jnp.sum(mask, dtype=out.dtype)
            value = jnp.sum(jnp.where(mask, out, 0)) / jnp.maximum(real, 1)
        return value, changed

    return mean


def _pair(out: Any, params: PyTree) -> tuple[Any, dict[str, Any]]:
    if len(out) != 2 or not isinstance(out[1], dict):
        raise InputError(
            "a loss returns losses, or a pair of losses and a dictionary of entries of "
            "the parameters that it computes anew."
        )
    unknown = [k for k in out[1] if not isinstance(params, dict) or k not in params]
    if unknown:
        raise InputError(f"the loss computes {unknown} anew, which params do not have.")
    return out


class Trainer:
    """Local training as a function of one client's data.

    Attributes: `needs_key`, whether it shuffles.
    """

    def __init__(
        self,
        loss: Loss,
        *,
        epochs: int = 1,
        batch_size: int | None = None,
        shuffle: bool = False,
    ) -> None:
        if epochs < 1 or epochs != int(epochs):
            raise InputError(f"epochs={epochs} is not a whole number of at least 1.")
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch_size={batch_size} is not at least 1.")
        self.mean = mean_loss(loss)
        self.epochs = int(epochs)
        self.batch_size = batch_size
        self.needs_key = shuffle

    def __call__(
        self,
        optimiser: Any,
        params: PyTree,
        data: PyTree,
        *,
        mask: Any = None,
        limit: Any = None,
        key: Any = None,
        correct: Callable[[PyTree], PyTree] | None = None,
    ) -> Trained:
        """Train on one client's examples.

        Args:
          optimiser: an Optax transformation; its state lives for this call.
          params: where to begin.
          data: a pytree of [examples, ...].
          mask: bool[examples].
          limit: at most so many steps.
          key: uint32[8], where the examples are shuffled.
          correct: applied to every gradient before the optimiser sees it.
        """
        examples = np.shape(jax.tree.leaves(data)[0])[0]
        size = min(self.batch_size or examples, examples)
        full = examples // size
        value_and_grad = jax.value_and_grad(self.mean, has_aux=True)
        guarded = mask is not None or limit is not None

        def step(carry: Any, batch: Any) -> tuple[Any, None]:
            params, state, taken, total, seen = carry
            xs, real = batch
            (value, changed), grads = value_and_grad(params, xs, real)
            count = np.shape(jax.tree.leaves(xs)[0])[0]
            weight = jnp.float32(count)
            grads = grads if correct is None else correct(grads)
            updates, new_state = optimiser.update(grads, state, params)
            new = optax.apply_updates(params, updates)
            if changed:
                new = {**new, **changed}
            if guarded:
                go = jnp.bool_(True)
                if real is not None:
                    weight = jnp.sum(real, dtype=jnp.float32)
                    go = weight > 0
                if limit is not None:
                    go &= taken < limit
                new, new_state = _where(go, (new, new_state), (params, state))
                weight = jnp.where(go, weight, 0)
                taken = taken + go.astype(jnp.float32)
            else:
                taken = taken + 1
            total = total + weight * value.astype(jnp.float32)
            return (new, new_state, taken, total, seen + weight), None

        def epoch(carry: Any, words: Any) -> tuple[Any, None]:
            xs, real = data, mask
            if self.needs_key:
                order = _order(words, examples, mask)
                xs = jax.tree.map(lambda x: x[order], data)
                real = None if mask is None else mask[order]
            cut = lambda a, b: jax.tree.map(lambda x: x[a:b], (xs, real))  # noqa: E731
            if full == 1:
                carry, _ = step(carry, cut(0, size))
            else:
                batches = jax.tree.map(
                    lambda x: x.reshape(full, size, *x.shape[1:]), cut(0, full * size)
                )
                carry, _ = lax.scan(step, carry, batches)
            if full * size < examples:
                carry, _ = step(carry, cut(full * size, examples))
            return carry, None

        zero = jnp.float32(0)
        carry = (params, optimiser.init(params), zero, zero, zero)
        words = None
        if self.needs_key:
            keys = jax.random.split(typed_key(key), self.epochs)
            words = jax.random.key_data(keys)
        if self.epochs == 1:
            first = None if words is None else words[0]
            carry, _ = epoch(carry, first)
        else:
            carry, _ = lax.scan(epoch, carry, words, length=self.epochs)
        params, _, taken, total, seen = carry
        return Trained(params, taken, total / jnp.maximum(seen, 1))


def _where(go: Array, new: PyTree, old: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(go, a, b), new, old)


def _order(words: Array, examples: int, mask: Any) -> Array:
    """A random order of the real examples, padding behind them."""
    draws = jax.random.bits(typed_key(words), (examples,), "uint32") >> 1
    if mask is not None:
        draws = jnp.where(mask, draws, np.uint32(2**31))
    return jnp.argsort(draws)


def count(data: PyTree, mask: Any) -> Array:
    """How many real examples a client has, float32."""
    if mask is None:
        return jnp.float32(np.shape(jax.tree.leaves(data)[0])[0])
    return jnp.sum(mask, dtype=jnp.float32)


class ProximalState(NamedTuple):
    """Where local training began."""

    start: PyTree


def proximal(mu: Any) -> optax.GradientTransformation:
    """FedProx's term: adds the gradient of mu / 2 |params - start|^2 (Li et al. 2020).

    `start` are the parameters that the optimiser was initialised with.
    """

    def init(params: PyTree) -> ProximalState:
        return ProximalState(params)

    def update(
        grads: PyTree, state: ProximalState, params: PyTree | None = None
    ) -> tuple[PyTree, ProximalState]:
        if params is None:
            raise InputError("proximal(...) needs update(grads, state, params).")
        pull = lambda g, p, s: g + mu * (p - s)  # noqa: E731
        return jax.tree.map(pull, grads, params, state.start), state

    return optax.GradientTransformation(init, update)


def frozen(optimiser: Any, state: PyTree) -> optax.GradientTransformation:
    """`optimiser` with a state that its updates read and never change (as in MIME)."""

    def update(
        grads: PyTree, _: Any, params: PyTree | None = None
    ) -> tuple[PyTree, Any]:
        return optimiser.update(grads, state, params)[0], ()

    return optax.GradientTransformation(lambda _: (), update)
