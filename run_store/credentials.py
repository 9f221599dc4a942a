"""Credentials that somebody else renews: a file that is read again whenever it changes."""

from __future__ import annotations

import json
import logging
import threading
from functools import lru_cache
from pathlib import Path
from typing import Self

import boto3
import botocore.session
from botocore.credentials import (
    CredentialProvider,
    CredentialResolver,
    Credentials,
    ReadOnlyCredentials,
)
from botocore.loaders import Loader, create_loader
from pydantic import BaseModel, ConfigDict, SecretStr

log = logging.getLogger(__name__)


class StoreCredentials(BaseModel):
    """What lets a worker into its run's part of the store. Masked in every repr.

    `expires_at` is in seconds since the epoch; None where nothing ends.
    """

    # An error's message must not quote the input: it may hold a secret.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    access_key: SecretStr
    secret_key: SecretStr
    session_token: SecretStr | None = None
    expires_at: float | None = None

    def plain_json(self) -> str:
        """Return the secrets in the clear, for a file of its owner's only."""
        return json.dumps(
            {
                "access_key": self.access_key.get_secret_value(),
                "secret_key": self.secret_key.get_secret_value(),
                "session_token": self.session_token and self.session_token.get_secret_value(),
                "expires_at": self.expires_at,
            }
        )

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a file of `plain_json`. Raises OSError or ValueError."""
        return cls.model_validate_json(path.read_text(encoding="utf-8"))


class FileCredentials(Credentials):
    """The credentials in a file, as they are when a request is signed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._read_from: tuple[int, int] | None = None
        super().__init__(access_key="", secret_key="", method="file")
        self._read_if_new()

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """Return what the file holds now; what it held before if it cannot be read."""
        self._read_if_new()
        with self._lock:
            return ReadOnlyCredentials(self.access_key, self.secret_key, self.token)

    def _read_if_new(self) -> None:
        try:
            there = self._path.stat()
            found = there.st_ino, there.st_mtime_ns
            if found == self._read_from:
                return
            read = StoreCredentials.from_file(self._path)
        except (OSError, ValueError) as error:
            log.warning("the credentials in %s cannot be read: %s", self._path, error)
            return
        with self._lock:
            self.access_key = read.access_key.get_secret_value()
            self.secret_key = read.secret_key.get_secret_value()
            self.token = read.session_token.get_secret_value() if read.session_token else None
            self._read_from = found


class _Provider(CredentialProvider):
    """The one place that a session asks for credentials: a file."""

    METHOD = "file"

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def load(self) -> Credentials:
        """Return credentials that follow the file."""
        return FileCredentials(self._path)


def session_with(path: Path | None) -> boto3.session.Session:
    """Return a session that is let in by a file, or by the usual chain where there is none."""
    session = botocore.session.Session()
    session.register_component("data_loader", _loader())
    if path is not None:
        session.register_component("credential_provider", CredentialResolver([_Provider(path)]))
    made = boto3.session.Session(botocore_session=session)
    # Each session adds boto3's own folder once more.
    _loader().search_paths[:] = dict.fromkeys(_loader().search_paths)
    return made


@lru_cache
def _loader() -> Loader:
    """Read the descriptions of AWS's services once: EC2's alone takes half a second."""
    return create_loader()
