"""Playbooks as data: one YAML file a symptom, and the sentences of findings under findings/.

`load()` reads all of them into a `Library`. Reading is strict: an unknown key, a missing language, an undefined
`use:`, a repeated id or a bad slug raises `BadPlaybook`, which names the file and the id.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar

from mcdoctor.models.ids import Hop, Risk, Severity, Symptom, slug
from mcdoctor.models.playbook import Cause, FindingText, Library, Playbook, Remedy, Text

E = TypeVar("E", Hop, Risk, Severity, Symptom)

_SLOT = re.compile(r"(?<!\{)\{([a-z_]+)\}(?!\})")
_CAUSE_KEYS = frozenset(
    {
        *("id", "hop", "layer", "summary", "confirm", "remedies", "symptoms", "supports", "refs"),
        *("when_all", "when_any", "against", "unless", "proved_by", "wants", "explains"),
    }
)
_FINDING_LISTS = ("when_all", "when_any", "against", "unless", "proved_by", "wants", "explains")


class BadPlaybook(ValueError):
    """A playbook file does not have its shape; the text names the file and the id."""


def slots(text: str) -> frozenset[str]:
    """The names in braces of a text."""
    return frozenset(_SLOT.findall(text))


@cache
def load() -> Library:
    """Every playbook, cause and finding sentence of this package; works from a zip too. Raises BadPlaybook."""
    root = files(__name__)
    playbooks = sorted(f.name for f in root.iterdir() if f.name.endswith(".yaml"))
    sentences = root / "findings"
    rooms = sorted(f.name for f in sentences.iterdir() if f.name.endswith(".yaml")) if sentences.is_dir() else []
    return read(
        {name: (root / name).read_text("utf-8") for name in playbooks},
        {f"findings/{name}": (sentences / name).read_text("utf-8") for name in rooms},
    )


def read(playbooks: Mapping[str, str], sentences: Mapping[str, str]) -> Library:
    """The library of YAML texts by file name. Raises BadPlaybook."""
    causes: dict[str, Cause] = {}
    books: dict[Symptom, Playbook] = {}
    used: list[tuple[str, str]] = []
    for file, text in playbooks.items():
        book = _playbook(file, _parse(file, text), causes, used)
        if book.symptom in books:
            raise BadPlaybook(f"{file}: symptom {book.symptom} has a playbook already")
        books[book.symptom] = book
    for file, cause in used:
        if cause not in causes:
            raise BadPlaybook(f"{file}: use: {cause} is defined in no playbook")
    findings: dict[str, FindingText] = {}
    for file, text in sentences.items():
        for finding in _sentences(file, _parse(file, text)):
            if finding.id in findings:
                raise BadPlaybook(f"{file}: {finding.id} has a sentence already")
            findings[finding.id] = finding
    return Library(playbooks=books, causes={i: _in_symptoms(c, books.values()) for i, c in causes.items()},
                   findings=findings)  # fmt: skip


def _in_symptoms(cause: Cause, books: Iterable[Playbook]) -> Cause:
    """A cause that names no symptoms belongs to those whose playbooks list it."""
    if cause.symptoms:
        return cause
    return replace(cause, symptoms=tuple(b.symptom for b in books if cause.id in b.causes))


def _parse(file: str, text: str) -> Any:
    import yaml

    class Strict(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # either has the same interface
        """Refuses a key that stands twice in one mapping."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [key.value for key, _ in node.value]
            if len(keys) != len(set(keys)):
                twice = next(k for k in keys if keys.count(k) > 1)
                raise BadPlaybook(f"{file}: line {node.start_mark.line + 1}: {twice} stands twice")
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(text, Strict)  # noqa: S506  # a safe loader
    except yaml.YAMLError as error:
        raise BadPlaybook(f"{file}: {' '.join(str(error).split())}") from None


def _playbook(file: str, data: Any, causes: dict[str, Cause], used: list[tuple[str, str]]) -> Playbook:
    book = _mapping(file, data, {"symptom", "title", "look", "causes"})
    symptom = _enum(Symptom, book.get("symptom"), f"{file}: symptom")
    order: list[str] = []
    entries = book.get("causes")
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        raise BadPlaybook(f"{file}: causes must be a list with at least one cause")
    for entry in entries:
        if isinstance(entry, Mapping) and "use" in entry:
            _mapping(f"{file}: use", entry, {"use"})
            name = _slug(entry["use"], f"{file}: use")
            used.append((file, name))
        else:
            cause = _cause(file, entry)
            name = cause.id
            if name in causes:
                raise BadPlaybook(f"{file}: {name}: is defined already; write use: {name}")
            causes[name] = cause
        if name in order:
            raise BadPlaybook(f"{file}: {name}: is listed twice")
        order.append(name)
    return Playbook(
        symptom=symptom,
        title=_text(book.get("title"), f"{file}: title"),
        look=_text(book.get("look"), f"{file}: look"),
        causes=tuple(order),
    )


