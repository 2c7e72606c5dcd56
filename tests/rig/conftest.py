"""The rig for tests: the one that runs, or one that is started for this session and ended after it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from mcrig import availability
from mcrig import rig as rigs


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of the rig run only when asked for (`-m rig`, or by their path): they take minutes and need root."""
    asked = "rig" in config.option.markexpr or any("tests/rig" in argument for argument in config.args)
    for item in items:
        if item.get_closest_marker("rig") and not asked:
            item.add_marker(pytest.mark.skip(reason="tests of the rig run with -m rig"))


@pytest.fixture(scope="session")
def rig() -> Iterator[rigs.Rig]:
    running = rigs.running()
    if running is not None:
        running.reset()
        yield running
        return
    if reasons := availability.reasons(need_cache=True):
        pytest.skip("the rig cannot run here: " + "; ".join(reasons))
    started = rigs.up(lambda text: print(text, file=sys.stderr))
    try:
        yield started
    finally:
        rigs.down()
        assert rigs.leftovers() == []


@pytest.fixture
def clean_rig(rig: rigs.Rig) -> Iterator[rigs.Rig]:
    """The rig without any fault, put back afterwards."""
    yield rig
    rig.reset()
