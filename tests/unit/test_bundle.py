from __future__ import annotations

import io
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import builders
from builders import Trap, damage, disk_is_full, forge, make_bundle, write
from twotower.arrays import Embeddings
from twotower.bundle import Bundle, list_versions, read_bundle
from twotower.errors import BundleError
from twotower.files import check_writable
from twotower.golden import GoldenUser
from twotower.manifest import MANIFEST, read_manifest
from twotower.promotion import CURRENT, Current, promote, read_current, rollback

BUNDLE = make_bundle()
TWO_HEADS = replace(BUNDLE, rating_embeddings=BUNDLE.item_embeddings[::-1].copy())
FILES = sorted(TWO_HEADS.serialise())


def npy(array: np.ndarray, *, allow_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


def changed(change: Callable[[Embeddings], object]) -> Embeddings:
    """The movies' embeddings after a change in place."""
    embeddings = BUNDLE.item_embeddings.copy()
    change(embeddings)
    return embeddings


def refusal(root: Path, version: str) -> str:
    with pytest.raises(BundleError) as caught:
        read_bundle(root, version)
    message = str(caught.value)
    assert version in message
    return message


def edit_manifest(root: Path, version: str, **fields: object) -> None:
    """Change fields of a manifest and nothing else."""
    path = root / version / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize("bundle", [BUNDLE, TWO_HEADS], ids=["one head", "two heads"])
def test_a_bundle_is_read_as_written(tmp_path: Path, bundle: Bundle) -> None:
    version = write(tmp_path, bundle)
    manifest, again = read_bundle(tmp_path, version)
    assert again.serialise() == bundle.serialise()
    assert (again.features, again.golden) == (bundle.features, bundle.golden)
    assert_array_equal(again.item_embeddings, bundle.item_embeddings, strict=True)
    assert (again.rating_embeddings is None) == (bundle.rating_embeddings is None)
    assert manifest == read_manifest(tmp_path, version)
    assert (manifest.model_version, manifest.recipe) == (version, "made-up")
    assert (manifest.embedding_dim, manifest.rating_scale) == (builders.DIM, builders.RATING_SCALE)


def test_the_folder_holds_what_the_manifest_lists(tmp_path: Path) -> None:
    version = write(tmp_path, replace(TWO_HEADS, extras={"report.html": b"<p>good</p>"}))
    listed = read_manifest(tmp_path, version).files
    assert sorted(path.name for path in (tmp_path / version).iterdir()) == sorted([*listed, MANIFEST])
    assert sorted(listed) == sorted([*FILES, "report.html"])
    assert (tmp_path / version / "report.html").read_bytes() == b"<p>good</p>"


def test_the_version_follows_from_the_content_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions, times = [], [1_000_000_000, 2_000_000_000]
    for time in times:
        monkeypatch.setattr("twotower.bundle.time", SimpleNamespace(time=lambda time=time: time))
        versions.append(write(tmp_path / str(time), make_bundle()))
    assert versions[0] == versions[1]
    made = [read_manifest(tmp_path / str(time), versions[0]).created_at for time in times]
    assert made == times


def test_writing_the_same_again_leaves_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = write(tmp_path, BUNDLE)
    before = read_manifest(tmp_path, version)
    monkeypatch.setattr("twotower.bundle.time", SimpleNamespace(time=lambda: 0))
    assert write(tmp_path, BUNDLE) == version
    assert read_manifest(tmp_path, version) == before
    assert list_versions(tmp_path) == [version]


def test_writing_the_same_again_repairs_a_damaged_one(tmp_path: Path) -> None:
    version = write(tmp_path, BUNDLE)
    damage(tmp_path / version / "movies.csv")
    assert write(tmp_path, BUNDLE) == version
    read_bundle(tmp_path, version)


def test_what_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    endless = replace(BUNDLE.catalogue, titles=("x" * 200_000, *BUNDLE.catalogue.titles[1:]))
    with pytest.raises(BundleError, match=r"movies\.csv"):
        write(tmp_path, replace(BUNDLE, catalogue=endless))
    with pytest.raises(BundleError, match=r"manifest\.json: metrics\.rmse: .*finite"):
        write(tmp_path, BUNDLE, metrics={"rmse": np.nan})
    with pytest.raises(BundleError, match=r"manifest\.json: files\..*pattern"):
        write(tmp_path, replace(BUNDLE, extras={"../report.html": b""}))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_bundle_stays_until_its_replacement_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = write(tmp_path, BUNDLE)
    damage(tmp_path / version / "movies.csv")
    monkeypatch.setattr("os.fsync", disk_is_full)
    with pytest.raises(BundleError, match="No space left"):
        write(tmp_path, BUNDLE)
    assert list_versions(tmp_path) == [version]
    assert [path.name for path in tmp_path.iterdir()] == [version]


def test_what_a_killed_process_left_is_swept_away_in_time(tmp_path: Path) -> None:
    old, young = tmp_path / ".partial-old", tmp_path / ".partial-young"
    for folder in (old, young):
        folder.mkdir()
    os.utime(old, (0, 0))
    write(tmp_path, BUNDLE)
    assert not old.exists()
    assert young.exists()


def test_a_manifest_nested_without_end_is_refused(tmp_path: Path) -> None:
    version = write(tmp_path, BUNDLE)
    (tmp_path / version / MANIFEST).write_text("[" * 100_000)
    assert f"{version}/manifest.json: " in refusal(tmp_path, version)


@pytest.mark.parametrize("name", ["movies.csv", "golden.json", "manifest.json"])
def test_an_extra_file_cannot_stand_in_for_a_served_one(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match=f"{name} cannot be the name of an extra file"):
        write(tmp_path, replace(BUNDLE, extras={name: b""}))
    assert list(tmp_path.iterdir()) == []


NO_RATINGS = BUNDLE.features.model_copy(update={"rating_at_zero": None, "rating_per_cosine": None})


def test_a_model_that_predicts_no_ratings_is_read_as_written(tmp_path: Path) -> None:
    _, again = read_bundle(tmp_path, write(tmp_path, replace(BUNDLE, features=NO_RATINGS)))
    assert not again.features.predicts_ratings
    with pytest.raises(ValueError, match="predicts no ratings"):
        again.features.unscale_ratings(np.zeros(1))


def test_embeddings_for_ratings_that_are_not_predicted_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"rating_embeddings.npy: .* no ratings are predicted"):
        write(tmp_path, replace(TWO_HEADS, features=NO_RATINGS))


