"""The bundled tables: shapes, splits, standardisation, and damage that is noticed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from privjax.datasets import Dataset, boston_housing, pima_diabetes
from privjax.datasets.tables import read_table, split, zeros_to_median
from privjax.errors import DatasetError, PrivacyError

Loader = Callable[[], Dataset]

# loader, training rows, test rows, features, sum of the target over all rows. The sums
# are facts of the published tables: 268 women with diabetes, mean home value 22.5328.
CASES = [
    pytest.param(boston_housing, 404, 102, 13, 11401.6, id="boston"),
    pytest.param(lambda: boston_housing(drop_b=True), 404, 102, 12, 11401.6, id="no_b"),
    pytest.param(lambda: boston_housing(seed=7), 404, 102, 13, 11401.6, id="seed"),
    pytest.param(pima_diabetes, 614, 154, 8, 268, id="pima"),
    pytest.param(lambda: pima_diabetes(impute=False), 614, 154, 8, 268, id="zeros"),
]


@pytest.mark.parametrize(("load", "n_train", "n_test", "features", "total"), CASES)
def test_shapes_types_and_statistics(
    load: Loader, n_train: int, n_test: int, features: int, total: float
) -> None:
    d = load()
    shapes = [a.shape for a in (d.x_train, d.y_train, d.x_test, d.y_test)]
    assert shapes == [(n_train, features), (n_train,), (n_test, features), (n_test,)]
    for array in (d.x_train, d.y_train, d.x_test, d.y_test):
        assert array.dtype == np.float32
        assert np.isfinite(array).all()
        assert not array.flags.writeable
    assert len(d.feature_names) == features
    assert d.target_name not in d.feature_names
    y = np.concatenate([d.y_train, d.y_test]).astype(np.float64)
    np.testing.assert_allclose(y.sum(), total, rtol=1e-6)
    scaled = np.array([name != "chas" for name in d.feature_names])
    x = d.x_train[:, scaled].astype(np.float64)
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(x.std(axis=0), 1, atol=1e-6)


def test_boston_keeps_the_binary_column_and_drops_only_b() -> None:
    full, less = boston_housing(), boston_housing(drop_b=True)
    chas = full.feature_names.index("chas")
    assert {*full.x_train[:, chas].tolist()} == {0.0, 1.0}
    column = full.feature_names.index("b")
    assert less.feature_names == tuple(n for n in full.feature_names if n != "b")
    np.testing.assert_array_equal(less.x_train, np.delete(full.x_train, column, axis=1))
    np.testing.assert_array_equal(less.y_test, full.y_test)


def test_pima_labels_and_missing_values() -> None:
    """Where the file has zeros, an imputed column has one value, its median."""
    kept, filled = pima_diabetes(impute=False), pima_diabetes()
    assert {*kept.y_train.tolist()} == {0.0, 1.0}
    insulin = kept.feature_names.index("insulin")
    zeros = kept.x_train[:, insulin] == kept.x_train[:, insulin].min()
    assert 200 < zeros.sum() < 374
    assert np.unique(filled.x_train[zeros, insulin]).size == 1
    age = kept.feature_names.index("age")
    np.testing.assert_array_equal(kept.x_test[:, age], filled.x_test[:, age])


@pytest.mark.parametrize("load", [boston_housing, pima_diabetes])
def test_the_seed_decides_the_split(load: Callable[..., Dataset]) -> None:
    first, again, other = load(seed=3), load(seed=3), load(seed=4)
    np.testing.assert_array_equal(first.x_train, again.x_train)
    assert not np.array_equal(first.y_train, other.y_train)


def test_split_is_a_partition() -> None:
    rows = np.arange(10.0)[:, None]
    train, test = split(rows, 8, seed=1)
    assert sorted(np.concatenate([train, test]).ravel()) == list(range(10))
    order = np.random.default_rng(1).permutation(10)
    np.testing.assert_array_equal(train.ravel(), order[:8])


def test_medians_come_from_measured_training_values() -> None:
    train = np.array([[0.0, 0.0], [1.0, 5.0], [3.0, 6.0], [8.0, 7.0]])
    test = np.array([[0.0, 0.0], [100.0, 9.0]])
    new_train, new_test = zeros_to_median(train, test, [0])
    np.testing.assert_array_equal(new_train[:, 0], [3, 1, 3, 8])
    np.testing.assert_array_equal(new_test, [[3, 0], [100, 9]])
    assert train[0, 0] == 0, "the caller's array is left alone"


DAMAGED = [
    ("", "cannot be read"),
    ("a,b\n1,2\n3,x\n", "cannot be read"),
    ("a,b\n1,2\n3\n", "cannot be read"),
    ("a,c\n1,2\n3,4\n", "its header is 'a,c'"),
    ("a,b\n1,2\n", r"shape is \(1, 2\), not \(2, 2\)"),
    ("a,b\n1,2,3\n4,5,6\n", r"shape is \(2, 3\), not \(2, 2\)"),
    ("a,b\n1,2\n3,nan\n", "line 3 has a value that is not finite"),
    ("a,b\ninf,2\n3,4\n", "line 2 has a value that is not finite"),
]


@pytest.mark.parametrize(("text", "message"), DAMAGED)
def test_a_damaged_file_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError, match=message):
        read_table(path, ["a", "b"], rows=2)


def test_missing_and_binary_files_are_errors(tmp_path: Path) -> None:
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    for name in ("binary.csv", "absent.csv"):
        with pytest.raises(PrivacyError, match=f"{name} cannot be read"):
            read_table(tmp_path / name, ["a"], rows=1)
