"""Samplers: their laws, static shapes, padding, and what they charge."""

import math

import numpy as np
import pytest
from scipy import stats

from privjax.accounting import Ledger
from privjax.dp.epochs import BallsInBins, Shuffled, Streamed
from privjax.dp.sampling import FixedSize, FullBatch, Poisson
from privjax.errors import InputError, RandomKeyError
from privjax.passes.dp.mechanisms import RoundedGaussian
from privjax.prg import insecure_key

KEY = insecure_key(51)
GAUSSIAN = {"kind": "gaussian", "noise_multiplier": 1.0}


def drawn(sampler, steps: int):
    rows, masks = zip(*sampler.rows(KEY, steps), strict=True)
    assert {r.shape for r in rows} == {(sampler.room,)} == {m.shape for m in masks}
    return [r[m > 0] for r, m in zip(rows, masks, strict=True)]


def test_poisson_is_independent_and_uniform() -> None:
    sampler = Poisson(units=200, rate=0.1)
    taken = np.zeros((400, 200))
    for step, rows in enumerate(drawn(sampler, 400)):
        assert len(set(rows)) == len(rows)
        taken[step, rows] = 1
    assert (
        stats.kstest(stats.binom.cdf(taken.sum(0), 400, 0.1), "uniform").statistic
        < 0.15
    )
    assert abs(taken.mean() - 0.1) < 4 * math.sqrt(0.09 / taken.size)
    sizes = taken.sum(1)
    assert abs(sizes.var() / (200 * 0.09) - 1) < 0.3
    # No two steps, and no two units, go together.
    for table in (taken[:60], taken.T[:60]):
        off = np.corrcoef(table) - np.eye(60)
        assert np.abs(off).max() < 5.5 / math.sqrt(table.shape[1])


def test_fixed_size_is_a_uniform_subset() -> None:
    counts = np.zeros(40)
    for rows in drawn(FixedSize(units=40, size=8), 1500):
        assert len(set(rows)) == 8
        counts[rows] += 1
    assert stats.chisquare(counts).pvalue > 1e-3


def test_epochs_see_every_unit_once() -> None:
    for sampler in (Shuffled(units=60, size=12), BallsInBins(units=60, bins=5)):
        found = drawn(sampler, 10)
        orders = [np.concatenate(found[i : i + 5]) for i in (0, 5)]
        for order in orders:
            np.testing.assert_array_equal(np.sort(order), np.arange(60))
        assert list(orders[0]) != list(orders[1])


def test_balls_in_bins_fills_them_evenly() -> None:
    sampler = BallsInBins(units=500, bins=4)
    sizes = [len(rows) for rows in drawn(sampler, 40)]
    assert len(set(sizes)) > 5
    assert stats.chisquare(np.array(sizes).reshape(10, 4).sum(0)).pvalue > 1e-3


@pytest.mark.parametrize("rate", [0.01, 0.2, 1.0])
def test_rooms_hold_nearly_always(rate: float) -> None:
    sampler = Poisson(units=1000, rate=rate)
    assert sampler.overflow <= 1e-15 or sampler.room == 1000
    assert sampler.room <= min(1000, 1000 * rate + 9 * math.sqrt(1000 * rate) + 16)
    (event, count), *_ = sampler.charge(GAUSSIAN, 7)
    assert count == 7 and event["kind"] == ("gaussian" if rate == 1 else "poisson")


def test_samples_that_do_not_fit_are_cut_and_accounted_for() -> None:
    sampler = Poisson(units=100, rate=0.5, capacity=50)
    counts = np.zeros(100)
    for rows in drawn(sampler, 600):
        counts[rows] += 1
    assert counts.sum() < 600 * 50
    assert stats.chisquare(counts).pvalue > 1e-3
    ((event, _),) = sampler.charge(GAUSSIAN, 3)
    assert event["kind"] == "truncated_poisson" and event["capacity"] == 50


