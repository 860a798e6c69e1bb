"""How to get to NATS."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from nats.aio.client import Client
from nats.errors import Error as NatsError

from swapstats_core import spec
from swapstats_runtime.access import Door, tls_fault
from swapstats_runtime.secret_files import secret
from swapstats_runtime.tls import tls_context


@dataclass(frozen=True, slots=True)
class NatsAccess:
    """Where NATS is and how to get in. ``tls``: None, if in the clear."""

    servers: list[str]
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None

    @classmethod
    def of(cls, settings: spec.Nats, folder: Path | None = None) -> Self:
        """As the resource says. Raises OSError, CertificateError."""
        tls = tls_context(settings.tls, folder) if settings.url.startswith("tls://") else None
        return cls(settings.url.split(","), settings.username, secret(settings.secret_ref, folder), tls)

    def client(self) -> Client:
        """A client that isn't connected yet: ``await client.connect(**access.arguments, ...)``."""
        return Client() if self.tls is None else _EncryptedClient()

    @property
    def arguments(self) -> dict[str, Any]:
        """What ``connect`` of a client takes from here."""
        return {"servers": self.servers, "user": self.user, "password": self.password, "tls": self.tls}

    def fault(self, error: BaseException) -> str:
        """An error of a client, as people should read it."""
        door = Door(
            f"NATS at {', '.join(self.servers)}",
            self.user,
            "stores.nats.username and stores.nats.secretRef",
            "stores.nats.tls",
            "to publish and to subscribe to everything below the instance's name, and to _INBOX.>",
        )
        said = str(error) or type(error).__name__
        if "permissions violation" in said.lower():
            return door.denies(said)
        if any(word in said.lower() for word in ("authorization", "authentication")):
            return door.refuses_login(said)
        if (refused := tls_fault(error)) is not None:
            return door.fails_tls(refused)
        return said


class _EncryptedClient(Client):
    """Refuses a server that doesn't encrypt. nats-py goes on in the clear then, with the password."""

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:  # noqa: FBT001, FBT002 - theirs
        if initial_connection and not info.get("tls_required"):
            raise NatsError("nats: the server doesn't demand TLS: configure it there, or begin the url with nats://")
        await super()._process_info(info, initial_connection)
