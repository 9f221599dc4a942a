import hashlib
from pathlib import Path

from tests.relay_process import run_node
from worker_agent.document_ids import base58check, document_id

PARSER = Path(__file__).with_name("parse_ids.mjs")


def test_ids_are_what_automerge_repo_reads() -> None:
    """The real parser accepts every id and finds the 16 bytes that it was made from."""
    payloads = [hashlib.sha256(str(i).encode()).digest()[:16] for i in range(200)] + [
        bytes(16),
        bytes(15) + b"\1",
        b"\0\0" + b"\xff" * 14,
        b"\xff" * 16,
    ]
    texts = [base58check(payload) for payload in payloads]
    assert run_node(PARSER, *texts) == [payload.hex() for payload in payloads]


def test_the_parser_can_say_no() -> None:
    """One changed letter is refused, so an accepted id means something."""
    good = document_id("run-1", 1, 0, 0)
    bad = good[:-1] + ("2" if good[-1] != "2" else "3")
    assert run_node(PARSER, good, bad)[1] is None


def test_ids_depend_on_everything_that_names_a_document() -> None:
    """Run, attempt, document and generation each make another document; all agents agree."""
    names = [("r", 1, 0, 0), ("s", 1, 0, 0), ("r", 2, 0, 0), ("r", 1, 1, 0), ("r", 1, 0, 1)]
    ids = [document_id(*name) for name in names]
    assert len(set(ids)) == len(names)
    assert ids == [document_id(*name) for name in names]
