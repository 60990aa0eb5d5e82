"""Objects below s3://bucket/prefix, with every call retried (`foundry_core.retry`).

A create-only put whose answer was lost may have succeeded; the repetition then finds the name
taken, so the bytes that lie there decide who was first. Writers whose bytes are equal by chance
would both be told "created": put something unique into what must have one winner.

Credentials, region and endpoint come from the usual AWS_* environment; none is ever written down.
"""

import contextlib
import errno
import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from foundry_core.endpoint import check_url
from foundry_core.errors import FoundryError
from foundry_core.retry import Retry
from foundry_core.s3_errors import error_code, explained

T = TypeVar("T")
RETRY = Retry(attempts=10, pause=0.2)
_PART_BYTES = 32 * 2**20
_MOST_PARTS = 10_000
# The answers to a put whose condition does not hold.
_REFUSED_CODES = ("PreconditionFailed", "412")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_TRANSIENT_CODES = {
    *("SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "TooManyRequests"),
    *("InternalError", "ServiceUnavailable", "OperationAborted", "ConditionalRequestConflict"),
}


class StoreUnavailable(FoundryError):
    """The object store did not answer within the retries. What was under way may have happened."""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """An object as a listing shows it; `name` is relative to the listed Objects' root."""

    name: str
    size: int
    modified: datetime
    tag: str


def connect(uri: str, *, patience: float = 30.0) -> "Objects":
    """Objects below s3://bucket/prefix. No request is made yet. patience: seconds that one call
    may take, at most FOUNDRY_S3_TIMEOUT."""
    scheme, _, root = uri.partition("://")
    if scheme != "s3" or not root.strip("/"):
        raise FoundryError(f"{uri!r} is no address of an object store", "s3://bucket/prefix")
    # 0.3 s, and only where the store is remote
    import s3fs

    timeout = min(patience, _seconds("FOUNDRY_S3_TIMEOUT", 30.0))
    config = {
        "connect_timeout": min(timeout, 10.0),
        "read_timeout": timeout,
        "retries": {"max_attempts": 0},
        "max_pool_connections": 32,
    }
    fs = s3fs.S3FileSystem(config_kwargs=config, use_listings_cache=False)
    return Objects(fs, root)


def _seconds(name: str, default: float) -> float:
    text = os.environ.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise FoundryError(f"{name} = {text!r}: expected seconds > 0", f"e.g. {default:g}")
    return value


class Objects:
    """The calls of S3's API that a store needs, those of `foundry_core.blobs.Blobs` among them.
    Names are posix paths below the root.

    Thread-safe: each call runs on the file system's event loop.
    """

    def __init__(self, fs: Any, root: str) -> None:
        self.root = root.strip("/")
        self.bucket, _, self._prefix = self.root.partition("/")
        self._fs = fs
        # Retrying happens here, where it is known which call may be repeated and how to tell.
        fs.retries = 1

    @property
    def uri(self) -> str:
        return f"s3://{self.root}"

    def below(self, name: str) -> "Objects":
        """Those whose names begin with this folder, named without it."""
        return Objects(self._fs, f"{self.root}/{name}")

    def check(self) -> None:
        """FoundryError when the bucket is absent, or not readable with these credentials, or its
        host not known."""
        for name in _ENDPOINTS:
            if os.environ.get(name):
                check_url(os.environ[name], name)
        self._page("", delimiter="/", most=1)

    def read(self, name: str, most: int | None = None) -> bytes:
        """Raises FileNotFoundError, and ValueError for more than `most` bytes."""
        return self.read_tagged(name, most)[0]

    def read_tagged(self, name: str, most: int | None = None) -> tuple[bytes, str]:
        """(bytes, entity tag). Raises as `read` does."""
        data, tag, size = self._retry(f"read {name}", lambda: self._get(name, most=most))
        if size > len(data):
            raise ValueError(f"{name} has {size} bytes, {most} at most are read")
        return data, tag

    def create(self, name: str, data: bytes) -> bool:
        """A create-only put. False when the name holds other bytes already."""
        try:
            self._retry(f"create {name}", lambda: self._put(name, data, IfNoneMatch="*"))
        except FileExistsError:
            return self._holds(name, data)
        return True

    def create_all(self, blobs: Sequence[tuple[str, bytes]]) -> list[bool]:
        """One after the other, so that a crash leaves a first part of them."""
        return [self.create(name, data) for name, data in blobs]

    def write(self, name: str, data: bytes) -> None:
        """Puts, whatever was there."""
        self._retry(f"write {name}", lambda: self._put(name, data))

    def replace(self, name: str, data: bytes, tag: str) -> str | None:
        """Overwrites the object that has this entity tag; its new tag, or None when the object is
        gone or another."""
        try:
            return self._retry(f"replace {name}", lambda: self._put(name, data, IfMatch=tag))
        except (FileExistsError, FileNotFoundError):
            pass
        try:
            current, new_tag = self.read_tagged(name)
        except FileNotFoundError:
            return None
        # The answer may have been lost: then these are the bytes of the put.
        return new_tag if current == data else None

    def delete(self, *names: str) -> None:
        """Deleting what is gone is no error."""

        def remove(name: str) -> None:
            with contextlib.suppress(FileNotFoundError):
                self._retry(f"delete {name}", lambda: self._call("delete_object", name=name))

        if len(names) > 1:
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(remove, names))
        elif names:
            remove(names[0])

    def local(self, name: str) -> None:
        """No path shows an object."""

    def look(self, name: str) -> Listed | None:
        """One object as a listing would show it; None when it is absent."""
        try:
            head = self._retry(f"look at {name}", lambda: self._call("head_object", name=name))
        except FileNotFoundError:
            return None
        return Listed(
            name=name, size=head["ContentLength"], modified=head["LastModified"], tag=head["ETag"]
        )

    def find(self, folder: str = "", beginning: str = "") -> list[Listed]:
        """Every object below a folder, at any depth, sorted by name. beginning: of those whose
        names below it begin so."""
        return self._listing(folder, "", beginning)[1]

    def folders(self, folder: str = "") -> list[str]:
        """Names directly below a folder that hold objects, sorted."""
        return self._listing(folder, "/")[0]

    def names(self, folder: str = "") -> list[str]:
        """Sorted names of the objects and folders directly below."""
        folders, objects = self._listing(folder, "/")
        return sorted({*folders, *(o.name.rpartition("/")[2] for o in objects)} - {""})

    def upload(self, path: Path, name: str) -> None:
        """Puts a file; a large one in parts, each with its own retries."""
        size = path.stat().st_size
        with path.open("rb") as stream:
            if size <= _PART_BYTES:
                self.write(name, stream.read())
                return
            part = max(_PART_BYTES, -(-size // _MOST_PARTS))
            self._upload_parts(name, iter(lambda: stream.read(part), b""), size)

    def download(self, name: str, path: Path, size: int) -> str:
        """Writes an object to a new file; the sha256 of what was received."""
        digest = hashlib.sha256()
        with path.open("xb") as stream:
            for data in self._parts(name, size):
                digest.update(data)
                stream.write(data)
        return digest.hexdigest()

    def digest(self, name: str, size: int) -> str:
        """sha256 of an object, read part by part."""
        digest = hashlib.sha256()
        for data in self._parts(name, size):
            digest.update(data)
        return digest.hexdigest()

    def _parts(self, name: str, size: int) -> Iterator[bytes]:
        for start in range(0, size, _PART_BYTES):
            span = f"bytes={start}-{min(size, start + _PART_BYTES) - 1}"
            yield self._retry(f"read {name}", functools.partial(self._get, name, Range=span))[0]

    def _upload_parts(self, name: str, parts: Iterable[bytes], size: int) -> None:
        what = f"upload {name}"
        upload = self._retry(what, lambda: self._call("create_multipart_upload", name=name))
        common: dict[str, Any] = {"name": name, "UploadId": upload["UploadId"]}
        try:
            done = []
            for number, data in enumerate(parts, 1):
                part = {**common, "PartNumber": number, "Body": data}
                put = self._retry(what, functools.partial(self._call, "upload_part", **part))
                done.append({"PartNumber": number, "ETag": put["ETag"]})
            self._complete(what, common, done, size)
        except BaseException:
            with contextlib.suppress(OSError, FoundryError):
                self._retry(what, lambda: self._call("abort_multipart_upload", **common))
            raise

    def _complete(
        self, what: str, common: dict[str, Any], parts: list[dict[str, Any]], size: int
    ) -> None:
        whole = {**common, "MultipartUpload": {"Parts": parts}}
        try:
            self._retry(what, lambda: self._call("complete_multipart_upload", **whole))
        except FileNotFoundError:
            # The upload id is gone: a completion whose answer was lost, or an expired upload.
            head = self._retry(what, lambda: self._call("head_object", name=common["name"]))
            if head["ContentLength"] != size:
                raise

    def _holds(self, name: str, data: bytes) -> bool:
        try:
            return self.read(name) == data
        except FileNotFoundError:
            return False

    def _listing(
        self, folder: str, delimiter: str, beginning: str = ""
    ) -> tuple[list[str], list[Listed]]:
        folders: list[str] = []
        objects: list[Listed] = []
        token = None
        while True:
            page = self._page(folder, beginning, delimiter=delimiter, token=token)
            folders += [
                p["Prefix"].rstrip("/").rpartition("/")[2] for p in page.get("CommonPrefixes", ())
            ]
            objects += [
                Listed(
                    name=entry["Key"][len(self._prefix) + 1 if self._prefix else 0 :],
                    size=entry["Size"],
                    modified=entry["LastModified"],
                    tag=entry["ETag"],
                )
                for entry in page.get("Contents", ())
            ]
            token = page.get("NextContinuationToken")
            if not token:
                return sorted(folders), objects

    def _page(
        self,
        folder: str,
        beginning: str = "",
        *,
        delimiter: str = "",
        token: str | None = None,
        most: int = 1000,
    ) -> dict[str, Any]:
        prefix = self._key(folder)
        below = f"{prefix}/" if prefix else ""
        options: dict[str, Any] = {"Prefix": below + beginning, "MaxKeys": most}
        if delimiter:
            options["Delimiter"] = delimiter
        if token:
            options["ContinuationToken"] = token
        return self._retry(
            f"list {folder or 'the store'}", lambda: self._call("list_objects_v2", **options)
        )

    def _key(self, name: str) -> str:
        return "/".join(part for part in (self._prefix, name.strip("/")) if part)

    def _put(self, name: str, data: bytes, **conditions: str) -> str:
        return self._call("put_object", name=name, Body=data, **conditions)["ETag"]

    def _get(self, name: str, *, most: int | None = None, **options: str) -> tuple[bytes, str, int]:
        """(bytes, entity tag, size); no bytes of what has more than `most`."""
        import fsspec

        async def fetch() -> tuple[bytes, str, int]:
            answer = await self._fs._call_s3(
                "get_object", Bucket=self.bucket, Key=self._key(name), **options
            )
            size = answer["ContentLength"]
            async with answer["Body"] as body:
                data = b"" if most is not None and size > most else await body.read()
            return data, answer["ETag"], size

        return fsspec.asyn.sync(self._fs.loop, fetch)

    def _call(self, method: str, *, name: str | None = None, **options: Any) -> dict[str, Any]:
        if name is not None:
            options["Key"] = self._key(name)
        return self._fs.call_s3(method, Bucket=self.bucket, **options)

    def _retry(self, what: str, call: Callable[[], T]) -> T:
        """The call's result. FileNotFoundError and FileExistsError (a failed condition) pass; what
        a person must mend becomes a FoundryError that names the store."""
        try:
            return RETRY.call(f"{self.uri}: {what}", call, _is_transient)
        except Exception as error:
            code = error_code(error)
            if code in _REFUSED_CODES:
                raise FileExistsError(errno.EEXIST, f"{self.uri}: {what}") from error
            if _is_transient(error):
                raise StoreUnavailable(
                    f"{self.uri}: could not {what} in {RETRY.attempts} attempts ({error})",
                    "check the network and AWS_ENDPOINT_URL; run again to continue",
                ) from error
            raise explained(self.uri, what, error) from error


def _is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed in a moment."""
    if isinstance(error, FileNotFoundError | FileExistsError | PermissionError):
        return False
    if error_code(error) in _REFUSED_CODES:
        return False
    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    if response:
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status >= 500 or status == 429 or error_code(error) in _TRANSIENT_CODES
    import aiohttp
    from botocore import exceptions, parsers

    # ConnectionError of botocore is not the built-in one.
    return isinstance(
        error,
        ConnectionError
        | TimeoutError
        | aiohttp.ClientError
        | exceptions.HTTPClientError
        | exceptions.ConnectionError
        | exceptions.IncompleteReadError
        | parsers.ResponseParserError
        | exceptions.ChecksumError
        | exceptions.FlexibleChecksumError,
    )
