"""Vertical and split learning: one example's features are held by different parties.

Every party has a *bottom* model on its own features; what it gives is the *cut layer*.
The *top* model, with the labels, makes losses of all parties' cut layers together:

    h_p = bottom_p(params_p, x_p)            at party p
    loss = mean top(params_top, (h_1, ..., h_n), labels)
    party p gets d loss / d h_p, and goes on backwards by itself.

`cut="plain"`: the owner of the labels sees the cut layers, from which features can often
be guessed, and parties see gradients, from which labels can (Li et al. 2022, "Label
leakage and protection in two-party split learning"). `cut="shared"`: cut layers and labels
are secret-shared, top model and gradients are computed on shares, and each gradient is
revealed to its party, together with the new top model's gradient.

The rows of all parties belong to the same examples in the same order; `privjax.fl` does
not join tables.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax  # type: ignore[import-untyped]

from privjax._typing import Array, PyTree
from privjax.errors import InputError
from privjax.transforms.secret_shared import secret_shared

CUTS = ("plain", "shared")


class SplitState(NamedTuple):
    """Models and optimisers of all parties.

    Attributes: `bottoms` and their optimisers' states, one per party; `top` and its own.
    """

    bottoms: tuple[PyTree, ...]
    top: PyTree
    bottom_states: tuple[PyTree, ...]
    top_state: PyTree


@dataclass(frozen=True, eq=False)
class Split:
    """A model cut between parties; see `split`."""

    bottoms: tuple[Callable[[PyTree, Array], Array], ...]
    top: Callable[[PyTree, tuple[Array, ...], Array], Array]
    optimiser: Any
    cut: str
    middle: Callable[..., Any]

    def init(self, bottoms: Sequence[PyTree], top: PyTree) -> SplitState:
        """The state before the first step."""
        if len(bottoms) != len(self.bottoms):
            raise InputError(
                f"{len(bottoms)} parties' parameters for {len(self.bottoms)} parties."
            )
        own = tuple(jax.tree.map(jnp.asarray, b) for b in bottoms)
        top = jax.tree.map(jnp.asarray, top)
        states = tuple(self.optimiser.init(b) for b in own)
        return SplitState(own, top, states, self.optimiser.init(top))

    def cuts(self, state: SplitState, features: Sequence[Array]) -> tuple[Array, ...]:
        """Every party's cut layer."""
        if len(features) != len(self.bottoms):
            raise InputError(
                f"{len(features)} parties' features for {len(self.bottoms)} parties."
            )
        rows = {x.shape[0] for x in features}
        if len(rows) != 1:
            raise InputError(
                f"the parties have {sorted(rows)} rows: not the same ones."
            )
        triples = zip(self.bottoms, state.bottoms, features, strict=True)
        return tuple(f(p, x) for f, p, x in triples)

    def step(
        self,
        state: SplitState,
        features: Sequence[Array],
        labels: Array,
        *,
        key: Any = None,
    ) -> tuple[SplitState, Array]:
        """One step on a batch.

        Args:
          features: for every party an array [examples, ...].
          labels: [examples, ...].
          key: where the cut layer is secret-shared; from the operating system outside
            of jit.

        Returns: the next state, and the mean loss.
        """
        self.cuts(state, features)
        layers, backs = [], []
        for f, p, x in zip(self.bottoms, state.bottoms, features, strict=True):
            layer, back = jax.vjp(partial(_swapped, f, x), p)
            layers.append(layer)
            backs.append(back)
        extra = {"key": key} if self.cut == "shared" and key is not None else {}
        loss, top_grad, layer_grads = self.middle(
            state.top, tuple(layers), labels, **extra
        )
        bottoms, states = [], []
        for p, s, back, g in zip(
            state.bottoms, state.bottom_states, backs, layer_grads, strict=True
        ):
            (grad,) = back(g)
            updates, s = self.optimiser.update(grad, s, p)
            bottoms.append(optax.apply_updates(p, updates))
            states.append(s)
        updates, top_state = self.optimiser.update(top_grad, state.top_state, state.top)
        top = optax.apply_updates(state.top, updates)
        return SplitState(tuple(bottoms), top, tuple(states), top_state), loss


def _swapped(fun: Callable[..., Any], x: Array, params: PyTree) -> Any:
    return fun(params, x)


def split(
    bottoms: Sequence[Callable[[PyTree, Array], Array]],
    top: Callable[[PyTree, tuple[Array, ...], Array], Array],
    *,
    optimiser: Any,
    cut: str = "plain",
    **shared: Any,
) -> Split:
    """A model that is cut between parties.

    Args:
      bottoms: for every party (params, features) -> cut layer, [examples, ...].
      top: (params, cut layers, labels) -> losses, one per example.
      optimiser: an Optax transformation; every model has its own state of it.
      cut: "plain" or "shared", see the module's docstring.
      **shared: options of `privjax.secret_shared` for the middle: protocol, parties.

    Raises: InputError for an unknown cut, or options without use.
    """
    if cut not in CUTS:
        raise InputError(f"cut={cut!r}: choose one of {CUTS}.")
    if cut == "plain" and shared:
        raise InputError(f"{sorted(shared)} have no meaning with cut='plain'.")
    if not bottoms:
        raise InputError("there are no parties.")

    def middle(params: PyTree, layers: tuple[Array, ...], labels: Array) -> Any:
        def mean(params: PyTree, layers: tuple[Array, ...]) -> Array:
            return jnp.mean(top(params, layers, labels))

        loss, (params_grad, layer_grads) = jax.value_and_grad(mean, (0, 1))(
            params, layers
        )
        return loss, params_grad, layer_grads

    run = middle if cut == "plain" else secret_shared(middle, **shared)
    return Split(tuple(bottoms), top, optimiser, cut, run)
