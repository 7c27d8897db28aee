"""The bundle: a trained model as a folder, written whole or not at all, and verified whenever loaded.

    bundles/
      current                    which version is promoted, and which was before
      <model_version>/
        manifest.json            what it is, and the digest of every other file
        features.json            the feature spec
        user_tower.tflite        embeds users
        item_tower.tflite        embeds movies
        item_embeddings.npy      float32 (movies, dim), unit norm: what retrieval searches
        rating_embeddings.npy    the same for predicting ratings, where the model has a second head
        movies.csv               the catalogue, row by row as in item_embeddings.npy
        histories.npz            the known users' ratings
        golden.json              recorded users, their embeddings and their top movies

Other files may lie beside these (Keras models, reports); the manifest has their digests too.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from twotower.errors import BundleError
from twotower.features import FeatureSpec
from twotower.files import partial_folder, write_atomically
from twotower.golden import GoldenUser
from twotower.tables import Catalogue, UserHistories

FORMAT_VERSION: Final = 1
MANIFEST: Final = "manifest.json"
CURRENT: Final = "current"

Embeddings = npt.NDArray[np.float32]
_GOLDEN = TypeAdapter(tuple[GoldenUser, ...])
_SERVED = (
    "features.json",
    "user_tower.tflite",
    "item_tower.tflite",
    "item_embeddings.npy",
    "rating_embeddings.npy",
    "movies.csv",
    "histories.npz",
)
_MATRIX: Final = 2
_NORM_TOLERANCE: Final = 1e-3
_OPTIONAL = {"rating_embeddings.npy"}
_REQUIRED = (set(_SERVED) | {"golden.json"}) - _OPTIONAL


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(_Strict):
    """A file of the bundle: its SHA-256 in hexadecimal and its length."""

    sha256: str
    bytes: int


class DatasetEntry(_Strict):
    """The ratings the model was trained on."""

    name: str
    digest: str
    users: int
    movies: int
    ratings: int


class Manifest(_Strict):
    """What a bundle is. `digest` covers every other field."""

    format_version: int
    model_version: str
    created_at: int
    """Seconds since 1970 (UTC)."""
    recipe: str
    embedding_dim: int
    rating_scale: tuple[float, float]
    dataset: DatasetEntry
    libraries: dict[str, str]
    feature_spec_digest: str
    metrics: dict[str, float]
    files: dict[str, FileEntry]
    digest: str = ""

    def computed_digest(self) -> str:
        """SHA-256 over the canonical JSON of every field but `digest`."""
        return _canonical_digest(self.model_dump(mode="json", exclude={"digest"}))

    def computed_version(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 over what is served, and how."""
        served = {name: self.files[name].sha256 for name in _SERVED if name in self.files}
        fields = self.model_dump(
            mode="json", include={"embedding_dim", "rating_scale", "feature_spec_digest"}
        )
        return _canonical_digest({"files": served, **fields})[:16]


