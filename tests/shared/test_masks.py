"""What the parties open: masked by fresh uniform values, whatever the calling context."""

import fast
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import stats

import privjax
from privjax.core.interpret import run
from privjax.protocols.party import PARTY
from privjax.random import insecure_key
from privjax.runtimes import discharge
from privjax.runtimes.combined import total
from privjax.runtimes.discharge import Simulate
from privjax.runtimes.simulate import party_keys


class Recorder(Simulate):
    """The simulation, handing out every opened value."""

    def __init__(self, key, parties):
        super().__init__(key, parties)
        self.opened = []

    def inside(self, state):
        return Recorder(state[0], self.parties)

    def gathered(self):
        return self.opened

    def deliver(self, part, gathered):
        self.opened.extend(jax.tree.leaves(gathered))


def _open(cx, *shares, domains, bits, checked, release):
    values = [total(s, d) for s, d in zip(shares, domains, strict=True)]
    cx.opened.extend(v for v, b in zip(values, bits, strict=True) if b == 64)
    return values


Recorder.rules = discharge.Simulate.rules | {"open": _open}


def recorder(fun, *args):
    """(words, *args) -> every word that the parties of `fun(*args)` open, but for the
    outputs (last); compiled."""
    program, parties = fun.compiled(*args), fun.protocol.parties

    def party(key, *values):
        cx = Recorder(key, parties)
        run(cx, program.party, values)
        return cx.opened[:-1]

    @jax.jit
    def recorded(keys, *args):
        parties = jax.vmap(lambda k: party(k, *args), axis_name=PARTY, out_axes=None)
        return parties(keys)

    def openings(words, *args):
        with jax.enable_x64(True):
            found = recorded(party_keys(words, parties), *args)
            return np.concatenate([np.ravel(np.asarray(v, np.uint64)) for v in found])

    return openings


def looped(x):
    def body(c, _):
        return jax.nn.relu(c * x) * 0.5, None

    return lax.scan(body, x, None, length=3)[0]


X = np.linspace(-1, 1, 8).astype(np.float32)
FUN = fast.secret_shared(looped, protocol="semi2k")
MASKED = pytest.mark.parametrize("protocol", ["semi2k", "spdz2k"])


@MASKED
def test_no_opening_repeats_within_a_program_with_a_loop(protocol):
    """Equal values in all steps would open alike if a mask were used twice."""
    same = np.ones(8, np.float32)
    fun = fast.secret_shared(
        lambda x: lax.scan(lambda c, _: (c, (x * x, x > 0)), 0, None, length=4)[1],
        protocol=protocol,
    )
    words = recorder(fun, same)(np.arange(8, dtype=np.uint32), same)
    wide = words[words >= 2**33]
    assert len(wide) >= 64 and len(np.unique(wide)) == len(wide)


@MASKED
def test_openings_are_uniform_and_do_not_tell_the_input(protocol):
    """Of spdz2k all 128 bits of what is opened, two words."""
    record = recorder(fast.secret_shared(looped, protocol=protocol), X)
    counts = []
    for x in (X, 1000 * X):
        seen = [record(np.full(8, seed, np.uint32), x) for seed in range(20)]
        top = np.concatenate(seen) >> np.uint64(60)
        counts.append(np.bincount(top.astype(int), minlength=16))
    for c in counts:
        assert stats.chisquare(c).pvalue > 1e-4
    assert stats.chi2_contingency(np.stack(counts)).pvalue > 1e-4


def words_of(values):
    """The session key that a call of FUN on these values would draw its masks from."""
    return np.asarray(values)


def lanes_with_one_key():
    return jax.vmap(lambda x, k: FUN.session_key(k, [x]), in_axes=(0, None))(
        np.stack([X, X, 2 * X]), insecure_key(0)
    )


def lanes_with_one_key_repeated():
    keys = jnp.broadcast_to(insecure_key(0), (3,))
    return jax.vmap(lambda k: FUN.session_key(k, [X]))(keys)


def nested_lanes():
    inner = jax.vmap(lambda x, k: FUN.session_key(k, [x]), in_axes=(0, None))
    return jax.vmap(inner, in_axes=(0, None))(np.ones((2, 2, 3), "f4"), insecure_key(0))


def loop_with_a_key_from_outside():
    def body(c, x):
        return c, FUN.session_key(key, [x])

    key = insecure_key(0)
    return jax.jit(
        lambda key: lax.scan(
            lambda c, x: (c, FUN.session_key(key, [x])), 0, np.stack([X, 2 * X, 3 * X])
        )[1]
    )(key)


def calls_of_a_cached_jit():
    compiled = jax.jit(lambda k, x: FUN.session_key(k, [x]))
    return jnp.stack([compiled(insecure_key(0), i * X) for i in range(3)])


def calls_without_a_key():
    return jnp.stack([FUN.session_key(None, [X]) for _ in range(3)])


CONTEXTS = [
    lanes_with_one_key,
    lanes_with_one_key_repeated,
    nested_lanes,
    loop_with_a_key_from_outside,
    calls_of_a_cached_jit,
    calls_without_a_key,
]


@pytest.mark.parametrize("context", CONTEXTS, ids=lambda f: f.__name__)
def test_session_keys_differ(context):
    words = np.asarray(context()).reshape(-1, 8)
    assert len(np.unique(words, axis=0)) == len(words) >= 3


def test_two_programs_on_one_key_and_value_draw_different_masks():
    key = insecure_key(0)
    a, b = (fast.secret_shared(f) for f in (jnp.sin, lambda x: x * x * x))
    words = [
        np.asarray(f.session_key(key, [X], name))
        for f, name in ((a, "one"), (b, "another"))
    ]
    assert not np.array_equal(*words)


def test_shares_are_uniform_and_add_up():
    shared = fast.share(np.zeros(4096, np.float32), parties=3, key=insecure_key(1))
    data = np.asarray(shared.data)
    assert data.shape == (4096, 3, 2)
    for party in range(3):
        top = np.bincount(data[:, party, 1] >> 28, minlength=16)
        assert stats.chisquare(top).pvalue > 1e-4
    np.testing.assert_array_equal(privjax.reveal(shared), 0)
