"""The manifest of a bundle: what the bundle is, and the digest of every other file in it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError
from pydantic_core import from_json

from twotower.errors import BundleError

FORMAT_VERSION: Final = 2
MANIFEST: Final = "manifest.json"
GOLDEN: Final = "golden.json"
SERVED: Final = (
    "features.json",
    "factors.npz",
    "user_tower.tflite",
    "item_tower.tflite",
    "item_embeddings.npy",
    "rating_embeddings.npy",
    "partition.npz",
    "movies.csv",
    "histories.npz",
    "external_ids.json",
)
"""The files that a model is served from, and that its version follows from."""

_OPTIONAL: Final = {"factors.npz", "rating_embeddings.npy", "partition.npz", "external_ids.json"}
_REQUIRED: Final = ({*SERVED} | {GOLDEN}) - _OPTIONAL

ModelVersion = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
# A name of its own folder only: what is listed is read.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]


class StrictModel(BaseModel):
    """A document whose fields are known, and none other."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(StrictModel):
    """A file of the bundle: its SHA-256 in hexadecimal and its length."""

    sha256: str
    bytes: int


class DatasetEntry(StrictModel):
    """The ratings the model was trained on."""

    name: str
    digest: str
    users: int
    movies: int
    ratings: int


class Manifest(StrictModel):
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
    metrics: dict[str, FiniteFloat]
    files: dict[FileName, FileEntry]
    digest: str = ""

    def sealed(self) -> Manifest:
        """The same with the version and the digest that follow from the rest."""
        named = self.model_copy(update={"model_version": self.computed_version()})
        return named.model_copy(update={"digest": named.computed_digest()})

    def check(self, model_version: str) -> None:
        """Raise BundleError unless this is a whole and unchanged manifest of `model_version`."""
        if self.digest != self.computed_digest():
            raise BundleError("its content does not match its own digest")
        if self.model_version != self.computed_version():
            raise BundleError("model_version does not follow from the files' digests")
        if self.model_version != model_version:
            raise BundleError(f"is of model {self.model_version}, not of {model_version}")
        missing = sorted(_REQUIRED - self.files.keys())
        if missing:
            raise BundleError(f"lists no {', '.join(missing)}")

    def computed_digest(self) -> str:
        """SHA-256 over the canonical JSON of every field but `digest`."""
        return _canonical_digest(self.model_dump(mode="json", exclude={"digest"}))

    def computed_version(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 over what is served, and how."""
        served = {name: self.files[name].sha256 for name in SERVED if name in self.files}
        fields = self.model_dump(
            mode="json", include={"embedding_dim", "rating_scale", "feature_spec_digest"}
        )
        return _canonical_digest({"files": served, **fields})[:16]


def read_manifest(root: Path, model_version: str) -> Manifest:
    """Read and verify the manifest of a bundle. Raises BundleError saying what is wrong."""
    shown = f"{model_version}/{MANIFEST}"
    try:
        document = from_json((root / model_version / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise BundleError(f"{model_version}: there is no such bundle") from None
    except OSError as error:
        raise BundleError(f"{shown}: {error.strerror}") from error
    except ValueError as error:
        raise BundleError(f"{shown}: {error}") from error
    found = document.get("format_version") if isinstance(document, dict) else None
    if found != FORMAT_VERSION:
        raise BundleError(
            f"{shown}: format_version is {found!r}; this release reads {FORMAT_VERSION} only"
        )
    try:
        manifest = Manifest.model_validate(document)
        manifest.check(model_version)
    except ValidationError as error:
        raise BundleError(f"{shown}: {first_fault(error)}") from error
    except BundleError as error:
        raise BundleError(f"{shown}: {error}") from error
    return manifest


def first_fault(error: ValidationError) -> str:
    """The first of a model's complaints, in a line."""
    fault = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"


def sha256(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _canonical_digest(document: object) -> str:
    return sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode())
