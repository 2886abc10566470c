"""The training loop: what it charges, its budget, resuming, and what it refuses."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privjax.accounting import Budget, BudgetError, Ledger
from privjax.dp import checkpoints as files
from privjax.dp.epochs import BallsInBins, Shuffled, Streamed
from privjax.dp.sampling import FixedSize, FullBatch, Poisson
from privjax.dp.training import fit
from privjax.errors import InputError
from privjax.prg import insecure_key
from privjax.transforms.differentially_private import differentially_private

UNITS = 64
rng = np.random.default_rng(0)
X = rng.normal(size=(UNITS, 3)).astype(np.float32)
DATA = {"x": X, "y": (X @ np.array([1.0, -2.0, 0.5], np.float32)).astype(np.float32)}
START = {"w": jnp.zeros(3)}
DELTA = 1e-3
QUIET = {"delta": DELTA, "progress": False}


def rows_loss(params, batch):
    return (batch["x"] @ params["w"] - batch["y"]) ** 2


def summing_step(params, batch):
    grads = jax.grad(lambda p: jnp.sum(rows_loss(p, batch)) / 16)(params)
    return jax.tree.map(lambda p, g: p - 0.2 * g, params, grads)


def plain_step(params, batch):
    grads = jax.grad(lambda p: jnp.mean(rows_loss(p, batch)))(params)
    return jax.tree.map(lambda p, g: p - 0.2 * g, params, grads)


def biased_step(params, batch):
    """Every row pulls, padding too."""
    grads = jax.grad(lambda p: jnp.sum((batch["x"] @ p["w"] - 1 + p["w"][0]) ** 2))(
        params
    )
    return jax.tree.map(lambda p, g: p - 0.2 * g, params, grads)


def private(step, noise=0.5, **options):
    return differentially_private(
        step, "batch", noise_multiplier=noise, clip_norm=2.0, denominator=16, **options
    )


SAMPLERS = [
    Poisson(UNITS, 0.25),
    FixedSize(UNITS, 16),
    BallsInBins(UNITS, 4),
    Shuffled(UNITS, 16),
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
def test_learns_and_charges_what_it_ran(sampler) -> None:
    seen = []
    result = fit(
        private(summing_step, 1.0),
        START,
        DATA,
        sampler=sampler,
        epochs=8,
        callbacks=[lambda r: seen.append((r.step, r.epsilon))],
        **QUIET,
    )
    assert result.steps == 32 == seen[-1][0] and len(seen) == 8
    before, after = (np.mean(rows_loss(p, DATA)) for p in (START, result.state))
    assert after < before / 3
    again = Ledger(sampler.neighbours[0])
    for event, count in sampler.charge(
        {"kind": "gaussian", "noise_multiplier": 1.0}, 32
    ):
        again.spend(event, count)
    assert result.epsilon == pytest.approx(again.epsilon(DELTA), rel=1e-6)
    assert [e for _, e in seen] == sorted(e for _, e in seen)
    assert seen[-1][1] == result.epsilon


def test_noise_for_an_epsilon() -> None:
    result = fit(
        private(summing_step),
        START,
        DATA,
        sampler=Poisson(UNITS, 0.25),
        steps=20,
        epsilon=3.0,
        **QUIET,
    )
    assert 2.9 < result.epsilon <= 3.0
    assert result.noise_multiplier != 0.5


def test_budget_is_refused_before_anything_runs() -> None:
    ledger = Ledger(budget=Budget(1.0, DELTA))
    called = []
    with pytest.raises(BudgetError):
        fit(
            private(summing_step),
            START,
            DATA,
            sampler=Poisson(UNITS, 0.25),
            steps=100,
            ledger=ledger,
            callbacks=[called.append],
            **QUIET,
        )
    assert ledger.entries == [] and called == []


def test_as_long_as_the_budget_lasts() -> None:
    ledger = Ledger(budget=Budget(4.0, DELTA))
    sampler = Poisson(UNITS, 0.25)
    step = private(summing_step, 2.0)
    result = fit(step, START, DATA, sampler=sampler, ledger=ledger, **QUIET)
    ((event, _),) = sampler.charge({"kind": "gaussian", "noise_multiplier": 2.0}, 1)
    assert result.epsilon <= 4.0 and ledger.steps(event) == 0


def test_a_callback_ends_the_run() -> None:
    result = fit(
        private(summing_step),
        START,
        DATA,
        sampler=FullBatch(UNITS),
        steps=50,
        callbacks=[lambda r: r.step >= 3],
        **QUIET,
    )
    assert result.steps == 3 and result.ledger.entries[0].count == 3


def test_resumes_and_keeps_what_was_spent(tmp_path) -> None:
    options = {
        "sampler": Poisson(UNITS, 0.25),
        "steps": 12,
        "epsilon": 3.0,
        "checkpoints": tmp_path,
        **QUIET,
    }
    stop = [lambda report: report.step >= 8]
    first = fit(private(summing_step), START, DATA, callbacks=stop, **options)
    assert first.steps == 8
    # A run that was charged for steps and died in them.
    ledger = files.load_ledger(tmp_path)
    ledger.spend(ledger.entries[0].event, 4)
    files.save_ledger(tmp_path, ledger)
    second = fit(private(summing_step), START, DATA, **options)
    assert second.steps == 12 and second.noise_multiplier == first.noise_multiplier
    assert second.ledger.entries[0].count == 16 and second.epsilon > 3.0
    third = fit(private(summing_step), START, DATA, **options)
    np.testing.assert_array_equal(third.state["w"], second.state["w"])
    assert third.ledger.entries[0].count == 16
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [
        "ledger.json",
        "state-00000008.json",
        "state-00000008.npz",
        "state-00000012.json",
        "state-00000012.npz",
    ]


def test_a_run_that_goes_on_with_its_key_draws_other_batches(tmp_path) -> None:
    """The ledger takes every draw for a new one."""
    drawn = []

    class Seen(Poisson):
        def rows(self, key, steps):
            for rows, keep in super().rows(key, steps):
                drawn.append(rows[keep > 0].tolist())
                yield rows, keep

    options = {"sampler": Seen(UNITS, 0.25), "checkpoints": tmp_path, **QUIET}
    key = insecure_key(3)
    for steps in (4, 8):
        fit(private(summing_step), START, DATA, steps=steps, key=key, **options)
    first, second = drawn[:4], drawn[-4:]
    assert len(drawn) >= 8 and not any(rows in first for rows in second)


def test_noise_and_batches_depend_on_the_key() -> None:
    def run(key):
        options = {"sampler": FixedSize(UNITS, 16), "steps": 3, "key": key, **QUIET}
        return np.asarray(fit(private(summing_step), START, DATA, **options).state["w"])

    np.testing.assert_array_equal(run(insecure_key(1)), run(insecure_key(1)))
    assert not np.array_equal(run(insecure_key(1)), run(insecure_key(2)))
    assert not np.array_equal(run(None), run(None))


def test_several_public_arguments() -> None:
    def step(params, count, batch):
        return summing_step(params, batch), count + 1

    result = fit(
        private(step),
        (START, jnp.zeros((), jnp.int32)),
        DATA,
        sampler=Poisson(UNITS, 0.25),
        steps=4,
        **QUIET,
    )
    assert int(result.state[1]) == 4
    with pytest.raises(InputError, match="tuple"):
        fit(
            private(step),
            (START,),
            DATA,
            sampler=Poisson(UNITS, 0.25),
            steps=1,
            **QUIET,
        )


def test_a_stream() -> None:
    units = [jax.tree.map(lambda a, i=i: a[i], DATA) for i in range(40)]
    result = fit(
        private(summing_step),
        START,
        iter(units),
        sampler=Streamed(16),
        steps=100,
        **QUIET,
    )
    assert result.steps == 3
    assert [(e.event["kind"], e.count) for e in result.ledger.entries] == [("once", 1)]


def test_progress_is_shown(capsys) -> None:
    options = {"sampler": FullBatch(UNITS), "steps": 2, "delta": DELTA}
    fit(private(summing_step), START, DATA, **options)
    assert "epsilon" in capsys.readouterr().out


def test_padding_counts_as_no_unit() -> None:
    """A loss that ignores the mask: only rows of data move the result."""
    step = private(biased_step, 0.0)
    sampler = Poisson(UNITS, 1e-9)
    result = fit(step, START, DATA, sampler=sampler, steps=1, **QUIET)
    np.testing.assert_array_equal(result.state["w"], START["w"])
    assert result.epsilon == np.inf


def test_the_mask_in_the_batch() -> None:
    def step(params, batch):
        assert set(batch) == {"x", "y", "kept"}
        return summing_step(params, batch)

    sampler = Poisson(UNITS, 0.25)
    fit(private(step), START, DATA, sampler=sampler, steps=1, mask="kept", **QUIET)


def test_adaptive_clipping(tmp_path) -> None:
    step = differentially_private(
        plain_step, clipping="adaptive", noise_multiplier=1.0, expected_units=16
    )
    options = {"sampler": Poisson(UNITS, 0.25), "checkpoints": tmp_path, **QUIET}
    fit(step, START, DATA, steps=4, **options)
    first = files.load_state(tmp_path, START).notes["clip_norm"]
    fit(step, START, DATA, steps=12, **options)
    second = files.load_state(tmp_path, START).notes["clip_norm"]
    assert len({1.0, first, second}) == 3


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"steps": 1, "epochs": 1}, "not both"),
        ({}, "budget to use up"),
        ({"steps": 1, "delta": 0.0}, "delta"),
        ({"steps": 1, "sampler": Shuffled(65, 16)}, "units"),
        (
            {"steps": 1, "ledger": Ledger(), "sampler": Shuffled(UNITS, 16)},
            "accounted for",
        ),
    ],
)
def test_refuses(options, why) -> None:
    given = {"sampler": Poisson(UNITS, 0.25), **QUIET, **options}
    with pytest.raises(InputError, match=why):
        fit(private(summing_step), START, DATA, **given)


def test_only_private_steps() -> None:
    with pytest.raises(InputError, match="differentially_private"):
        fit(summing_step, START, DATA, sampler=FullBatch(UNITS), steps=1, **QUIET)


def test_checkpoints_are_exact_and_checked(tmp_path) -> None:
    state = {
        "a": jnp.arange(3, dtype=jnp.bfloat16),
        "b": [jnp.float32(0.1), np.int32(7)],
    }
    files.save_state(tmp_path, state, 5, {"note": 1})
    found = files.load_state(tmp_path, state)
    assert found.step == 5 and found.notes == {"note": 1}
    assert jax.tree.structure(found.state) == jax.tree.structure(state)
    for a, b in zip(jax.tree.leaves(found.state), jax.tree.leaves(state), strict=True):
        assert a.dtype == jnp.asarray(b).dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    assert files.load_state(tmp_path / "none", state) is None
    with pytest.raises(InputError, match="another structure"):
        files.load_state(tmp_path, {"a": state["a"]})
    with pytest.raises(InputError, match="keys out of files"):
        files.save_state(tmp_path, {"k": insecure_key(0)}, 6, {})
    path = tmp_path / "state-00000005.npz"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="damaged"):
        files.load_state(tmp_path, state)
    meta = tmp_path / "state-00000005.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "version": 9}))
    with pytest.raises(InputError, match="version"):
        files.load_state(tmp_path, state)
