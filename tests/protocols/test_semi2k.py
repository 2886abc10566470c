"""What is particular to semi2k; what every protocol does is in test_conformance.py."""

from typing import Any

import harness
import jax
import numpy as np
from jax import lax
from kernels import reused

from privjax.protocols.semi2k import Semi2k
from privjax.protocols.shares import Arith


def test_one_mask_is_opened_once() -> None:
    p, x = Semi2k(2), np.zeros((4, 4), np.uint64)
    with jax.enable_x64(True):
        closed = harness.trace(
            lambda x, y: [reused(p, x.dtype, Arith(x), Arith(y)).value], 2, [x, x]
        )
    opened, _ = harness.traffic(closed)
    assert opened == 3 * x.nbytes  # x, y and x * x


def test_masks_differ_between_iterations_and_calls() -> None:
    p = Semi2k(2)

    def program(x: Any) -> list[Any]:
        def step(carry: Any, _: Any) -> Any:
            return carry, p.square(Arith(x)).value

        _, rows = lax.scan(step, None, None, length=3)
        once = [jax.jit(lambda v: p.square(Arith(v)).value)(x) for _ in range(2)]
        return [rows, *once]

    x = np.zeros(2, np.uint64)
    with jax.enable_x64(True):
        rows, a, b = harness.simulate(harness.trace(program, 2, [x]), 2, [x])
        shares = np.concatenate([np.asarray(rows)[0].ravel(), a[0], b[0]])
    assert len(np.unique(shares)) == shares.size
