"""HTTP as it is on the wire: whatever way requests come, each has its own answer, in order."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import httpx
import pytest

from conftest import Trained
from services import Service, Stack, running_stack, wait_until

LIMIT = 2**20
"""The largest body that the gateway takes."""
HEAD = b"POST /v1/recommendations HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n"
GARBAGE = b"\x16\x03\x01\x02 no HTTP\r\n\r\n"


class Answer(NamedTuple):
    """A response as it came."""

    status: int
    headers: dict[str, str]
    body: bytes


def problem(answer: Answer) -> str:
    """The last word of the kind of problem that an answer is."""
    assert answer.headers["content-type"] == "application/problem+json"
    content = json.loads(answer.body)
    assert (content["status"], content["request_id"]) == (answer.status, answer.headers["x-request-id"])
    kind: str = content["type"].removeprefix("urn:twotower:problem:")
    return kind


class Connection:
    """A client that sends what it is told, and reads answers one by one."""

    def __init__(self, plain: socket.socket, incoming: BinaryIO) -> None:
        self.socket = plain
        self._incoming = incoming

    def send(self, content: bytes) -> None:
        self.socket.sendall(content)

    def read(self, *, of_head: bool = False) -> Answer:
        """The next answer; one to a HEAD request has no body."""
        line = self._incoming.readline()
        assert line.startswith(b"HTTP/1.1 "), line
        headers = {}
        while (field := self._incoming.readline()) != b"\r\n":
            assert field.endswith(b"\r\n"), field
            name, _, value = field.decode().partition(": ")
            headers[name] = value.strip()
        length = 0 if of_head else int(headers.get("content-length", 0))
        return Answer(int(line.split()[1]), headers, self._incoming.read(length))

    def check_ended(self) -> None:
        """Nothing more comes, and the other side has closed."""
        assert self._incoming.read() == b""


@contextmanager
def connected(gateway: Service, receive_buffer: int = 0) -> Iterator[Connection]:
    with socket.socket() as plain:
        if receive_buffer:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        plain.settimeout(20)
        plain.connect(("127.0.0.1", gateway.port))
        with plain.makefile("rb") as incoming:
            yield Connection(plain, incoming)


def body_of(user_id: int, **others: Any) -> bytes:
    return json.dumps({"user_id": user_id, **others}).encode()


def request(body: bytes, *fields: bytes, head: bytes = HEAD) -> bytes:
    lines = b"".join(field + b"\r\n" for field in fields)
    return b"%b%bcontent-length: %d\r\n\r\n%b" % (head, lines, len(body), body)


def chunks(body: bytes, size: int) -> bytes:
    """A chunked body, but for its end."""
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)


@pytest.fixture(scope="module", autouse=True)
def _unharmed(stack: Stack) -> Iterator[None]:
    """After all of these tests the gateway still answers, and nothing unexpected is in its log."""
    yield
    assert httpx.get(f"{stack.url}/v1/users/1/recommendations").status_code == 200
    assert "Traceback" not in stack.gateway.log_path.read_text()
    assert [line for line in stack.gateway.events("request") if line["status"] >= 500] == []


@pytest.fixture(scope="module")
def expected(stack: Stack) -> dict[int, bytes]:
    """What some users are recommended."""
    url = f"{stack.url}/v1/users/{{}}/recommendations"
    return {user: httpx.get(url.format(user)).content for user in (1, 2, 3)}


@pytest.mark.parametrize(
    ("middle", "status"),
    [
        (request(body_of(2)), 200),
        (request(body_of(2), b"origin: https://a.page"), 200),
        (request(body_of(2), b"expect: 100-continue"), 100),
        (CHUNKED + chunks(body_of(2), 3) + b"0\r\n\r\n", 200),
        (request(body_of(2, k=0)), 422),
        (request(b"{"), 400),
        (request(body_of(2), head=HEAD.replace(b"json", b"xml")), 415),
        (CHUNKED + chunks(b" " * (LIMIT + 1), 2**15) + b"0\r\n\r\n", 413),
        (request(b" " * (LIMIT + 1)), 413),
        (HEALTH, 200),
        (HEALTH.replace(b"healthz", b"v1/movies/1"), 200),
        (HEALTH.replace(b"healthz", b"nowhere"), 404),
        (HEALTH.replace(b"healthz", b"v1/recommendations"), 405),
        (HEALTH.replace(b"GET /healthz", b"HEAD /v1/recommendations"), 405),
    ],
)
def test_requests_in_one_packet_are_answered_in_order(
    stack: Stack, expected: dict[int, bytes], middle: bytes, status: int
) -> None:
    with connected(stack.gateway) as client:
        for _ in range(2):
            client.send(request(body_of(1)) + middle + request(body_of(3)))
            assert client.read().body == expected[1]
            between = client.read(of_head=middle.startswith(b"HEAD"))
            assert between.status == status
            if status == 100:
                between = client.read()
            if b'"user_id": 2}' in middle and between.status == 200:
                assert between.body == expected[2]
            last = client.read()
            assert (last.status, last.body) == (200, expected[3])


@pytest.mark.parametrize("before", [0, 1, 2])
@pytest.mark.parametrize(
    "fault",
    [
        GARBAGE,
        HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}}",
        HEAD + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
        HEAD + b"content-length: -1\r\n\r\n",
        HEAD + b"content-length: 1e3\r\n\r\n",
        HEAD + b"a header without a colon\r\n\r\n",
        HEAD.replace(b"/v1", b"/\xff\xfe") + b"\r\n",
        CHUNKED + b"5\r\n12345\r\nno size\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT a:443 HTTP/1.1\r\nhost: a\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused_after_the_answers_to_what_came_before(
    stack: Stack, expected: dict[int, bytes], before: int, fault: bytes
) -> None:
    with connected(stack.gateway) as client:
        client.send(b"".join(request(body_of(user)) for user in range(1, before + 1)) + fault)
        for user in range(1, before + 1):
            answer = client.read()
            assert (answer.status, answer.body) == (200, expected[user])
        refusal = client.read()
        assert (refusal.status, problem(refusal)) == (400, "malformed-request")
        client.check_ended()


def test_what_is_no_http_waits_for_fastapi_too(stack: Stack) -> None:
    with connected(stack.gateway) as client:
        client.send(HEALTH.replace(b"healthz", b"v1/movies/1") + HEALTH + GARBAGE + HEALTH)
        assert json.loads(client.read().body)["movie_id"] == 1
        assert client.read().body == b'{"status":"alive"}'
        assert client.read().status == 400
        client.check_ended()


@pytest.mark.parametrize("more", [b"}", b"\x00" * 2**17])
def test_a_body_longer_than_announced(stack: Stack, expected: dict[int, bytes], more: bytes) -> None:
    with connected(stack.gateway) as client:
        client.send(request(body_of(1)) + more)
        assert client.read().body == expected[1]
        assert client.read().status == 400
        client.check_ended()


@pytest.mark.parametrize(
    "content", [request(body_of(1)), CHUNKED + chunks(body_of(1), 1) + b"0\r\n\r\n"]
)
def test_a_request_in_single_bytes(stack: Stack, expected: dict[int, bytes], content: bytes) -> None:
    with connected(stack.gateway) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for place in range(len(content)):
            client.send(content[place : place + 1])
            time.sleep(0.001)
        assert client.read().body == expected[1]


def test_chunks_with_extensions_and_trailers(stack: Stack, expected: dict[int, bytes]) -> None:
    body = b"%x;a=b\r\n%b\r\n0\r\norigin: https://a.page\r\nexpect: 100-continue\r\n\r\n"
    with connected(stack.gateway) as client:
        client.send(CHUNKED + body % (len(body_of(1)), body_of(1)) + request(body_of(2)))
        assert client.read().body == expected[1]
        assert client.read().body == expected[2]


def test_chunks_that_are_too_many_are_not_waited_for(stack: Stack, expected: dict[int, bytes]) -> None:
    with connected(stack.gateway) as client:
        client.send(CHUNKED + chunks(b" " * (LIMIT + 1), 2**15))
        assert client.read().status == 413
        client.send(chunks(b" " * 1000, 100) + b"0\r\n\r\n" + request(body_of(1)))
        assert client.read().body == expected[1]


@pytest.mark.parametrize(
    "content",
    [
        request(body_of(1), b"connection: close"),
        request(body_of(1), head=HEAD.replace(b"HTTP/1.1", b"HTTP/1.0")),
        request(body_of(1), b"connection: close", b"expect: 100-continue"),
    ],
)
def test_a_connection_that_is_to_end_ends_with_the_answer(
    stack: Stack, expected: dict[int, bytes], content: bytes
) -> None:
    with connected(stack.gateway) as client:
        client.send(request(body_of(2)) + content)
        assert client.read().body == expected[2]
        answer = client.read()
        if answer.status == 100:
            answer = client.read()
        assert answer.body == expected[1]
        assert answer.headers["connection"] == "close"
        client.check_ended()


def test_a_body_that_waits_to_be_asked_for(stack: Stack, expected: dict[int, bytes]) -> None:
    body = body_of(1)
    with connected(stack.gateway) as client:
        for _ in range(2):
            client.send(request(body, b"Expect: 100-Continue").removesuffix(body))
            assert client.read().status == 100
            client.send(body)
            assert client.read().body == expected[1]


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz HTTP/1.1\r\nx: " + b"a" * 2**19,
        b"GET /" + b"a" * 2**19,
        b"x: y\r\n".join([b"GET /healthz HTTP/1.1\r\n", *[b""] * 2**17]),
        CHUNKED + chunks(body_of(1), 3) + b"0\r\nx: " + b"a" * 2**19,
        CHUNKED + b"1;x=" + b"a" * 2**19,
    ],
    ids=["field", "path", "fields", "trailer", "extension"],
)
def test_a_head_without_end(stack: Stack, head: bytes) -> None:
    with connected(stack.gateway) as client:
        for place in range(0, len(head), 2**14):
            try:
                client.send(head[place : place + 2**14])
            except ConnectionError:  # which has its answer by now
                break
            time.sleep(0.001)
        refusal = client.read()
        assert (refusal.status, problem(refusal)) == (431, "head-too-large")


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
def test_an_upgrade_that_there_is_not_is_passed_over(
    stack: Stack, expected: dict[int, bytes], protocol: bytes
) -> None:
    fields = (
        b"connection: upgrade",
        b"upgrade: " + protocol,
        b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==",
    )
    with connected(stack.gateway) as client:
        for _ in range(2):
            client.send(request(body_of(1), *fields, b"sec-websocket-version: 13"))
            assert client.read().body == expected[1]


@pytest.mark.parametrize("connection", [b"close, upgrade", b"upgrade, close"])
def test_an_upgrade_of_a_connection_that_is_to_end(
    stack: Stack, expected: dict[int, bytes], connection: bytes
) -> None:
    with connected(stack.gateway) as client:
        client.send(request(body_of(1), b"upgrade: h2c", b"connection: " + connection))
        assert client.read().body == expected[1]
        client.check_ended()


def test_many_upgrades_in_one_packet(stack: Stack) -> None:
    wish = HEALTH[:-2] + b"upgrade: h2c\r\nconnection: upgrade\r\n\r\n"
    with connected(stack.gateway) as client:
        sending = threading.Thread(target=client.send, args=(wish * 5000,))
        sending.start()
        assert {client.read().status for _ in range(5000)} == {200}
        sending.join()


@pytest.mark.parametrize("fault", [b"no size\r\n", b"1;x=" + b"a" * 2**17])
def test_a_fault_after_the_answer_has_no_second_answer(stack: Stack, fault: bytes) -> None:
    with connected(stack.gateway) as client:
        client.send(CHUNKED + chunks(b" " * (LIMIT + 1), 2**15))
        assert client.read().status == 413
        client.send(fault)
        client.check_ended()


def test_what_comes_after_a_fault_resets_no_connection(stack: Stack) -> None:
    with connected(stack.gateway) as client:
        client.send(CHUNKED + chunks(b" " * (LIMIT + 1), 2**15))
        assert client.read().status == 413
        for piece in (b"no size\r\n", *[b"a" * 2**12] * 20):
            client.send(piece)
            time.sleep(0.01)
        client.check_ended()


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"TRACE"])
def test_another_method(stack: Stack, expected: dict[int, bytes], method: bytes) -> None:
    content = request(body_of(1))
    with connected(stack.gateway) as client:
        client.send(content.replace(b"POST", method) + content)
        refused = client.read(of_head=method == b"HEAD")
        assert (refused.status, refused.headers["allow"]) == (405, "POST")
        assert client.read().body == expected[1]


STAGES = (
    b"",
    HEAD[:9],
    HEAD,
    request(body_of(1))[:-5],
    CHUNKED + b"5\r\n{",
    request(body_of(1)),
    request(body_of(1)) + request(body_of(2))[:-5],
    request(body_of(1)) * 3 + HEALTH,
    HEALTH + request(body_of(1)),
    request(body_of(1), b"expect: 100-continue").removesuffix(body_of(1)),
)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("sent", STAGES)
def test_a_client_leaves(stack: Stack, sent: bytes, *, half: bool) -> None:
    """One that sends no more cannot be told from one that has left: neither is waited for."""
    for _ in range(5):
        with connected(stack.gateway) as client:
            client.send(sent)
            if half:
                client.socket.shutdown(socket.SHUT_WR)
                while client.socket.recv(2**16):
                    pass
    assert httpx.get(f"{stack.url}/healthz").status_code == 200


@pytest.fixture(scope="module")
def impatient(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Services whose gateway waits for a request for a second."""
    folder = tmp_path_factory.mktemp("impatient")
    bundles = trained.copy(folder / "bundles", trained.first)
    with running_stack(bundles, folder, read_seconds="1", timeout_seconds="20") as stack:
        yield stack
        assert "Traceback" not in stack.gateway.log_path.read_text()


