import json
import socket
import stat
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from run_store.agent_config import AgentConfig
from run_store.errors import StoreError, UsageError
from run_store.messages import Lease, Order, Status
from run_store.store import Store, StoreAddress, write_private
from tests.store_server import StoreServer

KEY, SECRET, TOKEN = "AKIA-the-key", "the-very-secret", "the-token"
SECRETS = (KEY, SECRET, TOKEN)


def address(**given: object) -> StoreAddress:
    return StoreAddress.model_validate(
        {
            "bucket": "some-bucket",
            "access_key": KEY,
            "secret_key": SECRET,
            "session_token": TOKEN,
            **given,
        }
    )


def test_an_object_is_read_as_it_was_written(store: Store) -> None:
    """Bytes come back whole, also none and many, and a second write replaces the first."""
    for body in (b"", b"\0\xff", b"x" * 3_000_000):
        store.put("a/b c/ü.bin", body)
        assert store.get("a/b c/ü.bin") == body


def test_a_missing_key_is_none(store: Store) -> None:
    """Neither an absent key nor a prefix of one is an object, and neither is an error."""
    store.put("a/b/c", b"1")
    assert store.get("a/b") is None
    assert store.get("nothing") is None
    assert store.get_message("nothing", Lease) is None
    assert store.keys("nothing/") == []
    assert store.folders("nothing/") == []


def test_keys_are_listed_in_order_without_the_prefix(store: Store) -> None:
    """A listing has all keys below a prefix, sizes too, and folders one level below."""
    for number in (10, 2, 1):
        store.put(f"runs/r/orders/{number:06d}.json", b"x" * number)
    store.put("runs/s/run.json", b"")
    assert store.list_sizes("runs/r/") == [
        ("runs/r/orders/000001.json", 1),
        ("runs/r/orders/000002.json", 2),
        ("runs/r/orders/000010.json", 10),
    ]
    assert store.keys("runs/")[-1] == "runs/s/run.json"
    assert store.folders("runs/") == ["r", "s"]


def test_listings_have_more_than_one_page(store: Store) -> None:
    """More keys than one answer of the server holds are all there."""
    names = [f"many/{number:05d}" for number in range(1100)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda name: store.put(name, b""), names))
    assert store.keys("many/") == names


def test_deleting_twice_is_no_error(store: Store) -> None:
    """What is gone may be deleted again."""
    store.put("a", b"1")
    store.delete("a", "never-there")
    store.delete("a")
    assert store.get("a") is None


def test_a_file_is_sent_whole(store: Store, tmp_path: Path) -> None:
    """A file's bytes are the object's."""
    (tmp_path / "f").write_bytes(b"12345" * 1000)
    store.put_file("f", tmp_path / "f")
    assert store.get("f") == b"12345" * 1000


def test_a_prefix_keeps_stores_apart(server: StoreServer, store: Store) -> None:
    """Two prefixes of one bucket do not see each other's keys."""
    other = Store(server.address.model_copy(update={"prefix": "another/"}))
    store.put("x", b"1")
    assert other.get("x") is None
    assert "x" in store.keys("")
    assert "x" not in other.keys("")


def test_messages_are_json(store: Store) -> None:
    """A message is written as JSON and read back; anything else there is a StoreError."""
    lease = Lease(counter=1, every_s=2, expires_after_s=30)
    store.put_message("lease.json", lease)
    assert json.loads(store.get("lease.json") or b"")["counter"] == 1
    assert store.get_message("lease.json", Lease) == lease
    store.put("lease.json", b"{half of it")
    with pytest.raises(StoreError, match=r"lease\.json is not a Lease"):
        store.get_message("lease.json", Lease)
    with pytest.raises(StoreError, match="is not a Order"):
        store.get_message("lease.json", Order)


