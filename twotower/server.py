"""Start-up of a gRPC service: limits, health, reflection, request ids, errors, metrics, drain."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from select import select
from typing import Any, Final

import grpc
import structlog
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import start_http_server

from twotower.bundle import Bundle
from twotower.codes import code_of, to_status
from twotower.errors import InternalError, InvalidRequest, RequestError, SettingsError
from twotower.logs import set_up_logging
from twotower.manifest import Manifest
from twotower.metrics import REQUESTS, STAGE_SECONDS
from twotower.models import M, ModelPool
from twotower.process import hold
from twotower.remote import follow
from twotower.request_ids import REQUEST_ID_KEY, check_request_id
from twotower.settings import ModelServiceSettings

ARRIVAL: Final[ContextVar[float]] = ContextVar("arrival")
"""When the call being answered arrived, by `time.perf_counter()`."""

_LONGEST_SILENCE_SECONDS: Final = 30.0
"""How long to wait for a first model before connections are taken without one."""

_OPEN: Final = b"\0"
"""Told by `open`; any other byte is the number of a signal."""

_OBSERVED = "/twotower."
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

log = structlog.get_logger()


class RpcServer:
    """A gRPC server of one service, beside health and reflection.

    Its health is NOT_SERVING until `report_health(True)`, and it takes no connections until `open()`.
    """

    def __init__(self, settings: ModelServiceSettings, service_name: str) -> None:
        """`service_name` is the full name of the protobuf service."""
        self._settings = settings
        self._names = ("", service_name)
        self._ear, self._bell = os.pipe()
        self._health = health.HealthServicer()
        self.report_health(ready=False)
        self.grpc = grpc.server(
            ThreadPoolExecutor(settings.workers + 1, thread_name_prefix="rpc"),
            interceptors=[_Observer(), _OneStream()],
            options=_options(settings),
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)
        reflection.enable_server_reflection(
            (service_name, health.SERVICE_NAME, reflection.SERVICE_NAME), self.grpc
        )

    def report_health(self, *, ready: bool) -> None:
        """Tell health clients whether the service can answer."""
        for name in self._names:
            self._health.set(name, _SERVING if ready else _NOT_SERVING)

    def open(self) -> None:
        """Let `serve` take connections; from any thread."""
        os.write(self._bell, _OPEN)

    @contextmanager
    def claimed(self) -> Iterator[socket.socket]:
        """Hold the ports, heed SIGTERM and SIGINT, and serve metrics while the block runs.

        The block has the port of the service, to serve on. Raises SettingsError where a port is taken.
        """
        # Upon a pause the kernel may hand a signal to any thread, and its handler then waits for the
        # main one, which does not wake; the byte that the wakeup descriptor gets wakes it always.
        os.set_blocking(self._bell, False)
        signal.set_wakeup_fd(self._bell)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        with hold(self._settings.host, self._settings.port) as held, self._metrics():
            yield held

    def serve(self, held: socket.socket) -> None:
        """Listen on a port that is held, once opened or tired of waiting, until SIGTERM or SIGINT.

        Then new calls are refused, and those under way end. Raises SettingsError where another process
        that held the port too was the first to listen.
        """
        told, _, _ = select([self._ear], [], [], _LONGEST_SILENCE_SECONDS)
        if not told or os.read(self._ear, 1) == _OPEN:
            self._listen(held)
            while os.read(self._ear, 1) == _OPEN:
                pass
            log.info("draining")
            self._health.enter_graceful_shutdown()
            self.grpc.stop(self._settings.drain_seconds).wait()
        log.info("stopped")

    def _listen(self, held: socket.socket) -> None:
        host, port = self._settings.host, held.getsockname()[1]
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        held.close()  # gRPC takes a port itself, and connections from then on
        try:
            self.grpc.add_insecure_port(address)
        except RuntimeError as error:
            raise SettingsError(f"cannot listen on {address}: is the port taken?") from error
        self.grpc.start()
        log.info("listening", address=f"{host}:{port}")

    @contextmanager
    def _metrics(self) -> Iterator[None]:
        host, port = self._settings.host, self._settings.metrics_port
        if not port:
            yield
            return
        try:
            server, _ = start_http_server(port, host)
        except OSError as error:
            raise SettingsError(f"cannot serve metrics on {host}:{port}: {error.strerror}") from error
        with server:
            try:
                yield
            finally:
                server.shutdown()


def serve_models(
    settings: ModelServiceSettings,
    service_name: str,
    load: Callable[[Manifest, Bundle], M],
    register: Callable[[ModelPool[M], grpc.Server], None],
) -> None:
    """Serve the promoted models of a folder of bundles over gRPC, until told to stop.

    `load` makes the served model of a bundle; `register` adds the servicer to the server. Healthy once
    a model is loaded. Raises SettingsError where a port is taken.

    It listens once a model is loaded: clients that balance over replicas take any that they can connect
    to for one that answers, and a call that meets only such as are still loading fails. Where the first
    look finds no model that will do, it listens to tell the reason. So it does at last where that look
    hangs, behind an S3 that answers byte by byte or a stuck replica that shares the cache; but only when
    any usual pull and load would be over, since a replica is better away during these.
    """
    set_up_logging(service_name, settings.log_level)
    server = RpcServer(settings, service_name)
    root, pull = follow(settings.bundles, settings.cache / service_name)
    models = ModelPool(
        root,
        load,
        pull=pull,
        poll_seconds=settings.poll_seconds,
        keep_seconds=settings.keep_seconds,
        on_change=lambda: server.report_health(ready=models.ready),
        on_started=server.open,
    )
    register(models, server.grpc)
    with server.claimed() as held:
        models.start()
        try:
            server.serve(held)
        finally:
            models.stop()


def _options(settings: ModelServiceSettings) -> Sequence[tuple[str, int]]:
    age_ms = int(settings.max_connection_age_seconds * 1000)
    return (
        ("grpc.so_reuseport", 0),  # a taken port must be an error, not a silent sharing
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_connection_age_ms", age_ms),
        ("grpc.max_connection_age_grace_ms", int(settings.drain_seconds * 1000)),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
    )


class _Observer(grpc.ServerInterceptor):
    """Around every call of ours: its request id, its errors as statuses, its log line, its metrics."""

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Any],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(_OBSERVED):
            return handler
        arrival = time.perf_counter()
        method = handler_call_details.method.rpartition("/")[2]
        metadata = dict(handler_call_details.invocation_metadata or ())
        request_id = check_request_id(str(metadata.get(REQUEST_ID_KEY, "")))

        def observed(serialised: bytes, context: grpc.ServicerContext) -> Any:
            failure: RequestError | None = None
            ARRIVAL.set(arrival)
            structlog.contextvars.bind_contextvars(request_id=request_id, method=method)
            try:
                response = handler.unary_unary(_parse(handler, serialised), context)
            except RequestError as error:
                failure = error
            except Exception:
                log.exception("request failed")
                failure = InternalError(f"internal error; request id {request_id}")
            _record(method, failure, time.perf_counter() - arrival)
            structlog.contextvars.clear_contextvars()
            if failure:
                context.abort_with_status(to_status(failure))
            return response

        # Parsed within, not by gRPC: what is no message is the client's fault, and told as such.
        return grpc.unary_unary_rpc_method_handler(
            observed, response_serializer=handler.response_serializer
        )


class _OneStream(grpc.ServerInterceptor):
    """Lets one stream at a time in: each would hold a worker for as long as its client likes."""

    def __init__(self) -> None:
        self._free = threading.Semaphore(1)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Any],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = continuation(handler_call_details)
        if handler is None or handler.stream_stream is None:
            return handler

        def alone(requests: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            if not self._free.acquire(blocking=False):
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "one reflection stream at a time")
            try:
                yield from handler.stream_stream(requests, context)
            finally:
                self._free.release()

        return grpc.stream_stream_rpc_method_handler(
            alone,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


def _parse(handler: Any, serialised: bytes) -> Any:
    try:
        return handler.request_deserializer(serialised)
    except DecodeError as error:
        raise InvalidRequest("the request is not a message of this method") from error


def _record(method: str, failure: RequestError | None, seconds: float) -> None:
    code = code_of(failure).grpc.name if failure else "OK"
    REQUESTS.labels(method, code).inc()
    STAGE_SECONDS.labels(method).observe(seconds)
    log.info("request", code=code, ms=round(seconds * 1000, 3), reason=str(failure or ""))
