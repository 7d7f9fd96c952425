"""Which replica this is, when several share a database: a name made once, kept in its data folder."""

import os
import secrets
from pathlib import Path

REPLICA_NAME = "replica"
LOCAL = "local"
"""The only one of its database."""


def replica_id(home: Path) -> str:
    """The name of the replica whose data folder this is; made when there is none."""
    path = home / REPLICA_NAME
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text(encoding="ascii").strip()
    with os.fdopen(descriptor, "w") as file:
        file.write("replica_" + secrets.token_hex(8))
    return path.read_text(encoding="ascii").strip()