def test_half_of_how_ratings_are_predicted_is_refused(tmp_path: Path) -> None:
    half = BUNDLE.features.model_copy(update={"rating_at_zero": None})
    with pytest.raises(BundleError, match=r"features.json: .*rating_at_zero and rating_per_cosine"):
        write(tmp_path, replace(BUNDLE, features=half))


@pytest.mark.parametrize("rating", [np.nan, 0.0, 5.5])
def test_a_history_off_the_rating_scale_is_refused(tmp_path: Path, rating: float) -> None:
    ratings = BUNDLE.histories.ratings.copy()
    ratings[0] = rating
    with pytest.raises(BundleError, match="a rating is not on the rating scale"):
        write(tmp_path, replace(BUNDLE, histories=replace(BUNDLE.histories, ratings=ratings)))


@pytest.mark.parametrize(
    "other",
    [
        replace(BUNDLE, user_tower=b"another tower"),
        replace(BUNDLE, item_tower=b"another tower"),
        replace(BUNDLE, item_embeddings=BUNDLE.item_embeddings[::-1].copy()),
        TWO_HEADS,
        replace(BUNDLE, catalogue=replace(BUNDLE.catalogue, titles=("",) * 12)),
        replace(BUNDLE, histories=replace(BUNDLE.histories, timestamps=BUNDLE.histories.timestamps + 1)),
        replace(BUNDLE, features=BUNDLE.features.model_copy(update={"damping": 6.0})),
    ],
    ids=["user", "item", "embeddings", "rating", "movies", "histories", "features"],
)
def test_what_is_served_changes_the_version(tmp_path: Path, other: Bundle) -> None:
    assert write(tmp_path, other) != write(tmp_path, BUNDLE)


@pytest.mark.parametrize("field", ["embedding_dim", "rating_scale"])
def test_serving_fields_change_the_version(tmp_path: Path, field: str) -> None:
    manifest = read_manifest(tmp_path, write(tmp_path, BUNDLE))
    value = {"embedding_dim": 9, "rating_scale": (1.0, 5.0)}[field]
    assert manifest.model_copy(update={field: value}).computed_version() != manifest.model_version


