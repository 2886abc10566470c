"""Ways to clip, units with several rows, masks, microbatches, releases that are asked for.

The oracle is explicit: all examples' gradients in double precision, then NumPy.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dp_models import BATCH, assert_close, values
from programs_right import Right
from programs_right_layers import PROGRAMS
from test_dp_programs_right import QUICK, per_example

from privjax.errors import InputError, LeakError
from privjax.passes.dp.modes import Adaptive, Automatic, Grouped
from privjax.passes.dp.release import release
from privjax.prg.keys import insecure_key
from privjax.transforms.differentially_private import differentially_private

# A layer for each kind of term: products of one and of many positions, sums, a table, a
# table that is used as a matrix as well, convolutions, contributions themselves.
KINDS = [
    "batch_second",
    "flattened_with_time",
    "tied_embeddings",
    "embedding_with_many_rows",
    "conv",
    "conv_depthwise",
    "lstm",
    "weight_norm",
    "groups_of_the_batch",
    "mapped_one_by_one",
]


def gradient(case: Right) -> Any:
    def step(params: Any, batch: Any) -> Any:
        return jax.grad(lambda p: jnp.mean(case.each(p, batch)))(params)

    return step


def clipped(case: Right, **options: Any) -> Any:
    extra = {
        k: options.pop(k) for k in ("mask", "units", "clip_norm_now") & options.keys()
    }
    if "clip_norm_now" in extra:
        extra["clip_norm"] = extra.pop("clip_norm_now")
    private = differentially_private(gradient(case), noise_multiplier=0, **options)
    return jax.jit(private, compiler_options=QUICK)(case.params, case.batch, **extra)


def flat(gradients: Any) -> list[Any]:
    return jax.tree.leaves(gradients)


def norms_of(leaves: Any) -> Any:
    return np.sqrt(sum(np.sum(g.reshape(len(g), -1) ** 2, axis=1) for g in leaves))


def compare(found: Any, wanted: list[Any], tolerance: float = 2e-5) -> None:
    wanted = [w.astype(f.dtype) for f, w in zip(flat(found), wanted, strict=True)]
    assert_close(flat(found), wanted, tolerance)


def mean(leaves: list[Any], factors: Any, over: float = BATCH) -> list[Any]:
    return [np.tensordot(factors, g, 1) / over for g in leaves]


@pytest.mark.parametrize("name", KINDS)
def test_units_with_several_rows(name: str) -> None:
    """Rows of one user are added up before they are clipped; nobody's are left out."""
    case = PROGRAMS[name]()
    owners = np.array([1, 0, 1, -1])
    rows = flat(per_example(case))
    users = [np.stack([g[owners == u].sum(0) for u in range(3)]) for g in rows]
    norms = norms_of(users)
    clip = float(norms[:2].mean())
    wanted = mean(users, np.minimum(1, clip / np.maximum(norms, 1e-30)))
    found = clipped(case, clip_norm=clip, units=jnp.asarray(owners), max_units=3)
    compare(found, wanted)


@pytest.mark.parametrize("name", KINDS)
def test_masked_rows_contribute_nothing(name: str) -> None:
    case = PROGRAMS[name]()
    mask = np.array([True, False, True, True])
    rows = flat(per_example(case))
    clip = float(np.median(norms_of(rows)))
    factors = np.minimum(1, clip / norms_of(rows)) * mask
    found = clipped(case, clip_norm=clip, mask=jnp.asarray(mask), expected_units=2.5)
    compare(found, mean(rows, factors, 2.5))
    owners = jnp.array([0, 0, 1, 1])
    pair = [np.stack([g[0], g[2] + g[3]]) for g in rows]
    factors = np.minimum(1, clip / norms_of(pair))
    found = clipped(case, clip_norm=clip, mask=jnp.asarray(mask), units=owners)
    compare(found, mean(pair, factors))


CASE = "batch_second"


def test_per_layer() -> None:
    case = PROGRAMS[CASE]()
    rows = flat(per_example(case))
    limit = 0.8 / len(rows) ** 0.5
    wanted = [mean([g], np.minimum(1, limit / norms_of([g])))[0] for g in rows]
    compare(clipped(case, clip_norm=0.8, clipping="per_layer"), wanted)


