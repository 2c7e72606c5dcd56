"""CoreDNS's Corefile: server blocks with their zones, plugins and forwarders.

The grammar is Caddy's: tokens parted by blanks, quotes, `#` comments, `{` at the end of a line opens a block, `}` alone
closes it, `(name) { … }` is a snippet, `import` takes a snippet or files. What cannot be read is a problem with its
line, and the rest is read. https://coredns.io/manual/configuration/
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass

_DEPTH = 8  # imports within imports


@dataclass(frozen=True, slots=True)
class Directive:
    """A plugin with its arguments; `options` are the lines of its block."""

    name: str
    args: tuple[str, ...]
    options: tuple[tuple[str, ...], ...]
    line: int


@dataclass(frozen=True, slots=True)
class Server:
    """A server block. Zones are lower case without the trailing dot, the root is `.`."""

    zones: tuple[str, ...]
    plugins: tuple[Directive, ...]
    line: int

    def all(self, *names: str) -> tuple[Directive, ...]:
        return tuple(p for p in self.plugins if p.name in names)


@dataclass(frozen=True, slots=True)
class Corefile:
    """`imports`: patterns whose content was not given; what they add is not known."""

    servers: tuple[Server, ...]
    imports: tuple[str, ...]
    problems: tuple[str, ...]

    def server_for(self, name: str) -> Server | None:
        """The block that answers a name: the one with the longest zone that holds it."""
        best: tuple[int, Server] | None = None
        for server in self.servers:
            for zone in server.zones:
                if within(name, zone) and (best is None or len(zone) > best[0]):
                    best = (len(zone) if zone != "." else 0, server)
        return best[1] if best else None

    def zone_of(self, name: str) -> str | None:
        """The zone under which `server_for` answers the name."""
        server = self.server_for(name)
        if server is None:
            return None
        return max((z for z in server.zones if within(name, z)), key=lambda z: 0 if z == "." else len(z))


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    line: int
    quoted: bool = False

    def opens(self) -> bool:
        return self.text == "{" and not self.quoted

    def closes(self) -> bool:
        return self.text == "}" and not self.quoted


def within(name: str, zone: str) -> bool:
    """True when the name is the zone or below it."""
    name, zone = clean(name), clean(zone)
    return zone in (".", name) or name.endswith(f".{zone}")


def clean(name: str) -> str:
    """Lower case, no trailing dot; the root stays a dot."""
    return name.lower().rstrip(".") or "."


def parse(text: str, files: Mapping[str, str] | None = None) -> Corefile:
    """The Corefile in a text; `files` are those that imports may take, by file name. Never raises."""
    return _Parser(dict(files or {})).run(text)


def forwards(server: Server, name: str) -> tuple[str, ...]:
    """Where a block sends a name that it does not answer itself: addresses, or a file such as /etc/resolv.conf."""
    found: list[str] = []
    for plugin in server.all("forward", "proxy", "alternate"):
        if plugin.args and within(name, plugin.args[0]):
            found.extend(a for a in plugin.args[1:] if a)
    return tuple(dict.fromkeys(found))


def _tokens(text: str) -> tuple[list[list[_Token]], list[str]]:
    """Lines of tokens. A quoted token may run over several lines and belongs to the one where it starts."""
    lines: dict[int, list[_Token]] = {}
    problems: list[str] = []
    line, at, size = 1, 0, len(text)
    while at < size:
        char = text[at]
        if char == "\n":
            line += 1
            at += 1
        elif char.isspace() or char == "\ufeff":
            at += 1
        elif char == "#":
            while at < size and text[at] != "\n":
                at += 1
        elif char == '"':
            begun, value = line, []
            at += 1
            while at < size and text[at] != '"':
                if text[at] == "\\" and text[at + 1 : at + 2] == '"':
                    at += 1
                line += text[at] == "\n"
                value.append(text[at])
                at += 1
            if at >= size:
                problems.append(f"line {begun}: a quote is not closed")
            at += 1
            lines.setdefault(begun, []).append(_Token("".join(value), begun, True))
        else:
            begin = at
            while at < size and not text[at].isspace() and text[at] != "#":
                at += 1
            lines.setdefault(line, []).append(_Token(text[begin:at], line))
    return [lines[n] for n in sorted(lines)], problems


class _Parser:
    """Reads one Corefile and what it imports."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files
        self.snippets: dict[str, tuple[Directive, ...]] = {}
        self.imports: list[str] = []
        self.problems: list[str] = []

    def run(self, text: str) -> Corefile:
        servers = self._servers(text, 0)
        return Corefile(tuple(servers), tuple(dict.fromkeys(self.imports)), tuple(self.problems))

    def _servers(self, text: str, depth: int) -> list[Server]:
        lines, problems = _tokens(text)
        self.problems += problems
        servers: list[Server] = []
        at = 0
        while at < len(lines):
            words = lines[at]
            begun = words[0].line
            if words[0].text == "import" and not words[0].quoted:
                servers += self._import_servers(words, depth)
                at += 1
                continue
            if words[0].closes():
                self.problems.append(f"line {begun}: a closing brace without a block")
                at += 1
                continue
            keys: list[_Token] = []
            opened = False
            # Keys go on in the next line only after a comma.
            while at < len(lines):
                words = lines[at]
                at += 1
                opened = words[-1].opens()
                keys += words[:-1] if opened else words
                if opened or not words[-1].text.endswith(","):
                    break
            stray = [k for k in keys if k.opens() or k.closes()]
            if stray:
                self.problems.append(f"line {stray[0].line}: a brace where a zone should be")
            plugins, at = self._block(lines, at, begun, opened, depth)
            names = [k.text.strip(",") for k in keys if k not in stray and k.text.strip(",")]
            if not names:
                self.problems.append(f"line {begun}: a block without a zone")
            elif len(names) == 1 and names[0].startswith("(") and names[0].endswith(")"):
                self.snippets[names[0][1:-1]] = plugins
            else:
                servers.append(Server(tuple(dict.fromkeys(_zone(n) for part in names for n in part.split(",") if n)),
                                      plugins, begun))  # fmt: skip
        return servers

    def _block(
        self, lines: list[list[_Token]], at: int, begun: int, opened: bool, depth: int
    ) -> tuple[tuple[Directive, ...], int]:
        """The plugins up to the closing brace; without an opening one, the rest of the file."""
        plugins: list[Directive] = []
        while at < len(lines):
            words = lines[at]
            at += 1
            if words[0].closes():
                if not opened:
                    self.problems.append(f"line {words[0].line}: a closing brace without a block")
                    continue
                if len(words) > 1:
                    self.problems.append(f"line {words[0].line}: text after a closing brace")
                return tuple(plugins), at
            options: tuple[tuple[str, ...], ...] = ()
            line = words[0].line
            if words[-1].opens():
                options, at = self._options(lines, at, line)
                words = words[:-1]
            if not words:
                self.problems.append(f"line {line}: a block without a plugin")
                continue
            args = tuple(w.text for w in words[1:])
            if words[0].text == "import" and not words[0].quoted:
                plugins += self._import_plugins(args, words[0].line, depth)
            else:
                plugins.append(Directive(words[0].text, args, options, words[0].line))
        if opened:
            self.problems.append(f"line {begun}: a block is not closed")
        return tuple(plugins), at

    def _options(self, lines: list[list[_Token]], at: int, begun: int) -> tuple[tuple[tuple[str, ...], ...], int]:
        options: list[tuple[str, ...]] = []
        depth = 1
        while at < len(lines):
            words = lines[at]
            at += 1
            if words[0].closes():
                depth -= 1
                if depth == 0:
                    return tuple(options), at
                continue
            if words[-1].opens():
                depth += 1
                words = words[:-1]
            if words:
                options.append(tuple(w.text for w in words))
        self.problems.append(f"line {begun}: a block is not closed")
        return tuple(options), at

    def _matching(self, pattern: str) -> list[str]:
        """Texts of the files that a pattern takes, by the file's own name: a ConfigMap is mounted flat."""
        wanted = pattern.rpartition("/")[2]
        return [self.files[name] for name in sorted(self.files) if fnmatch.fnmatchcase(name, wanted)]

    def _import_servers(self, words: list[_Token], depth: int) -> list[Server]:
        found: list[Server] = []
        for pattern in (w.text for w in words[1:]):
            texts = self._matching(pattern) if depth < _DEPTH else []
            if not texts:
                self.imports.append(pattern)
            for text in texts:
                found += self._servers(text, depth + 1)
        if len(words) == 1:
            self.problems.append(f"line {words[0].line}: import without a file")
        return found

    def _import_plugins(self, args: tuple[str, ...], line: int, depth: int) -> list[Directive]:
        if not args:
            self.problems.append(f"line {line}: import without a file or snippet")
            return []
        if args[0] in self.snippets:
            return list(self.snippets[args[0]])
        texts = self._matching(args[0]) if depth < _DEPTH else []
        if not texts:
            self.imports.append(args[0])
        found: list[Directive] = []
        for text in texts:
            lines, problems = _tokens(text)
            self.problems += problems
            plugins, _ = self._block(lines, 0, 1, False, depth + 1)
            found += plugins
        return found


def _zone(key: str) -> str:
    """`dns://Example.org:1053` becomes `example.org`; a key that is only a port is the root."""
    _, mark, rest = key.partition("://")
    key = rest if mark else key
    name, colon, port = key.rpartition(":")
    if colon and (port.isdigit() or not port):
        key = name
    return clean(key)