def _cause(file: str, data: Any) -> Cause:
    where = f"{file}: {data['id']}" if isinstance(data, Mapping) and "id" in data else f"{file}: a cause"
    entry = _mapping(where, data, _CAUSE_KEYS)
    layer = entry.get("layer")
    if not isinstance(layer, str) or not layer:
        raise BadPlaybook(f"{where}: layer is missing")
    supports = entry.get("supports", True)
    if not isinstance(supports, bool):
        raise BadPlaybook(f"{where}: supports must be true or false")
    lists = {key: tuple(_slug(f, f"{where}: {key}") for f in _list(entry, key, where)) for key in _FINDING_LISTS}
    if not (lists["when_all"] or lists["when_any"] or lists["proved_by"]):
        raise BadPlaybook(f"{where}: has neither when_all, when_any nor proved_by: it could never match")
    return Cause(
        id=_slug(entry.get("id"), f"{where}: id"),
        hop=_enum(Hop, entry.get("hop"), f"{where}: hop"),
        layer=layer,
        summary=_text(entry.get("summary"), f"{where}: summary"),
        confirm=_text(entry.get("confirm"), f"{where}: confirm"),
        remedies=tuple(_remedy(r, f"{where}: remedies") for r in _list(entry, "remedies", where)),
        symptoms=tuple(_enum(Symptom, s, f"{where}: symptoms") for s in _list(entry, "symptoms", where)),
        supports=supports,
        refs=tuple(_plain(r, f"{where}: refs") for r in _list(entry, "refs", where)),
        **lists,
    )


def _remedy(data: Any, where: str) -> Remedy:
    entry = _mapping(where, data, {"text", "commands", "risk", "object"})
    manifest = entry.get("object")
    return Remedy(
        text=_text(entry.get("text"), f"{where}: text"),
        commands=tuple(_plain(c, f"{where}: commands") for c in _list(entry, "commands", where)),
        risk=_enum(Risk, entry.get("risk", "reversible"), f"{where}: risk"),
        object=None if manifest is None else _plain(manifest, f"{where}: object"),
    )


def _sentences(file: str, data: Any) -> Iterable[FindingText]:
    if not isinstance(data, list):
        raise BadPlaybook(f"{file}: must be a list of sentences")
    for item in data:
        where = f"{file}: {item['id']}" if isinstance(item, Mapping) and "id" in item else f"{file}: a sentence"
        entry = _mapping(where, item, {"id", "text", "severity", "wanted"})
        severity = entry.get("severity")
        yield FindingText(
            id=_slug(entry.get("id"), f"{where}: id"),
            text=_text(entry.get("text"), f"{where}: text"),
            wanted=_text(entry["wanted"], f"{where}: wanted") if "wanted" in entry else None,
            severity=None if severity is None else _enum(Severity, severity, f"{where}: severity"),
        )


def _mapping(where: str, data: Any, keys: Iterable[str]) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise BadPlaybook(f"{where}: must be a mapping")
    if unknown := sorted(str(k) for k in data if k not in keys):
        raise BadPlaybook(f"{where}: unknown key {', '.join(unknown)}")
    return data


def _list(entry: Mapping[str, Any], key: str, where: str) -> Sequence[Any]:
    value = entry.get(key, ())
    if not isinstance(value, (list, tuple)):
        raise BadPlaybook(f"{where}: {key} must be a list")
    return value


def _plain(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadPlaybook(f"{where}: expected text, found {value!r}")
    return value.strip()


def _text(data: Any, where: str) -> Text:
    entry = _mapping(where, data, {"en", "ko"})
    for language in ("en", "ko"):
        if language not in entry:
            raise BadPlaybook(f"{where}: the language {language} is missing")
    text = Text(en=_plain(entry["en"], f"{where}.en"), ko=_plain(entry["ko"], f"{where}.ko"))
    if slots(text.en) != slots(text.ko):
        odd = ", ".join(sorted(slots(text.en) ^ slots(text.ko)))
        raise BadPlaybook(f"{where}: slots differ between the languages: {odd}")
    return text


def _slug(value: Any, where: str) -> str:
    try:
        return slug(value)
    except (ValueError, TypeError):
        raise BadPlaybook(f"{where}: {value!r} is not an id such as 'icmp-frag-needed-blocked'") from None


def _enum(kind: type[E], value: Any, where: str) -> E:
    try:
        return kind(value)
    except ValueError:
        raise BadPlaybook(f"{where}: {value!r} is none of {', '.join(kind)}") from None