def test_groups() -> None:
    """Weights at 3/5 and biases at 4/5 of the clip norm."""
    case = PROGRAMS[CASE]()
    mode = Grouped((("['w']", 3.0), ("", 4.0)))
    rows = flat(per_example(case))
    biases, weights = rows[0::2], rows[1::2]
    parts = []
    for group, limit in ((biases, 0.64), (weights, 0.48)):
        parts.append(mean(group, np.minimum(1, limit / norms_of(group))))
    wanted = [x for pair in zip(*parts, strict=True) for x in pair]
    compare(clipped(case, clip_norm=0.8, clipping=mode), wanted)
    with pytest.raises(InputError, match="in no group"):
        clipped(case, clipping=Grouped((("nothing", 1.0),)))


def test_automatic() -> None:
    case = PROGRAMS[CASE]()
    rows = flat(per_example(case))
    wanted = mean(rows, 0.5 / (norms_of(rows) + 0.1))
    compare(clipped(case, clip_norm=0.5, clipping=Automatic(0.1)), wanted)


@pytest.mark.parametrize("pieces", [1, 2])
def test_adaptive(pieces: int) -> None:
    """The clip norm of the call is used; the next one moves towards the quantile."""
    case = PROGRAMS[CASE]()
    rows = flat(per_example(case))
    norms = norms_of(rows)
    clip = float(np.sort(norms)[:2].mean())  # one of four is within it
    mode = Adaptive(quantile=0.5, rate=0.2)
    options = {"clipping": mode, "microbatches": pieces}
    found, after = clipped(case, clip_norm=9.0, clip_norm_now=clip, **options)
    compare(found, mean(rows, np.minimum(1, clip / norms)))
    assert np.isclose(after, clip * np.exp(-0.2 * (0.25 - 0.5)))
    found, after = clipped(case, clip_norm=2 * norms.max(), **options)
    compare(found, mean(rows, np.ones(BATCH)))
    assert np.isclose(after, 2 * norms.max() * np.exp(-0.2 * 0.5))


def test_adaptive_noise() -> None:
    """Noise is proportional to the clip norm of the call, which a jitted loop carries."""
    step = differentially_private(
        lambda w, batch: jax.grad(lambda w: jnp.mean(batch @ w))(w),
        clipping="adaptive",
        noise_multiplier=2.0,
    )
    w, batch = jnp.zeros(500), jnp.zeros((BATCH, 500))

    def body(clip: Any, key: Any) -> Any:
        noise, clip = step(w, batch, key=key, clip_norm=clip)
        return clip, (noise, clip)

    keys = jax.random.split(insecure_key(3), 3)
    _, (noise, clips) = jax.jit(lambda c: jax.lax.scan(body, c, keys))(jnp.float32(4))
    used = np.array([4.0, *clips[:-1]])
    sigma = 2 * used / BATCH / np.sqrt(1 - Adaptive().share)
    assert np.allclose(np.std(noise, axis=1), sigma, rtol=0.15)
    assert np.all(np.abs(np.log(clips / used)) <= 0.1 + 1e-6)


@pytest.mark.parametrize("name", ["only_a_bias", "tied_embeddings", "teacher"])
def test_microbatches(name: str) -> None:
    case = PROGRAMS[name]()
    rows = flat(per_example(case))
    clip = float(np.median(norms_of(rows)))
    mask = np.array([True, True, False, True])
    wanted = mean(rows, np.minimum(1, clip / norms_of(rows)) * mask)
    options = {"clip_norm": clip, "microbatches": 2, "mask": jnp.asarray(mask)}
    compare(clipped(case, **options), wanted)


def test_diagnosis() -> None:
    case = PROGRAMS[CASE]()
    norms = norms_of(flat(per_example(case)))
    private = differentially_private(gradient(case), noise_multiplier=1.0)
    found = private.diagnose(case.params, case.batch, mask=jnp.arange(BATCH) > 0)
    assert np.allclose(found.norms[0, 1:], norms[1:], rtol=1e-5)
    assert list(found.kept) == [False, True, True, True]
    assert found.clipped_fraction(np.sort(norms[1:])[1]) in (1 / 3, 2 / 3)


# -- releases that are asked for ------------------------------------------------------


X = values(BATCH, 5)


def normalised(w: Any, batch: Any) -> Any:
    """Batch statistics with noise, then a gradient that uses them: two rounds."""
    mean = release(jnp.mean(jax.lax.stop_gradient(batch), axis=0), bound=0.3, share=0.2)

    def loss(w: Any) -> Any:
        return jnp.mean(((batch - mean) @ w) ** 2)

    return jax.grad(loss)(w), release(jnp.mean(batch[:, 0] > 0), bound=1.0)