ORIGIN = b"origin: https://a.page"


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (b"", []),
        (b"\r\n", []),
        (HEAD[:9], [408]),
        (HEAD, [408]),
        (request(body_of(1))[:-5], [408]),
        (request(body_of(1), ORIGIN)[:-5], [408]),
        (HEAD + b"content-length: 99\r\n\r\n" + body_of(1), [408]),
        (CHUNKED + b"5\r\n{", [408]),
        (CHUNKED + chunks(body_of(1), 3), [408]),
        (request(body_of(1), b"expect: 100-continue").removesuffix(body_of(1)), [100, 408]),
        (request(body_of(1)) + request(body_of(2))[:-5], [200, 408]),
        (request(body_of(1), ORIGIN) + request(body_of(2), ORIGIN)[:-5], [200, 408]),
        (request(body_of(1)) + HEAD, [200, 408]),
        (HEALTH[:-2] + b"content-length: 5\r\n\r\n", [200]),
        (request(b" " * (LIMIT + 1))[:-5], [413]),
    ],
)
def test_who_sends_no_more_is_not_waited_for(impatient: Stack, sent: bytes, statuses: list[int]) -> None:
    start = time.monotonic()
    with connected(impatient.gateway) as client:
        client.send(sent)
        for status in statuses:
            answer = client.read()
            assert answer.status == status
            assert status != 408 or problem(answer) == "too-slow"
        client.check_ended()
    assert 0.9 < time.monotonic() - start < 3


