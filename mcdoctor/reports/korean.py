"""Korean for what checks say in English: their titles, and the usual reasons for not knowing something.

A reason that is not in the phrase book stays as it is: English is better than silence.
"""

# ruff: noqa: E501  # Hangul counts twice

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from mcdoctor.reports.clean import particles

TITLES: Mapping[str, str] = {
    "flow-pair-resolves": "소스와 목적지가 이름이 가리키는 곳에 있음",
    "endpoints-service-is-usable": "Service가 있고 포트도 정의되어 있음",
    "endpoints-selector-matches-pods": "Service의 selector가 파드를 선택함",
    "endpoints-are-ready": "준비된 엔드포인트가 있음",
    "endpoints-ports-resolve": "Service 포트가 파드의 포트로 이어짐",
    "endpoints-agree-with-pods": "EndpointSlice가 현재 파드와 일치함",
    "endpoints-local-traffic-has-endpoint": "노드 내부로 제한된 Service에 해당 노드의 엔드포인트가 있음",
    "joint-service-is-imported": "목적지의 export, import, mirror가 서로 맞음",
    "joint-clusters-are-connected": "클러스터 연결이 양쪽에 설정되어 있음",
    "gateway-takes-route": "목적지로 가는 라우트가 게이트웨이에 연결되어 있음",
    "gateway-can-be-reached": "목적지 클러스터의 게이트웨이에 주소가 있고 로드 밸런서 상태 확인을 통과함",
    "dns-configuration-covers-name": "클러스터 DNS가 이 이름을 알도록 설정되어 있음",
    "dns-resolver-is-cluster": "파드가 클러스터 DNS에 질의함",
    "dns-name-resolves": "파드의 모든 네임서버가 이름을 해석함",
    "dns-search-list-is-harmless": "끝의 점 유무와 관계없이 이름의 뜻이 같음",
    "dns-answers-are-steady": "같은 질의에 항상 같은 응답이 옴",
    "dns-answer-is-expected": "이름이 오브젝트에 적힌 주소로 이어짐",
    "dns-ipv6-answer-has-route": "도달할 수 있는 파드에만 IPv6 주소가 응답됨",
    "dns-servers-are-healthy": "클러스터 DNS 파드가 정상 동작함",
    "dns-other-servers-agree": "DNS 파드, 멀티 클러스터 서버, upstream의 응답이 일치함",
    "netpol-allows-path": "양쪽 정책이 이 트래픽을 허용함",
    "tcp-source-is-seen": "프록시가 대신 응답하는지 확인됨",
    "tcp-reaches-destination": "경로의 모든 단계에서 연결이 열림",
    "tcp-connects-at-first-syn": "SYN 재전송 없이 연결됨",
    "tcp-conntrack-has-room": "노드의 conntrack 테이블에 여유가 있음",
    "tcp-replies-are-accepted": "응답 패킷이 도착한 곳에서 받아들여짐",
    "tcp-service-rules-are-current": "노드가 Service 트래픽을 현재 엔드포인트로 보냄",
    "tcp-address-ranges-are-distinct": "두 클러스터의 주소 대역이 겹치지 않음",
    "tcp-tunnels-answer": "터널과 오버레이 포트가 응답함",
    "tcp-load-balancer-admits-source": "로드 밸런서가 소스를 허용하고 뒤에 파드가 있음",
    "tcp-nodes-route": "노드의 주소, 라우트, 소스 포트에 문제가 없음",
    "tcp-application-listens": "애플리케이션이 엔드포인트에 적힌 곳에서 listen함",
    "tcp-path-has-no-policy": "네트워크 정책이 경로에 있을 수 있는지",
    "mtu-path-carries-full-packets": "최대 크기 패킷이 도착하거나 송신자에게 통지됨",
    "request-reaches-backend": "소스의 요청에 애플리케이션이 응답함",
    "request-succeeds-every-time": "같은 요청은 같은 결과를 얻음",
    "request-large-passes": "여러 세그먼트 크기의 요청도 작은 요청처럼 통과함",
    "request-passes-in-small-segments": "멈췄던 요청이 작은 세그먼트로는 통과함",
    "request-survives-idle": "유휴 상태 뒤의 첫 요청에도 응답함",
    "request-is-answered-by-destination": "목적지의 파드가 응답함",
    "request-bypasses-forward-proxy": "클러스터 내부 이름이 forward proxy로 가지 않음",
    "request-idle-limits-are-known": "유휴 연결을 끊는 쪽이 확인됨",
    "request-backends-stay": "종료 중인 파드로 트래픽이 가지 않음",
    "request-backends-have-capacity": "목적지가 필요한 replica와 CPU를 확보함",
}

