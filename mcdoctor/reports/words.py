"""Every word of the reports that is not in a playbook, in English and Korean."""

from __future__ import annotations

from collections.abc import Mapping

from mcdoctor.models.ids import Certainty, Hop, Risk, Severity, Verdict
from mcdoctor.models.playbook import Language, Text


def _t(en: str, ko: str) -> Text:
    return Text(en=en, ko=ko)


VERDICTS: Mapping[Verdict, Text] = {
    Verdict.HEALTHY: _t("HEALTHY", "정상"),
    Verdict.DEGRADED: _t("DEGRADED", "일부 장애"),
    Verdict.BROKEN: _t("BROKEN", "장애"),
    Verdict.INCONCLUSIVE: _t("INCONCLUSIVE", "판정 보류"),
}

CERTAINTIES: Mapping[Certainty, Text] = {
    Certainty.PROVED: _t("proved", "증명됨"),
    Certainty.SUPPORTED: _t("supported", "근거 충분"),
    Certainty.POSSIBLE: _t("possible", "가능성 있음"),
}

HOPS: Mapping[Hop, Text] = {
    Hop.SOURCE_POD: _t("source pod", "소스 파드"),
    Hop.SOURCE_DNS: _t("source DNS", "소스 DNS"),
    Hop.SOURCE_PROXY: _t("source proxy", "소스 프록시"),
    Hop.SOURCE_EGRESS_POLICY: _t("egress policy", "egress 정책"),
    Hop.SOURCE_NODE: _t("source node", "소스 노드"),
    Hop.NETWORK: _t("network", "네트워크"),
    Hop.DEST_GATEWAY: _t("gateway", "게이트웨이"),
    Hop.DEST_INGRESS_POLICY: _t("ingress policy", "ingress 정책"),
    Hop.DEST_SERVICE: _t("Service", "Service"),
    Hop.DEST_ENDPOINT: _t("endpoints", "엔드포인트"),
    Hop.DEST_PROXY: _t("target proxy", "목적지 프록시"),
    Hop.DEST_POD: _t("target pod", "목적지 파드"),
    Hop.CONTROL_PLANE: _t("control plane", "컨트롤 플레인"),
}

OUTCOMES: Mapping[str, Text] = {
    "passed": _t("passed", "통과"),
    "failed": _t("failed", "실패"),
    "warned": _t("warned", "경고"),
    "unknown": _t("unknown", "확인 불가"),
    "skipped": _t("skipped", "건너뜀"),
}

MARKS: Mapping[str, str] = {
    "passed": "✓",
    "failed": "✗",
    "warned": "!",
    "unknown": "?",
    "skipped": "-",
    "unseen": "·",
    "follows": "↳",
}

SEVERITIES: Mapping[Severity, Text] = {
    Severity.ERROR: _t("error", "오류"),
    Severity.WARNING: _t("warning", "경고"),
    Severity.NOTE: _t("note", "참고"),
}

RISKS: Mapping[Risk, Text] = {
    Risk.NONE: _t("no risk", "위험 없음"),
    Risk.REVERSIBLE: _t("can be undone", "되돌릴 수 있음"),
    Risk.DISRUPTIVE: _t("disrupts traffic", "트래픽에 영향 있음"),
}

RESULTS: Mapping[str, Text] = {
    "open": _t("open", "연결됨"),
    "refused": _t("refused", "거부됨"),
    "reset": _t("reset", "reset됨"),
    "timeout": _t("no answer", "응답 없음"),
    "unreachable": _t("unreachable", "도달 불가"),
    "answered": _t("answered", "응답함"),
    "response": _t("response", "응답함"),
    "connect-error": _t("could not connect", "연결 실패"),
    "closed": _t("closed without an answer", "응답 없이 닫힘"),
    "tls-error": _t("TLS failed", "TLS 실패"),
    "dns-error": _t("name did not resolve", "이름 해석 실패"),
    "protocol-error": _t("not understood", "프로토콜 오류"),
    "ok": _t("ok", "성공"),
    "alert": _t("alert", "alert"),
    "plaintext": _t("plaintext came back", "평문이 돌아옴"),
    "verify-failed": _t("certificate not accepted", "인증서 검증 실패"),
    "reply": _t("reply", "응답함"),
    "no-reply": _t("no reply", "응답 없음"),
    "arrived": _t("arrived", "도착함"),
    "lost": _t("lost", "유실됨"),
    "text": _t("text came", "텍스트 수신"),
    "silent": _t("connected, silent", "연결됨, 무응답"),
}

