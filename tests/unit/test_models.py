from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from builders import damage, make_bundle, write
from twotower.bundle import Bundle
from twotower.errors import BundleError, ModelNotServed, NotReady
from twotower.manifest import Manifest
from twotower.metrics import MODELS
from twotower.models import ModelPool
from twotower.promotion import CURRENT, promote, rollback

KEEP_SECONDS = 60.0


@dataclass(frozen=True)
class FakeModel:
    """Answers its golden requests unless it has a fault."""

    model_version: str
    fault: Exception | None = None

    def replay(self) -> None:
        if self.fault:
            raise self.fault


@dataclass
class World:
    """A folder of three bundles, the pool that follows it, and what happened."""

    root: Path
    versions: list[str]
    seconds: float = 0.0
    """How far time has been put forward."""
    load_faults: dict[str, Exception] = field(default_factory=dict)
    replay_faults: dict[str, Exception] = field(default_factory=dict)
    loaded: list[str] = field(default_factory=list)
    """The versions handed to `load`, in order."""
    changes: list[dict[tuple[str, str], float]] = field(default_factory=list)
    """The metrics at each change told of."""

    def load(self, manifest: Manifest, bundle: Bundle) -> FakeModel:
        version = manifest.model_version
        assert bundle.user_tower == b"a user tower"
        self.loaded.append(version)
        if version in self.load_faults:
            raise self.load_faults[version]
        return FakeModel(version, self.replay_faults.get(version))

    def make_pool(
        self,
        on_change: Callable[[], None] | None = None,
        on_started: Callable[[], None] = lambda: None,
    ) -> ModelPool[FakeModel]:
        return ModelPool(
            self.root,
            self.load,
            poll_seconds=0.005,
            keep_seconds=KEEP_SECONDS,
            on_change=on_change or (lambda: self.changes.append(metrics())),
            on_started=on_started,
        )

    def promote(self, *places: int) -> None:
        for place in places:
            promote(self.root, self.versions[place])


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path, [write(tmp_path, make_bundle(seed)) for seed in range(3)])
    clock = SimpleNamespace(
        monotonic=lambda: time.monotonic() + made.seconds, perf_counter=time.perf_counter
    )
    monkeypatch.setattr("twotower.models.time", clock)
    return made


def metrics() -> dict[tuple[str, str], float]:
    """The gauge by version and state."""
    (family,) = MODELS.collect()
    return {(s.labels["model_version"], s.labels["state"]): s.value for s in family.samples}


def served(pool: ModelPool[FakeModel]) -> list[str]:
    return [model.model_version for model in pool.models()]


def refusals(pool: ModelPool[FakeModel]) -> dict[str, str]:
    return {refused.model_version: refused.message for refused in pool.refused()}


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)
    return condition()


def test_the_promoted_is_preferred_and_the_one_before_is_kept(world: World) -> None:
    first, second, _ = world.versions
    world.promote(0, 1)
    pool = world.make_pool()
    pool.refresh()
    assert pool.ready
    assert pool.get().model_version == pool.get(second).model_version == second
    assert pool.get(first).model_version == first
    assert served(pool) == [second, first]
    assert metrics() == {(second, "preferred"): 1, (first, "loaded"): 1}


def test_models_are_described(world: World) -> None:
    world.promote(0)
    pool = world.make_pool()
    pool.refresh()
    (model,) = pool.models()
    assert (model.recipe, model.movie_count, model.embedding_dim) == ("made-up", 12, 8)
    assert time.time() - 600 < model.created_at <= time.time()


def test_a_new_promotion_is_picked_up(world: World) -> None:
    first, second, third = world.versions
    world.promote(0)
    pool = world.make_pool()
    pool.refresh()
    world.promote(1)
    assert served(pool) == [first]
    pool.refresh()
    assert served(pool) == [second, first]
    world.promote(2)
    pool.refresh()
    assert served(pool) == [third, first, second]  # the first was asked for a moment ago
    assert world.loaded == [first, second, third]


def test_a_rollback_is_picked_up_without_loading_anew(world: World) -> None:
    first, second, _ = world.versions
    world.promote(0, 1)
    pool = world.make_pool()
    pool.refresh()
    rollback(world.root)
    pool.refresh()
    assert served(pool) == [first, second]
    assert sorted(world.loaded) == sorted([first, second])


def test_nothing_changes_without_a_promotion(world: World) -> None:
    world.promote(0)
    pool = world.make_pool()
    pool.refresh()
    changes = len(world.changes)
    model = pool.get()
    pool.refresh()
    assert pool.get() is model
    assert len(world.changes) == changes