PHRASES: Mapping[str, str] = {
    # where nothing was sent
    "nothing was sent: {why}": "아무것도 보내지 않았습니다: {why}",
    "nothing was sent: this run has no prober": "이번 실행에는 프로브가 없어 아무것도 보내지 않았습니다",
    "--probe none: nothing was sent": "--probe none: 아무것도 보내지 않았습니다",
    "nothing was created: the answer was no (use --yes, or --probe none)": "승인되지 않아 아무것도 만들지 않았습니다(--yes"
    " 또는 --probe none을 사용하십시오)",
    "interrupted before anything was sent": "아무것도 보내기 전에 중단되었습니다",
    "the run was stopped before this was seen": "확인하기 전에 실행이 멈췄습니다",
    "the time for the run was over": "실행 제한 시간이 끝났습니다",
    "this is a recording": "기록을 재생한 것입니다",
    "{what} has no running pod to send from": "{what}에 요청을 보낼 실행 중인 파드가 없습니다",
    "the source has no pod to send from": "소스에 요청을 보낼 파드가 없습니다",
    "the probe did not end within {seconds} s": "프로브가 {seconds}초 안에 끝나지 않았습니다",
    "there is no fact of kind {kind}": "{kind} 사실이 없습니다",
    "not needed: no cause that it would settle is in question": "확정할 원인이 없어 필요하지 않습니다",
    # rights
    "not allowed to {what}": "권한이 없습니다: {what}",
    "policies could not be seen: {why}": "정책을 확인할 수 없습니다: {why}",
    "some policies could not be seen: {why}": "일부 정책을 확인할 수 없습니다: {why}",
    "it is not known whether there are policies: their list was not recorded": "정책 목록이 기록되지 않아 정책 유무를 알 수"
    " 없습니다",
    "the policies do not settle it: {why}": "정책만으로 판정할 수 없습니다: {why}",
    "the source has no pod, so no policy can be asked about it": "소스에 파드가 없어 정책을 판정할 수 없습니다",
    # requests
    "no request was made from the source": "소스에서 보낸 요청이 없습니다",
    "no request was made as the source's workload to the destination's name or Service": "소스 워크로드로서 목적지의"
    " 이름이나 Service에 보낸 요청이 없습니다",
    "fewer than three requests of one kind were made": "같은 종류의 요청이 세 번 미만입니다",
    "no request succeeded at all": "성공한 요청이 없습니다",
    "no request of several segments was made": "여러 세그먼트 크기의 요청을 보내지 않았습니다",
    "no request was made on a connection that had been idle for a while": "유휴 상태였던 연결로 보낸 요청이 없습니다",
    "the backend does not say who it is": "백엔드가 자신이 누구인지 밝히지 않습니다",
    "the request was not repeated with small segments": "작은 세그먼트로 요청을 다시 보내지 않았습니다",
    "nothing is known of limits on idle connections": "유휴 연결 제한을 알 수 없습니다",
    "neither autoscalers nor metrics of the destination were seen": "목적지의 autoscaler와 메트릭이 확인되지 않았습니다",
    # DNS
    "the destination is an address: no name is looked up": "목적지가 주소이므로 이름을 조회하지 않습니다",
    "no server beside the pod's own was asked for the name": "파드의 네임서버 외에는 이 이름을 질의하지 않았습니다",
    "no query for the name was made from the source": "소스에서 이 이름을 질의하지 않았습니다",
    "no answer with an address was seen": "주소가 담긴 응답이 확인되지 않았습니다",
    "the name was asked only once": "이름을 한 번만 질의했습니다",
    "no server of the pod was asked for the name, or its answers vary": "파드의 네임서버에 질의하지 않았거나 응답이 일정하지"
    " 않습니다",
    "whether the source pod has an IPv6 address and route was not seen": "소스 파드의 IPv6 주소와 라우트가 확인되지"
    " 않았습니다",
    # TCP, MTU
    "fewer than two new connections were timed": "시간을 잰 새 연결이 두 번 미만입니다",
    "it was not looked whether a proxy captures the source's traffic": "프록시가 소스 트래픽을 가로채는지 확인하지"
    " 않았습니다",
    "connects of the source pod end at {proxy}": "소스 파드의 연결이 {proxy}에서 끝납니다",
    "connection tracking of the nodes was not read": "노드의 conntrack을 읽지 않았습니다",
    "settings and counters of the nodes were not read": "노드의 설정과 카운터를 읽지 않았습니다",
    "the Service rules of the nodes were not read": "노드의 Service 규칙을 읽지 않았습니다",
    "the sockets of the destination's pod were not read": "목적지 파드의 소켓을 읽지 않았습니다",
    "no load balancer stands on the way, or none could be read": "경로에 로드 밸런서가 없거나 읽을 수 없습니다",
    "there are {kind} objects; the policy checks say what they mean": "{kind} 오브젝트가 있습니다. 의미는 정책 점검을"
    " 참고하십시오",
    "no Service of this flow keeps traffic on the node": "트래픽을 노드 내부로 제한하는 Service가 없습니다",
    "no Service of this flow selects pods": "파드를 선택하는 Service가 없습니다",
    "the destination is not a Service": "목적지가 Service가 아닙니다",
    "no connection opens: the size of packets is not the question": "연결이 열리지 않아 패킷 크기는 문제가 아닙니다",
    "packets of no size were answered: nothing can be said about their size": "어떤 크기의 패킷에도 응답이 없어 크기를"
    " 판정할 수 없습니다",
    "packets of growing size were not sent": "크기를 늘린 패킷을 보내지 않았습니다",
    "the answer of {size} bytes fits one packet: it cannot show whether large ones arrive": "{size}바이트 응답은 패킷"
    " 하나에 들어가므로 큰 패킷의 도착 여부를 알 수 없습니다",
    "datagrams to a closed port are not answered, small ones neither: nothing can be said of sizes": "닫힌 포트로 보낸"
    " 데이터그램에 크기와 관계없이 응답이 없어 크기를 판정할 수 없습니다",
    "echo requests are not answered, small ones neither: nothing can be said of sizes": "echo 요청에 크기와 관계없이"
    " 응답이 없어 크기를 판정할 수 없습니다",
    "ping sockets are not granted here (net.ipv4.ping_group_range)": "ping 소켓이 허용되지 않습니다"
    "(net.ipv4.ping_group_range)",
}
"""English with slots, and the same in Korean; what a slot holds is looked up in its turn."""

_SLOT = re.compile(r"\{(\w+)\}")


def in_korean(reason: str) -> str:
    """The reason in Korean where the phrase book has it, else as it is."""
    for pattern, korean in _patterns():
        if found := pattern.fullmatch(reason):
            values = {name: in_korean(value) for name, value in found.groupdict().items()}
            return particles(korean.format(**values))
    return reason


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    """Phrases without slots first, the longest first: they are more exact."""
    order = sorted(PHRASES, key=lambda p: ("{" in p, -len(p)))
    return tuple((re.compile(_SLOT.sub(r"(?P<\1>.+)", re.sub(r"([().?*+])", r"\\\1", p))), PHRASES[p]) for p in order)