@pytest.mark.parametrize("origin", [(), (ORIGIN,)])
def test_drop_by_drop_is_no_better(impatient: Stack, origin: tuple[bytes, ...]) -> None:
    counted = {"method": "POST /v1/recommendations", "code": "408"}
    before = impatient.gateway.metric("twotower_requests_total", **counted)
    content = request(body_of(1).ljust(1000), *origin)
    with connected(impatient.gateway) as client:
        client.send(content[:-900])
        with suppress(ConnectionError):  # of who goes on after the answer
            for place in range(len(content) - 900, len(content)):
                time.sleep(0.05)
                client.send(content[place : place + 1])
        assert problem(client.read()) == "too-slow"
    assert impatient.gateway.metric("twotower_requests_total", **counted) == before + 1


def test_an_answer_that_takes_longer_is_waited_for(impatient: Stack) -> None:
    with connected(impatient.gateway) as client:
        with impatient.retrieval.frozen():
            client.send(request(body_of(1)) + request(body_of(2), ORIGIN))
            time.sleep(1.5)
        assert [client.read().status for _ in range(2)] == [200, 200]


@pytest.mark.parametrize("first", [request(body_of(1)), request(body_of(1), ORIGIN)])
def test_of_who_leaves_nothing_goes_on(impatient: Stack, first: bytes) -> None:
    def asked(status: int) -> float:
        return impatient.gateway.metric(
            "twotower_requests_total", method="POST /v1/recommendations", code=str(status)
        )

    before = asked(499), asked(200)
    with impatient.retrieval.frozen():
        with connected(impatient.gateway) as client:
            client.send(first + request(body_of(2)) + HEALTH + request(body_of(3), ORIGIN))
            time.sleep(0.3)
        wait_until(lambda: asked(499) == before[0] + 1, "the request ended", 10)
    impatient.wait_ready(10)
    assert (asked(499), asked(200)) == (before[0] + 1, before[1])


