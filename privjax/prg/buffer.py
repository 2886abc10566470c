"""Keep a result in memory where XLA would rather compute it again."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax._typing import Array


def in_a_buffer(make: Callable[[], Any], word: Array) -> Any:
    """The result of `make`, computed once, whatever is done with its parts.

    XLA's CPU compiler would compute the noise again for every array that a part of it is
    added to, and in a form that it cannot vectorise; it honours no optimisation barrier.
    A loop keeps its result in memory. This one runs once, which the compiler cannot
    know: the number of leading zeros of `word | 1` is less than 32.
    """
    if jax.default_backend() != "cpu":
        return make()
    once = 1 + (lax.clz(word | np.uint32(1)) >> np.uint32(5)).astype(np.int32)
    leaves, tree = jax.tree.flatten(jax.eval_shape(make))
    # Not all zeros: equal beginnings are one array, of which copies are made.
    begin = [
        jnp.broadcast_to((word + np.uint32(i)).astype(x.dtype), x.shape)
        for i, x in enumerate(leaves)
    ]
    start = np.int32(0), jax.tree.unflatten(tree, begin)
    return lax.while_loop(
        lambda state: state[0] < once, lambda state: (state[0] + 1, make()), start
    )[1]