@dataclass(frozen=True)
class Bundle:
    """A model as it is served. `extras` are files kept beside it, by name.

    item_embeddings, rating_embeddings: float32 (movies, dim) of unit norm, row by row as the
    catalogue; rating_embeddings is None where one head serves both.
    """

    features: FeatureSpec
    user_tower: bytes
    item_tower: bytes
    item_embeddings: Embeddings
    rating_embeddings: Embeddings | None
    catalogue: Catalogue
    histories: UserHistories
    golden: tuple[GoldenUser, ...]
    extras: Mapping[str, bytes] = field(default_factory=dict)

    def check(self) -> None:
        """Raise BundleError where the parts do not fit each other."""
        names = {"item_embeddings.npy": self.item_embeddings}
        if self.rating_embeddings is not None:
            names["rating_embeddings.npy"] = self.rating_embeddings
        for name, embeddings in names.items():
            _check_embeddings(name, embeddings, movies=len(self.catalogue))
        if self.rating_embeddings is not None and (
            self.rating_embeddings.shape != self.item_embeddings.shape
        ):
            raise BundleError("rating_embeddings.npy and item_embeddings.npy differ in shape")
        unknown = set().union(*self.catalogue.genres) - set(self.features.genres)
        if unknown:
            raise BundleError(f"movies.csv: genres {sorted(unknown)} are not in features.json")
        if not np.isin(self.histories.movie_ids, self.catalogue.movie_ids).all():
            raise BundleError("histories.npz: some rated movies are not in movies.csv")
        low, high = map(np.float32, self.features.rating_scale)
        if not ((self.histories.ratings >= low) & (self.histories.ratings <= high)).all():
            raise BundleError("histories.npz: a rating is not on the rating scale")
        taken = sorted(self.extras.keys() & {*_SERVED, "golden.json", MANIFEST})
        if taken:
            raise BundleError(f"{', '.join(taken)} cannot be the name of an extra file")
        if not self.golden:
            raise BundleError("golden.json: there is no golden request")

    def serialise(self) -> dict[str, bytes]:
        """The bundle's files by name, the manifest apart."""
        files = {
            "features.json": self.features.model_dump_json(indent=1).encode(),
            "user_tower.tflite": self.user_tower,
            "item_tower.tflite": self.item_tower,
            "item_embeddings.npy": _write_array(self.item_embeddings),
            "movies.csv": self.catalogue.write(),
            "histories.npz": self.histories.write(),
            "golden.json": _GOLDEN.dump_json(self.golden),
        }
        if self.rating_embeddings is not None:
            files["rating_embeddings.npy"] = _write_array(self.rating_embeddings)
        return files | dict(self.extras)

    @classmethod
    def parse(cls, files: Mapping[str, bytes]) -> Self:
        """The inverse of `serialise`. Raises BundleError naming the file at fault."""
        bundle = cls(
            features=_parse_features(files["features.json"]),
            user_tower=files["user_tower.tflite"],
            item_tower=files["item_tower.tflite"],
            item_embeddings=_read_array("item_embeddings.npy", files["item_embeddings.npy"]),
            rating_embeddings=(
                _read_array("rating_embeddings.npy", files["rating_embeddings.npy"])
                if "rating_embeddings.npy" in files
                else None
            ),
            catalogue=Catalogue.read(files["movies.csv"]),
            histories=UserHistories.read(files["histories.npz"]),
            golden=_parse_golden(files["golden.json"]),
        )
        bundle.check()
        return bundle


def write_bundle(
    root: Path,
    bundle: Bundle,
    *,
    recipe: str,
    dataset: DatasetEntry,
    metrics: Mapping[str, float],
    libraries: Mapping[str, str],
) -> Manifest:
    """Write a bundle into `root` and return its manifest; `root` never shows a part of one.

    A bundle of the same version that already stands is left as it is, being the same, or replaced
    where it is damaged.
    """
    bundle.check()
    files = bundle.serialise()
    draft = Manifest(
        format_version=FORMAT_VERSION,
        model_version="",
        created_at=int(time.time()),
        recipe=recipe,
        embedding_dim=bundle.item_embeddings.shape[1],
        rating_scale=bundle.features.rating_scale,
        dataset=dataset,
        libraries=dict(libraries),
        feature_spec_digest=_sha256(files["features.json"]),
        metrics=dict(metrics),
        files={
            name: FileEntry(sha256=_sha256(content), bytes=len(content))
            for name, content in sorted(files.items())
        },
    )
    named = draft.model_copy(update={"model_version": draft.computed_version()})
    manifest = named.model_copy(update={"digest": named.computed_digest()})
    if (root / manifest.model_version).exists():
        try:
            return read_bundle(root, manifest.model_version)[0]
        except BundleError:
            shutil.rmtree(root / manifest.model_version)  # damaged; what follows is the same, whole
    files[MANIFEST] = manifest.model_dump_json(indent=1).encode()
    with _writing(root), partial_folder(root, manifest.model_version) as folder:
        for name, content in files.items():
            write_atomically(folder / name, content)
    return manifest


def read_manifest(root: Path, model_version: str) -> Manifest:
    """Read and verify the manifest of a bundle. Raises BundleError saying what is wrong."""
    path = root / model_version / MANIFEST
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise BundleError(f"{path}: there is no such bundle") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: {error}") from error
    found = document.get("format_version") if isinstance(document, dict) else None
    if found != FORMAT_VERSION:
        raise BundleError(
            f"{path}: format_version is {found!r}; this release reads {FORMAT_VERSION} only"
        )
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        raise BundleError(f"{path}: {_first_fault(error)}") from error
    if manifest.digest != manifest.computed_digest():
        raise BundleError(f"{path}: its content does not match its own digest")
    if manifest.computed_version() != manifest.model_version:
        raise BundleError(f"{path}: model_version does not follow from the files' digests")
    if manifest.model_version != model_version:
        raise BundleError(f"{path}: is of model {manifest.model_version}, not of {model_version}")
    missing = sorted(_REQUIRED - manifest.files.keys())
    if missing:
        raise BundleError(f"{path}: lists no {', '.join(missing)}")
    return manifest


