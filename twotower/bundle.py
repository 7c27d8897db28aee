"""The bundle: a trained model as a folder, written whole or not at all, and verified whenever loaded.

    bundles/
      current                    which version is promoted, and which was before
      <model_version>/
        manifest.json            what it is, and the digest of every other file
        features.json            the feature spec
        factors.npz              what ratings are encoded by one by one, where the spec says so
        user_tower.tflite        embeds users
        item_tower.tflite        embeds movies
        item_embeddings.npy      float32 (movies, dim), unit norm: what retrieval searches
        rating_embeddings.npy    the same for predicting ratings, where the model has a second head
        partition.npz            which cell of the space each movie lies in, where movies are many
        movies.csv               the catalogue, row by row as in item_embeddings.npy
        histories.npz            the known users' ratings
        external_ids.json        what the data call movies and users, where that is no number
        golden.json              recorded users, their embeddings and their top movies

Other files may lie beside these (Keras models, evaluation.json, report.html); the manifest has their
digests too.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from pydantic import TypeAdapter, ValidationError

from twotower.arrays import Embeddings
from twotower.errors import BundleError
from twotower.external import EXTERNAL_IDS, ExternalIds
from twotower.factors import MovieFactors
from twotower.features import FeatureSpec, UserEncoder
from twotower.files import partial_folder, write_atomically, writing_into
from twotower.golden import GoldenUser
from twotower.manifest import (
    FORMAT_VERSION,
    GOLDEN,
    MANIFEST,
    SERVED,
    DatasetEntry,
    FileEntry,
    Manifest,
    first_fault,
    read_manifest,
    sha256,
)
from twotower.partition import PARTITION, Partition
from twotower.tables import Catalogue, UserHistories

RETRIEVAL: Final = "retrieval"
RATING: Final = "rating"
"""The heads, as the outputs of the towers are named."""

_GOLDEN_USERS: Final = TypeAdapter(tuple[GoldenUser, ...])
_MATRIX: Final = 2
_NORM_TOLERANCE: Final = 1e-3


@dataclass(frozen=True)
class Bundle:
    """A model as it is served. `extras` are files kept beside it, by name.

    item_embeddings, rating_embeddings: float32 (movies, dim) of unit norm, row by row as the
    catalogue; rating_embeddings is None where one head serves both, or ratings are not predicted.
    Without a partition every movie is ranked.
    """

    features: FeatureSpec
    factors: MovieFactors | None
    user_tower: bytes
    item_tower: bytes
    item_embeddings: Embeddings
    rating_embeddings: Embeddings | None
    catalogue: Catalogue
    histories: UserHistories
    golden: tuple[GoldenUser, ...]
    partition: Partition | None = None
    extras: Mapping[str, bytes] = field(default_factory=dict)

    def encoder(self) -> UserEncoder:
        """What turns users' ratings into the user tower's input."""
        genres = self.catalogue.genre_matrix(self.features.genres)
        return UserEncoder(self.features, genres, self.factors)

    @property
    def external_ids(self) -> ExternalIds:
        """What the data call movies and users."""
        return ExternalIds(movies=self.catalogue.external_ids, users=self.histories.external_ids)

    def check(self) -> None:
        """Raise BundleError where the parts do not fit each other."""
        self._check_factors()
        self.external_ids.check(len(self.catalogue), len(self.histories))
        _check_embeddings("item_embeddings.npy", self.item_embeddings, movies=len(self.catalogue))
        if self.rating_embeddings is not None:
            self._check_rating_embeddings(self.rating_embeddings)
        if self.partition is not None:
            self.partition.check(*self.item_embeddings.shape)
        unknown = set().union(*self.catalogue.genres) - set(self.features.genres)
        if unknown:
            raise BundleError(f"movies.csv: genres {sorted(unknown)} are not in features.json")
        if not np.isin(self.histories.movie_ids, self.catalogue.movie_ids).all():
            raise BundleError("histories.npz: some rated movies are not in movies.csv")
        low, high = map(np.float32, self.features.rating_scale)
        if not ((self.histories.ratings >= low) & (self.histories.ratings <= high)).all():
            raise BundleError("histories.npz: a rating is not on the rating scale")
        taken = sorted(self.extras.keys() & {*SERVED, GOLDEN, MANIFEST})
        if taken:
            raise BundleError(f"{', '.join(taken)} cannot be the name of an extra file")
        if not self.golden:
            raise BundleError("golden.json: there is no golden request")

    def _check_rating_embeddings(self, embeddings: Embeddings) -> None:
        _check_embeddings("rating_embeddings.npy", embeddings, movies=len(self.catalogue))
        if embeddings.shape != self.item_embeddings.shape:
            raise BundleError("rating_embeddings.npy and item_embeddings.npy differ in shape")
        if not self.features.predicts_ratings:
            raise BundleError("rating_embeddings.npy: features.json says that no ratings are predicted")

    def _check_factors(self) -> None:
        history = self.features.history
        if (history is None) != (self.factors is None):
            raise BundleError("of factors.npz and the history in features.json there is but one")
        if history is None or self.factors is None:
            return
        self.factors.check(len(self.catalogue))
        if len(history.usual_shares) != len(self.features.genres):
            raise BundleError("features.json: usual_shares has not one number for each genre")
        if self.factors.landmark_vectors.shape[1] > self.item_embeddings.shape[1]:
            raise BundleError("factors.npz: landmark_vectors has more columns than item_embeddings.npy")
        if bool(history.factors) != self.features.predicts_ratings:
            raise BundleError("features.json: has factors but where it predicts ratings")
        factors = self.factors.rating_factors.shape[1]
        if factors != history.factors:
            raise BundleError(
                f"factors.npz: has {factors} rating factors, features.json says {history.factors}"
            )

    def serialise(self) -> dict[str, bytes]:
        """The bundle's files by name, the manifest apart."""
        files = {
            "features.json": self.features.model_dump_json(indent=1).encode(),
            "user_tower.tflite": self.user_tower,
            "item_tower.tflite": self.item_tower,
            "item_embeddings.npy": _write_array(self.item_embeddings),
            "movies.csv": self.catalogue.write(),
            "histories.npz": self.histories.write(),
            "golden.json": _GOLDEN_USERS.dump_json(self.golden),
        }
        if self.factors is not None:
            files["factors.npz"] = self.factors.write()
        if self.rating_embeddings is not None:
            files["rating_embeddings.npy"] = _write_array(self.rating_embeddings)
        if self.partition is not None:
            files[PARTITION] = self.partition.write()
        if external_ids := self.external_ids:
            files[EXTERNAL_IDS] = external_ids.write()
        return files | dict(self.extras)

    @classmethod
    def parse(cls, files: Mapping[str, bytes]) -> Self:
        """The inverse of `serialise`. Raises BundleError naming the file at fault."""
        external_ids = ExternalIds()
        if EXTERNAL_IDS in files:
            external_ids = ExternalIds.read(files[EXTERNAL_IDS])
        bundle = cls(
            features=_parse_features(files["features.json"]),
            factors=MovieFactors.read(files["factors.npz"]) if "factors.npz" in files else None,
            user_tower=files["user_tower.tflite"],
            item_tower=files["item_tower.tflite"],
            item_embeddings=_read_array("item_embeddings.npy", files["item_embeddings.npy"]),
            rating_embeddings=(
                _read_array("rating_embeddings.npy", files["rating_embeddings.npy"])
                if "rating_embeddings.npy" in files
                else None
            ),
            catalogue=replace(Catalogue.read(files["movies.csv"]), external_ids=external_ids.movies),
            histories=replace(
                UserHistories.read(files["histories.npz"]), external_ids=external_ids.users
            ),
            golden=_parse_golden(files["golden.json"]),
            partition=Partition.read(files[PARTITION]) if PARTITION in files else None,
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
    where it is damaged. Raises BundleError for what could not be read back, before anything is
    written.
    """
    bundle.check()
    files = bundle.serialise()
    Bundle.parse(files)
    manifest = _seal(
        format_version=FORMAT_VERSION,
        created_at=int(time.time()),
        recipe=recipe,
        embedding_dim=bundle.item_embeddings.shape[1],
        rating_scale=bundle.features.rating_scale,
        dataset=dataset,
        libraries=dict(libraries),
        feature_spec_digest=sha256(files["features.json"]),
        metrics=dict(metrics),
        files={
            name: FileEntry(sha256=sha256(content), bytes=len(content))
            for name, content in sorted(files.items())
        },
    )
    if is_whole(root, manifest.model_version):
        return read_manifest(root, manifest.model_version)
    files[MANIFEST] = manifest.model_dump_json(indent=1).encode()
    with writing_into(root), partial_folder(root, manifest.model_version) as folder:
        for name, content in files.items():
            write_atomically(folder / name, content)
    return manifest


def read_bundle(root: Path, model_version: str) -> tuple[Manifest, Bundle]:
    """Read a bundle and verify all of it: digests, shapes, finiteness, unit norms, consistency.

    Raises BundleError naming the file and the fault.
    """
    manifest = read_manifest(root, model_version)
    try:
        files = {
            name: _read_verified(root / model_version / name, entry)
            for name, entry in manifest.files.items()
        }
        bundle = Bundle.parse(files)
        _check_manifest(manifest, bundle, files)
    except BundleError as error:
        raise BundleError(f"{model_version}/{error}") from error
    return manifest, bundle


def list_versions(root: Path) -> list[str]:
    """The versions of the bundles in `root`, in alphabetical order, damaged ones too."""
    return sorted(path.name for path in root.glob("[0-9a-f]" * 16) if path.is_dir())


def _seal(**fields: Any) -> Manifest:
    try:
        return Manifest(model_version="", **fields).sealed()
    except ValidationError as error:
        raise BundleError(f"manifest.json: {first_fault(error)}") from error


def _check_manifest(manifest: Manifest, bundle: Bundle, files: Mapping[str, bytes]) -> None:
    if sha256(files["features.json"]) != manifest.feature_spec_digest:
        raise BundleError("features.json is not the manifest's feature_spec_digest")
    if bundle.features.rating_scale != manifest.rating_scale:
        raise BundleError("features.json has another rating scale than the manifest")
    if bundle.item_embeddings.shape[1] != manifest.embedding_dim:
        raise BundleError(
            f"item_embeddings.npy has dimension {bundle.item_embeddings.shape[1]}, "
            f"the manifest says {manifest.embedding_dim}"
        )


def is_whole(root: Path, model_version: str) -> bool:
    """Whether there is a bundle of that version, whole and undamaged."""
    try:
        read_bundle(root, model_version)
    except BundleError:
        return False
    return True


def _read_verified(path: Path, entry: FileEntry) -> bytes:
    try:
        size = path.stat().st_size
        if size != entry.bytes:
            raise BundleError(f"{path.name}: has {size} bytes, the manifest says {entry.bytes}")
        content = path.read_bytes()
    except FileNotFoundError:
        raise BundleError(f"{path.name}: is missing, though the manifest lists it") from None
    except OSError as error:
        raise BundleError(f"{path.name}: {error.strerror}") from error
    if sha256(content) != entry.sha256:
        raise BundleError(f"{path.name}: its content does not match the manifest's digest")
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
        raise BundleError(f"features.json: {first_fault(error)}") from error


def _parse_golden(content: bytes) -> tuple[GoldenUser, ...]:
    try:
        return _GOLDEN_USERS.validate_json(content)
    except ValidationError as error:
        raise BundleError(f"golden.json: {first_fault(error)}") from error


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
