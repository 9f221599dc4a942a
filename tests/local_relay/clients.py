"""How tests talk to a local relay, and what its faults are when there are none."""

from pathlib import Path

from websockets.exceptions import ConnectionClosed
from websockets.sync.connection import Connection

CLIENT = Path(__file__).with_name("client.mjs")
OFF = {
    "delay_in_ms": 0,
    "delay_out_ms": 0,
    "service_ms": 0,
    "service_noise": 0,
    "batch_ms": 100,
    "stall_s": 0,
    "max_connections": None,
    "drop_percent_per_minute": 0,
    "leak_mb_per_minute": 0,
    "die_at_mb": None,
    "metrics_fail": False,
    "metrics_off": False,
    "metrics_delay_ms": 0,
    "manifest_delay_ms": 0,
    "accept_silent": False,
    "garbage": False,
    "close_at_once": False,
    "no_documents": False,
    "protocol_version": None,
    "announce": False,
}


def is_closed(connection: Connection) -> bool:
    try:
        connection.recv(timeout=0)
    except TimeoutError:
        return False
    except ConnectionClosed:
        return True
    return False
