"""What was released, as plain data, and what dp-accounting says about it.

An event is a dictionary that can be written as JSON. Noise is stated relative to what
one unit that is *added or removed* (or zeroed out) changes; replacing a unit is both, so
that under "replace_one" every sensitivity counts twice.

====================  ===============================================  ================
kind                  fields                                           accountants
====================  ===============================================  ================
gaussian              noise_multiplier                                 pld, rdp, gdp
pure                  epsilon                                          pld, rdp
zcdp                  rho, xi (optional)                               rdp
skellam               variance, l2, l1 (in grid steps)                 rdp
randomized_response   noise_parameter, buckets                         pld, rdp
poisson               rate, event (gaussian or pure)                   pld, rdp, gdp
truncated_poisson     rate, capacity, units, event (gaussian)          pld
fixed_size            size, units, event (gaussian); replace_one       rdp
balls_in_bins         bins, event (gaussian): one epoch of so many     rdp
                      batches, each unit in one at random
once                  event; zero_out or replace_one                   as the event
non_private           -                                                infinite
====================  ===============================================  ================

Any event may have "distance": the total variation distance of the mechanism from the
one that is described; the ledger adds it to delta. All arithmetic about privacy losses
is Google's dp-accounting, but for the divergences of allocation.py.
"""

import functools
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import dp_accounting
import numpy as np
from dp_accounting import rdp
from dp_accounting.pld import common
from dp_accounting.pld import privacy_loss_distribution as plds

from privjax.accounting import allocation
from privjax.errors import InputError

Event = dict[str, Any]

NEIGHBOURS = {
    "add_or_remove_one": dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
    "replace_one": dp_accounting.NeighboringRelation.REPLACE_ONE,
    "zero_out": dp_accounting.NeighboringRelation.REPLACE_SPECIAL,
}
ANY = frozenset(NEIGHBOURS)
_INDEPENDENT = frozenset({"add_or_remove_one", "zero_out"})
_FIXED_NUMBER = frozenset({"replace_one", "zero_out"})

# kind -> (fields and what each must satisfy, kinds that it may contain, relations).
_AT_LEAST_0 = lambda v: 0 <= v < math.inf  # noqa: E731
_POSITIVE = lambda v: 0 < v < math.inf  # noqa: E731
_RATE = lambda v: 0 <= v <= 1  # noqa: E731
_COUNT = lambda v: v >= 1 and v == int(v)  # noqa: E731
KINDS: dict[str, tuple[dict[str, Any], tuple[str, ...], frozenset[str]]] = {
    "gaussian": ({"noise_multiplier": _AT_LEAST_0}, (), ANY),
    "pure": ({"epsilon": _AT_LEAST_0}, (), ANY),
    "zcdp": ({"rho": _AT_LEAST_0}, (), ANY),
    "skellam": ({"variance": _POSITIVE, "l2": _AT_LEAST_0, "l1": _AT_LEAST_0}, (), ANY),
    "randomized_response": (
        {"noise_parameter": _RATE, "buckets": _COUNT},
        (),
        _FIXED_NUMBER,
    ),
    "poisson": ({"rate": _RATE}, ("gaussian", "pure"), ANY),
    "truncated_poisson": (
        {"rate": _RATE, "capacity": _COUNT, "units": _COUNT},
        ("gaussian",),
        ANY,
    ),
    "fixed_size": (
        {"size": _COUNT, "units": _COUNT},
        ("gaussian",),
        frozenset({"replace_one"}),
    ),
    "balls_in_bins": ({"bins": _COUNT}, ("gaussian",), ANY),
    "once": ({}, ("gaussian", "pure", "zcdp", "skellam"), _FIXED_NUMBER),
    "non_private": ({}, (), ANY),
}


class Unsupported(InputError):
    """This accountant has no figure for this event."""


def check(event: Event, neighbours: str) -> None:
    """Raises InputError: not an event, or not one of this neighbouring relation."""
    if neighbours not in NEIGHBOURS:
        raise InputError(f"neighbours={neighbours!r} is none of {sorted(NEIGHBOURS)}.")
    kind = event.get("kind") if isinstance(event, dict) else None
    if kind not in KINDS:
        raise InputError(f"{event!r} is no event; kinds are {sorted(KINDS)}.")
    fields, inner, relations = KINDS[kind]
    for name, holds in fields.items():
        if name not in event or not holds(event[name]):
            raise InputError(f"{kind}: {name}={event.get(name)!r} is out of range.")
    if neighbours not in relations:
        raise InputError(
            f"{kind} says nothing about neighbours={neighbours!r}, only about "
            f"{sorted(relations)}: make the ledger with one of these."
        )
    if inner:
        content = event.get("event", {})
        if content.get("kind") not in inner:
            raise InputError(
                f"{kind} of {content.get('kind')!r} cannot be accounted for; it takes "
                f"{list(inner)}. Use Gaussian or RoundedGaussian noise, or sample "
                "without amplification."
            )
        check(content, neighbours)
    if kind == "fixed_size" and event["size"] > event["units"]:
        raise InputError(f"a sample of {event['size']} out of {event['units']} units.")


