"""Kernels of the secret-sharing protocols: whole, and offline and online parts apart.

All parties are simulated on this machine and the dealer's work is inside; inputs are
shares, outputs stay shares. Seconds are the least of several runs of a compiled program;
temporary megabytes are XLA's own figure for the whole.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import privjax
from benchmarks.kernels import least
from privjax.prg import key_words
from privjax.runtimes import material

Row = dict[str, Any]


@dataclass(frozen=True)
class Kernel:
    """A function of one or two float32 arrays, and their shapes."""

    fun: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]


KERNELS = {
    "mul 1e6": Kernel(lambda x, y: x * y, ((1_000_000,),) * 2),
    "relu 1e6": Kernel(jax.nn.relu, ((1_000_000,),)),
    "less 1e6": Kernel(lambda x: x < 0, ((1_000_000,),)),
    "relu 1e5": Kernel(jax.nn.relu, ((100_000,),)),
    "matmul 512": Kernel(lambda x, y: x @ y, ((512, 512),) * 2),
    "exp 1e4": Kernel(jnp.exp, ((10_000,),)),
}
# What is run: protocols with their least number of parties, and semi2k with as many as
# replicated3 has.
CASES = {
    "semi2k": ("semi2k", 2),
    "semi2k of 3": ("semi2k", 3),
    "replicated3": ("replicated3", 3),
    "spdz2k": ("spdz2k", 2),
}
# 8 GB of material with MACs.
TOO_LARGE = {("relu 1e6", "spdz2k"), ("less 1e6", "spdz2k")}


def rows(kernels: Any = tuple(KERNELS), names: Any = tuple(CASES)) -> list[Row]:
    """One row per kernel and protocol that fits into memory."""
    return [
        measured(kernel, name)
        for kernel in kernels
        for name in names
        if (kernel, name) not in TOO_LARGE
    ]


def measured(kernel: str, name: str, repeats: int = 5) -> Row:
    """Seconds and megabytes of one kernel."""
    case, (protocol, parties) = KERNELS[kernel], CASES[name]
    rng = np.random.default_rng(0)
    clear = [rng.uniform(-4, 4, s).astype(np.float32) for s in case.shapes]
    shares = [privjax.share(x, parties, protocol) for x in clear]
    fun = privjax.secret_shared(case.fun, parties, protocol, reveal=False)
    program, words = fun.compiled(*shares), key_words(privjax.random.key())
    arrays = [x.data for x in shares]
    with jax.enable_x64(True):
        compiled = program.run.lower(words, *arrays).compile()
        row = {
            "name": f"{kernel}, {name}",
            "seconds": least(compiled, words, *arrays, repeats=repeats),
            "temporary MB": compiled.memory_analysis().temp_size_in_bytes / 1e6,
            "rounds": program.cost.rounds,
            "sent MB": program.cost.sent_megabytes,
            "dealt MB": program.cost.dealt_megabytes,
        }
        if protocol != "spdz2k":  # shares under earlier keys need the dealer of then
            row |= apart(program, parties, words, arrays, repeats)
    return row


def apart(program: Any, parties: int, words: Any, arrays: Any, repeats: int) -> Row:
    """Seconds of the dealer alone, and of the parties with material made ahead."""
    offline, online = (
        jax.jit(material.offline(program.party, parties)),
        program.run_online,
    )
    corrections = jax.tree.map(
        lambda c: jnp.broadcast_to(c, (parties, *c.shape)), offline(words)[1]
    )
    return {
        "offline seconds": least(offline, words, repeats=repeats),
        "online seconds": least(online, words, corrections, *arrays, repeats=repeats),
    }
