"""The fixture ``world``: a uvloop reactor of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from uvreactor.uvworld import World


@pytest.fixture
def world() -> Iterator[World]:
    from uvreactor.uvworld import World

    world = World()
    yield world
    world.close()