def test_two_rounds() -> None:
    w = values(5)
    private = differentially_private(normalised, clip_norm=0.7, noise_multiplier=0)
    found, share = private(w, X)
    x = np.asarray(X, np.float64)
    norms = np.linalg.norm(x, axis=1) / BATCH
    mean = np.tensordot(np.minimum(1, 0.3 / norms), x, 1) / BATCH
    each = 2 * (x - mean) * ((x - mean) @ np.asarray(w))[:, None]
    factors = np.minimum(1, 0.7 / np.linalg.norm(each, axis=1))
    assert np.allclose(found, np.tensordot(factors, each, 1) / BATCH, rtol=1e-5)
    assert np.isclose(share, np.mean(x[:, 0] > 0))
    releases = private.releases(w, X)
    assert [text.split(" of ")[0] for text in releases.asked] == ["0.2", "0.1"]


def test_noise_of_asked_releases() -> None:
    """Shares of the budget: deviations are bound * multiplier / sqrt(share)."""

    def step(w: Any, batch: Any) -> Any:
        extra = release(jnp.sum(batch, axis=0), bound=0.5, share=0.25)
        return jax.grad(lambda w: jnp.mean(batch @ w))(w), extra

    private = differentially_private(step, clip_norm=4.0, noise_multiplier=3.0)
    w, zeros = jnp.zeros(2000), jnp.zeros((BATCH, 2000))
    main, extra = private(w, zeros, key=insecure_key(0))
    assert np.isclose(np.std(extra), 0.5 * 3 / np.sqrt(0.25), rtol=0.1)
    assert np.isclose(np.std(main), 3 * (4 / BATCH) / np.sqrt(0.75), rtol=0.1)
    assert abs(np.corrcoef(main, extra)[0, 1]) < 0.1


def several(w: Any, batch: Any) -> Any:
    return jax.grad(lambda w: jnp.mean(batch @ w))(w), release(batch, bound=1.0)


def too_much(w: Any, batch: Any) -> Any:
    g = jax.grad(lambda w: jnp.mean(batch @ w))(w)
    return g, [release(jnp.sum(k * batch), bound=1.0, share=0.5) for k in (1, 2)]


def in_a_loop(w: Any, batch: Any) -> Any:
    body = lambda c, _: (c + release(jnp.sum(batch), bound=1.0), None)  # noqa: E731
    total, _ = jax.lax.scan(body, 0.0, None, length=3)
    return jax.grad(lambda w: jnp.mean(batch @ w))(w), total


@pytest.mark.parametrize("step", [several, too_much, in_a_loop])
def test_refused_releases(step: Any) -> None:
    private = differentially_private(step, noise_multiplier=0)
    with pytest.raises(LeakError, match="test_dp_modes.py"):
        private.releases(values(5), X)


def test_release_by_itself() -> None:
    assert release(jnp.float32(2), bound=1.0) == 2
    for bad in ({"bound": 0.0}, {"bound": 1.0, "share": 1.5}):
        with pytest.raises(InputError):
            release(jnp.float32(2), **bad)
    with pytest.raises(InputError, match="int32"):
        release(jnp.arange(3), bound=1.0)


@pytest.mark.parametrize(
    ("options", "extra", "text"),
    [
        ({"clipping": "hard"}, {}, "clipping='hard'"),
        ({"microbatches": 3}, {}, "3 microbatches of 4"),
        ({"microbatches": 0}, {}, "microbatches=0"),
        ({"divided": "model"}, {}, "divided='model'"),
        ({"microbatches": 4}, {}, "at least two"),
        ({"microbatches": 2}, {"units": jnp.arange(4)}, "rows in several"),
        ({"denominator": 2.0, "expected_units": 2.0}, {}, "give one"),
        ({}, {"mask": jnp.ones(3)}, "4 rows"),
        ({}, {"clip_norm": 1.0}, "adaptive"),
    ],
    ids=lambda x: "",
)
def test_options_that_do_not_fit(options: Any, extra: Any, text: str) -> None:
    case = PROGRAMS["only_a_bias"]()
    with pytest.raises(InputError, match=text):
        private = differentially_private(gradient(case), noise_multiplier=0, **options)
        private(case.params, case.batch, **extra)
