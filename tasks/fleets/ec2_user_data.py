"""What a rented machine does at its first boot: its time limit, its host key, our login."""

from __future__ import annotations

import json

from tasks.fleets.ec2_keys import Keys


def user_data(keys: Keys, expires_at: float) -> str:
    """Return the cloud-config: first the time limit, then host key and login.

    The limit is an instant and is set at each boot, so that a reboot gains no time. JSON is YAML.
    """
    left = f"$(({int(expires_at)} - $(date +%s)))"
    limit = (
        f'left={left}; [ "$left" -gt 1 ] || left=1; '
        'systemd-run --on-active="$left" systemctl poweroff || '
        '(setsid sh -c "sleep $left; poweroff -f" >/dev/null 2>&1 &)'
    )
    return "#cloud-config\n" + json.dumps(
        {
            "bootcmd": [["sh", "-c", limit]],
            "ssh_deletekeys": True,
            "ssh_keys": {"ed25519_private": keys.host_private, "ed25519_public": keys.host_public},
            "disable_root": False,
            "ssh_pwauth": False,
            "ssh_authorized_keys": [keys.user_public],
        },
        indent=1,
    )
