"""The pepper: the secret under which keys are digested and the audit log is signed. There may be several.

Each is a file in the data folder: `pepper` (the first) or `pepper.<id>`. All of them are known when a key is looked up;
one is used for what is new: the one last activated in the database, so that replicas agree. A retired pepper
(`pepper.<id>.retired`) keeps what old rows of the audit log and webhooks need, and can open no key any more.
"""

import hmac
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from app.errors import Conflict, NotFound

PEPPER_NAME = "pepper"
RETIRED = ".retired"
LENGTH = 32


@dataclass(frozen=True, slots=True)
class Secrets:
    """What one pepper gives. `keys` is None once it is retired."""

    id: str
    path: Path
    keys: bytes | None
    audit: bytes
    webhooks: bytes


class Pepper:
    """All peppers of a data folder; the first is made when there is none. Readable by their owner alone."""

    def __init__(self, home: Path) -> None:
        self._home = home
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not files_of(home):
            write_once(home / PEPPER_NAME, secrets.token_bytes(LENGTH))
        self._seen: tuple[tuple[str, int], ...] = ()
        self._known: dict[str, Secrets] = {}
        self._chosen: str | None = None
        self.refresh()

    @property
    def id(self) -> str:
        """The pepper for what is new."""
        return self._chosen or next(iter(self._known))

    @property
    def known(self) -> tuple[Secrets, ...]:
        """All of them, the first one first."""
        return tuple(self._known.values())

    def refresh(self) -> None:
        """Read the folder again if it changed."""
        paths = files_of(self._home)
        seen = tuple((path.name, path.stat().st_mtime_ns) for path in paths)
        if seen != self._seen:
            found = [read_secrets(path) for path in paths]
            self._known = {one.id: one for one in sorted(found, key=lambda one: one.keys is None)}
            self._seen = seen

    def choose(self, pepper_id: str | None) -> None:
        """Use this pepper for what is new, as the database says; the first one when it says nothing.

        Raises NotFound when this data folder lacks it.
        """
        if pepper_id is not None and pepper_id not in self._known:
            self.refresh()
        if pepper_id is not None and pepper_id not in self._known:
            raise NotFound(
                f"the pepper {pepper_id} is in use and not in {self._home}; copy the file pepper.{pepper_id} from "
                "another replica: without it this replica knows no key that was made under it"
            )
        self._chosen = pepper_id

    def digest(self, key: str) -> bytes:
        """HMAC-SHA256 of the key under the pepper for what is new: 32 bytes."""
        secret = self._of(self.id).keys
        assert secret is not None, "a retired pepper is never chosen. This is a bug."
        return hmac.digest(secret, key.encode(), "sha256")

    def digests(self, key: str) -> tuple[bytes, ...]:
        """The key's digest under every pepper that still opens keys: by one of them it is stored."""
        return tuple(hmac.digest(one.keys, key.encode(), "sha256") for one in self.known if one.keys is not None)

    def sign_audit(self, message: bytes, pepper_id: str | None = None) -> bytes | None:
        """HMAC-SHA256 under a secret of its own: a link of the audit log's chain. None under an unknown pepper."""
        found = self._known.get(pepper_id or self.id)
        return None if found is None else hmac.digest(found.audit, message, "sha256")

    def webhook_secret(self, pepper_id: str, webhook_id: str, number: int) -> bytes:
        """What a webhook's deliveries are signed with. Raises NotFound under an unknown pepper."""
        return hmac.digest(self._of(pepper_id).webhooks, f"{webhook_id}:{number}".encode(), "sha256")

    def add(self) -> str:
        """Make another one, not yet used; returns its id."""
        secret = secrets.token_bytes(LENGTH)
        pepper_id = id_of(secret)
        write_once(self._home / f"{PEPPER_NAME}.{pepper_id}", secret)
        self.refresh()
        return pepper_id

    def retire(self, pepper_id: str) -> None:
        """Let it open no key any more. What it signed can still be verified. Raises Conflict for the one in use."""
        found = self._of(pepper_id)
        if pepper_id == self.id:
            raise Conflict(f"{pepper_id} is the pepper in use; activate another one first")
        if found.keys is None:
            return
        kept = {"id": found.id, "audit": found.audit.hex(), "webhooks": found.webhooks.hex()}
        write_once(self._home / f"{PEPPER_NAME}.{pepper_id}{RETIRED}", json.dumps(kept).encode())
        found.path.unlink()
        self.refresh()

    def _of(self, pepper_id: str) -> Secrets:
        if pepper_id not in self._known:
            raise NotFound(f"there is no pepper {pepper_id!r} in {self._home}; `tollgate pepper list` shows them")
        return self._known[pepper_id]


def files_of(home: Path) -> list[Path]:
    """The peppers' files, the first one first."""
    return sorted(path for path in home.glob(f"{PEPPER_NAME}*") if not path.name.endswith(".new"))


def id_of(secret: bytes) -> str:
    """What a pepper is called."""
    return hmac.digest(secret, b"pepper-id", "sha256").hex()[:8]


def read_secrets(path: Path) -> Secrets:
    """A pepper's file. Raises NotFound for one that is damaged."""
    content = path.read_bytes()
    if path.name.endswith(RETIRED):
        try:
            kept = json.loads(content)
            return Secrets(kept["id"], path, None, bytes.fromhex(kept["audit"]), bytes.fromhex(kept["webhooks"]))
        except (ValueError, KeyError, TypeError) as cause:
            raise NotFound(f"{path} cannot be read; restore it from a backup") from cause
    if len(content) < LENGTH:
        raise NotFound(f"{path} is shorter than {LENGTH} bytes; restore it from a backup, or every key is lost")
    audit, webhooks = (hmac.digest(content, name, "sha256") for name in (b"audit-log", b"webhooks"))
    return Secrets(id_of(content), path, content, audit, webhooks)


def write_once(path: Path, content: bytes) -> None:
    """Write and sync a file that only its owner may read; one that is there already stays."""
    new = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(new, path)
    except FileExistsError:
        pass
    finally:
        new.unlink()