def test_changes_are_told_with_the_metrics_up_to_date(world: World) -> None:
    first, second, _ = world.versions
    world.promote(0)
    pool = world.make_pool()
    pool.refresh()
    world.promote(1)
    pool.refresh()
    assert world.changes == [
        {(first, "loaded"): 1},
        {(first, "preferred"): 1},
        {(first, "preferred"): 1, (second, "loaded"): 1},
        {(first, "loaded"): 1, (second, "preferred"): 1},
    ]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (BundleError("the answers differ"), "the answers differ"),
        (ValueError("not a model"), "{}: cannot be loaded (ValueError)"),
        (RuntimeError("out of memory"), "{}: cannot be loaded (RuntimeError)"),
    ],
)
@pytest.mark.parametrize("moment", ["load", "replay"])
def test_a_refused_model_leaves_the_others_and_says_why(
    world: World, moment: str, fault: Exception, message: str
) -> None:
    first, second, _ = world.versions
    faults = {"load": world.load_faults, "replay": world.replay_faults}[moment]
    faults[second] = fault
    world.promote(0)
    pool = world.make_pool()
    pool.refresh()
    world.promote(1)
    pool.refresh()
    assert served(pool) == [first]
    assert pool.get().model_version == first
    assert refusals(pool) == {second: message.format(second)}
    assert world.changes[-1] == {(first, "preferred"): 1, (second, "refused"): 1}


def test_a_damaged_bundle_is_refused_and_the_one_before_preferred(world: World) -> None:
    first, second, _ = world.versions
    world.promote(0, 1)
    damage(world.root / second / "movies.csv")
    pool = world.make_pool()
    pool.refresh()
    assert served(pool) == [first]
    assert "movies.csv: its content does not match" in refusals(pool)[second]
    assert world.loaded == [first]


def test_a_refused_model_is_not_tried_again_at_once(world: World) -> None:
    world.promote(0)
    world.load_faults[world.versions[0]] = ValueError("not a model")
    pool = world.make_pool()
    for _ in range(3):
        pool.refresh()
    assert len(world.loaded) == len(world.changes) == 1
    world.seconds += 11
    pool.refresh()
    assert len(world.loaded) == 2
    assert len(world.changes) == 1  # the same refusal is no change


def test_a_repaired_model_is_taken_after_all(world: World) -> None:
    first, second, _ = world.versions
    world.promote(0, 1)
    path = world.root / second / "movies.csv"
    sound = path.read_bytes()
    damage(path)
    pool = world.make_pool()
    pool.refresh()
    path.write_bytes(sound)
    pool.refresh()
    assert served(pool) == [first]
    world.seconds += 11
    pool.refresh()
    assert served(pool) == [second, first]
    assert refusals(pool) == {}
    assert metrics() == {(second, "preferred"): 1, (first, "loaded"): 1}


def test_a_damaged_promotion_leaves_the_models_and_says_why(world: World) -> None:
    (first, *_) = world.versions
    world.promote(0)
    pool = world.make_pool()
    pool.refresh()
    sound = (world.root / CURRENT).read_bytes()
    (world.root / CURRENT).write_bytes(b"?")
    pool.refresh()
    assert served(pool) == [first]
    assert "cannot be read as a promotion" in refusals(pool)[""]
    assert metrics() == {(first, "preferred"): 1, ("", "refused"): 1}
    (world.root / CURRENT).write_bytes(sound)
    pool.refresh()
    assert refusals(pool) == {}
    assert world.changes[-1] == {(first, "preferred"): 1}


def test_a_refusal_is_forgotten_with_its_promotion(world: World) -> None:
    first, second, third = world.versions
    world.promote(0)
    pool = world.make_pool()
    pool.refresh()
    world.load_faults[second] = ValueError("not a model")
    world.promote(1)
    pool.refresh()
    world.promote(2, 0)
    pool.refresh()
    assert refusals(pool) == {}
    assert metrics() == {(first, "preferred"): 1, (third, "loaded"): 1}


def test_a_model_neither_named_nor_asked_for_is_let_go(world: World) -> None:
    first, second, third = world.versions
    world.promote(0, 1)
    pool = world.make_pool()
    pool.refresh()
    world.promote(2)
    pool.refresh()
    world.seconds += KEEP_SECONDS - 1
    pool.refresh()
    assert served(pool) == [third, second, first]
    world.seconds += 2
    pool.refresh()
    assert served(pool) == [third, second]
    assert world.changes[-1] == {(third, "preferred"): 1, (second, "loaded"): 1}


def test_a_model_asked_for_is_kept(world: World) -> None:
    first, second, third = world.versions
    world.promote(1, 0)
    pool = world.make_pool()
    pool.refresh()
    assert served(pool) == [first, second]
    world.promote(2, 1)
    pool.refresh()
    for _ in range(3):
        world.seconds += KEEP_SECONDS - 1
        pool.get(first)
        pool.refresh()
    assert served(pool) == [second, first, third]
    world.seconds += KEEP_SECONDS + 1
    pool.refresh()
    assert served(pool) == [second, third]


