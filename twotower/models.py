"""The models that a service has loaded: the promoted, the one before, and those still asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

import structlog

from twotower.bundle import Bundle, read_bundle
from twotower.errors import BundleError, ModelNotServed, NotReady
from twotower.manifest import Manifest
from twotower.metrics import MODELS
from twotower.process import settle_heap
from twotower.promotion import read_current
from twotower.remote import borrowed
from twotower.v1 import embedding_pb2 as pb

_RETRY_SECONDS: Final = 10.0
_STOP_SECONDS: Final = 5.0
"""How long a stop waits for what is being loaded or pulled."""

log = structlog.get_logger()


class ServedModel(Protocol):
    """What a service makes of a bundle."""

    @property
    def model_version(self) -> str:
        """The version of the bundle."""
        ...

    def replay(self) -> None:
        """Answer the golden requests. Raises BundleError where an answer is not the recorded one."""
        ...


M = TypeVar("M", bound=ServedModel)


def try_promoted(bundles: Path | str, load: Callable[[Manifest, Bundle], M]) -> str:
    """Load the promoted model and have it answer its golden requests; says how that went.

    Raises BundleError, and whatever a runtime raises that cannot load it.
    """
    with borrowed(bundles) as root:
        promoted = read_current(root)
        if promoted is None:
            return f"none is promoted in {bundles}: not tried"
        start = time.perf_counter()
        load(*read_bundle(root, promoted.current)).replay()
        seconds = time.perf_counter() - start
    return f"{promoted.current} in {bundles} answers its golden requests ({seconds:.1f} s)"


@dataclass
class _Loaded(Generic[M]):
    manifest: Manifest
    model: M
    last_request: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class _Refusal:
    message: str
    retry_at: float


class ModelPool(Generic[M]):
    """Keeps the models of a folder of bundles loaded, following its promotions.

    The promoted model is preferred as soon as it is loaded and has answered its golden requests; until
    then, or if it is refused, whichever was preferred before stays so. A model is let go once it is
    neither promoted, nor the one before, nor asked for by name within `keep_seconds`. Thread-safe.
    """

    def __init__(
        self,
        root: Path,
        load: Callable[[Manifest, Bundle], M],
        *,
        poll_seconds: float,
        keep_seconds: float,
        pull: Callable[[], None] = lambda: None,
        on_change: Callable[[], None] = lambda: None,
        on_started: Callable[[], None] = lambda: None,
    ) -> None:
        """`load` makes the served model of a verified bundle; `on_change` follows every change.

        `pull` brings the folder up to date before each look; it may raise BundleError. `on_started` is
        told once: when a model is preferred, or when the first look has ended without one.
        """
        self._root = root
        self._pull = pull
        self._load = load
        self._poll_seconds = poll_seconds
        self._keep_seconds = keep_seconds
        self._on_change = on_change
        self._on_started = on_started
        # Replaced as wholes, never changed in place: readers need no lock.
        self._loaded: dict[str, _Loaded[M]] = {}
        self._preferred = ""
        self._refused: dict[str, _Refusal] = {}
        self._looked = False
        self._started = False
        self._pull_again_at = 0.0
        self._not_pulled = ""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="model-pool", daemon=True)

    def start(self) -> None:
        """Load what is promoted, in a thread of its own that then follows promotions."""
        self._thread.start()

    def stop(self) -> None:
        """Follow no more."""
        self._stopping.set()
        self._thread.join(timeout=_STOP_SECONDS)

    @property
    def ready(self) -> bool:
        """Whether any model is loaded."""
        return bool(self._preferred)

    def get(self, model_version: str = "") -> M:
        """The model of that version; empty for the preferred one. Raises ModelNotServed, NotReady."""
        preferred, loaded = self._preferred, self._loaded
        if not preferred:
            raise NotReady(self._reason_for_none())
        entry = loaded.get(model_version or preferred)
        if entry is None:
            served = self._versions()
            raise ModelNotServed(
                f"model {model_version!r} is not served here; served: {', '.join(served)}",
                served=served,
            )
        entry.last_request = time.monotonic()
        return entry.model

    def models(self) -> list[pb.Model]:
        """The models loaded, the preferred one first."""
        loaded = self._loaded
        return [
            pb.Model(
                model_version=version,
                recipe=loaded[version].manifest.recipe,
                created_at=loaded[version].manifest.created_at,
                movie_count=loaded[version].manifest.dataset.movies,
                embedding_dim=loaded[version].manifest.embedding_dim,
            )
            for version in self._versions()
            if version in loaded
        ]

    def refused(self) -> list[pb.RefusedModel]:
        """The models promoted but not loaded, and why."""
        refused = {version: refusal.message for version, refusal in self._refused.items()}
        if not (refused or self._looked or self._preferred):
            refused = {"": "the first is being loaded"}
        return [
            pb.RefusedModel(model_version=version, message=message)
            for version, message in refused.items()
        ]

    def refresh(self) -> None:
        """Look at what is promoted now: load, prefer and let go accordingly."""
        try:
            named = read_current(self._root)
            if named is None or self._looked:  # what is here at the start is served before any waiting
                self._try_to_pull()
                named = read_current(self._root)
        except BundleError as error:
            self._refuse("", str(error))
            return
        if named is None and not self._looked and not self._not_pulled:
            log.warning("no model is promoted", bundles=str(self._root))
        wanted = [v for v in (named.current, named.previous) if v] if named else []
        standing = [*wanted, ""] if self._not_pulled else wanted
        if any(version not in standing for version in self._refused):
            self._refused = {v: r for v, r in self._refused.items() if v in standing}
            self._report()
        for version in wanted:
            if self._stopping.is_set():
                return
            if version not in self._loaded:
                self._try_loading(version)
            if version in self._loaded and (version == wanted[0] or not self._preferred):
                self._prefer(version)
        self._let_go(keep=wanted)
        self._looked = True

    def _follow(self) -> None:
        while not self._stopping.is_set():
            try:
                self.refresh()
            except Exception:  # the thread must outlive any fault, or promotions would go unseen
                log.exception("models not refreshed")
            self._tell_started()
            self._stopping.wait(self._poll_seconds)

    def _try_to_pull(self) -> None:
        """Where what is promoted elsewhere cannot be had, what is here goes on being served."""
        if time.monotonic() < self._pull_again_at:
            return
        fault = ""
        try:
            self._pull()
        except BundleError as error:
            fault = str(error)
            self._pull_again_at = time.monotonic() + _RETRY_SECONDS
            # Whose bucket it is, and what AWS says of it, is for the log alone.
            self._refuse("", "the bundles cannot be brought here from where they lie")
        if fault and fault != self._not_pulled:
            log.error("bundles not pulled", reason=fault)
        self._not_pulled = fault

    def _try_loading(self, version: str) -> None:
        refusal = self._refused.get(version)
        if refusal and time.monotonic() < refusal.retry_at:
            return
        start = time.perf_counter()
        try:
            manifest, bundle = read_bundle(self._root, version)
            model = self._load(manifest, bundle)
            model.replay()
            del bundle
            settle_heap()
        except BundleError as error:
            self._refuse(version, str(error))
        except Exception as error:  # a runtime fails in ways of its own on a bad model
            log.exception("model cannot be loaded", model_version=version)
            self._refuse(version, f"{version}: cannot be loaded ({type(error).__name__})")
        else:
            self._loaded = {**self._loaded, version: _Loaded(manifest, model)}
            self._refused = {v: r for v, r in self._refused.items() if v != version}
            seconds = round(time.perf_counter() - start, 3)
            log.info("model loaded", model_version=version, seconds=seconds)
            self._report()

    def _refuse(self, version: str, message: str) -> None:
        known = self._refused.get(version)
        retry_at = time.monotonic() + _RETRY_SECONDS
        self._refused = {**self._refused, version: _Refusal(message, retry_at)}
        if known is None or known.message != message:
            log.error("model refused", model_version=version, reason=message)
            self._report()

    def _prefer(self, version: str) -> None:
        if version != self._preferred:
            self._preferred = version
            log.info("model preferred", model_version=version)
            self._report()
            self._tell_started()

    def _tell_started(self) -> None:
        if not self._started:
            self._started = True
            self._on_started()

    def _let_go(self, keep: list[str]) -> None:
        oldest = time.monotonic() - self._keep_seconds
        gone = [
            version
            for version, entry in self._loaded.items()
            if version not in (*keep, self._preferred) and entry.last_request < oldest
        ]
        if gone:
            self._loaded = {v: e for v, e in self._loaded.items() if v not in gone}
            log.info("models let go", model_versions=gone)
            self._report()

    def _versions(self) -> list[str]:
        preferred = self._preferred
        return [preferred, *(v for v in self._loaded if v != preferred)] if preferred else []

    def _reason_for_none(self) -> str:
        reasons = [refused.message for refused in self.refused()]
        return "no model is loaded: " + ("; ".join(reasons) or "none is promoted")

    def _report(self) -> None:
        MODELS.clear()
        for version in self._loaded:
            state = "preferred" if version == self._preferred else "loaded"
            MODELS.labels(version, state).set(1)
        for version in self._refused:
            MODELS.labels(version, "refused").set(1)
        self._on_change()
