"""What several tests of processes need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.service.nursery import Nursery


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """Processes that end with the module's tests."""
    nursery = Nursery()
    yield nursery
    nursery.close()