def distance(event: Event) -> float:
    """Total variation distance of one release from what its event says."""
    inner = event.get("event")
    return float(event.get("distance", 0.0)) + (distance(inner) if inner else 0.0)


def canonical(event: Event) -> str:
    """JSON without what does not concern the accountants."""

    def clean(e: Event) -> Event:
        out = {k: v for k, v in e.items() if k != "distance"}
        return {**out, "event": clean(e["event"])} if "event" in e else out

    return json.dumps(clean(event), sort_keys=True)


def private(event: Event) -> bool:
    """Whether the event has any finite guarantee."""
    inner = event.get("event")
    if inner is not None and event.get("rate") == 0:
        return True
    if inner is not None:
        return private(inner)
    return event["kind"] != "non_private" and event.get("noise_multiplier", 1) > 0


def unamplified(event: Event) -> Event:
    """What holds for an epoch of bins whichever batch a unit is in: it is in one."""
    return event["event"] if event["kind"] == "balls_in_bins" else event


def _amplified(rate: float, epsilon: float) -> float:
    """Poisson sampling of a purely private mechanism (Balle et al. 2018, theorem 8)."""
    return math.log1p(rate * math.expm1(epsilon))


# -- privacy loss distributions --------------------------------------------------------


# Width of the cells of privacy losses. dp-accounting's distributions are pessimistic at
# any width; the coarse one takes a tenth of the time and serves searches.
FINE, COARSE = 1e-4, 1e-3


def to_pld(event: Event, count: int, neighbours: str, width: float = FINE) -> Any:
    """The privacy loss distribution of `count` releases; raises `Unsupported`."""
    return _pld(canonical(event), count, neighbours, width)


@functools.lru_cache(maxsize=64)
def _pld(text: str, count: int, neighbours: str, width: float) -> Any:
    event = json.loads(text)
    relation = NEIGHBOURS[neighbours]
    match event:
        case {"kind": "once", "event": inner}:
            return to_pld(inner, count, neighbours, width)
        case {"kind": "gaussian", "noise_multiplier": z}:
            return plds.from_gaussian_mechanism(
                z / math.sqrt(count),
                value_discretization_interval=width,
                neighboring_relation=relation,
            )
        case {"kind": "poisson", "rate": 0 | 0.0}:
            return plds.identity(width)
    return _one_pld(text, neighbours, width).self_compose(count)


@functools.lru_cache(maxsize=64)
def _one_pld(text: str, neighbours: str, width: float) -> Any:
    event = json.loads(text)
    relation = NEIGHBOURS[neighbours]
    twice = 2 if neighbours == "replace_one" else 1
    match event:
        case {"kind": "pure", "epsilon": epsilon}:
            return _pure_pld(twice * epsilon, width)
        case {"kind": "poisson", "rate": rate, "event": {"kind": "pure", "epsilon": e}}:
            if neighbours == "replace_one":
                raise Unsupported(
                    "Poisson sampling of a purely private mechanism is accounted for "
                    "add_or_remove_one and zero_out only."
                )
            return _pure_pld(_amplified(rate, e), width)
        case {"kind": "poisson", "rate": rate, "event": {"noise_multiplier": z}}:
            return plds.from_gaussian_mechanism(
                z,
                value_discretization_interval=width,
                sampling_prob=rate,
                neighboring_relation=relation,
            )
        case {"kind": "randomized_response", "noise_parameter": p, "buckets": k}:
            return plds.from_randomized_response(
                p,
                k,
                value_discretization_interval=width,
                neighboring_relation=relation,
            )
        case {"kind": "truncated_poisson", "event": {"noise_multiplier": z}}:
            return plds.from_truncated_subsampled_gaussian_mechanism(
                event["units"],
                event["rate"],
                event["capacity"],
                z,
                value_discretization_interval=width,
                neighboring_relation=relation,
            )
    raise Unsupported(f"no privacy loss distribution is known for {event['kind']}.")


def _pure_pld(epsilon: float, width: float) -> Any:
    return plds.from_privacy_parameters(
        common.DifferentialPrivacyParameters(epsilon, 0.0), width
    )


# -- Renyi divergences -----------------------------------------------------------------