ENDINGS: Mapping[str, Text] = {
    "name-fails": _t("the name does not resolve", "이름 해석 실패"),
    "times-out": _t("no answer", "응답 없음"),
    "refused": _t("refused", "연결 거부"),
    "unreachable": _t("unreachable", "도달 불가"),
    "reset": _t("reset", "연결 reset"),
    "closed": _t("closed without an answer", "응답 없이 닫힘"),
    "tls-on-plain": _t("TLS where plaintext is spoken", "평문 포트에 TLS"),
    "tls-fails": _t("TLS fails", "TLS 실패"),
    "protocol-fails": _t("not understood", "프로토콜 오류"),
    "cannot-connect": _t("no connection", "연결 실패"),
    "proxy-4xx": _t("4xx of a proxy", "프록시의 4xx"),
    "proxy-5xx": _t("5xx of a proxy", "프록시의 5xx"),
    "proxy-other": _t("a proxy's answer", "프록시의 응답"),
}
"""How a request ends, as findings about requests name it."""

WANTED: Mapping[str, Text] = {
    "path_mtu": _t("path MTU", "경로 MTU"),
    "dns_answer": _t("DNS answers", "DNS 응답"),
    "dns_series": _t("repeated DNS answers", "반복 DNS 응답"),
    "resolv_conf": _t("the pod's resolver settings", "파드의 resolver 설정"),
    "tcp_connect": _t("TCP connections", "TCP 연결"),
    "http_request": _t("requests", "요청"),
    "http_series": _t("repeated requests", "반복 요청"),
    "tls_handshake": _t("TLS handshakes", "TLS 핸드셰이크"),
    "udp_probe": _t("UDP probes", "UDP 프로브"),
    "trace": _t("traces of the path", "경로 추적"),
    "banner": _t("greetings of the server", "서버 배너"),
    "interface": _t("network interfaces", "네트워크 인터페이스"),
    "interception": _t("capture by a proxy", "프록시의 가로채기 여부"),
    "route": _t("routes", "라우트"),
    "endpoint_answer": _t("debug endpoints", "디버그 엔드포인트"),
    "listener": _t("listening sockets", "listen 소켓"),
    "log_line": _t("logs", "로그"),
    "metric": _t("metrics", "메트릭"),
}
"""Kinds of facts for people, where one could not be had; Kubernetes kinds stand for themselves."""

