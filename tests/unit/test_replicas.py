from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest

from gateway import replicas
from gateway.replicas import Replicas, addresses_of
from twotower.v1.user_tower_pb2 import (
    EmbedUserRequest,
    EmbedUserResponse,
    UserTowerServiceListModelsRequest,
    UserTowerServiceListModelsResponse,
)
from twotower.v1.user_tower_pb2_grpc import (
    UserTowerServiceServicer,
    UserTowerServiceStub,
    add_UserTowerServiceServicer_to_server,
)

V4, V6 = socket.AF_INET, socket.AF_INET6


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("ipv4:10.0.0.1:50052,10.0.0.2:50052", ["ipv4:10.0.0.1:50052", "ipv4:10.0.0.2:50052"]),
        ("ipv4:10.0.0.1:50052,10.0.0.1:50052", ["ipv4:10.0.0.1:50052"]),
        ("ipv6:[::1]:50052", ["ipv6:[::1]:50052"]),
        *(
            (target, [target])
            for target in (
                "dns:///127.0.0.1:50051",
                "127.0.0.1:50051",
                "dns:///[::1]:50051",
                "dns:///no-such-host.invalid:50051",
                "dns:///:50051",
                "dns:///a..b:50051",
                f"dns:///{'a' * 64}:50051",
            )
        ),
    ],
)
def test_what_a_target_tells(target: str, found: Sequence[str]) -> None:
    assert asyncio.run(addresses_of(target)) == found


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["10.0.0.2", "10.0.0.1", "10.0.0.2"], ["ipv4:10.0.0.1:50052", "ipv4:10.0.0.2:50052"]),
        (["10.0.0.1", "fd00::1"], ["dns:///retrieval:50052"]),
        (["10.0.0.1", "10.0.0.2", "fd00::1"], ["ipv4:10.0.0.1:50052", "ipv4:10.0.0.2:50052"]),
        (["fd00::2", "fd00::1"], ["ipv6:[fd00::1]:50052", "ipv6:[fd00::2]:50052"]),
    ],
)
def test_each_address_of_a_name_is_a_replica(
    monkeypatch: pytest.MonkeyPatch, names: Sequence[str], found: Sequence[str]
) -> None:
    async def look_up(_loop: Any, _host: str, port: str, **_: Any) -> list[Any]:
        return [
            (V6 if ":" in name else V4, socket.SOCK_STREAM, 6, "", (name, int(port))) for name in names
        ]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", look_up)
    assert asyncio.run(addresses_of("dns:///retrieval:50052")) == found


class Server(UserTowerServiceServicer):
    """A user tower that only says which one it is, or hangs, on a port of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked = 0
        self.working = asyncio.Event()
        self.working.set()
        self.target = ""

    async def EmbedUser(self, _request: Any, _context: Any) -> EmbedUserResponse:  # noqa: N802
        self.asked += 1
        await self.working.wait()
        return EmbedUserResponse(embedding={"model_version": self.name})

    async def ListModels(  # noqa: N802
        self, _request: Any, _context: Any
    ) -> UserTowerServiceListModelsResponse:
        await self.working.wait()
        return UserTowerServiceListModelsResponse()

    async def BatchEmbedUsers(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        raise NotImplementedError

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        server = grpc.aio.server()
        add_UserTowerServiceServicer_to_server(self, server)  # type: ignore[no-untyped-call, unused-ignore]
        port = server.add_insecure_port("127.0.0.1:0")
        self.target = f"ipv4:127.0.0.1:{port}"
        await server.start()
        try:
            yield
        finally:
            self.working.set()
            await server.stop(0)


class Service:
    """Some servers, and who asks them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.servers = [Server(name) for name in "abc"]
        self.known: list[str] = []
        """What DNS tells."""
        self.looks = 0
        monkeypatch.setattr(replicas, "_LOOK_SECONDS", 0.05)
        monkeypatch.setattr(replicas, "addresses_of", self._look_up)

    async def _look_up(self, _target: str) -> list[str]:
        self.looks += 1
        return self.known

    async def ask(self, service: Replicas[Any], seconds: float = 5.0) -> str:
        def embed(stub: Any, left: float) -> Awaitable[EmbedUserResponse]:
            answer: Awaitable[EmbedUserResponse] = stub.EmbedUser(EmbedUserRequest(), timeout=left)
            return answer

        return (await service.call(embed, seconds)).embedding.model_version

    async def ask_until(self, service: Replicas[Any], name: str) -> None:
        """Until a replica answers that may not be known yet."""
        for _ in range(1000):
            if await self.ask(service) == name:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{name} was not asked in ten seconds")

    async def wait_for_looks(self, count: int) -> None:
        """Until DNS has been asked so many times more."""
        enough = self.looks + count
        for _ in range(1000):
            if self.looks >= enough:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("DNS is not asked")

    async def wait_for(self, service: Replicas[Any], count: int) -> None:
        """Until so many replicas are known."""
        for _ in range(1000):
            if len(service) == count:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"there are {len(service)} replicas, not {count}")

    def run(self, test: Callable[[Replicas[Any]], Coroutine[Any, Any, None]]) -> None:
        async def with_servers() -> None:
            async with AsyncExitStack() as stack:
                for server in self.servers:
                    await stack.enter_async_context(server.listening())
                self.known = [self.servers[0].target]
                service = Replicas(
                    self.servers[0].target,
                    UserTowerServiceStub,
                    lambda stub, left: stub.ListModels(
                        UserTowerServiceListModelsRequest(), timeout=left
                    ),
                )
                service.start()
                try:
                    await asyncio.wait_for(test(service), 30)
                finally:
                    await service.close()

        asyncio.run(with_servers())


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    return Service(monkeypatch)