def read_bundle(root: Path, model_version: str) -> tuple[Manifest, Bundle]:
    """Read a bundle and verify all of it: digests, shapes, finiteness, unit norms, consistency.

    Raises BundleError naming the file and the fault.
    """
    manifest = read_manifest(root, model_version)
    folder = root / model_version
    contents = {name: _read_verified(folder / name, entry) for name, entry in manifest.files.items()}
    try:
        bundle = Bundle.parse(contents)
    except BundleError as error:
        raise BundleError(f"{folder}: {error}") from error
    if _sha256(contents["features.json"]) != manifest.feature_spec_digest:
        raise BundleError(f"{folder}: features.json is not the manifest's feature_spec_digest")
    if bundle.item_embeddings.shape[1] != manifest.embedding_dim:
        raise BundleError(
            f"{folder}: item_embeddings.npy has dimension {bundle.item_embeddings.shape[1]}, "
            f"the manifest says {manifest.embedding_dim}"
        )
    return manifest, bundle


class Current(_Strict):
    """Which model is promoted, and which was before."""

    current: str
    previous: str | None = None


def read_current(root: Path) -> Current | None:
    """What is promoted in `root`, or None where nothing is. Raises BundleError for a damaged file."""
    path = root / CURRENT
    try:
        return Current.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise BundleError(
            f"{path}: cannot be read as a promotion; remove it, then promote a model"
        ) from error


def promote(root: Path, model_version: str) -> Current:
    """Verify a bundle and make it the current one; the current one becomes the previous.

    Promoting the current one again changes nothing. Raises BundleError.
    """
    read_bundle(root, model_version)
    before = read_current(root)
    if before and before.current == model_version:
        return before
    return _point(root, Current(current=model_version, previous=before.current if before else None))


def rollback(root: Path) -> Current:
    """Make the previous bundle the current one again, and the current one the previous."""
    before = read_current(root)
    if before is None or before.previous is None:
        raise BundleError(f"{root}: there is no previous model to roll back to")
    read_bundle(root, before.previous)
    return _point(root, Current(current=before.previous, previous=before.current))


def list_versions(root: Path) -> list[str]:
    """The versions of the bundles in `root`, the oldest first; damaged ones are not left out."""
    folders = [path.parent for path in root.glob(f"[0-9a-f]*/{MANIFEST}")]
    return [folder.name for folder in sorted(folders, key=lambda folder: folder.stat().st_mtime)]


def check_writable(root: Path) -> None:
    """Raise BundleError now where a bundle could not be written into `root` later."""
    with _writing(root):
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass


@contextmanager
def _writing(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BundleError(f"{root} cannot be written to: {error.strerror}") from error


def _point(root: Path, current: Current) -> Current:
    with _writing(root):
        write_atomically(root / CURRENT, current.model_dump_json().encode() + b"\n")
    return current


def _read_verified(path: Path, entry: FileEntry) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise BundleError(f"{path}: is missing, though the manifest lists it") from None
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}") from error
    if len(content) != entry.bytes:
        raise BundleError(f"{path}: has {len(content)} bytes, the manifest says {entry.bytes}")
    if _sha256(content) != entry.sha256:
        raise BundleError(f"{path}: its content does not match the manifest's digest")
    return content


def _check_embeddings(name: str, embeddings: Embeddings, *, movies: int) -> None:
    if embeddings.ndim != _MATRIX or embeddings.dtype != np.float32:
        raise BundleError(f"{name}: is {embeddings.dtype} {embeddings.shape}, not float32 (movies, dim)")
    if len(embeddings) != movies:
        raise BundleError(f"{name} has {len(embeddings)} rows, movies.csv has {movies} movies")
    finite = np.isfinite(embeddings).all(axis=1)
    if not finite.all():
        raise BundleError(f"{name}: row {int(np.argmin(finite))} is not finite")
    deviation = np.abs(np.linalg.norm(embeddings.astype(np.float64), axis=1) - 1)
    if deviation.max() > _NORM_TOLERANCE:
        raise BundleError(f"{name}: row {int(np.argmax(deviation))} is not of unit norm")


def _parse_features(content: bytes) -> FeatureSpec:
    try:
        return FeatureSpec.model_validate_json(content)
    except ValidationError as error:
        raise BundleError(f"features.json: {_first_fault(error)}") from error


def _parse_golden(content: bytes) -> tuple[GoldenUser, ...]:
    try:
        return _GOLDEN.validate_json(content)
    except ValidationError as error:
        raise BundleError(f"golden.json: {_first_fault(error)}") from error


def _write_array(array: Embeddings) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _read_array(name: str, content: bytes) -> Embeddings:
    try:
        array: Embeddings = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except ValueError as error:
        raise BundleError(f"{name}: {error}") from error
    return array


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"


def _canonical_digest(document: object) -> str:
    return _sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
