"""What can go wrong between here and an API server, as one line for people."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass
from typing import Any


class KubeConfigError(Exception):
    """The kubeconfig, the context or the server cannot be used; the text is one line that says why."""


class NoAnswer(Exception):
    """The API server gave no usable HTTP answer: dead, silent, cut off, TLS refused. The text is one line.

    `silent` marks failures that cost a whole time-out.
    """

    def __init__(self, text: str, *, silent: bool = False) -> None:
        super().__init__(one_line(text))
        self.silent = silent


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer of the API server, body read to its end."""

    status: int
    body: bytes
    retry_after: float | None = None

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The parsed body; raises ValueError when it is not JSON."""
        return json.loads(self.body)

    @property
    def failure(self) -> dict[str, Any]:
        """The `Status` object of a refusal, empty when the body is something else."""
        try:
            parsed = json.loads(self.body)
        except ValueError:
            return {}
        return parsed if isinstance(parsed, dict) and parsed.get("kind") == "Status" else {}

    @property
    def message(self) -> str:
        """The server's own words, one line, else a description of the status."""
        text = self.failure.get("message")
        return one_line(str(text)) if text else f"the API server answered {self.status}"


def one_line(text: str, limit: int = 400) -> str:
    """Text from elsewhere made safe for a line: control characters become spaces, length is bounded."""
    plain = "".join(" " if unicodedata.category(c)[0] == "C" else c for c in text)
    plain = " ".join(plain.split())
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"