def test_what_is_not_served_does_not_change_the_version(tmp_path: Path) -> None:
    version = write(tmp_path / "plain", BUNDLE)
    extras = {"user_tower.keras": b"weights", "report.html": b"<p>good</p>"}
    assert write(tmp_path / "extras", replace(BUNDLE, extras=extras)) == version


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_flipped_bit_is_found(tmp_path: Path, name: str) -> None:
    version = write(tmp_path, TWO_HEADS)
    damage(tmp_path / version / name)
    assert f"{version}/{name}: " in refusal(tmp_path, version)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    version = write(tmp_path, TWO_HEADS)
    (tmp_path / version / name).unlink()
    assert f"{version}/{name}: is missing" in refusal(tmp_path, version)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_named(tmp_path: Path, name: str) -> None:
    version = write(tmp_path, TWO_HEADS)
    path = tmp_path / version / name
    path.write_bytes(path.read_bytes()[:-1])
    assert f"{version}/{name}: has {path.stat().st_size} bytes, the manifest says " in refusal(
        tmp_path, version
    )


def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    version = write(tmp_path, BUNDLE)
    (tmp_path / version / "movies.csv").unlink()
    (tmp_path / version / "movies.csv").mkdir()
    assert f"{version}/movies.csv: " in refusal(tmp_path, version)


@pytest.mark.parametrize("name", sorted({*FILES} - {"rating_embeddings.npy"}))
def test_a_file_that_the_manifest_does_not_list_is_named(tmp_path: Path, name: str) -> None:
    version = forge(tmp_path, write(tmp_path, BUNDLE), {name: None})
    assert f"{MANIFEST}: lists no {name}" in refusal(tmp_path, version)


def golden(**fields: object) -> bytes:
    return json.dumps([json.loads(BUNDLE.golden[0].model_dump_json()) | fields]).encode()


def set_norm(embeddings: Embeddings) -> None:
    embeddings[3] *= 1.01


SOUND = npy(BUNDLE.item_embeddings)
UNKNOWN_MOVIES = replace(BUNDLE.histories, movie_ids=BUNDLE.histories.movie_ids + 1)
NAN = npy(changed(lambda rows: rows[7].fill(np.nan)))


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("item_embeddings.npy", NAN, "item_embeddings.npy: row 7 is not finite"),
        ("rating_embeddings.npy", NAN, "rating_embeddings.npy: row 7 is not finite"),
        (
            "item_embeddings.npy",
            npy(changed(set_norm)),
            "item_embeddings.npy: row 3 is not of unit norm",
        ),
        (
            "item_embeddings.npy",
            npy(BUNDLE.item_embeddings[:-1]),
            "has 11 rows, movies.csv has 12 movies",
        ),
        (
            "item_embeddings.npy",
            npy(BUNDLE.item_embeddings.astype(np.float64)),
            "is float64 (12, 8), not",
        ),
        ("item_embeddings.npy", npy(BUNDLE.item_embeddings.ravel()), "is float32 (96,), not float32"),
        ("item_embeddings.npy", npy(np.eye(12, 9, dtype=np.float32)[[0] * 12]), "differ in shape"),
        ("item_embeddings.npy", SOUND[:-4], "item_embeddings.npy: EOF: reading array data"),
        ("item_embeddings.npy", b"", "item_embeddings.npy: EOF"),
        ("item_embeddings.npy", BUNDLE.histories.write(), "item_embeddings.npy: the magic string"),
        ("item_embeddings.npy", pickle.dumps([1]), "item_embeddings.npy: the magic string"),
        ("histories.npz", SOUND, "histories.npz: "),
        ("histories.npz", b"PK\x03\x04", "histories.npz: "),
        ("movies.csv", BUNDLE.catalogue.write().replace(b"1972", b"soon"), "movies.csv, line 6: "),
        ("movies.csv", BUNDLE.catalogue.write() + b"2000000000000,,,,0,\n", "movies.csv has 13 movies"),
        (
            "movies.csv",
            BUNDLE.catalogue.write().replace(b"Comedy", b"Farce"),
            "genres ['Farce'] are not",
        ),
        (
            "histories.npz",
            UNKNOWN_MOVIES.write(),
            "histories.npz: some rated movies are not in movies.csv",
        ),
        ("features.json", b"{}", "features.json: genres: Field required"),
        ("features.json", b"[", "features.json: "),
        ("golden.json", b"[]", "golden.json: there is no golden request"),
        ("golden.json", b"{}", "golden.json: "),
        ("golden.json", golden(retrieval="x"), "golden.json: 0.retrieval: "),
        ("golden.json", golden(surprise=1), "golden.json: 0.surprise: "),
    ],
)
def test_content_is_checked_even_where_every_digest_is_right(
    tmp_path: Path, name: str, content: bytes, fault: str
) -> None:
    version = forge(tmp_path, write(tmp_path, TWO_HEADS), {name: content})
    assert fault in refusal(tmp_path, version)


