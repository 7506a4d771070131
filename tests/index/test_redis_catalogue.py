from __future__ import annotations

import pytest

from index.redis_catalogue import RedisCatalogue
from tests.contracts.catalogue_contract import CatalogueContract


def open_or_create(url: str) -> RedisCatalogue:
    return RedisCatalogue(url, create=True)


class TestRedisCatalogue(CatalogueContract):
    factory = "tests.index.test_redis_catalogue:open_or_create"

    @pytest.fixture
    def location(self, redis_url: str) -> str:
        return redis_url
