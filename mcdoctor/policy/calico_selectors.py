"""Calico's selector language: parsed into a small tree, evaluated on labels or compiled to bitsets over classes.

    or    = and { "||" and }
    and   = term { "&&" term }
    term  = { "!" } ( "has(" key ")" | "all()" | "global()" | "(" or ")" | key operator )
    operator = "==" text | "!=" text | "contains" text | "starts" "with" text | "ends" "with" text
             | "in" set | "not" "in" set
    set   = "{" [ text { "," text } [ "," ] ] "}"        text = "…" or '…', without escapes

Blanks are spaces and tabs. `!=` and `not in` also hold for a missing label, the other operators never do; `!` binds
tightest, but `!a == "x"` means not (a == "x"), since a label alone is no term. An empty selector is all().

Sources: projectcalico/calico `libcalico-go/lib/selector/{tokenizer,parser}`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, TypeAlias, assert_never

from mcdoctor.policy.index import Chosen

EQUAL, NOT_EQUAL = "==", "!="
CONTAINS, STARTS_WITH, ENDS_WITH = "contains", "starts with", "ends with"
DEEPEST = 100


class SelectorError(ValueError):
    """Not a selector; the message says why."""


@dataclass(frozen=True, slots=True)
class All:
    """Everything. In a namespace selector: whatever is in a namespace (see `scoped`)."""

    def __str__(self) -> str:
        return "all()"


@dataclass(frozen=True, slots=True)
class Global:
    """Whatever is in no namespace; only in namespace selectors (see `scoped`)."""

    def __str__(self) -> str:
        return "global()"


@dataclass(frozen=True, slots=True)
class Has:
    key: str

    def __str__(self) -> str:
        return f"has({self.key})"


@dataclass(frozen=True, slots=True)
class Compare:
    """`operator`: "==", "!=", "contains", "starts with" or "ends with"."""

    key: str
    operator: str
    value: str

    def __str__(self) -> str:
        return f"{self.key} {self.operator} {_quoted(self.value)}"


@dataclass(frozen=True, slots=True)
class Among:
    """`values` sorted and unique; `negated`: `not in`."""

    key: str
    values: tuple[str, ...]
    negated: bool = False

    def __str__(self) -> str:
        return f"{self.key} {'not in' if self.negated else 'in'} {{{', '.join(map(_quoted, self.values))}}}"


@dataclass(frozen=True, slots=True)
class Not:
    node: Node

    def __str__(self) -> str:
        return f"!{self.node}"


@dataclass(frozen=True, slots=True)
class And:
    nodes: tuple[Node, ...]

    def __str__(self) -> str:
        return f"({' && '.join(map(str, self.nodes))})"


@dataclass(frozen=True, slots=True)
class Or:
    nodes: tuple[Node, ...]

    def __str__(self) -> str:
        return f"({' || '.join(map(str, self.nodes))})"


Node: TypeAlias = All | Global | Has | Compare | Among | Not | And | Or


def _quoted(value: str) -> str:
    return f"'{value}'" if '"' in value else f'"{value}"'


# --- parsing -------------------------------------------------------------------------------------------------------

_SPACE = re.compile(r"[ \t]*")
_KEY = re.compile(r"[a-zA-Z0-9_./-]+")
_FUNCTION = re.compile(r"(?:(has)\([ \t]*([a-zA-Z0-9_./-]+)[ \t]*\)|(all|global)\([ \t]*\))")
_OPENED = re.compile(r"(has|all|global)\(")
_SYMBOL = re.compile(r"==|!=|&&|\|\||[(){},!]")
_OPERATOR = re.compile(r"(contains)|(starts)[ \t]*with|(ends)[ \t]*with|(not)[ \t]*in|(in)")


@dataclass(frozen=True, slots=True)
class _Token:
    """`kind`: a symbol, an operator word, "text", "key", "has", "all", "global" or "end"."""

    kind: str
    value: str = ""


def _tokens(text: str) -> Iterator[_Token]:
    position, after_key = 0, False
    while True:
        blank = _SPACE.match(text, position)
        position = blank.end() if blank else position
        if position >= len(text):
            yield _Token("end")
            return
        character = text[position]
        symbol = _SYMBOL.match(text, position)
        if symbol:
            token, position = _Token(symbol.group()), symbol.end()
        elif character in "\"'":
            end = text.find(character, position + 1)
            if end < 0:
                raise SelectorError("unterminated string")
            token, position = _Token("text", text[position + 1 : end]), end + 1
        elif character in "=&|":
            raise SelectorError(f"expected {character}{character}")
        elif after_key:  # an operator word needs no blank after it, so it comes before another key
            word = _OPERATOR.match(text, position)
            if not word:
                raise SelectorError(f"expected an operator at {text[position : position + 20]!r}")
            token, position = _Token(next(filter(None, word.groups()))), word.end()
        elif _OPENED.match(text, position):
            function = _FUNCTION.match(text, position)
            if not function:
                raise SelectorError(f"{text[position : position + 20]!r} is not has(key), all() or global()")
            token, position = _Token(function[1] or function[3], function[2] or ""), function.end()
        else:
            key = _KEY.match(text, position)
            if not key:
                raise SelectorError(f"unexpected characters {text[position : position + 20]!r}")
            token, position = _Token("key", key.group()), key.end()
        after_key = token.kind == "key"
        yield token


@dataclass(slots=True)
class _Parser:
    tokens: list[_Token]
    at: int = 0
    depth: int = 0

    def take(self, kind: str) -> bool:
        if self.tokens[self.at].kind == kind:
            self.at += 1
            return True
        return False

    def expect(self, kind: str) -> str:
        token = self.tokens[self.at]
        if token.kind != kind:
            raise SelectorError(f"expected {kind}, found {token.value or token.kind}")
        self.at += 1
        return token.value

    def disjunction(self) -> Node:
        found = [self.conjunction()]
        while self.take("||"):
            found.append(self.conjunction())
        return found[0] if len(found) == 1 else Or(tuple(found))

    def conjunction(self) -> Node:
        found = [self.term()]
        while self.take("&&"):
            found.append(self.term())
        return found[0] if len(found) == 1 else And(tuple(found))

    def term(self) -> Node:
        negated = False
        while self.take("!"):
            negated = not negated
        node = self.operand()
        return Not(node) if negated else node

    def operand(self) -> Node:
        token = self.tokens[self.at]
        self.at += 1
        match token.kind:
            case "has":
                return Has(token.value)
            case "all":
                return All()
            case "global":
                return Global()
            case "key":
                return self.comparison(token.value)
            case "(":
                self.depth += 1
                if self.depth > DEEPEST:
                    raise SelectorError(f"more than {DEEPEST} nested parentheses")
                node = self.disjunction()
                self.expect(")")
                self.depth -= 1
                return node
            case _:
                raise SelectorError(f"unexpected {token.value or token.kind}")

    def comparison(self, key: str) -> Node:
        token = self.tokens[self.at]
        self.at += 1
        match token.kind:
            case "==" | "!=" | "contains":
                return Compare(key, token.kind, self.expect("text"))
            case "starts":
                return Compare(key, STARTS_WITH, self.expect("text"))
            case "ends":
                return Compare(key, ENDS_WITH, self.expect("text"))
            case "in" | "not":
                self.expect("{")
                values: list[str] = []
                while self.tokens[self.at].kind == "text":
                    values.append(self.expect("text"))
                    if not self.take(","):
                        break
                self.expect("}")
                return Among(key, tuple(sorted(set(values))), token.kind == "not")
            case _:
                raise SelectorError(f"expected an operator after {key}, found {token.value or token.kind}")


@lru_cache(maxsize=20_000)
def parse(text: str) -> Node:
    """The tree of a selector; '' is all(). Raises SelectorError."""
    parser = _Parser(list(_tokens(text)))
    if parser.take("end"):
        return All()
    node = parser.disjunction()
    parser.expect("end")
    return node


# --- rewriting -----------------------------------------------------------------------------------------------------

NAMESPACE = "projectcalico.org/namespace"
SERVICE_ACCOUNT = "projectcalico.org/serviceaccount"
ORCHESTRATOR = "projectcalico.org/orchestrator"
NAME = "projectcalico.org/name"
OF_NAMESPACE, OF_SERVICE_ACCOUNT = "pcns.", "pcsa."


def scoped(node: Node, prefix: str, everything: Node) -> Node:
    """A selector over labels of namespaces or service accounts as one over endpoints, which inherit them prefixed.

    all() becomes `everything`, global() its opposite. Source: `updateprocessors/rules.go`, `getEndpointSelector`.
    """
    match node:
        case All():
            return everything
        case Global():
            return Not(everything)
        case Has():
            return Has(prefix + node.key)
        case Compare():
            return Compare(prefix + node.key, node.operator, node.value)
        case Among():
            return Among(prefix + node.key, node.values, node.negated)
        case Not():
            return Not(scoped(node.node, prefix, everything))
        case And():
            return And(tuple(scoped(each, prefix, everything) for each in node.nodes))
        case Or():
            return Or(tuple(scoped(each, prefix, everything) for each in node.nodes))
        case _:
            assert_never(node)


def has_global(node: Node) -> bool:
    """Is global() anywhere in it?"""
    match node:
        case Global():
            return True
        case Not():
            return has_global(node.node)
        case And() | Or():
            return any(map(has_global, node.nodes))
        case _:
            return False


def conjunction(nodes: list[Node]) -> Node:
    return All() if not nodes else nodes[0] if len(nodes) == 1 else And(tuple(nodes))


# --- evaluating ----------------------------------------------------------------------------------------------------


def _test(node: Has | Compare | Among) -> tuple[Callable[[str], bool], bool]:
    """(Does it hold for a label of this value, does it hold without the label)."""
    match node:
        case Has():
            return (lambda _: True), False
        case Among():
            values = frozenset(node.values)
            return (lambda v: v not in values, True) if node.negated else (lambda v: v in values, False)
        case Compare():
            wanted = node.value
            match node.operator:
                case "==":
                    return (lambda v: v == wanted), False
                case "!=":
                    return (lambda v: v != wanted), True
                case "contains":
                    return (lambda v: wanted in v), False
                case "starts with":
                    return (lambda v: v.startswith(wanted)), False
                case _:
                    return (lambda v: v.endswith(wanted)), False
        case _:
            assert_never(node)


def evaluate(node: Node, labels: Mapping[str, str], unseen: Callable[[str], bool] = lambda _: False) -> bool | None:
    """Does an endpoint with these labels match? None when it hangs on a label that is `unseen`."""
    match node:
        case All() | Global():
            return True
        case Not():
            inner = evaluate(node.node, labels, unseen)
            return None if inner is None else not inner
        case And() | Or():
            decisive = isinstance(node, Or)
            open_ = False
            for each in node.nodes:
                found = evaluate(each, labels, unseen)
                if found is decisive:
                    return decisive
                open_ = open_ or found is None
            return None if open_ else not decisive
        case Has() | Compare() | Among():
            if unseen(node.key):
                return None
            holds, missing = _test(node)
            value = labels.get(node.key)
            return missing if value is None else holds(value)
        case _:
            assert_never(node)


@dataclass(frozen=True, slots=True)
class Column:
    """One label key over all endpoints: value -> bitset; `unseen`: endpoints whose value is not known."""

    values: Mapping[str, int]
    unseen: int = 0


class Columns(Protocol):
    """The endpoints of a cluster by label; `everything` is the bitset of all of them."""

    @property
    def everything(self) -> int: ...

    def column(self, key: str) -> Column: ...


def compile_bits(node: Node, columns: Columns) -> Chosen:
    """The endpoints that match, as bitsets: surely, and perhaps."""
    everything = columns.everything
    match node:
        case All() | Global():
            return Chosen(everything)
        case Not():
            inner = compile_bits(node.node, columns)
            return Chosen(everything & ~inner.bits & ~inner.maybe, inner.maybe)
        case And() | Or():
            conjoined = isinstance(node, And)
            surely, possible = (everything, everything) if conjoined else (0, 0)
            for each in node.nodes:
                found = compile_bits(each, columns)
                either = found.bits | found.maybe
                surely = surely & found.bits if conjoined else surely | found.bits
                possible = possible & either if conjoined else possible | either
            return Chosen(surely, possible & ~surely)
        case Has() | Compare() | Among():
            column = columns.column(node.key)
            holds, missing = _test(node)
            bits = present = 0
            for value, those in column.values.items():
                present |= those
                if holds(value):
                    bits |= those
            if missing:
                bits |= everything & ~present & ~column.unseen
            return Chosen(bits & everything, column.unseen & everything)
        case _:
            assert_never(node)
