"""Wrong use of `secret_shared` and `share`: each ends in a clear error of ours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import privjax
from privjax import random

X = np.ones((3,), np.float32)
KEY = random.insecure_key(0)


def branches_in_python(x):
    if x[0] > 0:  # the line that the message must name
        return x
    return -x


def prints(x):
    jax.debug.print("x = {}", x)
    return x


def calls_back(x):
    return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


def loops_on_secret(x):
    return lax.while_loop(lambda v: v[0] < 10.0, lambda v: v * 2.0, x)


CASES = [
    # (what, call, error, words of the message)
    ("one party", lambda: privjax.secret_shared(jnp.sum, parties=1),
     privjax.ProtocolError, "at least 2 parties"),
    ("no number of parties", lambda: privjax.secret_shared(jnp.sum, parties="two"),
     privjax.ProtocolError, "parties='two'"),
    ("unknown protocol", lambda: privjax.secret_shared(jnp.sum, protocol="semi3k"),
     privjax.ProtocolError, "'semi3k' is unknown; choose one of"),
    ("unknown protocol to share", lambda: privjax.share(X, protocol="x"),
     privjax.ProtocolError, "unknown"),
    ("not a function", lambda: privjax.secret_shared(3), privjax.InputError,
     "expected a function"),
    ("unknown public argument", lambda: privjax.secret_shared(
        lambda x: x, public="y"), privjax.InputError, "no argument 'y'"),
    ("unknown owner argument", lambda: privjax.secret_shared(
        lambda x: x, owners={"y": 0}), privjax.InputError, "no argument 'y'"),
    ("owner out of range", lambda: privjax.secret_shared(
        lambda x: x, owners={"x": 2}), privjax.InputError, "0 to 1"),
    ("unknown keyword", lambda: privjax.secret_shared(lambda x: x)(X, y=1),
     privjax.InputError, "unexpected keyword argument 'y'"),
    ("missing argument", lambda: privjax.secret_shared(lambda x, y: x)(X),
     privjax.InputError, "missing a required argument: 'y'"),
    ("NaN", lambda: privjax.secret_shared(lambda x: x)(X * np.nan),
     privjax.RangeError, "x contains NaN"),
    ("infinity in a leaf", lambda: privjax.secret_shared(lambda p: p["w"])(
        {"w": X / 0.0}), privjax.RangeError, r"p\['w'\] contains NaN or infinity"),
    ("too large", lambda: privjax.secret_shared(lambda x: x)(X * 1e9),
     privjax.RangeError, "holds magnitudes below 6.711e\\+07"),
    ("too large to share", lambda: privjax.share({"a": X * 1e9}),
     privjax.RangeError, r"tree\['a'\]"),
    ("ring bits", lambda: privjax.FixedPoint(48), privjax.InputError, "64 or 128"),
    ("fractional bits", lambda: privjax.FixedPoint(64, 31), privjax.InputError,
     "at most 29"),
    ("python branch", lambda: privjax.secret_shared(branches_in_python)(X),
     privjax.TraceError, "test_errors.py:.*branches_in_python.*jnp.where"),
    ("debug print", lambda: privjax.secret_shared(prints)(X),
     privjax.TraceError, "test_errors.py.*would hand a secret to the host"),
    ("callback", lambda: privjax.secret_shared(calls_back)(X),
     privjax.TraceError, "test_errors.py.*would hand a secret to the host"),
    ("secret predicate", lambda: privjax.secret_shared(loops_on_secret)(X),
     privjax.LeakError, "test_errors.py.*trip count.*privjax.reveal"),
    ("no rule", lambda: privjax.secret_shared(
        lambda x: jnp.linalg.eigvals(jnp.outer(x, x)).real)(X),
     privjax.UnsupportedError, "on a secret .*test_errors.py"),
    ("bits of reals", lambda: privjax.secret_shared(lambda x: x.view(jnp.int32))(X),
     privjax.UnsupportedError, "test_errors.py.*jnp.frexp"),
    ("integers of 4 bits", lambda: privjax.secret_shared(
        lambda x: x.astype(jnp.int4))(X),
     privjax.UnsupportedError, "int4 on secrets .*test_errors.py.*int8"),
    ("position of no argument", lambda: privjax.secret_shared(
        lambda x: x, public=1), privjax.InputError, "no argument 1"),
    ("threefry key", lambda: privjax.secret_shared(lambda x: x)(
        X, key=jax.random.key(0)), privjax.RandomKeyError, "privjax.random.key()"),
    ("missing key under jit", lambda: jax.jit(privjax.secret_shared(lambda x: x))(X),
     privjax.RandomKeyError, "without key="),
    ("missing key under vmap", lambda: jax.vmap(privjax.secret_shared(lambda x: x))(
        np.ones((2, 3), np.float32)), privjax.RandomKeyError, "without key="),
    ("key as a constant of a jit", lambda: jax.jit(lambda x: privjax.secret_shared(
        lambda x: x)(x, key=KEY))(X), privjax.RandomKeyError,
     "constant of the traced program"),
    ("key drawn inside of a jit", lambda: jax.jit(lambda x: privjax.secret_shared(
        lambda x: x)(x, key=random.key()))(X), privjax.RandomKeyError,
     "repeated by every call"),
    ("missing key to share under jit", lambda: jax.jit(privjax.share)(X),
     privjax.RandomKeyError, "without key="),
    ("gradient of the rewritten program", lambda: jax.grad(
        lambda x: privjax.secret_shared(jnp.sum)(x, key=random.insecure_key(0)))(X),
     privjax.DifferentiationError, "inside the function"),
    ("shared among others", lambda: privjax.secret_shared(lambda x: x)(
        privjax.share(X, parties=3)), privjax.InputError, "3 parties"),
    ("shared and public", lambda: privjax.secret_shared(lambda x: x, public="x")(
        privjax.share(X)), privjax.InputError, "cannot be public"),
    ("explain a plain function", lambda: privjax.explain(jnp.sin, X),
     privjax.InputError, "transformed by privjax"),
]  # fmt: skip


@pytest.mark.parametrize("what, call, error, message", CASES, ids=[c[0] for c in CASES])
def test_error(what, call, error, message):
    with np.errstate(all="ignore"), pytest.raises(error, match=f"(?s){message}"):
        call()


def test_every_error_is_a_privacy_error():
    assert all(issubclass(case[2], privjax.PrivacyError) for case in CASES)


def test_keyword_key_of_the_function_stays_the_functions():
    def noisy(x, key):
        return x + jax.random.normal(key, x.shape)

    fun = privjax.secret_shared(noisy)
    assert fun.key_name == "privacy_key"
    key = jax.random.key(0)
    got = fun(X, key=key, privacy_key=random.insecure_key(1))
    np.testing.assert_allclose(got, noisy(X, key), atol=1e-4)


def named(x, *rest, scale=2.0, **more):
    return x * scale + rest[0] * rest[1] + more.get("bias", 0.0)


PLACES = [
    # (public, what is public of named(x, a, b, bias=c))
    ((), []),
    ((0, 2), ["x", "rest[1]"]),
    ("rest", ["rest[0]", "rest[1]"]),
    ((1, "bias"), ["rest[0]", "more['bias']"]),
    ("more", ["more['bias']"]),
]


@pytest.mark.parametrize("public, want", PLACES)
def test_places_of_public_arguments(public, want):
    shared = privjax.secret_shared(named, protocol="reference", public=public)
    call = shared.call((X, X, X), {"bias": np.float32(1)})
    modes = zip(call.paths, shared.program(call).modes, strict=True)
    assert [path for path, mode in modes if mode == "public"] == want


def test_owners_by_position():
    shared = privjax.secret_shared(named, owners={0: 1, 2: 1}, protocol="reference")
    assert shared.owners == {"x": 1, "rest[1]": 1}
    assert str(privjax.explain(shared, X, X, X)).count("held by party 1") == 2
