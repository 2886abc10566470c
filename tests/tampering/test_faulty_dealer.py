"""With `preprocessing="sacrifice"` errors of the dealer in products are caught."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import privjax
from privjax.protocols.spdz2k import tuples
from privjax.protocols.tuples import Product

X = np.array([[0.5, -1.25, 2.0], [3.0, 0.75, -0.5]], np.float32)
SMALL = privjax.FixedPoint(32, 9)


def products(x: Any) -> Any:
    """A square, an elementwise product and a contraction, in a loop."""

    def step(carry: Any, row: Any) -> Any:
        return carry * row + row * row, row @ carry

    return lax.scan(step, jnp.ones(3), x)[1]


@pytest.mark.parametrize("fixed_point", [SMALL, privjax.FixedPoint()], ids=str)
def test_an_honest_dealer(fixed_point: Any) -> None:
    shared = privjax.secret_shared(
        products, fixed_point=fixed_point, preprocessing="sacrifice"
    )
    np.testing.assert_allclose(shared(X), products(X), atol=0.05)


# The product whose triples are wrong, and what is added to the first entry of c (and of
# the c' that is sacrificed for it), mod 2^64.
ERRORS = [
    ("mul", 1),
    ("mul", 2**31),
    ("dot_general", 2**31),
    ("dot_general", 2**63 + 5),
]


@pytest.mark.parametrize("name, error", ERRORS)
def test_a_wrong_triple(name: str, error: int, monkeypatch: pytest.MonkeyPatch) -> None:
    right = tuples.WholeProduct.clear

    def wrong(self: Any, a: Any, b: Any) -> list[Any]:
        (c,) = right(self, a, b)
        if self.op.name != name:
            return [c]
        return [c.at[(0,) * c.ndim].add(jnp.array(error, c.dtype))]

    monkeypatch.setattr(tuples.WholeProduct, "clear", wrong)
    shared = privjax.secret_shared(
        lambda x: (x * x.sum(), x @ x.T), fixed_point=SMALL, preprocessing="sacrifice"
    )
    with pytest.raises(privjax.MacCheckError):
        shared(X)


def test_who_trusts_the_dealer_does_not_see_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the option is for: a wrong product with right MACs passes all other checks."""
    right = Product.clear
    monkeypatch.setattr(
        Product, "clear", lambda s, a, b: [right(s, a, b)[0] + (1 << 40)]
    )
    got = privjax.secret_shared(lambda x, y: x * y)(X, X)
    assert (np.abs(got - X * X) > 1).all()


def test_it_costs_a_round_for_the_coin_and_none_for_a_product() -> None:
    plain, sure = (
        privjax.secret_shared(lambda x, y: x * y, preprocessing=p).cost(X, X)
        for p in ("dealer", "sacrifice")
    )
    assert sure.rounds == plain.rounds + 1
    assert sure.dealt_bits > 1.5 * plain.dealt_bits


def test_other_protocols_have_nothing_to_check_with() -> None:
    with pytest.raises(privjax.ProtocolError, match="spdz2k"):
        privjax.secret_shared(jnp.sin, protocol="semi2k", preprocessing="sacrifice")
