"""Hedged session keys: what must differ differs, what must agree agrees."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

from privjax.errors import DifferentiationError, InputError
from privjax.prg import insecure_key, key_words, session
from privjax.prg.session import session_p

KEY = np.asarray(key_words(insecure_key(1)))
OTHER = np.asarray(key_words(insecure_key(2)))
LARGE = np.arange(40000, dtype=np.uint32)


def digest(words: Any) -> bytes:
    return np.asarray(words).tobytes()


def all_different(sessions: Any) -> bool:
    rows = [digest(s) for s in np.asarray(sessions).reshape(-1, 8)]
    return len(set(rows)) == len(rows)


F32 = np.arange(6, dtype=np.float32)

# Calls that share a key and must not share a session.
DIFFERENT: dict[str, Callable[[], jax.Array]] = {
    "nothing": lambda: session(KEY),
    "another context": lambda: session(KEY, context="x"),
    "an array": lambda: session(KEY, F32),
    "one bit of it": lambda: session(KEY, F32.view(np.uint32) ^ np.uint32(1)),
    "negative zero": lambda: session(KEY, np.float32([-0.0, 1, 2, 3, 4, 5])),
    "another type": lambda: session(KEY, F32.view(np.int32)),
    "another shape": lambda: session(KEY, F32.reshape(2, 3)),
    "two halves": lambda: session(KEY, F32[:3], F32[3:]),
    "halves swapped": lambda: session(KEY, F32[3:], F32[:3]),
    "unequal halves": lambda: session(KEY, F32[:2], F32[2:]),
    "an empty array more": lambda: session(KEY, F32, F32[:0]),
    "in a context": lambda: session(KEY, F32, context="program"),
    "another key": lambda: session(OTHER, F32),
    "longer by a zero": lambda: session(KEY, np.append(F32, np.float32(0))),
    "bool": lambda: session(KEY, np.array([True, False, True])),
    "uint8": lambda: session(KEY, np.array([1, 0, 1], np.uint8)),
    "half": lambda: session(KEY, F32.astype(np.float16)),
    "bfloat16": lambda: session(KEY, F32.astype(jnp.bfloat16)),
    "complex": lambda: session(KEY, F32.astype(np.complex64)),
    "imaginary": lambda: session(KEY, F32.astype(np.complex64) * 1j),
    "four bits": lambda: session(KEY, jnp.arange(6).astype(jnp.int4)),
    "float64": lambda: session(KEY, F32.astype(np.float64)),
    "uint64": lambda: session(KEY, np.arange(6, dtype=np.uint64)),
    "uint64, high bit": lambda: session(KEY, np.arange(6, dtype=np.uint64) + 2**63),
    "scalar": lambda: session(KEY, np.float32(1)),
    "Python scalar": lambda: session(KEY, 1.0),
    "typed key": lambda: session(KEY, insecure_key(3)),
    "another typed key": lambda: session(KEY, insecure_key(4)),
    "1000 words": lambda: session(KEY, np.zeros(1000, np.uint32)),
    "5000 words": lambda: session(KEY, np.zeros(5000, np.uint32)),
    "40000 words": lambda: session(KEY, LARGE),
    "40000 words as floats": lambda: session(KEY, LARGE.view(np.float32)),
    "40000 words, two groups swapped": lambda: session(KEY, np.roll(LARGE, 4096)),
    "two large": lambda: session(KEY, LARGE, LARGE[::-1]),
    "two large, swapped": lambda: session(KEY, LARGE[::-1], LARGE),
}


def test_different_calls_get_different_sessions() -> None:
    sessions = {name: digest(make()) for name, make in DIFFERENT.items()}
    assert len(set(sessions.values())) == len(DIFFERENT)


@pytest.mark.parametrize("name", DIFFERENT)
def test_equal_calls_agree(name: str) -> None:
    assert digest(DIFFERENT[name]()) == digest(DIFFERENT[name]())


@pytest.mark.parametrize("words", [1, 55, 56, 57, 2000, 2**14, 40000])
def test_every_word_counts(words: int) -> None:
    """Flip one bit of one word, in all nodes and all levels of the tree."""
    x = np.random.default_rng(0).integers(0, 2**32, words, dtype=np.uint32)
    run = jax.jit(session)
    places = sorted({0, words // 2, words - 1, 63 % words, 64 % words, 2047 % words})
    changed = []
    for place, bit in itertools.product(places, (0, 31)):
        y = x.copy()
        y[place] ^= np.uint32(1 << bit)
        changed.append(run(KEY, y))
    assert all_different([run(KEY, x), *changed])


@given(
    st.lists(
        st.lists(st.integers(0, 2**32 - 1), min_size=3, max_size=3),
        min_size=2,
        max_size=6,
        unique_by=tuple,
    )
)
def test_different_values_differ(values: list[list[int]]) -> None:
    assert all_different([session(KEY, np.array(v, np.uint32)) for v in values])


def test_eager_jit_scan_and_flag_agree() -> None:
    x, y = F32.reshape(2, 3), np.arange(4, dtype=np.uint64)
    eager = digest(session(KEY, x, y))
    assert digest(jax.jit(session)(KEY, x, np.float32(2))) == digest(
        session(KEY, x, np.float32(2))
    )
    with jax.enable_x64(True):
        assert digest(jax.jit(session)(KEY, x, y)) == eager
    keys = jnp.stack([KEY, OTHER])
    _, scanned = lax.scan(lambda c, k: (c, session(k, x)), 0, keys)
    assert digest(scanned[0]) == digest(session(KEY, x))
    assert digest(scanned[1]) == digest(session(OTHER, x))


def test_jitted_function_called_again_on_other_values() -> None:
    run = jax.jit(lambda x: session(KEY, x))
    assert all_different([run(F32), run(F32 + 1), run(F32 + 2)])


def test_scan_with_a_key_from_outside() -> None:
    xs = np.arange(12, dtype=np.float32).reshape(4, 3)
    _, sessions = jax.jit(
        lambda k, xs: lax.scan(lambda c, x: (c, session(k, x)), 0, xs)
    )(KEY, xs)
    assert all_different(sessions)


def test_while_loop_whose_carry_changes() -> None:
    def body(state: Any) -> Any:
        i, x, out = state
        return i + 1, x * 2, out.at[i].set(session(KEY, x))

    start = (0, F32 + 1, jnp.zeros((3, 8), jnp.uint32))
    _, _, out = lax.while_loop(lambda s: s[0] < 3, body, start)
    assert all_different(out)


EQUAL = np.ones((3, 4), np.float32)
KEYS = np.stack([KEY, OTHER, np.asarray(key_words(insecure_key(3)))])
LANES = {
    "values of all lanes equal": ((None, 0), (KEY, EQUAL)),
    "one key in all lanes": ((0, 0), (np.stack([KEY] * 3), EQUAL)),
    "a key per lane, shared values": ((0, None), (KEYS, EQUAL[0])),
    "one key per lane, equal keys": ((0, None), (np.stack([KEY] * 3), EQUAL[0])),
    "values and shared values": ((None, 0, None), (KEY, EQUAL, F32)),
    "another axis": ((None, 1), (KEY, EQUAL.T)),
    "keys only": ((0,), (np.stack([KEY] * 3),)),
}


@pytest.mark.parametrize("case", LANES)
def test_lanes_differ(case: str) -> None:
    axes, args = LANES[case]
    eager = jax.vmap(session, axes)(*args)
    assert eager.shape == (3, 8) and all_different(eager)
    np.testing.assert_array_equal(jax.jit(jax.vmap(session, axes))(*args), eager)
    # Neither do lanes agree with the call outside of vmap.
    alone = session(
        *(a if d is None else a.take(0, d) for a, d in zip(args, axes, strict=True))
    )
    assert all_different([*eager, alone])


def test_lanes_depend_on_shared_values() -> None:
    run = jax.vmap(session, (None, 0, None))
    assert all_different([*run(KEY, EQUAL, F32), *run(KEY, EQUAL, F32 + 1)])
    by_key = jax.vmap(session, (0, None))
    assert all_different([*by_key(KEYS, F32), *by_key(KEYS, F32 + 1)])


AXES = [(0, None), (None, 0), (0, 0)]


@pytest.mark.parametrize("outer", AXES)
@pytest.mark.parametrize("inner", AXES)
def test_nested_lanes_differ(outer: Any, inner: Any) -> None:
    """Equal values and one key in every lane of two axes, in every combination."""
    key, x = KEY, np.ones(5, np.float32)
    for axes, size in ((inner, 3), (outer, 2)):
        if axes[0] == 0:
            key = np.stack([key] * size)
        if axes[1] == 0:
            x = np.stack([x] * size)
    nested = jax.vmap(jax.vmap(session, inner), outer)
    out = nested(key, x)
    assert out.shape == (2, 3, 8) and all_different(out)
    np.testing.assert_array_equal(jax.jit(nested)(key, x), out)


def test_nested_lanes_with_three_operands() -> None:
    """Each operand varies over its own axes; none may be forgotten."""

    def run(x: Any, y: Any, z: Any) -> jax.Array:
        inner = jax.vmap(session, (None, 0, None, None))
        return jax.vmap(inner, (None, None, 0, None))(KEY, x, y, z)

    x, y = np.ones((3, 2), np.float32), np.ones((2, 2), np.float32)
    base = run(x, y, F32)
    changed = run(x, y, F32 + 1)
    assert base.shape == (2, 3, 8) and all_different([*base, *changed])
    moved = run(x, y + np.float32([[0], [1]]), F32)
    assert not np.array_equal(moved[1], base[1])


def test_vmap_in_scan_and_scan_in_vmap() -> None:
    xs = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    lanes = jax.vmap(session, (None, 0))
    _, first = lax.scan(lambda c, x: (c, lanes(KEY, x)), 0, xs)
    _, second = jax.vmap(
        lambda xs: lax.scan(lambda c, x: (c, session(KEY, x)), 0, xs), 1
    )(xs)
    assert all_different(first) and all_different(second)


def test_sessions_look_uniform() -> None:
    x = np.arange(2000, dtype=np.float32)
    bits = np.unpackbits(
        np.asarray(jax.vmap(session, (None, 0))(KEY, x)).view(np.uint8)
    )
    assert abs(bits.mean() - 0.5) < 5 * 0.5 / np.sqrt(bits.size)


@pytest.mark.parametrize("transform", ["grad", "jvp", "jit grad", "vmap grad"])
def test_differentiation_is_refused(transform: str) -> None:
    def mask(x: jax.Array) -> jax.Array:
        return jnp.sum(x * session(KEY, x)[0].astype(jnp.float32))

    run: dict[str, Callable[[], Any]] = {
        "grad": lambda: jax.grad(mask)(F32),
        "jvp": lambda: jax.jvp(mask, (F32,), (F32,)),
        "jit grad": lambda: jax.jit(jax.grad(mask))(F32),
        "vmap grad": lambda: jax.vmap(jax.grad(mask))(EQUAL),
    }
    with pytest.raises(DifferentiationError, match="Put jax.grad inside"):
        run[transform]()


def test_gradient_of_something_else_passes_by() -> None:
    def loss(w: jax.Array) -> jax.Array:
        return jnp.sum(w * session(KEY, F32)[:6].astype(jnp.float32))

    assert jax.grad(loss)(jnp.ones(6)).shape == (6,)


def test_one_equation() -> None:
    jaxpr = jax.make_jaxpr(lambda k, x, y: session(k, x, y))(KEY, F32, EQUAL)
    assert [e.primitive for e in jaxpr.eqns].count(session_p) == 1
    assert len(jax.jit(session).lower(KEY, F32, EQUAL).as_text().splitlines()) < 600


def test_under_shard_map_with_a_key_common_to_all() -> None:
    mesh = jax.make_mesh((1,), ("party",), (jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec
    mapped = jax.shard_map(
        lambda x: session(KEY, x[0], F32)[None],
        mesh=mesh,
        in_specs=spec("party"),
        out_specs=spec("party"),
    )
    out = jax.jit(mapped)(EQUAL[:1])
    np.testing.assert_array_equal(out[0], session(KEY, EQUAL[0], F32))


BAD: dict[str, Callable[[], Any]] = {
    "key shape": lambda: session(np.zeros((2, 8), np.uint32), F32),
    "key type": lambda: session(np.zeros(8, np.int32), F32),
    "text": lambda: session(KEY, "text"),
}


@pytest.mark.parametrize("case", BAD)
def test_refuses(case: str) -> None:
    with pytest.raises(InputError):
        BAD[case]()
