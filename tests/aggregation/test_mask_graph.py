"""The graph of masks: its shape, and its bounds against counting and sampling."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from privjax.aggregation import graph
from privjax.aggregation.graph import Circle
from privjax.errors import InputError

CIRCLES = [(2, 1), (3, 2), (4, 3), (5, 2), (5, 4), (6, 4), (9, 6), (12, 11)]


@pytest.mark.parametrize(("clients", "degree"), CIRCLES)
def test_neighbours_are_mutual_by_slot(clients: int, degree: int) -> None:
    circle = Circle(clients, degree)
    order = np.random.default_rng(0).permutation(clients).astype(np.int32)
    found = np.asarray(circle.neighbours(order))
    assert found.shape == (clients, degree)
    for i in range(clients):
        assert i not in found[i] and len({*found[i].tolist()}) == degree
        for slot, j in enumerate(found[i]):
            assert found[j, circle.back[slot]] == i
    edges = {tuple(e) for e in np.stack(circle.edges(order), 1).tolist()}
    assert edges == {
        tuple(sorted((i, int(j)))) for i in range(clients) for j in found[i]
    }
    assert len(edges) == clients * degree // 2


def apart(clients: int, degree: int, gone: Any) -> bool:
    """Whether those that are left are not connected, by walking the graph."""
    left = {*range(clients)} - {*gone}
    if not left:
        return False
    rows = np.asarray(Circle(clients, degree).neighbours(np.arange(clients)))
    seen, todo = set(), [min(left)]
    while todo:
        i = todo.pop()
        if i not in seen:
            seen.add(i)
            todo += [j for j in rows[i].tolist() if j in left]
    return seen != left


@pytest.mark.parametrize(("clients", "degree", "gone"), [(9, 2, 3), (10, 4, 5)])
def test_disconnection_is_bounded(clients: int, degree: int, gone: int) -> None:
    """Against all sets of clients that can be gone."""
    sets = list(itertools.combinations(range(clients), gone))
    share = sum(apart(clients, degree, s) for s in sets) / len(sets)
    bound = 2.0 ** graph.exposure(clients, degree, degree, gone, 0)
    assert 0 < share <= bound <= 12 * share


def test_tails_are_those_of_a_random_neighbourhood() -> None:
    clients, degree, dropped, threshold = 40, 10, 12, 4
    rng, rounds, found = np.random.default_rng(0), 4000, 0
    at = np.asarray(Circle(clients, degree).neighbours(np.arange(clients)))
    for _ in range(rounds):
        there = rng.permutation(clients) >= dropped  # by place on the circle
        found += bool(np.any(there[at].sum(1) < threshold))
    bound = 2.0 ** graph.failure(clients, degree, threshold, dropped)
    assert 0 < found / rounds <= bound
    one = stats.hypergeom.cdf(threshold - 1, clients - 1, clients - 1 - dropped, degree)
    np.testing.assert_allclose(bound, clients * one, rtol=1e-9)


@pytest.mark.parametrize(
    ("clients", "dropped", "colluding", "security"),
    [(20, 2, 2, 20), (100, 10, 10, 40), (100, 30, 0, 40), (1000, 100, 100, 40)],
)
def test_plans_keep_their_bounds_and_are_the_smallest(
    clients: int, dropped: int, colluding: int, security: float
) -> None:
    degree, threshold = graph.plan(clients, dropped, colluding, security, 20)
    parts = (clients, degree, threshold, dropped)
    assert graph.exposure(*parts, colluding) <= -security
    assert graph.failure(*parts) <= -20
    if degree > 2 and degree < clients - 1:
        less = degree - 2
        most = graph.largest_threshold(clients, less, dropped, 20)
        assert (
            most < 1
            or graph.exposure(clients, less, most, dropped, colluding) > -security
        )


def test_plans_grow_like_a_logarithm() -> None:
    """Bell et al. 2020, section 1: the degree is O(log clients)."""
    degrees = [
        graph.plan(n, n // 20, n // 20, 40, 20)[0] for n in (10**3, 10**4, 10**5, 10**6)
    ]
    steps = np.diff(degrees)
    assert degrees == sorted(degrees) and degrees[-1] < 64 and np.all(steps < 10)


def test_the_full_graph() -> None:
    assert graph.largest_threshold(10, 9, 3, 20) == 6
    assert graph.failure(10, 9, 6, 3) == -math.inf and graph.failure(10, 9, 7, 3) == 0
    assert graph.exposure(10, 9, 6, 3, 5) == -math.inf
    assert graph.exposure(10, 9, 6, 3, 6) == 0


@pytest.mark.parametrize("colluding", [0, 1, 2, 3])
@pytest.mark.parametrize("threshold", [4, 5, 6, 7])
def test_lies_need_enough_shares_of_both_kinds(threshold: int, colluding: int) -> None:
    """Each of the honest neighbours gives one share, colluding ones give both."""
    degree = 8
    honest = degree - colluding
    can = any(
        first + colluding >= threshold and honest - first + colluding >= threshold
        for first in range(honest + 1)
    )
    found = graph.division(degree + 1, degree, threshold, colluding)
    assert found == (0 if can else -math.inf)
    sparse = graph.division(1000, degree, threshold, colluding)
    assert (sparse == 0) == (2 * threshold <= degree) and sparse <= 0


ERRORS: dict[str, tuple[Callable[[], Any], str]] = {
    "nobody left": (lambda: graph.plan(5, 2, 2, 40, 20), "at least two"),
    "too many colluding": (lambda: graph.plan(9, 4, 4, 40, 20), "at least two"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_refuses(case: str) -> None:
    run, message = ERRORS[case]
    with pytest.raises(InputError, match=message):
        run()
