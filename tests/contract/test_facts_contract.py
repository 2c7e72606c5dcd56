"""Every fact kind survives its JSON form; the generated pages say what the code says."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcdoctor.docsgen import facts_page, pages, stale
from mcdoctor.models.facts import KINDS, PROBED, READ, Fact
from mcdoctor.models.record import from_record, to_line, to_record
from mcdoctor.reports.describe import describe, place
from mcdoctor_checks import CHECKS
from mcdoctor_playbooks import load

DOCS = Path(__file__).parents[2] / "docs"

_TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | _TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_TEXT, inner, max_size=2),
    max_leaves=4,
)


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a type hint of a fact's field."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (types.UnionType, typing.Union):
        return st.one_of(*(values(a) for a in arguments))
    if origin is tuple:
        return st.lists(values(arguments[0]), max_size=2).map(tuple)
    if origin is not None and issubclass(origin, Mapping):
        return st.dictionaries(_TEXT, values(arguments[1]), max_size=2)
    if dataclasses.is_dataclass(hint):
        return instances(hint)
    if hint is datetime:
        whole = st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
        return whole.map(lambda t: t.replace(microsecond=t.microsecond // 1000 * 1000))
    simple: dict[Any, st.SearchStrategy[Any]] = {
        str: _TEXT,
        int: st.integers(-(2**40), 2**40),
        float: st.floats(-1e9, 1e9, allow_nan=False),
        bool: st.booleans(),
        Any: _JSON,
        types.NoneType: st.none(),
    }
    return simple[hint]


def instances(cls: Any) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(cls)
    return st.builds(cls, **{f.name: values(hints[f.name]) for f in dataclasses.fields(cls)})


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_fact_survives_its_json_form(kind: str, data: st.DataObject) -> None:
    fact: Fact = data.draw(instances(KINDS[kind]))
    line = to_line(fact)
    assert "\n" not in line
    again = from_record(json.loads(line))
    assert again == fact
    assert to_record(again) == to_record(fact)
    assert isinstance(fact.subject, str)
    for language in ("en", "ko"):
        told = f"{describe(fact, language)} {place(fact.vantage, language)}"
        assert told.strip()
        assert told.isprintable() or not [c for c in told if unicodedata.category(c) in ("Cc", "Zl", "Zp", "Cs")]


def test_kinds_are_unique_and_whole() -> None:
    assert len(KINDS) == len(PROBED) + len(READ)
    assert all(cls.KIND and cls.__doc__ for cls in KINDS.values())


def test_every_kind_is_documented() -> None:
    page = facts_page()
    for kind, cls in KINDS.items():
        section = page.split(f"### `{kind}`\n", 1)[1].split("\n### ", 1)[0]
        for field in dataclasses.fields(cls):
            if field.name not in ("at", "vantage"):
                assert f"| `{field.metadata.get('json', field.name)}` |" in section, f"{kind}.{field.name}"


def test_pages_are_fresh() -> None:
    """`python -m mcdoctor.docsgen --write` mends it."""
    assert list(stale(DOCS, pages(CHECKS, load()))) == []


def test_a_stale_page_is_told(tmp_path: Path) -> None:
    wanted = {"facts.md": "new\n", "checks/a-b.md": "new\n"}
    (tmp_path / "checks").mkdir()
    (tmp_path / "facts.md").write_text("old\n")
    (tmp_path / "checks" / "gone-now.md").write_text("old\n")
    assert dict(stale(tmp_path, wanted)) == {
        "facts.md": "is stale",
        "checks/a-b.md": "is missing",
        "checks/gone-now.md": "belongs to no check",
    }
