"""Every case of the room: what it must say, what it must not, and the first cause."""

from __future__ import annotations

import pytest
from worlds import Case, cases, check


@pytest.mark.parametrize("case", cases("endpoints"), ids=lambda c: c.name)
def test_case(case: Case) -> None:
    check(case)
