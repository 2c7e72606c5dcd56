"""Calico's selector language: grammar, canonical form, evaluation and bitsets.

Source: projectcalico/calico `libcalico-go/lib/selector/{tokenizer,parser}` with their tests.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mcdoctor.policy.calico_selectors import (
    All,
    Among,
    And,
    Column,
    Compare,
    Global,
    Has,
    Node,
    Not,
    Or,
    SelectorError,
    compile_bits,
    evaluate,
    has_global,
    parse,
    scoped,
)

A, B, C = Has("a"), Has("b"), Has("c")


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("", All()),
        (" \t ", All()),
        ("all()", All()),
        ("all( )", All()),
        ("global()", Global()),
        ("has(a)", A),
        ("has( a/b.c-d_e )", Has("a/b.c-d_e")),
        ('a == "b"', Compare("a", "==", "b")),
        ("a=='b'", Compare("a", "==", "b")),
        ("a != ''", Compare("a", "!=", "")),
        ("""a == 'say "x"'""", Compare("a", "==", 'say "x"')),
        ('a == "&& || ) }"', Compare("a", "==", "&& || ) }")),
        ("a contains 'b'", Compare("a", "contains", "b")),
        ("a contains'b'", Compare("a", "contains", "b")),
        ("a starts with 'b'", Compare("a", "starts with", "b")),
        ("a startswith 'b'", Compare("a", "starts with", "b")),
        ("a ends \t with 'b'", Compare("a", "ends with", "b")),
        ("a in {'c', \"b\", 'c'}", Among("a", ("b", "c"))),
        ("a in{}", Among("a", ())),
        ("a in {'b',}", Among("a", ("b",))),
        ("a not in {'b'}", Among("a", ("b",), negated=True)),
        ("a notin {'b'}", Among("a", ("b",), negated=True)),
        ("in in {'in'}", Among("in", ("in",))),
        ("has == 'x'", Compare("has", "==", "x")),
        ("all != 'x'", Compare("all", "!=", "x")),
        ("not contains 'x'", Compare("not", "contains", "x")),
        ("!has(a)", Not(A)),
        ("!!has(a)", A),
        ("! ! !has(a)", Not(A)),
        ("!a == 'x'", Not(Compare("a", "==", "x"))),
        ("(has(a))", A),
        ("((has(a)))", A),
        ("!(has(a) || has(b))", Not(Or((A, B)))),
        ("has(a)&&has(b)&&has(c)", And((A, B, C))),
        ("has(a) || has(b) && has(c)", Or((A, And((B, C))))),
        ("(has(a) || has(b)) && has(c)", And((Or((A, B)), C))),
        ("!has(a) && has(b)", And((Not(A), B))),
    ],
)
def test_grammar(text: str, tree: Node) -> None:
    assert parse(text) == tree


@pytest.mark.parametrize(
    "text",
    [
        "a", "a ==", "a = 'b'", "a == b", "a == 'b", "'a' == 'b'", "a == 'b' c == 'd'", "a & b", "a | b", "&&", "has(a) &&",
        "has(a", "has()", "has (a)", "has('a')", "all", "all(", "all(x)", "global", "global(x)", "(has(a)", "has(a))", "()", "!", "! &&",
        "a in 'b'", "a in {b}", "a in {'b' 'c'}", "a in {,'b'}", "a in {'b'", "a not 'b'", "a not == 'b'", "a starts 'b'", "a with 'b'",
        "a like 'b'", "a == 'b'\n", "a\u00a0== 'b'", "ä == 'b'", "a@b == 'c'", "a == 'b';", "{}", ",", "(" * 101 + "has(a)" + ")" * 101, "\x00",
    ],
)  # fmt: skip
def test_what_is_no_selector(text: str) -> None:
    with pytest.raises(SelectorError):
        parse(text)


LABELS = {"a": "blue", "b": "", "c/d": "x"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a == 'blue'", True),
        ("a == 'red'", False),
        ("gone == 'blue'", False),
        ("a != 'red'", True),
        ("gone != 'red'", True),
        ("gone != ''", True),
        ("b == ''", True),
        ("has(b)", True),
        ("has(c/d)", True),
        ("has(gone)", False),
        ("a in {'red', 'blue'}", True),
        ("a in {}", False),
        ("gone in {''}", False),
        ("a not in {'blue'}", False),
        ("a not in {}", True),
        ("gone not in {'blue'}", True),
        ("a contains 'lu'", True),
        ("a contains ''", True),
        ("gone contains ''", False),
        ("a starts with 'bl'", True),
        ("a starts with 'l'", False),
        ("a ends with 'ue'", True),
        ("gone ends with ''", False),
        ("!gone contains 'x'", True),
        ("all()", True),
        ("!all()", False),
        ("has(gone) || has(a) && has(b)", True),
        ("(has(gone) || has(a)) && has(gone)", False),
    ],
)
def test_evaluation(text: str, expected: bool) -> None:
    assert evaluate(parse(text), LABELS) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("has(x)", None),
        ("!has(x)", None),
        ("x != 'y'", None),
        ("has(x) || has(a)", True),
        ("has(x) && has(gone)", False),
        ("has(x) && has(a)", None),
        ("!(has(x) && has(gone))", True),
    ],
)
def test_a_label_that_is_not_known_only_matters_where_it_decides(text: str, expected: bool | None) -> None:
    assert evaluate(parse(text), LABELS, lambda key: key == "x") is expected


def test_selectors_over_namespaces_become_selectors_over_endpoints() -> None:
    node = parse("team == 'a' && !(has(x) || tier in {'1'}) || all() || !has(y)")
    assert str(scoped(node, "pcns.", Has("ns"))) == (
        '((pcns.team == "a" && !(has(pcns.x) || pcns.tier in {"1"})) || has(ns) || !has(pcns.y))'
    )
    assert scoped(parse("global()"), "pcns.", Has("ns")) == Not(Has("ns"))
    assert has_global(parse("has(a) && !(has(b) || global())"))
    assert not has_global(parse("has(a) && !(has(b) || all())"))


# --- generated -----------------------------------------------------------------------------------------------------

KEYS, VALUES = ("a", "in", "has", "x/y"), ("", "v", "vw", "it's", 'say "x"')


@st.composite
def nodes(draw: st.DrawFn, depth: int = 3) -> Node:
    kind = draw(st.sampled_from(("all", "has", "compare", "among", "not", "and", "or")[: 7 if depth else 4]))
    key, value = draw(st.sampled_from(KEYS)), draw(st.sampled_from(VALUES))
    match kind:
        case "all":
            return All()
        case "has":
            return Has(key)
        case "compare":
            return Compare(key, draw(st.sampled_from(("==", "!=", "contains", "starts with", "ends with"))), value)
        case "among":
            return Among(key, tuple(sorted(draw(st.sets(st.sampled_from(VALUES))))), draw(st.booleans()))
        case "not":
            inner = draw(nodes(depth - 1))
            return inner if isinstance(inner, Not) else Not(inner)  # two negations are none
        case _:
            found = tuple(draw(st.lists(nodes(depth - 1), min_size=2, max_size=3)))
            return And(found) if kind == "and" else Or(found)


@settings(max_examples=100, deadline=None)
@given(nodes())
def test_the_canonical_form_reads_back(node: Node) -> None:
    assert parse(str(node)) == node
    spaceless = str(node).replace(" && ", "&&").replace(" || ", "||\t")
    assert parse(spaceless) == node


@dataclass(slots=True)
class Endpoints:
    """Endpoints by number; `unseen`: (number, key) pairs whose label is not known."""

    labels: list[dict[str, str]]
    unseen: set[tuple[int, str]] = field(default_factory=set)

    @property
    def everything(self) -> int:
        return (1 << len(self.labels)) - 1

    def column(self, key: str) -> Column:
        values: dict[str, int] = {}
        unseen = 0
        for number, labels in enumerate(self.labels):
            if (number, key) in self.unseen:
                unseen |= 1 << number
            elif key in labels:
                values[labels[key]] = values.get(labels[key], 0) | 1 << number
        return Column(values, unseen)


@settings(max_examples=100, deadline=None)
@given(nodes(), st.integers(min_value=0, max_value=10**6))
def test_bitsets_say_what_evaluation_says(node: Node, seed: int) -> None:
    rng = random.Random(seed)
    labels = [{key: rng.choice(VALUES) for key in KEYS if rng.random() < 0.6} for _ in range(9)]
    unseen = {(n, key) for n in range(9) for key in KEYS if rng.random() < 0.2}
    chosen = compile_bits(node, Endpoints(labels, unseen))
    assert not chosen.bits & chosen.maybe
    for number, own in enumerate(labels):

        def hidden(key: str, number: int = number) -> bool:
            return (number, key) in unseen

        expected = {True: (1, 0), False: (0, 0), None: (0, 1)}[evaluate(node, own, hidden)]
        assert (chosen.bits >> number & 1, chosen.maybe >> number & 1) == expected


PIECES = (
    "a", "has(a)", "has(", "all()", "global()", "==", "!=", "!", "&&", "||", "(", ")", "{", "}", ",", "'x'", '"y"', "'", " ", "in", "not",
    "contains", "starts with", "ends with", "\n", "é", "=", "&",
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(max_size=20))
@example("!" * 5000 + "has(a)")
@example("(" * 5000)
def test_any_text_is_a_selector_or_refused(text: str) -> None:
    try:
        node = parse(text)
    except SelectorError:
        return
    assert parse(str(node)) == node
