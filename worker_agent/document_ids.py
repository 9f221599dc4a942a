"""Names of documents: the same for all workers of an attempt, and never met before."""

from __future__ import annotations

import hashlib
import uuid

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def document_id(run_id: str, attempt: int, document: int, generation: int) -> str:
    """Return an automerge document id: 16 bytes in base58check.

    The bytes are a hash of run, attempt, document and generation, so that every worker finds
    the same document without being told, and a retry begins with fresh ones. They are made a
    version 4 UUID: automerge-repo 1.x silently ignores any other id.
    """
    name = f"{run_id}/{attempt}/{document}/{generation}"
    digest = hashlib.sha256(name.encode()).digest()
    return base58check(uuid.UUID(bytes=digest[:16], version=4).bytes)


def base58check(payload: bytes) -> str:
    """Return bytes in base58 with the first four bytes of their double SHA-256 behind them."""
    check = hashlib.sha256(hashlib.sha256(payload).digest()).digest()[:4]
    whole = payload + check
    number, text = int.from_bytes(whole), ""
    while number:
        number, digit = divmod(number, 58)
        text = _ALPHABET[digit] + text
    return "1" * (len(whole) - len(whole.lstrip(b"\0"))) + text