def test_a_preferred_model_is_never_let_go(world: World) -> None:
    first, *others = world.versions
    world.promote(0)
    pool = world.make_pool()
    pool.refresh()
    world.load_faults |= {version: ValueError("not a model") for version in others}
    world.promote(1, 2)
    world.seconds += KEEP_SECONDS + 1
    pool.refresh()
    assert served(pool) == [first]
    assert pool.get().model_version == first


def test_a_version_not_loaded_names_those_that_are(world: World) -> None:
    first, second, third = world.versions
    world.promote(0, 1)
    pool = world.make_pool()
    pool.refresh()
    with pytest.raises(ModelNotServed) as caught:
        pool.get(third)
    assert str(caught.value) == f"model '{third}' is not served here; served: {second}, {first}"
    assert caught.value.served == (second, first)


def test_no_promotion_is_not_ready(world: World) -> None:
    pool = world.make_pool()
    pool.refresh()
    assert not pool.ready
    assert served(pool) == []
    for version in ("", world.versions[0]):
        with pytest.raises(NotReady) as caught:
            pool.get(version)
        assert str(caught.value) == "no model is loaded: none is promoted"


def test_nothing_but_refusals_is_not_ready_and_says_why(world: World) -> None:
    world.promote(0, 1)
    world.load_faults |= {version: ValueError(version) for version in world.versions}
    pool = world.make_pool()
    pool.refresh()
    with pytest.raises(NotReady) as caught:
        pool.get()
    first, second, _ = world.versions
    assert str(caught.value) == (
        f"no model is loaded: {second}: cannot be loaded (ValueError); "
        f"{first}: cannot be loaded (ValueError)"
    )


def test_its_thread_follows_promotions(world: World) -> None:
    pool = world.make_pool()
    pool.start()
    world.promote(0)
    assert eventually(lambda: served(pool) == world.versions[:1])
    world.promote(1)
    assert eventually(lambda: served(pool) == world.versions[1::-1])
    pool.stop()
    world.promote(2)
    time.sleep(0.05)
    assert served(pool) == world.versions[1::-1]


def test_a_start_is_told_once_and_by_the_first_model(world: World) -> None:
    first, second, third = world.versions
    told: list[list[str]] = []
    pool = world.make_pool(on_started=lambda: told.append(served(pool)))
    world.promote(0, 1)
    pool.start()
    assert eventually(lambda: served(pool) == [second, first])
    world.promote(2)
    assert eventually(lambda: served(pool)[0] == third)
    pool.stop()
    assert told == [[second]]  # whoever asks for the promoted one need not wait for the one before


@pytest.mark.parametrize(
    "reason", ["none is promoted", "cannot be read as a promotion", "cannot be loaded"]
)
def test_a_start_without_a_model_is_told_with_the_reason(world: World, reason: str) -> None:
    told: list[str] = []

    def ask() -> None:
        with pytest.raises(NotReady) as caught:
            pool.get()
        told.append(str(caught.value))

    pool = world.make_pool(on_started=ask)
    assert [refused.message for refused in pool.refused()] == ["the first is being loaded"]
    world.load_faults |= {version: ValueError(version) for version in world.versions}
    if reason != "none is promoted":
        world.promote(0, 1)
    if reason == "cannot be read as a promotion":
        (world.root / CURRENT).write_bytes(b"?")
    pool.start()
    assert eventually(lambda: bool(told))
    pool.stop()
    (only,) = told
    assert reason in only


def test_a_start_is_told_whatever_fails(world: World) -> None:
    def fail() -> None:
        raise RuntimeError

    told: list[bool] = []
    pool = world.make_pool(fail, on_started=lambda: told.append(pool.ready))
    world.promote(0)
    pool.start()
    assert eventually(lambda: bool(told))
    pool.stop()


def test_what_is_not_yet_begun_at_a_stop_is_left(world: World) -> None:
    loading, go_on = threading.Event(), threading.Event()
    load = world.load

    def hesitate(manifest: Manifest, bundle: Bundle) -> FakeModel:
        loading.set()
        assert go_on.wait(10)
        return load(manifest, bundle)

    world.load = hesitate  # type: ignore[method-assign]
    world.promote(0, 1)
    pool = world.make_pool()
    pool.start()
    assert loading.wait(10)
    stop = threading.Thread(target=pool.stop)
    stop.start()
    assert eventually(pool._stopping.is_set)
    go_on.set()
    stop.join()
    assert served(pool) == [world.versions[1]]


def test_its_thread_survives_a_fault(world: World) -> None:
    calls = []

    def fail_at_first() -> None:
        calls.append(metrics())
        if len(calls) == 1:
            raise RuntimeError

    pool = world.make_pool(fail_at_first)
    world.promote(0)
    pool.start()
    assert eventually(lambda: pool.ready)
    pool.stop()
    assert len(calls) > 1
