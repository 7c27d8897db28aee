"""The replicas of a service: where they are, and which of them to ask next.

gRPC's own round robin goes on sending to a replica that hangs until its connection is found dead,
some ten seconds later, and finds new replicas when connections are renewed. Here each has a connection
of its own. The one with the fewest calls under way is asked, DNS is looked up every two seconds, and one
that does not answer in time is asked nothing more until it answers a question that nobody waits for.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Final, Generic, TypeVar

import grpc
import structlog

from gateway.batching import seconds_until

_OPTIONS: Final = (
    ("grpc.enable_retries", 0),  # a call that fails is made again here, and of another replica
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),  # the services are at hand, whatever the environment says
    # A replica that begins to listen must be found at once: those it replaces go within the second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1_000),  # despite its name, what an attempt may take
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    # A host that vanished without a word must be noticed.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 2_000),
)
_LOOK_SECONDS: Final = 2.0
"""Between two looks into DNS, and between two questions to a replica that does not answer."""
_SILENCE_SECONDS: Final = 0.25
"""After so long without any answer, a replica that owes some is asked only where all are alike."""
_LONGEST_CALL_SECONDS: Final = 3_600.0
_ATTEMPTS: Final = 3
_BACKOFF_SECONDS: Final = 0.02
"""Before a second attempt at the same replica; five times that before a third."""
_ELSEWHERE: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
"""A server that ends cancels the calls that reach it while it closes."""
_TARGETS: Final = {socket.AF_INET: "ipv4:{}:{}", socket.AF_INET6: "ipv6:[{}]:{}"}
"""gRPC targets of an address and a port."""

Stub = TypeVar("Stub")
R = TypeVar("R")

log = structlog.get_logger()


class _Replica(Generic[Stub]):
    """One replica, and what it is known to do. Times are by the event loop's clock."""

    def __init__(self, target: str, stub: Callable[[grpc.aio.Channel], Stub]) -> None:
        self.target = target
        self.channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        self.stub = stub(self.channel)
        self.under_way = 0
        self.turn = 0
        """Ascends with each call made."""
        self.heard_at = 0.0
        """When it last answered, or was first asked while it owed nothing."""
        self.checking: asyncio.Task[None] | None = None
        """Runs until it answers again."""

    def worth(self, now: float) -> tuple[bool, bool, int, int]:
        """Less is better: connected, answering, little under way, and longest not asked."""
        connected = self.channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY
        silent = self.under_way > 0 and now - self.heard_at > _SILENCE_SECONDS
        return not connected, silent or self.checking is not None, self.under_way, self.turn

    async def close(self, grace: float | None = None) -> None:
        """Let the connection go, once the calls under way have ended or so many seconds have passed."""
        if self.checking:
            self.checking.cancel()
        await self.channel.close(grace)


class Replicas(Generic[Stub]):
    """All replicas behind a gRPC target, and calls to one or another of them.

    Every call must be a pure function: one that fails may be made again. Made within a running event
    loop.
    """

    def __init__(
        self,
        target: str,
        stub: Callable[[grpc.aio.Channel], Stub],
        check: Callable[[Stub, float], Awaitable[object]],
    ) -> None:
        """`check` is a cheap call, to see whether a replica answers within so many seconds."""
        self._target, self._stub, self._check = target, stub, check
        self._replicas = {target: _Replica(target, stub)}
        self._turns = count(1)
        self._leaving: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._replicas)

    def start(self) -> None:
        """Keep looking for replicas until closed."""
        self._looking = asyncio.get_running_loop().create_task(self._keep_looking())

    async def call(self, call: Callable[[Stub, float], Awaitable[R]], seconds: float) -> R:
        """Ask a replica, and another where it cannot be reached; raises grpc.aio.AioRpcError."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        tried: list[_Replica[Stub]] = []
        while True:
            replica = self._next(tried)
            try:
                return await self._ask(replica, call, seconds_until(deadline))
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    self._watch(replica)
                tried.append(replica)
                backoff = _BACKOFF_SECONDS * 5 ** (len(tried) - 1)
                late = loop.time() + backoff > deadline
                if error.code() not in _ELSEWHERE or len(tried) == _ATTEMPTS or late:
                    raise
            if len(tried) >= len(self._replicas):
                await asyncio.sleep(backoff)

    async def close(self) -> None:
        """Let all connections go."""
        if self._looking:
            self._looking.cancel()
        for task in self._leaving:
            task.cancel()
        await asyncio.gather(*(each.close() for each in self._replicas.values()))

    async def _ask(
        self, replica: _Replica[Stub], call: Callable[[Stub, float], Awaitable[R]], seconds: float
    ) -> R:
        loop = asyncio.get_running_loop()
        if not replica.under_way:
            replica.heard_at = loop.time()
        replica.under_way += 1
        replica.turn = next(self._turns)
        try:
            answer = await call(replica.stub, seconds)
        finally:
            replica.under_way -= 1
        replica.heard_at = loop.time()
        return answer

    def _next(self, tried: list[_Replica[Stub]]) -> _Replica[Stub]:
        now = asyncio.get_running_loop().time()
        return min(self._replicas.values(), key=lambda each: (each in tried, *each.worth(now)))

    def _watch(self, replica: _Replica[Stub]) -> None:
        """Leave a replica alone until it answers."""
        if not replica.checking and self._replicas.get(replica.target) is replica:
            log.warning("a replica does not answer", target=replica.target)
            replica.checking = asyncio.get_running_loop().create_task(self._await_answer(replica))

    async def _await_answer(self, replica: _Replica[Stub]) -> None:
        while True:
            try:
                await self._check(replica.stub, _LOOK_SECONDS)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(_LOOK_SECONDS)
            else:
                break
        replica.checking = None
        log.info("a replica answers again", target=replica.target)

    async def _keep_looking(self) -> None:
        while True:
            self._settle(await addresses_of(self._target))
            await asyncio.sleep(_LOOK_SECONDS)

    def _settle(self, targets: list[str]) -> None:
        """Have a connection to each of these, and to no other."""
        loop = asyncio.get_running_loop()
        for target in targets:
            if target not in self._replicas:
                self._replicas[target] = _Replica(target, self._stub)
        for target in [each for each in self._replicas if each not in targets]:
            # All calls have deadlines; to be cut off would look like being cancelled to who waits.
            task = loop.create_task(self._replicas.pop(target).close(_LONGEST_CALL_SECONDS))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)


async def addresses_of(target: str) -> list[str]:
    """The replicas behind a gRPC target, each a target of its own; that itself where it names but one.

    target: `dns:///host:port`, `host:port`, or `ipv4:` and `ipv6:` with addresses apart by commas.
    """
    scheme, _, rest = target.partition(":")
    if scheme in ("ipv4", "ipv6"):
        return [f"{scheme}:{address}" for address in dict.fromkeys(rest.split(","))]
    host, _, port = target.rpartition("/")[2].rpartition(":")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM
        )
    except (OSError, UnicodeError):  # the latter of what can be no name
        return [target]
    targets = [
        sorted({form.format(where[0], port) for kind, *_, where in found if kind == family})
        for family, form in _TARGETS.items()
    ]
    # A host may have an address of either kind: that makes it no second one.
    most = max(targets, key=len)
    return most if len(most) > 1 else [target]
