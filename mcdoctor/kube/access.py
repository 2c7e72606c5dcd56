"""What we may do, asked before anything is created; admission is asked separately, by dry runs."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from mcdoctor.kube.errors import NoAnswer
from mcdoctor.kube.transport import Api

_PATH = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


@dataclass(frozen=True, slots=True)
class Right:
    """A verb on a resource (`pods/attach`), in a namespace or everywhere; perhaps on one object only."""

    verb: str
    resource: str
    namespace: str | None = None
    group: str = ""
    name: str | None = None

    def __str__(self) -> str:
        resource, slash, sub = self.resource.partition("/")
        full = f"{resource}.{self.group}{slash}{sub}" if self.group else self.resource
        return f"{self.verb} {full}" + (f" in {self.namespace}" if self.namespace else "")


@dataclass(frozen=True, slots=True)
class Review:
    """The server's answer about a right; `allowed` is None when it could not be asked."""

    right: Right
    allowed: bool | None
    reason: str = ""


def review(api: Api, rights: Sequence[Right]) -> tuple[Review, ...]:
    """Asks for each right by SelfSubjectAccessReview, in order. Never raises."""
    with ThreadPoolExecutor(max_workers=min(6, max(1, len(rights)))) as pool:
        return tuple(pool.map(lambda right: _one(api, right), rights))


def missing(reviews: Sequence[Review]) -> tuple[Right, ...]:
    """The rights that are certainly not there."""
    return tuple(r.right for r in reviews if r.allowed is False)


def whoami(api: Api) -> str | None:
    """The user name that the server knows us by; None where it does not say."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    try:
        answer = api.request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body=body)
        return str(answer.json()["status"]["userInfo"]["username"]) if answer.ok else None
    except (NoAnswer, ValueError, KeyError, TypeError):
        return None


def _one(api: Api, right: Right) -> Review:
    resource, _, sub = right.resource.partition("/")
    attributes: dict[str, Any] = {"verb": right.verb, "resource": resource, "group": right.group}
    attributes |= {k: v for k, v in (("namespace", right.namespace), ("subresource", sub), ("name", right.name)) if v}
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    try:
        answer = api.request("POST", _PATH, body=body)
        status = answer.json().get("status") if answer.ok else None
    except NoAnswer as failure:
        return Review(right, None, str(failure))
    except (ValueError, AttributeError):
        return Review(right, None, "the review was not answered in JSON")
    if not isinstance(status, dict):
        return Review(right, None, answer.message)
    return Review(right, bool(status.get("allowed")), str(status.get("reason") or ""))
