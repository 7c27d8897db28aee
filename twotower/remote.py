"""Bundles that lie in S3: a folder here follows what is promoted there, or is published to it.

`s3://bucket/prefix` has the layout of a folder of bundles. As there, `current` changes last: whoever
reads it finds all of what it names.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from twotower.bundle import is_whole, read_bundle
from twotower.errors import BundleError
from twotower.files import one_at_a_time, partial_folder, write_atomically, writing_into
from twotower.manifest import MANIFEST, Manifest, sha256
from twotower.promotion import CURRENT, Current, supersede

# botocore takes a while to import, and some memory: only a process that reads from S3 has it.
# ruff: noqa: PLC0415

_SCHEME: Final = "s3://"
_ATTEMPTS: Final = 2
_CONNECT_SECONDS, _READ_SECONDS = 3, 10
_MOST_BYTES: Final = 2**16
"""Of `current` and of a manifest, which are read before anything vouches for them."""


class RemoteBundles:
    """The bundles at an address, `s3://bucket` or `s3://bucket/prefix`.

    Region, credentials and endpoint are found as every AWS tool finds them: from the environment, the
    shared files, or the role of the instance or container.
    """

    def __init__(self, address: str) -> None:
        bucket, _, prefix = address.removeprefix(_SCHEME).partition("/")
        self.address, self._bucket, self._prefix = address.rstrip("/"), bucket, prefix.strip("/")
        self._verified: set[str] = set()

    def pull(self, root: Path) -> None:
        """Bring what is promoted there into the folder `root`, verified, and promote it there too.

        What `root` had of other models goes; what it has of these is verified once by each process.
        Raises BundleError where S3 cannot be read, or what lies there is no whole bundle: of the current
        model before anything is promoted, of the one before it after.
        """
        content = self._get(CURRENT)
        promoted = self._parse_current(content)
        # Replicas may share a folder: the others then find what the first has brought.
        with writing_into(root), one_at_a_time(root):
            self._bring(root, promoted.current)
            if not (root / CURRENT).exists() or (root / CURRENT).read_bytes() != content:
                write_atomically(root / CURRENT, content)
            for left in root.glob("[0-9a-f]" * 16):
                if left.name not in (promoted.current, promoted.previous):
                    shutil.rmtree(left)
            if promoted.previous:
                self._bring(root, promoted.previous)

    def promoted(self) -> Manifest | None:
        """The manifest of what is promoted there, or None where nothing is. Raises BundleError."""
        current = self._read_current()
        if current is None:
            return None
        manifest, _ = self._read_manifest(current.current)
        return manifest

    def push(self, root: Path, model_version: str) -> Current:
        """Publish a bundle of the folder `root`, and promote it there; what was, is then the previous.

        Raises BundleError where the bundle is not whole, or S3 cannot be written to.
        """
        manifest, _ = read_bundle(root, model_version)
        current = supersede(self._read_current(), model_version)
        for name in (*manifest.files, MANIFEST):
            self._put(f"{model_version}/{name}", (root / model_version / name).read_bytes())
        self._put(CURRENT, current.model_dump_json().encode() + b"\n")
        return current

    def _read_current(self) -> Current | None:
        content = self._find(CURRENT, most_bytes=_MOST_BYTES)
        return None if content is None else self._parse_current(content)

    def _parse_current(self, content: bytes) -> Current:
        try:
            return Current.model_validate_json(content)
        except ValidationError as error:
            raise BundleError(f"{self.address}/{CURRENT}: cannot be read as a promotion") from error

    def _read_manifest(self, model_version: str) -> tuple[Manifest, bytes]:
        name = f"{model_version}/{MANIFEST}"
        content = self._get(name)
        try:
            manifest = Manifest.model_validate_json(content)
            manifest.check(model_version)
        except (ValidationError, BundleError) as error:
            raise BundleError(f"{self.address}/{name}: is no whole manifest of that model") from error
        return manifest, content

    def _bring(self, root: Path, model_version: str) -> None:
        here = (root / model_version / MANIFEST).exists()
        if here and (model_version in self._verified or is_whole(root, model_version)):
            self._verified.add(model_version)
            return
        manifest, content = self._read_manifest(model_version)
        with partial_folder(root, model_version) as folder:
            for name, entry in manifest.files.items():
                file = self._get(f"{model_version}/{name}", most_bytes=entry.bytes)
                if sha256(file) != entry.sha256:
                    shown = f"{self.address}/{model_version}/{name}"
                    raise BundleError(f"{shown}: does not match the manifest's digest")
                write_atomically(folder / name, file)
            write_atomically(folder / MANIFEST, content)
        self._verified.add(model_version)

    def _get(self, name: str, *, most_bytes: int = _MOST_BYTES) -> bytes:
        content = self._find(name, most_bytes=most_bytes)
        if content is None:
            raise BundleError(f"{self.address}/{name}: there is no such object")
        return content

    def _find(self, name: str, *, most_bytes: int) -> bytes | None:
        def read() -> Any:
            try:
                found = self._client.get_object(Bucket=self._bucket, Key=self._key(name))
            except self._client.exceptions.NoSuchKey:
                return None
            return found["Body"].read(most_bytes + 1)

        content: bytes | None = self._try(name, read)
        if content is not None and len(content) > most_bytes:
            raise BundleError(f"{self.address}/{name}: has more than the {most_bytes} bytes expected")
        return content

    def _put(self, name: str, content: bytes) -> None:
        key = self._key(name)
        self._try(name, lambda: self._client.put_object(Bucket=self._bucket, Key=key, Body=content))

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def _try(self, name: str, call: Callable[[], Any]) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError
        from urllib3.exceptions import HTTPError

        try:
            return call()
        except ClientError as error:
            fault = error.response["Error"]
            raise BundleError(f"{self.address}/{name}: {fault['Code']}: {fault['Message']}") from error
        except (BotoCoreError, HTTPError, ValueError) as error:  # of a value: no address of an endpoint
            raise BundleError(f"{self.address}/{name}: {error}") from error

    @cached_property
    def _client(self) -> Any:
        from botocore.config import Config
        from botocore.session import get_session

        config = Config(
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        )
        return get_session().create_client("s3", config=config)


def follow(bundles: Path | str, cache: Path) -> tuple[Path, Callable[[], None]]:
    """The folder that bundles are read from, and what brings it up to date, which may raise BundleError.

    A folder is itself. What lies in S3 is kept in `cache`.
    """
    if isinstance(bundles, Path):
        return bundles, lambda: None
    remote = RemoteBundles(bundles)
    return cache, lambda: remote.pull(cache)


@contextmanager
def borrowed(bundles: Path | str) -> Iterator[Path]:
    """The folder of bundles; of what lies in S3 a copy, gone when the block ends. Raises BundleError."""
    if isinstance(bundles, Path):
        yield bundles
        return
    with tempfile.TemporaryDirectory() as folder:
        RemoteBundles(bundles).pull(Path(folder))
        yield Path(folder)
