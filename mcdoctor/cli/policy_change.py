"""The smallest change as `mcdoctor policy check` shows it: as text in English or Korean, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mcdoctor.cli.errors import plain

if TYPE_CHECKING:
    from mcdoctor.policy.smallest import Option, Side, Suggestion

_VERDICTS = {
    "allowed": "허용됩니다",
    "denied": "여전히 거부됩니다",
    "conditional": "조건에 따라 달라집니다",
    "unknown": "판단할 수 없습니다",
}
_DIRECTIONS = {"egress": "나가는 방향", "ingress": "들어오는 방향"}


def as_json(suggestion: Suggestion | None) -> dict[str, Any] | None:
    if suggestion is None:
        return None
    return {
        "verdict": str(suggestion.verdict),
        "sides": [
            {
                "cluster": side.cluster,
                "direction": str(side.direction),
                "layer": side.layer,
                "deliberate": [f"{d.ref} {d.pointer}" for d in side.deliberate],
                "why": side.why,
                "ko": side.words.ko if side.words else "",
                "options": [_option(option) for option in side.options],
            }
            for side in suggestion.sides
        ],
    }


def _option(option: Option) -> dict[str, Any]:
    """`opensPairs` and `opensAddresses` are lower bounds where `counted` is "at least"; `objects` are to be applied
    together, and `object` is the first of them.
    """
    return {
        "text": option.text,
        "ko": option.words.ko,
        "new": option.new,
        "opensPairs": option.opens,
        "opensAddresses": option.addresses,
        "counted": "exactly" if option.exact else "at least",
        "examples": list(option.examples),
        "object": option.object,
        "objects": list(option.objects),
    }


def as_text(suggestion: Suggestion, korean: bool) -> Iterator[str]:
    """Line by line, safe to print."""
    from mcdoctor.policy.smallest import to_yaml

    for side in suggestion.sides:
        where = _where(side, korean)
        if side.words:
            yield plain(f"{where}: {side.words.ko if korean else side.words.en}")
        if not side.options:
            continue
        best = side.options[0]
        text = best.words.ko if korean else best.text
        yield plain(f"{'가장 작은 변경' if korean else 'smallest change'}, {where}: {text} ({_opens(best, korean)})")
        for example in best.examples:
            yield "  " + plain(f"{'함께 허용됨' if korean else 'also allowed'}: {example}")
        for line in to_yaml(*best.objects).splitlines():
            yield "  " + line.rstrip("\r")
        for option in side.options[1:]:
            text = option.words.ko if korean else option.text
            yield plain(f"{'또는' if korean else 'or'}: {text} ({_opens(option, korean)})")
    if any(side.options for side in suggestion.sides):
        several = len(suggestion.objects) > 1
        if korean:
            yield f"{'모두 ' if several else ''}적용하면: {_VERDICTS[str(suggestion.verdict)]}"
        else:
            yield f"with {'all of it' if several else 'it'}: {suggestion.verdict}"


def _where(side: Side, korean: bool) -> str:
    if korean:
        return f"{_DIRECTIONS[str(side.direction)]} (클러스터 {side.cluster}, {side.layer})"
    return f"{side.direction} in cluster {side.cluster} ({side.layer})"


def _opens(option: Option, korean: bool) -> str:
    """What else an option opens."""
    if not option.opens and not option.addresses:
        if not option.exact:
            return "다른 것을 여는지 모두 세지 못했습니다" if korean else "not everything else could be counted"
        return "다른 것은 열리지 않습니다" if korean else "opens nothing else"
    counted = "" if option.exact else ("최소 " if korean else "at least ")
    if korean:
        parts = [f"다른 쌍 {option.opens}개"] if option.opens else []
        parts += [f"외부 주소 {option.addresses}개"] if option.addresses else []
        return f"{counted}{', '.join(parts)}도 함께 열립니다"
    parts = [f"{option.opens} other pair{'s' if option.opens > 1 else ''}"] if option.opens else []
    parts += [f"{option.addresses} addresses outside"] if option.addresses else []
    return f"also opens {counted}{', '.join(parts)}"
