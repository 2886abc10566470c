"""Who has what, and who is asked: partitions, client data, samplers, faults."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from privjax import fl
from privjax.dp import Ledger
from privjax.errors import InputError
from privjax.fl import partition
from privjax.prg import insecure_key

LABELS = np.random.default_rng(0).integers(0, 10, 600)
KEY = insecure_key(3)


# -- partitions ------------------------------------------------------------------------

PARTITIONS: dict[str, Callable[[int], list[np.ndarray]]] = {
    "iid": lambda seed: partition.iid(600, 12, seed=seed),
    "dirichlet": lambda seed: partition.dirichlet(LABELS, 12, 0.3, seed=seed),
    "dirichlet of unequal sizes": lambda seed: partition.dirichlet(
        LABELS, 12, 0.5, equal=False, smallest=3, seed=seed
    ),
    "shards": lambda seed: partition.shards(LABELS, 12, seed=seed),
    "quantity": lambda seed: partition.quantity_skew(
        600, 12, 0.5, smallest=2, seed=seed
    ),
    "columns": lambda seed: partition.by_column(600, 12, seed=seed),
}


@pytest.mark.parametrize("name", PARTITIONS)
def test_a_partition_gives_every_row_to_one_client(name: str) -> None:
    parts, again, other = (PARTITIONS[name](seed) for seed in (1, 1, 2))
    assert len(parts) == 12 and min(map(len, parts)) >= 1
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(600))
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(parts, other, strict=True))


def mixes(parts: list[np.ndarray]) -> np.ndarray:
    """Shares of the labels at every client."""
    return np.array([np.bincount(LABELS[p], minlength=10) / len(p) for p in parts])


def test_skews_are_what_they_say() -> None:
    skew = lambda parts: np.mean(np.max(mixes(parts), axis=1))  # noqa: E731
    strong, weak = (partition.dirichlet(LABELS, 12, a) for a in (0.1, 100.0))
    assert skew(strong) > 0.5 > 0.25 > skew(weak)
    assert {len(p) for p in strong} == {50}
    uneven = [len(p) for p in partition.dirichlet(LABELS, 12, 0.5, equal=False)]
    assert max(uneven) > 2 * min(uneven)
    few = [np.unique(LABELS[p]).size for p in partition.shards(LABELS, 12)]
    assert max(few) <= 4
    sizes = [len(p) for p in partition.quantity_skew(600, 12, 0.5, smallest=2)]
    assert min(sizes) >= 2 and max(sizes) > 3 * min(sizes)


def test_dirichlet_mixes_have_the_stated_mean_and_spread() -> None:
    """Over many clients of many rows: E = p, Var = p (1 - p) / (alpha + 1)."""
    many = partition.population(LABELS, 4000, 200, alpha=2.0)
    found = mixes(many)
    p = np.bincount(LABELS) / 600
    np.testing.assert_allclose(found.mean(axis=0), p, atol=0.01)
    # Drawing 200 rows adds p (1 - p) (1 - 1 / (alpha + 1)) / 200.
    want = p * (1 - p) * (1 / 3 + (2 / 3) / 200)
    np.testing.assert_allclose(found.var(axis=0), want, rtol=0.08)


def test_a_population_is_larger_than_its_data() -> None:
    parts = partition.population(LABELS, 5000, 4)
    assert len(parts) == 5000 and {len(p) for p in parts} == {4}
    counts = np.bincount(np.concatenate(parts), minlength=600)
    assert stats.chisquare(counts).pvalue > 1e-4


def test_columns_of_stated_sizes() -> None:
    parts = partition.by_column(5, [2, 3])
    assert [p.tolist() for p in parts] == [[0, 1], [2, 3, 4]]


# -- client data -----------------------------------------------------------------------

X = np.arange(20.0, dtype="f4").reshape(10, 2)
Y = np.arange(10)
ROWS = [np.array([3, 1, 4]), np.array([5]), np.array([], int), np.array([9, 2])]


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_cohorts_are_padded_with_zeros(kind: Any) -> None:
    data = fl.ClientData({"x": kind(X), "y": kind(Y)}, ROWS)
    assert (len(data), data.capacity, data.sizes.tolist()) == (4, 3, [3, 1, 0, 2])
    cohort = data.cohort([3, 0])
    assert isinstance(cohort.data["x"], jax.Array) == (kind is jnp.asarray)
    np.testing.assert_array_equal(cohort.data["y"], [[9, 2, 0], [3, 1, 4]])
    np.testing.assert_array_equal(cohort.mask, [[1, 1, 0], [1, 1, 1]])
    np.testing.assert_array_equal(cohort.data["x"][0, 2], [0, 0])
    np.testing.assert_array_equal(cohort.ids, [3, 0])
    assert cohort.survivors is None and data.rows(3).tolist() == [9, 2]


def test_absent_clients_have_no_data_and_do_not_answer() -> None:
    data = fl.ClientData((X, Y), ROWS)
    present, answers = np.array([1, 1, 0]), np.array([True, False, True])
    cohort = data.cohort([0, 1, 0], present=present, survivors=answers)
    assert cohort.survivors.tolist() == [True, False, False]
    assert cohort.mask.sum(axis=1).tolist() == [3, 1, 0]
    assert not np.any(cohort.data[0][2])


def test_a_smaller_room_keeps_the_first_examples_and_needs_no_mask() -> None:
    data = fl.ClientData((X, Y), [ROWS[0], ROWS[3]])
    cohort = data.cohort(capacity=2)
    assert cohort.mask is None
    np.testing.assert_array_equal(cohort.data[1], [[3, 1], [9, 2]])


def test_buckets_have_few_shapes_and_all_clients() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 200, 50)
    data = fl.ClientData(np.arange(10_000), [rng.integers(0, 10_000, n) for n in sizes])
    limits = np.arange(50)
    shapes, seen = set(), {}
    for bucket in data.buckets(steps=limits, survivors=sizes % 2 == 0):
        clients, room = bucket.data.shape
        shapes |= {clients, room}
        there = np.ones(clients, bool) if bucket.mask is None else bucket.mask.any(1)
        for k in np.flatnonzero(there):
            i = int(bucket.ids[k])
            seen[i] = int(room if bucket.mask is None else bucket.mask[k].sum())
            assert room <= max(8, 2 * sizes[i])
            assert bucket.survivors[k] == (sizes[i] % 2 == 0)
            assert bucket.steps[k] == i
    assert seen == dict(enumerate(sizes.tolist()))
    assert all(n & (n - 1) == 0 for n in shapes)


# -- samplers --------------------------------------------------------------------------

SAMPLERS: dict[str, Any] = {
    "uniform": fl.FixedSize(20, 5),
    "poisson": fl.Poisson(20, 0.25),
    "weighted": fl.Weighted(np.arange(1, 21), 5),
    "cyclic": fl.Cyclic(20, 3),
    "everybody": fl.FullBatch(20),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_draw_each_client_once_at_most_and_repeat_by_key(name: str) -> None:
    sampler = SAMPLERS[name]
    runs = [list(sampler.rows(k, 6)) for k in (KEY, KEY, insecure_key(4))]
    for ids, present in runs[0]:
        chosen = ids[present > 0]
        assert ids.shape == present.shape == (sampler.room,)
        assert len({*chosen.tolist()}) == len(chosen)
    same, other = (
        all(np.array_equal(a[0], b[0]) for a, b in zip(runs[0], r, strict=True))
        for r in runs[1:]
    )
    assert same and (not other or name == "everybody")


def test_weights_are_chances_of_successive_draws() -> None:
    """Two of four: the exact chances by summing over both draws."""
    w = np.array([1.0, 2.0, 3.0, 4.0])
    p = w / w.sum()
    want = p + np.array(
        [sum(p[j] * p[i] / (1 - p[j]) for j in range(4) if j != i) for i in range(4)]
    )
    rows = fl.Weighted(w, 2).rows(KEY, 1000)
    counts = np.bincount(np.concatenate([ids for ids, _ in rows]), minlength=4)
    np.testing.assert_allclose(counts / 1000, want, atol=0.05)


def test_turns_reach_everybody_once_in_a_cycle() -> None:
    rounds = list(fl.Cyclic(20, 3).rows(KEY, 6))
    groups = [ids[present > 0] for ids, present in rounds]
    assert sorted(np.concatenate(groups[:3]).tolist()) == list(range(20))
    assert all(np.array_equal(groups[i], groups[i + 3]) for i in range(3))


EVENT = {"kind": "gaussian", "noise_multiplier": 2.0}


@pytest.mark.parametrize(
    ("name", "count"), [("weighted", 10), ("cyclic", 4), ("everybody", 10)]
)
def test_what_ten_rounds_cost_without_amplification(name: str, count: int) -> None:
    sampler = SAMPLERS[name]
    ((event, times),) = sampler.charge(EVENT, 10)
    ledger, want = Ledger("zero_out"), Ledger("zero_out")
    ledger.spend(event, times)
    want.spend(EVENT, count)
    assert ledger.epsilon(1e-5) == want.epsilon(1e-5)


def test_faults() -> None:
    survivors, steps = fl.Faults(0.3, 0.5, (2, 4)).draw(KEY, 4000)
    assert abs(survivors.mean() - 0.7) < 0.03
    slow = steps < 10
    assert abs(slow.mean() - 0.5) < 0.03
    assert stats.chisquare(np.bincount(steps[slow])[2:]).pvalue > 1e-4
    nobody, none = fl.Faults(1.0).draw(KEY, 5)
    assert not nobody.any() and none is None


ERRORS: dict[str, tuple[Callable[[], Any], str]] = {
    "more clients than rows": (lambda: partition.iid(3, 4), "3 rows do not make 4"),
    "alpha": (lambda: partition.dirichlet(LABELS, 3, 0.0), "alpha=0.0"),
    "impossible": (
        lambda: partition.dirichlet(
            LABELS[:40], 20, 0.01, equal=False, smallest=2, seed=0
        ),
        "fewer than 2 rows",
    ),
    "columns": (lambda: partition.by_column(5, [2, 2]), "do not make 5"),
    "arrays of unlike length": (
        lambda: fl.ClientData((X, Y[:3]), ROWS),
        "equally many",
    ),
    "an unknown row": (lambda: fl.ClientData(X, [[10]]), "one of the 10 examples"),
    "an unknown client": (lambda: fl.ClientData(X, ROWS).cohort([4]), "none of the 4"),
    "no examples": (lambda: fl.ClientData(X, [[], []]), "any example"),
    "weights": (lambda: fl.Weighted([1.0, 0.0], 1), "positive"),
    "size": (lambda: fl.Weighted([1.0], 2), "more than 1"),
    "groups": (lambda: fl.Cyclic(3, 4), "groups=4"),
    "dropped": (lambda: fl.Faults(1.5), "dropped=1.5"),
    "steps": (lambda: fl.Faults(steps=(3, 1)), "no range"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_refuses(case: str) -> None:
    run, message = ERRORS[case]
    with pytest.raises(InputError, match=message):
        run()
