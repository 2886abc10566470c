"""Both parties' preprocessing in one process: for development, counting and tests."""

import itertools
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privjax.preprocessing.exchange import Cost, run
from privjax.preprocessing.program import prepare, ready
from privjax.preprocessing.session import cost, open_session, setup


class Transfers:
    """Two parties that have run their base transfers, and the sessions they have used.

    Raises RandomKeyError when made under a trace: keys come from the operating system.
    """

    def __init__(self) -> None:
        session = os.urandom(16)
        *self._setups, self.setup_cost = run(setup(0, session), setup(1, session))
        self._numbers = itertools.count()  # one step even with several threads

    def corrections(self, party: Any, seeds: Any) -> tuple[Any, Cost]:
        """What a dealer would have sent for one run of a semi2k or spdz2k program.

        Args:
          party: the closed jaxpr of a party's program.
          seeds: uint32[2, 8], with which the parties will run it.

        Returns:
          The corrections with a leading party axis, and what the parties sent.
        """
        number = next(self._numbers)
        sides = (
            prepare(open_session(i, keys, number), party, seeds[i])
            for i, keys in enumerate(self._setups)
        )
        first, second, spent = run(*sides)
        return jax.tree.map(lambda *v: jnp.stack(v), first, second), spent


def demand(party: Any) -> Cost:
    """What preparing one run of a party program costs; nothing is computed."""
    ready(party)
    seed = np.zeros((8,), np.uint32)
    return cost(lambda me: prepare(me, party, seed))