def test_a_pickled_array_is_refused_and_not_run(tmp_path: Path) -> None:
    trapped = npy(np.array([Trap(tmp_path / "sprung")]), allow_pickle=True)
    version = forge(tmp_path, write(tmp_path, BUNDLE), {"item_embeddings.npy": trapped})
    assert "item_embeddings.npy: Object arrays cannot be loaded" in refusal(tmp_path, version)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"format_version": 3}, "format_version is 3; this release reads 2 only"),
        ({"format_version": 0}, "format_version is 0; this release reads 2 only"),
        ({"embedding_dim": 9}, "has dimension 8, the manifest says 9"),
        ({"feature_spec_digest": "0" * 64}, "features.json is not the manifest's feature_spec_digest"),
    ],
)
def test_a_manifest_that_does_not_fit(tmp_path: Path, fields: dict[str, Any], fault: str) -> None:
    version = forge(tmp_path, write(tmp_path, BUNDLE), **fields)
    assert fault in refusal(tmp_path, version)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"metrics": {"ndcg": 0.99}}, "its content does not match its own digest"),
        ({"digest": "0" * 64}, "its content does not match its own digest"),
        ({"digest": ""}, "its content does not match its own digest"),
        ({"created_at": "yesterday"}, "created_at: "),
        ({"surprise": 1}, "surprise: Extra inputs"),
        ({"format_version": None}, "format_version is None"),
    ],
)
def test_an_edited_manifest(tmp_path: Path, fields: dict[str, object], fault: str) -> None:
    version = write(tmp_path, BUNDLE)
    edit_manifest(tmp_path, version, **fields)
    message = refusal(tmp_path, version)
    assert f"{version}/{MANIFEST}: " in message
    assert fault in message


def test_a_version_that_does_not_follow_from_the_files(tmp_path: Path) -> None:
    version = write(tmp_path, BUNDLE)
    manifest = read_manifest(tmp_path, version).model_copy(update={"model_version": "0" * 16})
    edit_manifest(tmp_path, version, model_version="0" * 16, digest=manifest.computed_digest())
    assert "model_version does not follow from the files' digests" in refusal(tmp_path, version)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b'"text"', b"\xff", b"{"])
def test_a_manifest_that_is_none(tmp_path: Path, content: bytes) -> None:
    version = write(tmp_path, BUNDLE)
    (tmp_path / version / MANIFEST).write_bytes(content)
    assert f"{version}/{MANIFEST}: " in refusal(tmp_path, version)


def test_a_renamed_folder(tmp_path: Path) -> None:
    version = write(tmp_path, BUNDLE)
    (tmp_path / version).rename(tmp_path / ("0" * 16))
    assert f"is of model {version}, not of {'0' * 16}" in refusal(tmp_path, "0" * 16)


def test_no_such_bundle(tmp_path: Path) -> None:
    assert "there is no such bundle" in refusal(tmp_path, "0" * 16)


@pytest.mark.parametrize(
    ("bundle", "fault"),
    [
        (replace(BUNDLE, golden=()), "there is no golden request"),
        (replace(BUNDLE, item_embeddings=changed(set_norm)), "row 3 is not of unit norm"),
        (replace(BUNDLE, histories=UNKNOWN_MOVIES), "some rated movies"),
    ],
)
def test_an_unsound_bundle_is_not_even_written(tmp_path: Path, bundle: Bundle, fault: str) -> None:
    with pytest.raises(BundleError, match=fault):
        write(tmp_path, bundle)
    assert [*tmp_path.iterdir()] == []


