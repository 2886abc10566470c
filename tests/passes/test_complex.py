"""Secret complex numbers as pairs of reals, in float64, against JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import jaxpr_as_fun

from privjax.core.markers import reveal_p
from privjax.errors import UnsupportedError
from privjax.passes import simplify
from privjax.passes.complex_pairs import split

rng = np.random.default_rng(4)


def cplx(*shape):
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def inlined(fun, *args):
    closed = jax.make_jaxpr(lambda *xs: jax.tree.leaves(fun(*xs)))(*args)
    return simplify.dce(simplify.inline(closed, remat=True))


def check(fun, *args, secret=None):
    secret = [True] * len(args) if secret is None else secret
    with jax.enable_x64(True):
        want = jax.tree.leaves(fun(*args))
        pairs = split(inlined(fun, *args), secret, max_steps=5)
        got = pairs.results(jaxpr_as_fun(pairs.closed)(*pairs.arrays(args)))
        for s, two, arg in zip(secret, pairs.inputs, args, strict=True):
            assert two == (s and np.iscomplexobj(arg))
    for g, w in zip(got, want, strict=True):
        assert g.shape == w.shape and g.dtype == w.dtype
        np.testing.assert_allclose(g, w, rtol=1e-9, atol=1e-9)


Z, W, X = cplx(3, 4), cplx(3, 4), rng.normal(size=(3, 4))
SQUARE = cplx(3, 3)
POSITIVE = SQUARE @ SQUARE.conj().T + np.eye(3)

UNARY = {
    "neg": lambda z: -z,
    "conj": jnp.conj,
    "real": jnp.real,
    "imag": jnp.imag,
    "abs": jnp.abs,
    "sign": jnp.sign,
    "angle": jnp.angle,
    "exp": jnp.exp,
    "exp2": jnp.exp2,
    "expm1": jnp.expm1,
    "log": jnp.log,
    "log1p": jnp.log1p,
    "log2": jnp.log2,
    "sqrt": jnp.sqrt,
    "rsqrt": lax.rsqrt,
    "square": jnp.square,
    "integer_pow": lambda z: z**3,
    "negative power": lambda z: z**-2,
    "complex power": lambda z: z ** (0.5 + 1j),
    "sin": jnp.sin,
    "cos": jnp.cos,
    "tan": jnp.tan,
    "sinh": jnp.sinh,
    "cosh": jnp.cosh,
    "tanh": jnp.tanh,
    "logistic": jax.nn.sigmoid,
    "reciprocal": lambda z: 1 / z,
    "public factor": lambda z: (2 + 1j) * z,
    "real factor": lambda z: z * 3,
    "reduce_sum": lambda z: z.sum(0),
    "reduce_prod": lambda z: z.prod(1),
    "cumsum": lambda z: jnp.cumsum(z, 1),
    "cumprod": lambda z: jnp.cumprod(z, 1),
    "moves": lambda z: jnp.tile(z.T.reshape(-1)[::-1], 2),
    "pad": lambda z: jnp.pad(z, 1, constant_values=2 + 1j),
    "gather": lambda z: z[np.array([2, 0])],
    "scatter": lambda z: jnp.asarray(z).at[1].set(1j),
    "scatter-add": lambda z: jnp.asarray(z).at[np.array([1, 1])].add(1j),
    "dynamic_slice": lambda z: lax.dynamic_slice(z, (1, 0), (2, 2)),
    "dynamic_update_slice": lambda z: lax.dynamic_update_slice(z, z[:1], (1, 0)),
    "split": lambda z: jnp.split(z, 2, axis=1),
    "stack": lambda z: jnp.stack([z, z * 1j]),
    "concatenate": lambda z: jnp.concatenate([z, jnp.ones((1, 4), complex)]),
    "select": lambda z: jnp.where(z.real > 0, z, 1j),
    "is zero": lambda z: z == 0,
    "isfinite": jnp.isfinite,
    "isnan": jnp.isnan,
    "to bool": lambda z: z.astype(bool),
    "norm": jnp.linalg.norm,
    "barrier": lambda z: lax.optimization_barrier((z, z.real)),
    "fft": jnp.fft.fft,
    "ifft2": jnp.fft.ifft2,
    "irfft": jnp.fft.irfft,
    "convolve": lambda z: jnp.convolve(z[0], z[1]),
    "scan": lambda z: lax.scan(lambda c, x: (c * x, c + x), jnp.ones(4, complex), z),
    "fori": lambda z: lax.fori_loop(0, 3, lambda i, v: v * v / 2 + i, z),
    "while secret": lambda z: lax.while_loop(
        lambda v: jnp.abs(v).max() > 0.1, lambda v: v * 0.3, z
    ),
    "cond public": lambda z: lax.cond(True, lambda v: v, jnp.ones_like, z),
    "cond secret": lambda z: lax.cond(z[0, 0].real > 0, lambda v: v, jnp.ones_like, z),
    "gradient": jax.grad(lambda z: jnp.abs(z @ z.conj().T).sum()),
    "holomorphic": jax.grad(lambda z: (z**3).sum(), holomorphic=True),
    "remat": jax.grad(lambda z: jnp.abs(jax.checkpoint(lambda v: v * v)(z)).sum()),
}

BINARY = {
    "add": jnp.add,
    "sub": jnp.subtract,
    "mul": jnp.multiply,
    "div": jnp.divide,
    "pow": jnp.power,
    "dot": lambda a, b: a @ b.T,
    "dot batched": lambda a, b: jnp.einsum("ij,ik->ijk", a, b),
    "conv": lambda a, b: lax.conv_general_dilated(
        a[None, None], b[None, None, :2, :2], (1, 1), "SAME"
    ),
    "eq": lambda a, b: (a == b, a != b),
}


@pytest.mark.parametrize("name", UNARY)
def test_unary(name):
    check(UNARY[name], Z)


@pytest.mark.parametrize("secret", [(1, 1), (1, 0), (0, 1)], ids=str)
@pytest.mark.parametrize("name", BINARY)
def test_binary(name, secret):
    check(BINARY[name], Z, W, secret=list(map(bool, secret)))


@pytest.mark.parametrize(
    "fun",
    [
        lambda z, x: z * x + x,
        lambda z, x: z @ x.T,
        lambda z, x: x @ z.T,
        lambda z, x: z / x,
        lambda z, x: x / z,
        lambda z, x: lax.complex(x, z.real),
        lambda z, x: x.astype(complex) + z,
    ],
)
def test_with_reals(fun):
    check(fun, Z, X)


@pytest.mark.parametrize(
    "fun",
    [
        jnp.fft.rfft,
        jnp.fft.fft,
        lambda x: jnp.abs(jnp.fft.rfft(x)) ** 2,
        lambda x: jnp.fft.irfft(jnp.fft.rfft(x) * jnp.fft.rfft(x[::-1])),
        jax.grad(lambda x: (jnp.abs(jnp.fft.rfft(x)) ** 2).sum()),
        lambda x: lax.scan(
            lambda c, v: (c * jnp.exp(1j * v), c.real), jnp.ones(4, complex), x
        ),
    ],
)
def test_complex_values_inside_of_a_real_program(fun):
    check(fun, X)


SCALARS = {
    "exp": lambda x: jnp.exp(1j * x),
    "exp of numpy": lambda x: jnp.exp(np.complex64(-2j) * x),
    "add": lambda x: ((x + 1j), (2 + x * 1j), (x + 1j) - 1),
    "real and imag": lambda x: ((x + 1j).real, (1j * x).imag, (1 - 1j * x).imag),
    "abs": lambda x: (jnp.abs(1j * x), jnp.abs(1j * x + 2)),
    "angle": lambda x: (jnp.angle(1j * x), jnp.angle(x - 1j)),
    "conj": lambda x: (jnp.conj(1j * x), jnp.conj(x + 1j)),
    "mul": lambda x: ((x + 1j) * 2, (1 + 2j) * (x + 1j), np.bool_(True) * (x + 0j)),
    "div": lambda x: ((x + 1j) / 2, x / 1j, 1j / (x + 0j), 1 / (x - 2j)),
    "pow": lambda x: ((x + 1j) ** 1.5, (x + 1j) ** 1j, 2 ** (x + 1j), (1 - 1j) ** x),
    "eq": lambda x: (x + 1j == 1j, x + 0j != x.ravel()[0]),
    "where": lambda x: (jnp.where(x > 0, x + 1j, 2j), jnp.where(True, 1j * x, x)),
    "dot": lambda x: jnp.vdot(x * 1j, x + 1j),
    "complex": lambda x: lax.complex(jnp.zeros_like(x), x + 1),
    "reductions": lambda x: ((x + 1j).sum() * 1j, (x + 1j).prod(), jnp.mean(x * 1j)),
    "scan": lambda x: lax.fori_loop(0, 2, lambda i, c: c * 1j + x, x + 0j),
}


@pytest.mark.parametrize("shape", [(), (3,), (2, 0)], ids=str)
@pytest.mark.parametrize("name", SCALARS)
def test_scalar_literals_beside_arrays(name, shape):
    x = np.asarray(rng.normal(size=shape))
    if x.size or name != "eq":  # which looks at an entry
        check(SCALARS[name], x)


@pytest.mark.parametrize(
    "fun",
    [
        jnp.linalg.cholesky,
        lax.linalg.lu,
        jnp.linalg.inv,
        jnp.linalg.det,
        lambda a: jnp.linalg.solve(a, a[0]),
    ],
)
def test_factorisations_of_complex_matrices(fun):
    """By the rules of `decompose`, which are written for both kinds."""
    check(fun, POSITIVE)


def test_layout_of_inputs_and_outputs():
    def fun(z, x, public):
        return x * 2, z + x, public * 2, jnp.abs(z)

    args = Z.astype(np.complex64), X.astype(np.float32), W.astype(np.complex64)
    pairs = split(inlined(fun, *args), [True, True, False])
    assert pairs.inputs == (True, False, False)
    assert pairs.outputs == (False, True, False, False)
    assert pairs.spread(["z", "x", "p"]) == ["z", "z", "x", "p"]
    kinds = [a.dtype.name for a in pairs.closed.in_avals]
    assert kinds == ["float32", "float32", "float32", "complex64"]
    kinds = [a.dtype.name for a in pairs.closed.out_avals]
    assert kinds == ["float32", "float32", "float32", "complex64", "float32"]


def test_programs_without_complex_numbers_are_left_alone():
    closed = inlined(jnp.exp, X)
    assert split(closed, [True]).closed is closed


def test_public_complex_values_stay():
    closed = inlined(lambda x, w: (x + 1, jnp.exp(w)), X, W)
    pairs = split(closed, [True, False])
    assert pairs.inputs == pairs.outputs == (False, False)
    names = [e.primitive.name for e in pairs.closed.eqns]
    assert "exp" in names and "cos" not in names


def test_a_real_value_costs_no_imaginary_part():
    """A real secret made complex and scaled is still one product."""
    closed = inlined(lambda x: (x.astype(complex) * 2).real, X)
    eqns = split(closed, [True]).closed.eqns
    assert [e.primitive.name for e in eqns].count("mul") == 1


def test_revealed_values_are_public():
    pairs = split(inlined(lambda z: reveal_p.bind(z) * 2, Z), [True])
    assert pairs.inputs == (True,) and pairs.outputs == (False,)


def test_without_a_rule_the_line_is_named():
    closed = inlined(lambda z: lax.sort(z), Z)
    with pytest.raises(UnsupportedError, match=r"`sort` on a secret.*test_complex"):
        split(closed, [True])