def test_a_slow_reader_gets_every_answer(stack: Stack) -> None:
    bodies = [body_of(1 + place % 3, k=100) for place in range(600)]
    url = f"{stack.url}/v1/users/{{}}/recommendations?k=100"
    alone = [httpx.get(url.format(user)).content for user in (1, 2, 3)]
    with connected(stack.gateway, receive_buffer=4096) as client:
        sending = threading.Thread(target=client.send, args=(b"".join(map(request, bodies)),))
        sending.start()
        time.sleep(1)
        for place in range(len(bodies)):
            assert client.read().body == alone[place % 3]
        sending.join()


def stop(gateway: Service) -> None:
    """Tell it to, and wait until it has heard."""
    gateway.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not gateway.is_listening(), "no more connections taken")


def test_a_stop_lets_all_that_is_under_way_end(bundles: Path, tmp_path: Path) -> None:
    with running_stack(bundles, tmp_path, timeout_seconds="20", drain_seconds="20") as stack:
        with (
            connected(stack.gateway) as several,
            connected(stack.gateway) as half,
            connected(stack.gateway) as idle,
        ):
            idle.send(HEALTH)
            assert idle.read().status == 200
            with stack.retrieval.frozen():
                middle = request(body_of(2), b"origin: https://a.page")
                several.send(request(body_of(1)) + middle + request(body_of(3)))
                half.send(request(body_of(1))[:-5])
                time.sleep(0.5)
                stop(stack.gateway)
                idle.check_ended()
                half.send(request(body_of(1))[-5:])
            answers = [several.read() for _ in range(3)]
            assert [answer.status for answer in answers] == [200] * 3
            several.check_ended()
            assert half.read().status == 200
            half.check_ended()
        assert stack.gateway.process.wait(timeout=20) == 0
        assert "Traceback" not in stack.gateway.log_path.read_text()


def test_a_stop_does_not_wait_for_ever(bundles: Path, tmp_path: Path) -> None:
    with running_stack(bundles, tmp_path, timeout_seconds="600", drain_seconds="1") as stack:
        with (
            stack.retrieval.frozen(),
            connected(stack.gateway) as quick,
            connected(stack.gateway) as slow,
            connected(stack.gateway) as half,
        ):
            quick.send(request(body_of(1)))
            slow.send(request(body_of(1), b"origin: https://a.page"))
            half.send(request(body_of(1))[:-5])
            time.sleep(0.5)
            stop(stack.gateway)
            assert stack.gateway.process.wait(timeout=20) == 0
        assert "Traceback" not in stack.gateway.log_path.read_text()