def count_flushes(root: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often writing a bundle flushes a file or a folder."""
    flushed: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", flushed.append)
        write(root, BUNDLE)
    return len(flushed)


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "bundles"
    flushes = count_flushes(tmp_path / "elsewhere", monkeypatch)
    assert flushes > 2 * len(BUNDLE.serialise())
    for sound in range(flushes - 1):  # the last one comes after the bundle is whole
        left = [True] * sound

        def fail_when_spent(descriptor: int, left: list[bool] = left) -> None:
            if not left:
                disk_is_full(descriptor)
            left.pop()

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail_when_spent)
            with pytest.raises(BundleError, match="cannot be written to: No space left on device"):
                write(root, BUNDLE)
        assert [*root.iterdir()] == []
    read_bundle(root, write(root, BUNDLE))


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    root = tmp_path / "bundles"
    check_writable(root)
    assert [*root.iterdir()] == []
    (root / "file").touch()
    with pytest.raises(BundleError, match=r"bundles/file cannot be written to: File exists"):
        check_writable(root / "file")


KILLED_AT_A_FLUSH = """
import os, signal, sys
from pathlib import Path
from builders import make_bundle, write

left = [True] * int(sys.argv[2])
fsync = os.fsync

def flush_or_die(descriptor):
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left.pop()
    fsync(descriptor)

os.fsync = flush_or_die
write(Path(sys.argv[1]), make_bundle())
"""


@pytest.mark.parametrize("moment", ["first file", "half way", "before the rename", "after the rename"])
def test_a_killed_process_leaves_the_whole_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    root = tmp_path / "bundles"
    flushes = count_flushes(tmp_path / "elsewhere", monkeypatch)
    sound = {"first file": 0, "half way": flushes // 2, "before the rename": flushes - 2}
    path = os.pathsep.join([str(Path(builders.__file__).parent), *sys.path])
    process = subprocess.run(
        [sys.executable, "-c", KILLED_AT_A_FLUSH, root, str(sound.get(moment, flushes - 1))],
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert process.returncode == -signal.SIGKILL
    assert any(root.iterdir())  # it was killed in the middle, not before
    assert bool(list_versions(root)) == (moment == "after the rename")
    version = write(root, BUNDLE)
    assert list_versions(root) == [version]
    read_bundle(root, version)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "bundles"


@pytest.fixture
def versions(root: Path) -> list[str]:
    """Three bundles, in alphabetical order."""
    return sorted(write(root, make_bundle(seed)) for seed in range(3))


def test_versions_are_listed_whether_damaged_or_not(root: Path, versions: list[str]) -> None:
    assert list_versions(root) == versions
    damage(root / versions[1] / "movies.csv")
    (root / versions[2] / MANIFEST).unlink()
    assert list_versions(root) == versions


def test_other_folders_are_no_versions(root: Path, versions: list[str]) -> None:
    (root / "abc").mkdir()
    (root / ".partial-abc").mkdir()
    (root / ".partial-abc" / MANIFEST).touch()
    promote(root, versions[0])
    assert list_versions(root) == versions


def test_no_folder_has_no_versions(root: Path) -> None:
    assert list_versions(root) == []
    assert read_current(root) is None


def test_promotion_remembers_the_one_before(root: Path, versions: list[str]) -> None:
    first, second, third = versions
    assert promote(root, first) == Current(current=first)
    assert promote(root, second) == Current(current=second, previous=first)
    assert promote(root, third) == Current(current=third, previous=second)
    assert read_current(root) == Current(current=third, previous=second)


def test_promoting_the_current_one_changes_nothing(root: Path, versions: list[str]) -> None:
    promote(root, versions[0])
    promoted = promote(root, versions[1])
    before = (root / CURRENT).stat()
    assert promote(root, versions[1]) == promoted == read_current(root)
    assert (root / CURRENT).stat().st_ino == before.st_ino


def test_rollback_and_again(root: Path, versions: list[str]) -> None:
    promote(root, versions[0])
    promote(root, versions[1])
    assert rollback(root) == read_current(root) == Current(current=versions[0], previous=versions[1])
    assert rollback(root) == read_current(root) == Current(current=versions[1], previous=versions[0])


@pytest.mark.parametrize("promoted", [0, 1])
def test_nothing_to_roll_back_to(root: Path, versions: list[str], promoted: int) -> None:
    for version in versions[:promoted]:
        promote(root, version)
    before = read_current(root)
    with pytest.raises(BundleError, match="there is no previous model"):
        rollback(root)
    assert read_current(root) == before


def test_a_damaged_bundle_is_not_promoted(root: Path, versions: list[str]) -> None:
    promote(root, versions[0])
    before = (root / CURRENT).read_bytes()
    damage(root / versions[1] / "user_tower.tflite")
    with pytest.raises(BundleError, match=r"user_tower\.tflite"):
        promote(root, versions[1])
    with pytest.raises(BundleError, match="there is no such bundle"):
        promote(root, "0" * 16)
    assert (root / CURRENT).read_bytes() == before


def test_a_full_disk_leaves_the_promotion_alone(
    root: Path, versions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(root, versions[0])
    promoted = promote(root, versions[1])
    monkeypatch.setattr(os, "fsync", disk_is_full)
    for attempt in (rollback, lambda root: promote(root, versions[2])):
        with pytest.raises(BundleError, match="cannot be written to: No space left on device"):
            attempt(root)
    assert read_current(root) == promoted


def test_a_damaged_bundle_is_not_rolled_back_to(root: Path, versions: list[str]) -> None:
    promote(root, versions[0])
    promoted = promote(root, versions[1])
    damage(root / versions[0] / "user_tower.tflite")
    with pytest.raises(BundleError, match=r"user_tower\.tflite"):
        rollback(root)
    assert read_current(root) == promoted


@pytest.mark.parametrize(
    "content", [b"", b"abc", b"{}", b'{"current": 1}', b'{"current": "a", "next": "b"}']
)
def test_a_damaged_promotion_is_named_and_left_alone(
    root: Path, versions: list[str], content: bytes
) -> None:
    (root / CURRENT).write_bytes(content)
    for attempt in (read_current, rollback, lambda root: promote(root, versions[0])):
        with pytest.raises(BundleError, match=rf"{CURRENT}: cannot be read as a promotion"):
            attempt(root)
    assert (root / CURRENT).read_bytes() == content


USER = BUNDLE.golden[0]
RECORDED = np.array(USER.retrieval, dtype=np.float32)


def test_a_golden_user_accepts_what_was_recorded() -> None:
    USER.check_embedding(RECORDED, None)
    USER.check_embedding(RECORDED + np.float32(4e-5), None)
    USER.check_top(USER.top_movie_ids, USER.top_scores)


@pytest.mark.parametrize("replayed", [RECORDED + 2e-3, RECORDED * np.nan, RECORDED[:-1]])
def test_a_golden_user_refuses_another_embedding(replayed: np.ndarray) -> None:
    with pytest.raises(BundleError, match="golden request of user 3: the embedding differs"):
        USER.check_embedding(replayed, None)


@pytest.mark.parametrize("both", [{"user_id": None}, {"ratings": ()}])
def test_a_golden_user_is_known_or_rates(both: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="exactly one of user_id and ratings"):
        GoldenUser.model_validate(USER.model_dump() | both)


@pytest.mark.parametrize(
    ("movie_ids", "scores", "fault"),
    [
        (USER.top_movie_ids[::-1], USER.top_scores, "found movies"),
        (USER.top_movie_ids[:-1], USER.top_scores[:-1], "found movies"),
        (USER.top_movie_ids, [score + 2e-5 for score in USER.top_scores], "the scores differ"),
        (USER.top_movie_ids, USER.top_scores[:-1], "the scores differ"),
    ],
)
def test_a_golden_user_refuses_other_movies(
    movie_ids: tuple[int, ...], scores: tuple[float, ...], fault: str
) -> None:
    with pytest.raises(BundleError, match=fault):
        USER.check_top(movie_ids, scores)


def test_a_golden_user_is_named() -> None:
    named = [str(user) for user in BUNDLE.golden]
    assert named == ["user 3", "a user with 2 ratings", "a user with 0 ratings"]
