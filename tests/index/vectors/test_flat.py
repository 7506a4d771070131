"""Products with one query, without an index."""

from __future__ import annotations

import numpy as np
import pytest

from index.vectors.flat import inner_products


@pytest.mark.parametrize(("n", "dim"), [(0, 8), (1, 1), (5, 3), (1000, 384)])
def test_inner_products_are_those_of_a_matrix_product(n: int, dim: int) -> None:
    rng = np.random.default_rng(n)
    vectors, query = rng.normal(size=(n, dim)).astype(np.float32), rng.normal(size=dim).astype(np.float32)
    vectors.flags.writeable = False  # a memory map is read-only
    out = np.full(n + 1, 7, np.float32)
    inner_products(vectors, query, out[:n])
    np.testing.assert_allclose(out[:n], vectors @ query, rtol=1e-4, atol=1e-4)
    assert out[n] == 7


def test_inner_products_refuse_other_layouts() -> None:
    vectors = np.ones((4, 3), np.float32)
    for wrong in (vectors[:, ::-1], vectors.astype(np.float64), np.ones((4, 2), np.float32)):
        with pytest.raises(ValueError, match="vectors"):
            inner_products(wrong, np.ones(3, np.float32), np.empty(4, np.float32))
