from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from pydantic import SecretStr

from run_store.credentials import FileCredentials, StoreCredentials, session_with
from run_store.errors import StoreError
from run_store.store import Store, StoreAddress, write_private
from tests.store_server import StoreServer


def credentials(name: str) -> StoreCredentials:
    return StoreCredentials(
        access_key=SecretStr(f"access-{name}"),
        secret_key=SecretStr(f"secret-{name}"),
        session_token=SecretStr(f"token-{name}"),
        expires_at=1_900_000_000.0,
    )


def hand_over(file: Path, given: StoreCredentials) -> None:
    """Write credentials as a host gets them: whole, in place of those before."""
    new = file.with_suffix(".new")
    write_private(new, given.plain_json())
    new.replace(file)


def test_secrets_are_masked() -> None:
    """No repr, text or dump of credentials shows one."""
    given = credentials("a")
    for shown in (repr(given), str(given), str(given.model_dump()), given.model_dump_json()):
        assert "secret-a" not in shown
        assert "access-a" not in shown
        assert "token-a" not in shown


def test_a_file_holds_them_for_its_owner_only(tmp_path: Path) -> None:
    """What is handed over can be read back, and by nobody else."""
    file = tmp_path / "credentials.json"
    hand_over(file, credentials("a"))
    assert file.stat().st_mode & 0o077 == 0
    assert StoreCredentials.from_file(file) == credentials("a")


def test_a_request_is_signed_with_what_the_file_holds_then(tmp_path: Path) -> None:
    """New credentials count from the next request on; a file that is broken changes nothing."""
    file = tmp_path / "credentials.json"
    hand_over(file, credentials("a"))
    live = FileCredentials(file)
    assert live.get_frozen_credentials().secret_key == "secret-a"
    hand_over(file, credentials("b"))
    frozen = live.get_frozen_credentials()
    assert (frozen.access_key, frozen.secret_key, frozen.token) == (
        "access-b",
        "secret-b",
        "token-b",
    )
    file.write_text("{", encoding="utf-8")
    assert live.get_frozen_credentials().secret_key == "secret-b"
    file.unlink()
    assert live.get_frozen_credentials().secret_key == "secret-b"


def test_a_file_is_the_only_way_in(tmp_path: Path) -> None:
    """A session with a file asks no environment, profile or role."""
    file = tmp_path / "credentials.json"
    hand_over(file, credentials("a"))
    found = session_with(file).get_credentials()
    assert found is not None
    assert found.get_frozen_credentials().access_key == "access-a"


def test_a_store_follows_its_credentials_file(store_server: StoreServer, tmp_path: Path) -> None:
    """A client that was made with wrong keys gets in as soon as its file has the right ones."""
    keys = store_server.address.secrets()
    assert keys is not None
    file = tmp_path / "credentials.json"
    hand_over(file, credentials("wrong"))
    address = StoreAddress(
        **{
            **store_server.address.model_dump(include={"bucket", "endpoint_url", "region"}),
            "prefix": f"{tmp_path.name}/",
            "credentials_file": file,
        }
    )
    store = Store(address, tries=1)
    hand_over(
        file,
        StoreCredentials(access_key=SecretStr(keys[0]), secret_key=SecretStr(keys[1])),
    )
    store.put("key", b"value")
    assert store.get("key") == b"value"


class Denying:
    """Answers 403 to reads of objects, as S3 does to whoever may list a prefix only."""

    def __init__(self, store: Store) -> None:
        self.listings = 0
        # The answers of a server that checks, which rclone does not.
        events: Any = store._client.meta.events  # noqa: SLF001 - the store has no way for it
        events.register("before-call.s3.GetObject", self._deny)
        events.register("before-call.s3.ListObjectsV2", self._count)

    def _deny(self, **_: object) -> tuple[AWSResponse, dict[str, Any]]:
        error = {"Error": {"Code": "AccessDenied", "Message": "no"}}
        return AWSResponse("http://nowhere", 403, HTTPHeaders(), None), error

    def _count(self, **_: object) -> None:
        self.listings += 1


def test_a_missing_key_that_may_not_be_read_is_missing(
    store_server: StoreServer, tmp_path: Path
) -> None:
    """A 403 means absent where the listing has no such key, and asks for that only now and then."""
    store = Store(store_server.address.model_copy(update={"prefix": f"{tmp_path.name}/"}), tries=1)
    answers = Denying(store)
    assert [store.get("orders/1.json") for _ in range(5)] == [None] * 5
    assert answers.listings == 1


def test_a_key_that_is_there_and_denied_is_an_error(
    store_server: StoreServer, tmp_path: Path
) -> None:
    """A 403 for a key that stands in the listing is told, and not taken for its absence."""
    store = Store(store_server.address.model_copy(update={"prefix": f"{tmp_path.name}/"}), tries=1)
    store.put("orders/1.json", b"{}")
    Denying(store)
    with pytest.raises(StoreError, match="does not let us in"):
        store.get("orders/1.json")