def test_charges_are_the_ledgers() -> None:
    mechanism = RoundedGaussian.of(1.0, 1.0, 10)
    cases = [
        (FullBatch(100), "add_or_remove_one", 20, 20),
        (Poisson(100, 0.1), "add_or_remove_one", 20, 20),
        (FixedSize(100, 10), "replace_one", 20, 20),
        (Shuffled(100, 10), "zero_out", 21, 3),
        (BallsInBins(100, 10), "add_or_remove_one", 21, 3),
        (Streamed(10), "zero_out", 21, 1),
    ]
    found = {}
    for sampler, neighbours, steps, count in cases:
        assert neighbours in sampler.neighbours
        ledger = Ledger(neighbours)
        ((event, times),) = sampler.charge(mechanism, steps, values=10)
        assert times == count and 0 < event["distance"] * times < 1e-9
        ledger.spend(event, times)
        found[type(sampler).__name__] = ledger.epsilon(1e-5)
        for other in {"add_or_remove_one", "zero_out", "replace_one"}:
            if other not in sampler.neighbours:
                with pytest.raises(InputError):
                    Ledger(other).spend(event, times)
    # A shuffle gets no amplification: its epochs are full releases.
    plain = Ledger()
    plain.spend(mechanism, 3)
    assert found["Shuffled"] == pytest.approx(plain.epsilon(1e-5), rel=1e-6)
    assert found["Poisson"] < found["FullBatch"] / 4


DATA = {"x": np.arange(40.0).reshape(20, 2), "y": np.arange(20)}


def test_batches_of_arrays_are_padded_with_zeros() -> None:
    sampler = Poisson(20, 0.3)
    for batch in sampler.batches(DATA, 5, KEY):
        assert (
            batch["x"].shape == (sampler.room, 2)
            and batch["y"].dtype == DATA["y"].dtype
        )
        keep = batch["mask"] > 0
        np.testing.assert_array_equal(batch["x"][keep][:, 0], 2 * batch["y"][keep])
        assert not batch["x"][~keep].any() and not batch["y"][~keep].any()
    pair = next(sampler.batches(DATA["x"], 1, KEY))
    assert isinstance(pair, tuple) and pair[1].shape == (sampler.room,)
    bare = next(FixedSize(20, 4).batches(DATA, 1, KEY, mask=None))
    assert set(bare) == {"x", "y"}


def test_random_access_sources_and_streams() -> None:
    units = [{"x": DATA["x"][i], "y": DATA["y"][i]} for i in range(20)]
    from_source = list(FixedSize(20, 4).batches(units, 3, KEY))
    from_arrays = list(FixedSize(20, 4).batches(DATA, 3, KEY))
    for a, b in zip(from_source, from_arrays, strict=True):
        np.testing.assert_array_equal(a["x"], b["x"])
    found = list(Streamed(8).batches(iter(units), 100))
    assert [int(b["mask"].sum()) for b in found] == [8, 8, 4]
    assert len(list(Streamed(8).batches(iter(units), 2))) == 2
    np.testing.assert_array_equal(found[1]["y"], np.arange(8, 16))


def test_keys() -> None:
    sampler = FixedSize(20, 4)
    a, b = (next(sampler.batches(DATA, 1))["y"] for _ in range(2))
    c, d = (next(sampler.batches(DATA, 1, KEY))["y"] for _ in range(2))
    np.testing.assert_array_equal(c, d)
    assert len({tuple(v) for v in (a, b, c)}) == 3
    with pytest.raises(RandomKeyError):
        next(sampler.batches(DATA, 1, 0))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Poisson(10, 0.0),
        lambda: Poisson(10, 1.5),
        lambda: Poisson(0, 0.5),
        lambda: Poisson(10, 0.5, capacity=0),
        lambda: FixedSize(10, 11),
        lambda: Shuffled(10, 11),
        lambda: BallsInBins(10, 0),
        lambda: Streamed(0),
        lambda: Streamed(4).steps_per_epoch,
        lambda: next(Poisson(10, 0.5).batches(DATA, 1)),
        lambda: next(Poisson(20, 0.5).batches(DATA, 1, mask=None)),
        lambda: next(Streamed(4).batches([], 1, mask=None)),
        lambda: next(FixedSize(20, 4).batches({**DATA, "mask": DATA["y"]}, 1)),
        lambda: FixedSize(20, 4).masked({**DATA, "z": np.zeros(3)}, 1),
    ],
)
def test_refuses(make) -> None:
    with pytest.raises(InputError):
        make()
