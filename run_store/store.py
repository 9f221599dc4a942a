"""A small S3 client for one store: a bucket and a prefix in it.

A missing key is None. Everything else that goes wrong is a StoreError that says which bucket,
what it answered, and what to look at.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ResponseStreamingError,
)
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from run_store.credentials import session_with
from run_store.errors import StoreError, UsageError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

M = TypeVar("M", bound=BaseModel)
_LOOK_AGAIN_AFTER_S = (0.02, 0.1, 0.3)
_MISSING = {"404", "NoSuchKey", "NotFound"}
_ABSENT_FOR_S = 5.0
_DENIED = {"403", "AccessDenied", "AllAccessDisabled"}
_WRONG_KEYS = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "AuthorizationHeaderMalformed",
    "RequestTimeTooSkewed",
}


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        draft.replace(path)
    except OSError:
        # A full disk, most likely: half a file helps nobody, and may hold secrets.
        draft.unlink(missing_ok=True)
        raise


class StoreAddress(BaseModel):
    """Where a store is and how to get in. Secrets are masked in every repr.

    Without keys, `credentials_file` is read (`run_store.credentials`), again whenever it changes;
    without that, boto3's usual chain is asked (environment, profile, instance role). `model_dump`
    masks too; `plain` and `to_file` are the only ways by which secrets leave.
    """

    # An error's message must not quote the input: it may hold a secret.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    bucket: str = Field(min_length=3)
    prefix: str = ""
    endpoint_url: str | None = None
    region: str | None = None
    access_key: SecretStr | None = None
    secret_key: SecretStr | None = None
    session_token: SecretStr | None = None
    expires_at: float | None = None
    credentials_file: Path | None = None

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Read `s3://bucket/prefix`; endpoint and keys come from the usual AWS places.

        Raises UsageError for anything else.
        """
        parts = urlsplit(url)
        if parts.scheme != "s3" or len(parts.netloc) < 3:  # noqa: PLR2004 - S3's shortest name
            raise UsageError(
                f"{url!r} is not a store.", hint="Write s3://bucket or s3://bucket/prefix."
            )
        prefix = parts.path.strip("/")
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return cls(
            bucket=parts.netloc, prefix=f"{prefix}/" if prefix else "", endpoint_url=endpoint
        )

    @property
    def url(self) -> str:
        """`s3://bucket/prefix`, for people and logs."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def plain(self) -> dict[str, Any]:
        """Return the address with its secrets in the clear, for a file of its owner's only."""
        return {
            key: value.get_secret_value() if isinstance(value, SecretStr) else value
            for key, value in {**self.model_dump(), **self._as_text()}.items()
        }

    def _as_text(self) -> dict[str, str]:
        return {"credentials_file": str(self.credentials_file)} if self.credentials_file else {}

    def to_file(self, path: Path) -> None:
        """Write the address with its secrets to a file that only its owner can read."""
        write_private(path, json.dumps(self.plain()))

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read what `to_file` wrote."""
        return cls.model_validate_json(path.read_text(encoding="utf-8"))

    def secrets(self) -> tuple[str, str, str] | None:
        """Return access key, secret key and session token (or ""), if this address has its own."""
        if self.access_key is None or self.secret_key is None:
            return None
        token = self.session_token.get_secret_value() if self.session_token else ""
        return self.access_key.get_secret_value(), self.secret_key.get_secret_value(), token


class Store:
    """Objects under one address. Safe to use from several threads."""

    def __init__(self, address: StoreAddress, *, timeout_s: float = 10.0, tries: int = 3) -> None:
        self.address = address
        self._absent_until: dict[str, float] = {}
        secrets = address.secrets()
        keys: dict[str, Any] = {}
        if secrets:
            keys = {
                "aws_access_key_id": secrets[0],
                "aws_secret_access_key": secrets[1],
                "aws_session_token": secrets[2] or None,
            }
        try:
            self._client: S3Client = session_with(address.credentials_file).client(
                "s3",
                endpoint_url=address.endpoint_url,
                region_name=address.region or (None if not address.endpoint_url else "us-east-1"),
                config=Config(
                    connect_timeout=timeout_s,
                    read_timeout=timeout_s,
                    retries={"total_max_attempts": tries, "mode": "standard"},
                    s3={"addressing_style": "path"} if address.endpoint_url else {},
                    max_pool_connections=16,
                    # Not every S3 server knows the newer default checksums.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
                **keys,
            )
        except (BotoCoreError, ValueError) as error:
            raise StoreError(f"The store {address.url} cannot be used: {error}.") from None

    def __repr__(self) -> str:
        return f"Store({self.address.url})"

    def check(self) -> None:
        """Raise StoreError unless the bucket is there and lets us list, write and delete."""
        key = f".check-{os.getpid()}-{os.urandom(4).hex()}"
        self.keys(key)
        self.put(key, b"")
        self.delete(key)

    def create_bucket(self) -> None:
        """Make the bucket if it is not there (used for local stores only)."""
        with self._errors("create"):
            self._client.create_bucket(Bucket=self.address.bucket)

    def put(self, key: str, body: bytes, *, content_type: str = "application/octet-stream") -> None:
        """Write one object, whole."""
        with self._errors(key):
            self._client.put_object(
                Bucket=self.address.bucket,
                Key=self.address.prefix + key,
                Body=body,
                ContentType=content_type,
            )

    def put_file(self, key: str, path: Path) -> None:
        """Write one object from a file, in one request."""
        with self._errors(key), path.open("rb") as body:
            self._client.put_object(
                Bucket=self.address.bucket, Key=self.address.prefix + key, Body=body
            )

    def put_message(self, key: str, message: BaseModel) -> None:
        """Write a message as JSON."""
        self.put(key, message.model_dump_json().encode(), content_type="application/json")

    def get(self, key: str) -> bytes | None:
        """Return an object's bytes; None if there is no such key."""
        with self._errors(key):
            # boto3 tries a request again, but not the reading of an answer that breaks off.
            for pause_s in _LOOK_AGAIN_AFTER_S:
                try:
                    return self._get(key)
                except (ResponseStreamingError, IncompleteReadError):
                    time.sleep(pause_s)
            return self._get(key)

    def get_message(self, key: str, kind: type[M]) -> M | None:
        """Return a message; None if there is no such key.

        Raises StoreError if what stands there is no such message. It is looked at again before
        that: S3 replaces an object in one step, but a server over a folder may show one that is
        just being rewritten as cut off.
        """
        for pause_s in (*_LOOK_AGAIN_AFTER_S, None):
            body = self.get(key)
            if body is None:
                return None
            try:
                return kind.model_validate_json(body)
            except ValueError as error:
                if pause_s is None:
                    raise StoreError(
                        f"{self.address.url}/{key} is not a {kind.__name__}: {error}"
                    ) from None
                time.sleep(pause_s)
        raise AssertionError

    def keys(self, prefix: str) -> list[str]:
        """Return all keys under a prefix, in order."""
        return [key for key, _ in self.list_sizes(prefix)]

    def list_sizes(self, prefix: str) -> list[tuple[str, int]]:
        """Return all keys under a prefix with their sizes in bytes, in the order of keys."""
        found: list[tuple[str, int]] = []
        with self._errors(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.address.bucket, Prefix=self.address.prefix + prefix
            )
            for page in pages:
                found += [
                    (entry["Key"].removeprefix(self.address.prefix), entry["Size"])
                    for entry in page.get("Contents", [])
                ]
        return sorted(found)

    def ages_s(self, prefix: str) -> dict[str, float]:
        """Return all keys under a prefix with the seconds since they were written.

        By the store's own clock, so that no other has to be right; it tells whole seconds.
        """
        ages: dict[str, float] = {}
        with self._errors(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.address.bucket, Prefix=self.address.prefix + prefix
            )
            for page in pages:
                date = page["ResponseMetadata"]["HTTPHeaders"].get("date")
                now = parsedate_to_datetime(date) if date else dt.datetime.now(dt.UTC)
                for entry in page.get("Contents", []):
                    age_s = (now - entry["LastModified"]).total_seconds()
                    ages[entry["Key"].removeprefix(self.address.prefix)] = max(0.0, age_s)
        return ages

    def folders(self, prefix: str) -> list[str]:
        """Return the names one level below a prefix that ends with a slash."""
        names: list[str] = []
        with self._errors(prefix):
            full = self.address.prefix + prefix
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.address.bucket, Prefix=full, Delimiter="/"
            )
            for page in pages:
                names += [
                    entry["Prefix"].removeprefix(full).rstrip("/")
                    for entry in page.get("CommonPrefixes", [])
                ]
        return sorted(names)

    def delete(self, *keys: str) -> None:
        """Delete objects; one that is not there is no error."""
        with self._errors("delete"):
            for key in keys:
                self._client.delete_object(
                    Bucket=self.address.bucket, Key=self.address.prefix + key
                )

    def _get(self, key: str) -> bytes | None:
        try:
            answer = self._client.get_object(
                Bucket=self.address.bucket, Key=self.address.prefix + key
            )
            return answer["Body"].read()
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in _MISSING or (code in _DENIED and self._is_absent(key)):
                return None
            raise

    def _is_absent(self, key: str) -> bool:
        """Say whether a key that we may not read is none at all.

        S3 answers 403 for a missing key to whoever may list some prefixes only, as a worker may.
        A listing tells, and counts for a little while: an agent asks for its next order often.
        """
        now = time.monotonic()
        if now < self._absent_until.get(key, 0.0):
            return True
        answer = self._client.list_objects_v2(
            Bucket=self.address.bucket, Prefix=self.address.prefix + key, MaxKeys=1
        )
        there = any(one["Key"] == self.address.prefix + key for one in answer.get("Contents", []))
        if not there:
            known = {one: until for one, until in self._absent_until.items() if until > now}
            self._absent_until = {**known, key: now + _ABSENT_FOR_S}
        return not there

    @contextlib.contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            raise _explain(error, self.address, key) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise StoreError(
                f"There are no credentials for the store {self.address.url}.",
                hint="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE.",
            ) from error
        except ParamValidationError as error:
            raise StoreError(
                f"The store {self.address.url} cannot be used ({key}): {error}",
                hint="Check the bucket's name.",
            ) from error
        except BotoCoreError as error:
            raise StoreError(
                f"The store {self.address.url} does not answer ({key}): {error}.",
                hint="Check its endpoint and region, and the network between.",
            ) from error


def _explain(error: ClientError, address: StoreAddress, key: str) -> StoreError:
    code = error.response["Error"]["Code"]
    if code == "NoSuchBucket" or (code in _MISSING and not key):
        return StoreError(
            f"There is no bucket {address.bucket}.", hint="Create it, or name another with --store."
        )
    if code in _WRONG_KEYS:
        return StoreError(
            f"The store {address.url} refused our credentials ({code}) for {key}.",
            hint="Check access key, secret key and session token; they may have expired.",
        )
    if code in _DENIED:
        return StoreError(
            f"The store {address.url} does not let us in ({code}) for {key}.",
            hint="Allow s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject there.",
        )
    said = error.response["Error"].get("Message", "")
    return StoreError(f"The store {address.url} answered {code} for {key}: {said}")