def to_rdp(event: Event, count: int, neighbours: str) -> Iterator[Any]:
    """`DpEvent`s for the Renyi accountant; raises `Unsupported`."""
    twice = 2 if neighbours == "replace_one" else 1
    match event:
        case {"kind": "once", "event": inner}:
            yield from to_rdp(inner, count, neighbours)
            return
        case {"kind": "gaussian", "noise_multiplier": z}:
            one = dp_accounting.GaussianDpEvent(z / twice)
        case {"kind": "pure", "epsilon": epsilon}:
            # Bun and Steinke 2016, proposition 1.4.
            one = dp_accounting.ZCDpEvent((twice * epsilon) ** 2 / 2)
        case {"kind": "zcdp", "rho": rho}:
            if twice > 1 and event.get("xi"):
                raise Unsupported("zcdp with xi is not accounted for replace_one.")
            one = dp_accounting.ZCDpEvent(twice**2 * rho, event.get("xi", 0.0))
        case {"kind": "skellam"}:
            one = _skellam(event["variance"], twice * event["l2"], twice * event["l1"])
        case {"kind": "randomized_response", "noise_parameter": p, "buckets": k}:
            one = dp_accounting.RandomizedResponseDpEvent(p, k)
        case {"kind": "fixed_size", "event": {"noise_multiplier": z}}:
            one = dp_accounting.SampledWithoutReplacementDpEvent(
                event["units"], event["size"], dp_accounting.GaussianDpEvent(z / twice)
            )
        case {"kind": "poisson", "rate": rate, "event": inner} if twice == 1:
            if inner["kind"] == "pure":
                one = dp_accounting.ZCDpEvent(
                    _amplified(rate, inner["epsilon"]) ** 2 / 2
                )
            else:
                gaussian = dp_accounting.GaussianDpEvent(inner["noise_multiplier"])
                one = dp_accounting.PoissonSampledDpEvent(rate, gaussian)
        case _:
            raise Unsupported(
                f"no Renyi divergence is known for {event['kind']} under {neighbours}."
            )
    yield dp_accounting.SelfComposedDpEvent(one, count)


def _skellam(variance: float, l2: float, l1: float) -> Any:
    """Agarwal, Kairouz and Liu 2021, theorem 3.5, which is linear in integer orders:
    a l2^2 / 2v + min(((2a - 1) l2^2 + 6 l1) / 4v^2, 3 l1 / 2v).
    """
    rho = l2**2 / (2 * variance)
    fine = (l2**2 / (2 * variance**2), max(6 * l1 - l2**2, 0) / (4 * variance**2))
    coarse = (0.0, 3 * l1 / (2 * variance))
    # Compared at order 8, which is typical; each of the two is a bound at all orders.
    more, xi = min(fine, coarse, key=lambda line: 8 * line[0] + line[1])
    return dp_accounting.ZCDpEvent(rho + more, xi)


# The theorem on Skellam noise is about integers; so are all orders that are used.
ORDERS = np.array([*range(2, 65), 80, 96, 128, 192, 256, 384, 512, 768, 1024])
_DEFAULT_ORDERS = None


def rdp_epsilon(
    parts: Sequence[tuple[Event, int]], delta: float, neighbours: str, integers: bool
) -> float:
    """Epsilon of events, each so many times, by adding up their Renyi divergences.

    Args:
      integers: whether whole orders are enough, which take no series.
    """
    kinds = {e.get("event", e)["kind"] for e, _ in parts}
    orders = ORDERS if integers or "skellam" in kinds else _DEFAULT_ORDERS
    if neighbours == "replace_one":  # a bin for a bin: nothing better is known
        parts = [(unamplified(e), n) for e, n in parts]
    allocated = [(e, n) for e, n in parts if e["kind"] == "balls_in_bins"]
    if allocated:
        orders = np.array(allocation.ORDERS)
    accountant = rdp.RdpAccountant(
        orders=orders, neighboring_relation=NEIGHBOURS[neighbours]
    )
    for event, count in parts:
        if event["kind"] != "balls_in_bins":
            for one in to_rdp(event, count, neighbours):
                accountant.compose(one)
    curve = accountant.rdp
    for event, count in allocated:
        z = event["event"]["noise_multiplier"]
        curve = curve + count * allocation.divergences(z, event["bins"])
    return float(rdp.compute_epsilon(accountant.orders, curve, delta)[0])


# -- the Gaussian approximation --------------------------------------------------------


def gdp_mu(event: Event, count: int, neighbours: str) -> float:
    """mu of Gaussian DP, by the central limit theorem where units are sampled.

    Bu, Dong, Long and Su 2020, "Deep learning with Gaussian differential privacy":
    mu = rate sqrt(count (exp(1 / z^2) - 1)). An approximation and no bound.
    """
    twice = 2 if neighbours == "replace_one" else 1
    match event:
        case {"kind": "once", "event": inner}:
            return gdp_mu(inner, count, neighbours)
        case {"kind": "gaussian", "noise_multiplier": z}:
            return twice * math.sqrt(count) / z
        case {"kind": "poisson", "rate": rate, "event": {"noise_multiplier": z}}:
            if twice == 1:
                return rate * math.sqrt(count * math.expm1(1 / z**2))
    raise Unsupported(f"no Gaussian approximation is known for {event['kind']}.")
