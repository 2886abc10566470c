"""`explain` and `stages` say what is so, for every transformation."""

import fast
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import privjax

W = np.zeros((3, 1), np.float32)
BATCH = (np.ones((8, 3), np.float32), np.ones((8, 1), np.float32))
CLIENTS = jax.tree.map(lambda a: a.reshape(2, 4, *a.shape[1:]), BATCH)


def update(w, batch):
    x, y = batch
    return w - 0.1 * jax.grad(lambda w: jnp.mean((x @ w - y) ** 2))(w)


def with_count(w, batch, count):
    return update(w, batch), count + 1


PRIVATE = privjax.differentially_private(update, noise_multiplier=1.0)
DP = privjax.differentially_private(with_count, private="batch")
FEDERATED = privjax.federated(PRIVATE, clients="batch", aggregate="secure")


def relu_sum(x, w):
    h = jax.nn.relu(x @ w)
    return h, privjax.reveal(h.sum()), jnp.ones(2)


SHARED = fast.secret_shared(relu_sum, owners={"w": 1})


def labels(entries):
    return {e.name: e.label for e in entries}


def test_secret_shared():
    report = privjax.explain(SHARED, BATCH[0], W)
    assert labels(report.inputs) == {
        "x": "secret, held by party 0",
        "w": "secret, held by party 1",
    }
    assert labels(report.outputs) == {
        "result[0]": "revealed to all parties",
        "result[1]": "public",
        "result[2]": "public",
    }
    assert any("reveal" in r and "test_reports.py" in r for r in report.releases)
    # Input, product, 1 + 6 for the sign, selection, opening of result and sum.
    assert report.cost.rounds == 10
    assert report.cost == SHARED.cost(BATCH[0], W)
    for text in ("rounds", "ring of 64", "dealer"):
        assert text in str(report)


def test_bytes_of_a_product_by_hand():
    """x and y of 4 elements: two inputs and one result of 8 bytes, two masked factors."""
    fun = fast.secret_shared(lambda x, y: x * y)
    x = np.ones(4, np.float32)
    cost = fun.cost(x, x)
    from_owner, by_all = 2 * 4 * 64, 2 * (2 * 4 * 64) + 2 * 4 * 64
    assert cost.rounds == 3
    assert cost.sent_bits == from_owner + by_all
    # Two masks told to the owner, and the product's correction to the last party.
    assert cost.dealt_bits == 3 * 4 * 64


def test_cost_multiplies_through_loops():
    def loop(x):
        return jax.lax.scan(lambda c, _: (c * x, None), x, None, length=5)[0]

    once = fast.secret_shared(lambda x: x * x * x).cost(W)
    assert fast.secret_shared(loop).cost(W).rounds > 5 * (once.rounds - 4)


BRANCHES = jnp.sin, jnp.cos, jnp.tanh


@pytest.mark.parametrize(
    "fun, comparisons",
    [
        (lambda x: jax.lax.cond(x[0, 0] > 0, *BRANCHES[:2], x), 1),
        (lambda x: jax.lax.switch(jnp.int32(x[0, 0] > 0) + 1, BRANCHES, x), 1 + 2 + 2),
    ],
    ids=["cond", "switch"],
)
def test_passes_add_no_comparisons_of_a_branch_index(fun, comparisons):
    """A predicate takes none, an index two to keep it in its range and two to select."""
    stages = fast.secret_shared(fun).stage_jaxprs(W)
    names = [e.primitive.name for e in stages["simplified"].eqns]
    assert sum(n in ("lt", "gt", "le", "ge", "eq") for n in names) == comparisons


def test_differentially_private():
    report = privjax.explain(DP, W, BATCH, np.int32(0))
    assert labels(report.inputs)["batch[0]"] == "private: 8 units on axis 0"
    assert labels(report.outputs) == {
        "result[0]": "from released sums",
        "result[1]": "independent of the private data",
    }
    assert "test_reports.py" in str(report) and "clip norm 1" in str(report)


def test_a_report_shows_what_is_inside():
    report = privjax.explain(FEDERATED, W, CLIENTS)
    assert "2 clients" in report.title
    assert "differentially private" in report.inner.title
    assert report.inner.title in str(report)


@pytest.mark.parametrize(
    "fun, args, markers",
    [
        (SHARED, (BATCH[0], W), {"shared": ["uniform", "dealt", "open"]}),
        (PRIVATE, (W, BATCH), {"rewritten": ["noise"]}),
        (FEDERATED, (W, CLIENTS), {"rewritten": ["aggregate", "noise"]}),
    ],
)
def test_stages_print_and_return_every_pass(fun, args, markers, capsys):
    found = privjax.stages(fun)(*args)
    printed = capsys.readouterr().out
    assert found.names[0] == "traced" and len(found) >= 2
    for name in found.names:
        assert f"-- {name} --" in printed
    for stage, names in markers.items():
        for name in names:
            assert f" {name}[" in str(found[stage])


def test_scheduling_keeps_opens_and_saves_rounds():
    stages = SHARED.stage_jaxprs(BATCH[0], W)
    count = {
        name: [e.primitive.name for e in stages[name].eqns].count("open")
        for name in ("shared", "scheduled")
    }
    assert count["scheduled"] == SHARED.cost(BATCH[0], W).rounds < count["shared"]
