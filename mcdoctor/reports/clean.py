"""Text from clusters is untrusted: what may stand in a terminal, in Markdown, and in a command to copy.

Control characters, bidirectional overrides and invisible characters never reach a reader: they can hide or forge
lines of a report. Line breaks become spaces where one line is meant.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

# C0 and C1 controls, soft hyphen, Arabic letter mark, zero-width and bidirectional marks, line separators, interlinear
# marks, byte-order mark, surrogates, tags
HIDDEN = "\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f"  # fmt: skip  # noqa: E501
_HIDDEN = re.compile(f"[{HIDDEN}]")
_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])|\x9b[0-?]*[ -/]*[@-~]"
)
_SLOT = re.compile(r"(?<!\{)\{([a-z_]+)\}(?!\})")
_MARKDOWN = re.compile(r"([\\`*_\[\]|~$])")

Slots = Mapping[str, str | int | float]


def lines(text: str) -> str:
    """The text without terminal sequences, control and invisible characters; line breaks and tabs stay."""
    return _HIDDEN.sub("", _SEQUENCE.sub("", text.replace("\r\n", "\n")))


def line(text: object, longest: int = 2000) -> str:
    """As `lines`, on one line, cut with an ellipsis when absurdly long."""
    flat = " ".join(lines(str(text)).split())
    return flat if len(flat) <= longest else flat[: longest - 1] + "…"


def fill(text: str, slots: Slots) -> str:
    """A sentence with its slots filled; a slot without a value stays visible as `<name>`."""
    return particles(_SLOT.sub(lambda m: line(slots[m[1]]) if slots.get(m[1], "") != "" else f"<{m[1]}>", text))


def open_slots(text: str) -> str:
    """A filled sentence with an ellipsis where a slot had no value."""
    return re.sub(r"<[a-z_]+>", "…", without_empty_remarks(text))


def without_empty_remarks(text: str) -> str:
    """A filled sentence without the remarks in brackets in which a slot had no value."""
    return re.sub(r" ?\([^()]*<[a-z_]+>[^()]*\)", "", text)


def fill_lines(text: str, slots: Slots) -> str:
    """As `fill`, for a manifest: values keep their line breaks."""
    return _SLOT.sub(lambda m: lines(str(slots[m[1]])) if slots.get(m[1], "") != "" else f"<{m[1]}>", text)


_PARTICLE = re.compile(r"([가-힣0-9])(['\"`)\]]*)(이\(가\)|을\(를\)|은\(는\)|과\(와\)|\(으\)로)")
_FORMS = {
    "이(가)": ("이", "가"),
    "을(를)": ("을", "를"),
    "은(는)": ("은", "는"),
    "과(와)": ("과", "와"),
    "(으)로": ("으로", "로"),
}
_DIGITS = dict(zip("0123456789", "영일이삼사오육칠팔구", strict=True))
_RIEUL = 8


def particles(text: str) -> str:
    """Korean particles after Hangul and digits in the right form; after other letters both forms stay, as is usual."""

    def choose(found: re.Match[str]) -> str:
        last, between, particle = found.groups()
        final = (ord(_DIGITS.get(last, last)) - ord("가")) % 28
        closed = final != 0 and not (particle == "(으)로" and final == _RIEUL)
        return last + between + _FORMS[particle][0 if closed else 1]

    return _PARTICLE.sub(choose, text)


def unfilled(text: str, slots: Slots) -> bool:
    """True when the text has a slot without a value."""
    return any(slots.get(name, "") == "" for name in _SLOT.findall(text))


def command(template: str, slots: Slots) -> str:
    """A command line to copy. A value that is more than a plain word is quoted, so that it stays one word.

    Inside quotes of the template nothing can be quoted safely: such a value is left as its slot's name.
    """

    def value(found: re.Match[str]) -> str:
        text = line(slots.get(found[1], ""))
        quoted = shlex.quote(text)
        if not text or text.startswith("-"):
            return f"<{found[1]}>"
        if quoted == text:
            return text
        before = template[: found.start()]
        inside = before.count("'") % 2 or before.count('"') % 2
        return f"<{found[1]}>" if inside else quoted

    return _SLOT.sub(value, lines(template))


def markdown(text: object) -> str:
    """One line of Markdown that shows exactly this text: markup and HTML are escaped, links do not form."""
    escaped = line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    escaped = _MARKDOWN.sub(r"\\\1", escaped)
    escaped = re.sub(r"^(\d*)([-+#.)])", r"\1\\\2", escaped)
    return escaped.replace("://", ":&#47;&#47;").replace("@", "&#64;")


def code(text: object, *, table: bool = False) -> str:
    """A Markdown code span of this text, whatever it holds; in a table, bars are escaped."""
    flat = line(text) or " "
    flat = flat.replace("|", "\\|") if table else flat
    ticks = "`" * (max((len(run) for run in re.findall(r"`+", flat)), default=0) + 1)
    pad = " " if flat.startswith("`") or flat.endswith("`") else ""
    return f"{ticks}{pad}{flat}{pad}{ticks}"


def fence(text: str) -> str:
    """A Markdown code block of this text, whatever it holds."""
    body = lines(text).rstrip("\n")
    ticks = "`" * max(3, max((len(run) for run in re.findall(r"`+", body)), default=0) + 1)
    return f"{ticks}\n{body}\n{ticks}"


def escape_json(text: str) -> str:
    """JSON text with every hidden character written as an escape; they only ever stand inside strings."""

    def escape(found: re.Match[str]) -> str:
        units = found[0].encode("utf-16-be", "surrogatepass").hex()
        return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))

    return _HIDDEN.sub(escape, text)