def test_a_message_that_is_being_rewritten_is_read_whole(store: Store) -> None:
    """However often a status is replaced, who reads it meanwhile gets an old or a new one."""
    status = Status(worker="w", attempt=1, beat=1, at_us=0, state="running")
    store.put_message("status.json", status)
    done = threading.Event()

    def rewrite() -> None:
        while not done.wait(0.1):
            status.beat += 1
            status.message = "x" * (5000 if status.beat % 2 else 500)
            store.put_message("status.json", status)

    patient = Store(store.address, tries=8)
    beats: list[int] = []
    with ThreadPoolExecutor(1) as writer:
        writing = writer.submit(rewrite)
        deadline = time.monotonic() + 60
        try:
            while len(set(beats)) < 6 and time.monotonic() < deadline:
                found = patient.get_message("status.json", Status)
                assert found is not None
                beats.append(found.beat)
        finally:
            done.set()
        writing.result()
    assert beats == sorted(beats)
    assert len(set(beats)) >= 3


def test_a_good_store_checks_out(store: Store) -> None:
    """A check leaves nothing behind."""
    store.check()
    assert store.keys("") == []


def silent() -> Iterator[str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def closed() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


ACTIONS = {
    "get": lambda store: store.get("k"),
    "put": lambda store: store.put("k", b"1"),
    "keys": lambda store: store.keys("k"),
    "folders": lambda store: store.folders("k/"),
    "delete": lambda store: store.delete("k"),
    "check": lambda store: store.check(),
}


@pytest.mark.parametrize("action", ACTIONS)
def test_a_missing_bucket_is_said(server: StoreServer, action: str) -> None:
    """Nothing reads as empty where there is no bucket at all."""
    store = Store(server.address.model_copy(update={"bucket": "no-such-bucket"}))
    with pytest.raises(StoreError, match="no bucket no-such-bucket") as error:
        ACTIONS[action](store)
    assert "--store" in error.value.hint


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("wrong", ["access_key", "secret_key"])
def test_refused_credentials_are_said(server: StoreServer, action: str, wrong: str) -> None:
    """A wrong key or secret is told from a missing object, and the hint says where to look."""
    store = Store(server.address.model_copy(update={wrong: SecretStr("WRONGWRONG")}))
    with pytest.raises(StoreError, match="refused our credentials") as error:
        ACTIONS[action](store)
    assert "secret key" in error.value.hint
    assert "WRONGWRONG" not in str(error.value)


@pytest.mark.parametrize("action", ["get", "put", "check"])
def test_an_unreachable_endpoint_is_said(action: str) -> None:
    """Where nobody listens the error names the endpoint and says to look there."""
    endpoint = closed()
    store = Store(address(endpoint_url=endpoint), timeout_s=1, tries=1)
    with pytest.raises(StoreError, match=endpoint) as error:
        ACTIONS[action](store)
    assert "endpoint" in error.value.hint


def test_a_store_that_hangs_is_given_up() -> None:
    """An endpoint that takes the connection and says nothing is an error after the timeout."""
    for endpoint in silent():
        store = Store(address(endpoint_url=endpoint), timeout_s=0.3, tries=1)
        with pytest.raises(StoreError, match="does not answer"):
            store.get("k")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"endpoint_url": "nonsense"}, "cannot be used"),
        ({"bucket": "no spaces!", "endpoint_url": "http://127.0.0.1:1"}, "Check the bucket's name"),
    ],
)
def test_an_address_that_cannot_be_meant_is_said(given: dict[str, str], said: str) -> None:
    """A malformed endpoint or bucket is an error of the store, not a traceback of boto's."""
    with pytest.raises(StoreError, match=said):
        Store(address(**given)).check()


