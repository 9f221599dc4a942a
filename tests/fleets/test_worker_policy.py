from __future__ import annotations

import fnmatch
import json
from typing import Any

import pytest
from moto.iam.access_control import IAMPolicy, PermissionResult

from run_store.store import StoreAddress
from tasks.fleets.worker_access import session_policy

ADDRESS = StoreAddress(bucket="bucket", prefix="team/")
POLICY = session_policy(ADDRESS, "heavy-20261124-030000-0ea6ca2d")
MINE = "team/runs/heavy-20261124-030000-0ea6ca2d/"
THEIRS = "team/runs/heavy-20261124-040000-77777777/"


def permits(action: str, resource: str) -> bool:
    """Have the emulator's evaluator of IAM judge; conditions are none of its business."""
    judged = IAMPolicy(POLICY).is_action_permitted(action, resource)
    return bool(judged == PermissionResult.PERMITTED)


@pytest.mark.parametrize(
    ("action", "key", "permitted"),
    [
        ("s3:PutObject", f"{MINE}samples/edits/part.parquet", True),
        ("s3:GetObject", f"{MINE}attempt=1/orders/000001.json", True),
        ("s3:GetObject", f"{THEIRS}attempt=1/orders/000001.json", False),
        ("s3:PutObject", f"{THEIRS}attempt=1/orders/000001.json", False),
        ("s3:PutObject", "team/history/capacity/x.parquet", False),
        ("s3:PutObject", "other/runs/heavy-20261124-030000-0ea6ca2d/x", False),
        ("s3:DeleteObject", f"{MINE}samples/edits/part.parquet", False),
        ("s3:PutObjectAcl", f"{MINE}samples/edits/part.parquet", False),
    ],
)
def test_a_worker_may_write_and_read_its_own_run(action: str, key: str, permitted: bool) -> None:
    """Put and get below the run's prefix, and nothing else, and nowhere else."""
    assert permits(action, f"arn:aws:s3:::bucket/{key}") is permitted


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("s3:GetObject", f"arn:aws:s3:::another/{MINE}x"),
        ("s3:ListBucket", "arn:aws:s3:::another"),
        ("s3:ListAllMyBuckets", "*"),
        ("s3:DeleteBucket", "arn:aws:s3:::bucket"),
        ("ec2:TerminateInstances", "*"),
        ("iam:CreateUser", "*"),
        ("sts:AssumeRole", "arn:aws:iam::123456789012:role/admin"),
    ],
)
def test_a_worker_may_do_nothing_else(action: str, resource: str) -> None:
    """No other bucket, no other service."""
    assert not permits(action, resource)


@pytest.mark.parametrize(
    ("prefix", "listed"),
    [
        (MINE, True),
        (f"{MINE}attempt=1/orders/", True),
        (THEIRS, False),
        ("team/runs/", False),
        ("", False),
    ],
)
def test_a_worker_lists_its_own_run_only(prefix: str, listed: bool) -> None:
    """The one statement that lets it list asks for the run's prefix."""
    [statement] = [
        one for one in json.loads(POLICY)["Statement"] if "s3:ListBucket" in one["Action"]
    ]
    condition: dict[str, Any] = statement["Condition"]
    assert condition.keys() == {"StringLike"}
    assert fnmatch.fnmatchcase(prefix, condition["StringLike"]["s3:prefix"]) is listed
