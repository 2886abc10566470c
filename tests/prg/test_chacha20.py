"""The generator against RFC 8439, against OpenSSL, and against itself transformed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

from privjax.errors import InputError
from privjax.prg import Purpose, bits, derive, keystream
from privjax.prg.chacha20 import quarter_round

COUNTING = bytes(range(32))
KEY = np.frombuffer(COUNTING, "<u4")


def words_of(data: bytes) -> tuple[int, ...]:
    return tuple(int(w) for w in np.frombuffer(data, "<u4"))


def stream_bytes(key: bytes, nonce: bytes, counter: int, length: int) -> bytes:
    words = keystream(
        np.frombuffer(key, "<u4"), words_of(nonce), -(-length // 4), counter=counter
    )
    return np.asarray(words).astype("<u4").tobytes()[:length]


def openssl(key: bytes, nonce: bytes, counter: int, length: int) -> bytes:
    # OpenSSL's 16-byte nonce is the block counter followed by the RFC's nonce.
    full = counter.to_bytes(4, "little") + nonce
    encryptor = Cipher(algorithms.ChaCha20(key, full), mode=None).encryptor()
    return encryptor.update(bytes(length))


def test_quarter_round_of_rfc_2_1_1() -> None:
    given_words = (0x11111111, 0x01020304, 0x9B8D6F43, 0x01234567)
    out = quarter_round(*(jnp.uint32(w) for w in given_words))
    expected = (0xEA2A92F4, 0xCB1CF8CE, 0x4581472E, 0x5881C4BB)
    assert tuple(int(w) for w in out) == expected


def test_block_of_rfc_2_3_2() -> None:
    nonce = bytes.fromhex("000000090000004a00000000")
    out = keystream(KEY, words_of(nonce), 16, counter=1)
    expected = (
        "e4e7f110 15593bd1 1fdd0f50 c47120a3 c7f4d1c7 0368c033 9aaa2204 4e6cd4c3 "
        "466482d2 09aa9f07 05d7c214 a2028bd9 d19c12b5 b94e16de e883d0cb 4e3c50a2"
    )
    assert [f"{int(w):08x}" for w in out] == expected.split()


def test_encryption_of_rfc_2_4_2() -> None:
    text = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you "
        b"only one tip for the future, sunscreen would be it."
    )
    cipher = bytes.fromhex(
        "6e2e359a2568f98041ba0728dd0d6981e97e7aec1d4360c20a27afccfd9fae0b"
        "f91b65c5524733ab8f593dabcd62b3571639d624e65152ab8f530c359f0861d8"
        "07ca0dbf500d6a6156a38e088a22b65e52bc514d16ccf806818ce91ab7793736"
        "5af90bbf74a35be6b40b8eedf2785e42874d"
    )
    stream = stream_bytes(COUNTING, bytes.fromhex("000000000000004a00000000"), 1, 114)
    assert bytes(a ^ b for a, b in zip(text, stream, strict=True)) == cipher


ZERO, NONCE = bytes(32), bytes(12)
A1 = [
    (
        (ZERO, NONCE, 0),
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586",
    ),
    (
        (ZERO, NONCE, 1),
        "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
        "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f",
    ),
    (
        (ZERO[1:] + b"\x01", NONCE, 1),
        "3aeb5224ecf849929b9d828db1ced4dd832025e8018b8160b82284f3c949aa5a"
        "8eca00bbb4a73bdad192b5c42f73f2fd4e273644c8b36125a64addeb006c13a0",
    ),
    (
        (b"\x00\xff" + bytes(30), NONCE, 2),
        "72d54dfbf12ec44b362692df94137f328fea8da73990265ec1bbbea1ae9af0ca"
        "13b25aa26cb4a648cb9b9d1be65b2c0924a66c54d545ec1b7374f4872e99f096",
    ),
    (
        (ZERO, NONCE[1:] + b"\x02", 0),
        "c2c64d378cd536374ae204b9ef933fcd1a8b2288b3dfa49672ab765b54ee27c7"
        "8a970e0e955c14f3a88e741b97c286f75f8fc299e8148362fa198a39531bed6d",
    ),
]


@pytest.mark.parametrize(("case", "expected"), A1)
def test_blocks_of_rfc_appendix_a_1(
    case: tuple[bytes, bytes, int], expected: str
) -> None:
    assert stream_bytes(*case, 64).hex() == expected


@pytest.mark.parametrize("length", [1, 64, 65, 4 * 16 * 256, 4 * 16 * 600 + 5])
@pytest.mark.parametrize("counter", [0, 7, 2**32 - 700])
def test_agrees_with_openssl(length: int, counter: int) -> None:
    rng = np.random.default_rng(length)
    key, nonce = rng.bytes(32), rng.bytes(12)
    expected = openssl(key, nonce, counter, length)
    assert stream_bytes(key, nonce, counter, length) == expected


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=12, max_size=12))
def test_agrees_with_openssl_for_any_key(key: bytes, nonce: bytes) -> None:
    assert stream_bytes(key, nonce, 3, 64) == openssl(key, nonce, 3, 64)


# Number of lanes and of words: one block, several, a tile of several keys, several
# tiles of one key, overlapping last tiles in both directions.
SHAPES = [(1, 8), (3, 40), (70, 100), (300, 16), (2, 16 * 700 + 3)]


@pytest.mark.parametrize(("lanes", "words"), SHAPES)
@pytest.mark.parametrize("x64", [False, True])
def test_transformations_agree_bit_for_bit(lanes: int, words: int, x64: bool) -> None:
    keys = np.random.default_rng(1).integers(0, 2**32, (lanes, 8), dtype=np.uint32)

    def draw(key: jax.Array, i: jax.Array) -> jax.Array:
        return keystream(key, (Purpose.NOISE, i, 5), words)

    numbers = jnp.arange(lanes, dtype=jnp.uint32)
    expected = np.stack([draw(k, int(i)) for k, i in zip(keys, numbers, strict=True)])
    with jax.enable_x64(x64):
        mapped = jax.vmap(draw)(keys, numbers)
        jitted = jax.jit(jax.vmap(draw))(keys, numbers)
        scanned = lax.scan(lambda c, ki: (c, draw(*ki)), 0, (keys, numbers))[1]
        one_key = jax.vmap(draw, (None, 0))(keys[0], numbers)
    for got in (mapped, jitted, scanned):
        np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(one_key[0], expected[0])


@pytest.mark.parametrize("words", [40, 16 * 300])
def test_under_shard_map(words: int) -> None:
    mesh = jax.make_mesh((1,), ("party",), (jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec

    def local(keys: jax.Array, nonces: jax.Array) -> jax.Array:
        varying_nonce = keystream(KEY, (1, 2, nonces[0]), words)
        varying_key = keystream(keys[0], (1, 2, 3), words)
        return jnp.stack([varying_nonce, varying_key])[None]

    mapped = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(spec("party"), spec("party")),
        out_specs=spec("party"),
    )
    out = jax.jit(mapped)(KEY[None], np.full((1,), 3, np.uint32))
    expected = keystream(KEY, (1, 2, 3), words)
    np.testing.assert_array_equal(out[0], np.stack([expected, expected]))


def test_nested_vmap() -> None:
    keys = np.arange(2 * 3 * 8, dtype=np.uint32).reshape(2, 3, 8)

    def draw(key: jax.Array, i: jax.Array) -> jax.Array:
        return keystream(key, (1, 2, i), 20)

    nested = jax.vmap(jax.vmap(draw, (0, None)), (1, 0))
    out = nested(keys, jnp.arange(3))
    for j in range(3):
        for i in range(2):
            np.testing.assert_array_equal(out[j, i], draw(keys[i, j], j))


@given(
    st.lists(
        st.tuples(*[st.integers(0, 2**32 - 1)] * 3), min_size=2, max_size=5, unique=True
    )
)
def test_nonces_separate(nonces: list[tuple[int, int, int]]) -> None:
    streams = {np.asarray(keystream(KEY, n, 16)).tobytes() for n in nonces}
    assert len(streams) == len(nonces)


def test_counter_continues_the_stream() -> None:
    whole = keystream(KEY, (1, 2, 3), 64)
    tail = keystream(KEY, (1, 2, 3), 32, counter=2)
    np.testing.assert_array_equal(whole[32:], tail)


def test_derive_is_half_a_block() -> None:
    np.testing.assert_array_equal(
        derive(KEY, (Purpose.LOOP, 4, 5)), keystream(KEY, (Purpose.LOOP, 4, 5), 16)[:8]
    )


def test_purposes_are_distinct_and_fit_a_word() -> None:
    values = [int(p) for p in Purpose]
    assert len(set(values)) == len(Purpose.__members__)
    assert all(0 <= v < 2**32 for v in values)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64"])
@pytest.mark.parametrize("shape", [(), (3,), (5, 7)])
def test_bits_are_the_keystream_reinterpreted(
    dtype: str, shape: tuple[int, ...]
) -> None:
    with jax.enable_x64(True):
        drawn = jax.jit(lambda k: bits(k, (1, 2, 3), shape, dtype))(KEY)
    assert drawn.shape == shape and drawn.dtype == dtype
    data = np.asarray(drawn).tobytes()
    stream = np.asarray(keystream(KEY, (1, 2, 3), -(-len(data) // 4))).tobytes()
    assert data == stream[: len(data)]


def test_bits_balance() -> None:
    ones = np.unpackbits(np.asarray(bits(KEY, (9, 9, 9), (2**15,), "uint8")))
    # 5 standard deviations of the mean of 2^18 fair bits.
    assert abs(ones.mean() - 0.5) < 5 * 0.5 / 2**9


def test_gradient_passes_by() -> None:
    def loss(x: jax.Array) -> jax.Array:
        noise = bits(KEY, (1, 2, 3), (2,), "uint32") >> 8
        return jnp.sum(x * noise)

    # Also where the key itself is an input of the differentiated function.
    zero = np.zeros(8, jax.dtypes.float0)
    _, tangent = jax.jvp(lambda k: keystream(k, (1, 2, 3), 4), (KEY,), (zero,))
    assert tangent.dtype == jax.dtypes.float0
    x = jnp.ones(2)
    np.testing.assert_array_equal(
        jax.grad(loss)(x), bits(KEY, (1, 2, 3), (2,), "uint32") >> 8
    )


def test_small_programs() -> None:
    """One request is one equation, and equal requests share one lowered function."""

    def program(key: jax.Array) -> list[jax.Array]:
        return [keystream(key, (Purpose.REQUEST, i, 0), 100) for i in range(20)]

    jaxpr = jax.make_jaxpr(program)(KEY)
    assert [e.primitive.name for e in jaxpr.eqns].count("chacha20") == 20
    assert len(jax.jit(program).lower(KEY).as_text().splitlines()) < 600


BAD = {
    "key shape": lambda: keystream(jnp.zeros(4, jnp.uint32), (0, 0, 0), 4),
    "key type": lambda: keystream(jnp.zeros(8, jnp.int32), (0, 0, 0), 4),
    "nonce length": lambda: keystream(KEY, (0, 0), 4),
    "nonce range": lambda: keystream(KEY, (0, 0, 2**32), 4),
    "nonce shape": lambda: keystream(KEY, (0, 0, jnp.zeros(2, jnp.uint32)), 4),
    "nonce type": lambda: keystream(KEY, (0, 0, jnp.float32(1)), 4),
    "stream too long": lambda: keystream(KEY, (0, 0, 0), 17, counter=2**32 - 1),
    "negative": lambda: keystream(KEY, (0, 0, 0), -1),
    "signed bits": lambda: bits(KEY, (0, 0, 0), (2,), "int32"),
    "uint64 outside of the scope": lambda: bits(KEY, (0, 0, 0), (2,), "uint64"),
}


@pytest.mark.parametrize("case", BAD)
def test_refuses(case: str) -> None:
    with pytest.raises(InputError):
        BAD[case]()