def test_no_credentials_at_all_are_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: StoreServer
) -> None:
    """Where boto finds none, the hint names what to set."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    none = {"access_key": None, "secret_key": None}
    with pytest.raises(StoreError, match="no credentials") as error:
        Store(server.address.model_copy(update=none)).check()
    assert "AWS_ACCESS_KEY_ID" in error.value.hint


@pytest.mark.parametrize(
    ("url", "bucket", "prefix"),
    [
        ("s3://bucket", "bucket", ""),
        ("s3://bucket/", "bucket", ""),
        ("s3://bucket/a/b", "bucket", "a/b/"),
        ("s3://bucket/a/b/", "bucket", "a/b/"),
    ],
)
def test_an_address_is_read_from_its_url(
    monkeypatch: pytest.MonkeyPatch, url: str, bucket: str, prefix: str
) -> None:
    """Bucket and prefix stand in the URL, the endpoint in the usual variables."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://general")
    assert StoreAddress.from_url(url).endpoint_url == "http://general"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://special")
    found = StoreAddress.from_url(url)
    assert (found.bucket, found.prefix, found.endpoint_url) == (bucket, prefix, "http://special")
    assert found.url == url.rstrip("/")


@pytest.mark.parametrize("url", ["bucket", "http://bucket", "s3://", "s3://ab", ""])
def test_what_is_no_url_of_a_store_is_refused(url: str) -> None:
    """Anything but s3://bucket is a usage error that shows what to write."""
    with pytest.raises(UsageError, match="s3://bucket/prefix"):
        StoreAddress.from_url(url)


def agent_config(tmp_path: Path) -> AgentConfig:
    return AgentConfig(
        run_id="r-1",
        attempt=1,
        worker="w",
        store=address(),
        relay_url="ws://127.0.0.1:1/",
        scenario={},
        spool=tmp_path,
    )


def test_secrets_are_masked_wherever_an_address_is_shown(tmp_path: Path) -> None:
    """No repr, text, JSON or dump of an address, a store or an agent's config shows a secret."""
    where, config = address(), agent_config(tmp_path)
    shown = [
        repr(where),
        str(where),
        f"{where}",
        where.model_dump_json(),
        str(where.model_dump()),
        str(where.model_dump(mode="json")),
        repr(Store(where)),
        where.url,
        repr(config),
        str(config),
        config.model_dump_json(),
        str(config.model_dump()),
    ]
    for text in shown:
        assert not any(secret in text for secret in SECRETS), text


def test_a_bad_address_or_config_quotes_no_secret(tmp_path: Path) -> None:
    """The message of a validation that failed names the key and not what was given."""
    for text in (
        json.dumps({**address().plain(), "bucket": 3}),
        json.dumps({**address().plain(), "secret_key": [SECRET]}),
        json.dumps({"access_key": KEY, "secret_key": SECRET, "session_token": TOKEN}),
        json.dumps({**address().plain(), "extra": SECRET}),
        f'{{"secret_key": "{SECRET}", half',
    ):
        with pytest.raises(ValidationError) as error:
            StoreAddress.model_validate_json(text)
        assert not any(secret in str(error.value) for secret in SECRETS)
    path = tmp_path / "agent.json"
    path.write_text(json.dumps({"store": address().plain(), "worker": "w"}), encoding="utf-8")
    with pytest.raises(ValidationError) as error:
        AgentConfig.from_file(path)
    assert "run_id" in str(error.value)
    assert not any(secret in str(error.value) for secret in SECRETS)


@pytest.mark.parametrize("before", [None, 0o644])
def test_a_file_with_secrets_is_its_owners_only(tmp_path: Path, before: int | None) -> None:
    """An address or config on disk has mode 0600, whatever stood there, and reads back whole."""
    config = agent_config(tmp_path)
    for write, read, wanted, name in (
        (address().to_file, StoreAddress.from_file, address(), "a.json"),
        (config.to_file, AgentConfig.from_file, config, "c.json"),
    ):
        path = tmp_path / "deep" / name
        if before:
            path.parent.mkdir(exist_ok=True)
            path.write_text("old", encoding="utf-8")
            path.chmod(before)
        write(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert read(path) == wanted
        assert list(path.parent.glob(f".{name}*")) == []


def test_a_private_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    """Half of a secret is not left lying about."""
    target = tmp_path / "is-a-folder"
    target.mkdir()
    with pytest.raises(OSError, match="director"):
        write_private(target, SECRET)
    assert list(tmp_path.iterdir()) == [target]