def test_a_new_replica_has_its_share_and_one_that_is_gone_none(service: Service) -> None:
    async def test(asked: Replicas[Any]) -> None:
        first, second, third = service.servers
        assert {await service.ask(asked) for _ in range(5)} == {"a"}
        service.known = [first.target, second.target, third.target]
        await service.ask_until(asked, "b")
        await service.ask_until(asked, "c")
        answers = [await service.ask(asked) for _ in range(30)]
        assert [answers.count(name) for name in "abc"] == [10, 10, 10]
        service.known = [third.target]
        await service.wait_for(asked, 1)
        assert {await service.ask(asked) for _ in range(5)} == {"c"}

    service.run(test)


def test_calls_under_way_end_at_a_replica_that_is_gone(service: Service) -> None:
    async def test(asked: Replicas[Any]) -> None:
        first, second, _ = service.servers
        first.working.clear()
        under_way = asyncio.create_task(service.ask(asked))
        await asyncio.sleep(0)
        service.known = [second.target]
        await service.wait_for_looks(2)
        assert await service.ask(asked) == "b"
        first.working.set()
        assert await under_way == "a"

    service.run(test)


def test_the_one_with_less_to_do_is_asked(service: Service) -> None:
    async def test(asked: Replicas[Any]) -> None:
        first, second, _ = service.servers
        service.known = [first.target, second.target]
        await service.ask_until(asked, "b")
        first.working.clear()
        waiting = [asyncio.create_task(service.ask(asked)) for _ in range(2)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        answers = [await service.ask(asked) for _ in range(10)]
        assert answers == ["b"] * 10
        first.working.set()
        assert {await each for each in waiting} == {"a", "b"}

    service.run(test)


def test_one_that_hangs_is_asked_nothing_more_until_it_answers(service: Service) -> None:
    async def test(asked: Replicas[Any]) -> None:
        first, second, _ = service.servers
        service.known = [first.target, second.target]
        await service.ask_until(asked, "b")
        await service.ask_until(asked, "a")
        first.working.clear()
        before = first.asked
        outcomes = await asyncio.gather(
            *(service.ask(asked, 0.5) for _ in range(2)), return_exceptions=True
        )
        assert sorted(map(type, outcomes), key=str) == sorted([grpc.aio.AioRpcError, str], key=str)
        answers = [await service.ask(asked) for _ in range(50)]
        assert answers == ["b"] * 50
        assert first.asked == before + 1
        first.working.set()
        await service.ask_until(asked, "a")

    service.run(test)


def test_where_all_hang_they_are_asked_all_the_same(service: Service) -> None:
    async def test(asked: Replicas[Any]) -> None:
        (first, *_) = service.servers
        first.working.clear()
        for _ in range(2):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await service.ask(asked, 0.1)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        first.working.set()
        assert await service.ask(asked) == "a"

    service.run(test)


def test_one_that_cannot_be_reached_is_passed_over(service: Service) -> None:
    async def test(asked: Replicas[Any]) -> None:
        (first, *_) = service.servers
        service.known = ["ipv4:127.0.0.1:1", first.target]
        await service.wait_for(asked, 2)
        assert [await service.ask(asked) for _ in range(10)] == ["a"] * 10

    service.run(test)