WORDS: Mapping[str, Text] = {
    # headline
    "works": _t("{source} reaches {destination}.", "{source}에서 {destination}까지 요청이 전달됩니다."),
    "works-with-warnings": _t(
        "{source} reaches {destination}. Warnings: {count}.",
        "{source}에서 {destination}까지 요청이 전달됩니다. 경고 {count}건이 있습니다.",
    ),
    "works-beside": _t(
        "{place}, beside {source}, reaches {destination}, and policies let {source} do the same;"
        " it was not tried itself.",
        "{source} 옆의 {place}에서 {destination}까지 요청이 전달되며, 정책은 {source}에도 같은 통신을 허용합니다."
        " {source}에서 직접 보내 보지는 않았습니다.",
    ),
    "works-beside-only": _t(
        "{place} reaches {destination}, but {source} itself was not tried: policies or a proxy may treat it otherwise.",
        "{place}에서는 {destination}까지 요청이 전달되지만 {source}에서 직접 보내 보지 않았습니다. 정책이나 프록시가"
        " {source}를 다르게 처리할 수 있습니다.",
    ),
    "nothing-sent": _t(
        "nothing wrong was seen, but no request from {source} to {destination} was tried or recorded.",
        "이상은 보이지 않지만 {source}에서 {destination}로 보낸 요청이 시도되거나 기록되지 않았습니다.",
    ),
    "not-settled": _t(
        "the request from {source} to {destination} could not be judged: {reason}",
        "{source}에서 {destination}로 보낸 요청을 판정할 수 없습니다: {reason}",
    ),
    "most-likely": _t("not settled; most likely: ", "확정되지 않음, 가장 유력한 원인: "),
    "cannot-part": _t("{seen} Not settled between: {causes}.", "{seen} 다음 원인 중 하나로, 확정되지 않음: {causes}."),
    "no-known-cause": _t(" (no known cause fits)", " (알려진 원인과 일치하지 않음)"),
    # sections
    "path": _t("Path", "경로"),
    "root-cause": _t("Root cause", "근본 원인"),
    "worth-a-look": _t("Worth a look", "살펴볼 점"),
    "likely-cause": _t("Most likely cause", "가장 유력한 원인"),
    "evidence": _t("Evidence", "근거"),
    "evidence-any": _t("Evidence, any of", "근거(하나 이상)"),
    "ruled-out": _t("Ruled out by", "배제 조건"),
    "proof": _t("Proof", "증명"),
    "explains": _t("Explains also", "함께 설명되는 현상"),
    "against": _t("Against it", "반대 근거"),
    "missing": _t("Would settle it", "확정에 필요한 것"),
    "remedy": _t("What to do", "조치"),
    "confirm": _t("Confirm", "확인"),
    "object": _t("Object", "대상"),
    "others": _t("Other candidates", "다른 후보"),
    "unexplained": _t("Seen, but explained by no known cause", "관찰되었으나 알려진 원인으로 설명되지 않음"),
    "table": _t("Symptom, cause, confirm and act", "증상, 원인, 확인/조치"),
    "symptom": _t("Symptom", "증상"),
    "cause": _t("Cause", "원인"),
    "confirm-act": _t("Confirm / act", "확인/조치"),
    "checks": _t("Checks", "점검"),
    "limits": _t("Could not see", "확인하지 못한 것"),
    "facts": _t("Facts", "사실"),
    # phrases
    "here": _t("◄ broken here", "◄ 여기서 끊김"),
    "fault-here": _t("◄ fault here", "◄ 여기에 문제"),
    "suspected": _t("◄ suspected", "◄ 의심"),
    "interrupted-early": _t("not all checks had run", "모든 점검이 끝나지 않았습니다"),
    "interrupted": _t("interrupted: what follows is partial", "중단됨: 아래는 일부 결과입니다"),
    "needs": _t("needs", "필요한 권한"),
    "run": _t("run", "실행"),
    "after": _t("waits for {check}", "{check} 결과가 필요함"),
    "not-seen-now": _t("not seen in this run", "이번 실행에서는 나타나지 않음"),
    "no-cause-matched": _t("no known cause fits what was seen", "관찰된 내용과 일치하는 알려진 원인이 없음"),
    "ready-of": _t("{ready} of {total} ready", "{total}개 중 {ready}개 준비됨"),
    "address-of-none": _t("none known", "알려진 것 없음"),
    "source-pod": _t("source pod", "소스 파드"),
    "in": _t("{what} in {cluster}", "{cluster}의 {what}"),
    "of": _t("{part} of {whole}", "{whole}번 중 {part}번"),
    "more": _t("{count} more", "외 {count}건"),
    "by-name": _t("(-v: each by name)", "(-v: 이름별로 표시)"),
    "took": _t("{seconds} s", "{seconds}초"),
    "cluster": _t("cluster", "클러스터"),
    "api-server": _t("API server", "API 서버"),
    "delivered": _t("delivered up to {size} bytes", "{size}바이트까지 전달됨"),
    "lost-from": _t("lost from {size}", "{size}바이트부터 유실됨"),
    "signalled": _t("signalled MTU {size}", "알려진 MTU {size}"),
    "none-delivered": _t("no size delivered", "전달된 크기 없음"),
    "captured": _t("captured by {by}", "{by} 프록시가 가로챔"),
    "not-captured": _t("not captured by a proxy", "프록시가 가로채지 않음"),
    "reached": _t("reached", "도달함"),
    "not-reached": _t("not reached", "도달하지 못함"),
    "absent": _t("there is none", "존재하지 않음"),
    "not-seen": _t("could not be seen: {reason}", "확인할 수 없음: {reason}"),
    "listed": _t("{count} listed", "{count}개 조회됨"),
    "empty": _t("no records", "레코드 없음"),
    "answered-by": _t("answered by {who}", "{who}가 응답"),
    # progress
    "running": _t("checking", "점검 중"),
    "late": _t("{check} did not end in time", "{check}이(가) 제한 시간 안에 끝나지 않았습니다"),
    "so-far": _t("so far", "현재까지"),
}


def say(key: str, language: Language, **slots: str | int | float) -> str:
    """A word or phrase in the language, slots filled as they are: callers clean what they put in."""
    text = WORDS[key].in_language(language)
    for name, value in slots.items():
        text = text.replace("{" + name + "}", str(value))
    return text
