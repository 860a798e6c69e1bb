"""What a server's refusal means, for people: which server, which user, and what to do about it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Door:
    """A server as a resource names it. ``login`` and ``tls`` are the fields that say how to get in, ``rights`` is what
    the user must be allowed.
    """

    server: str
    user: str | None
    login: str
    tls: str
    rights: str

    def refuses_login(self, said: object) -> str:
        """The server doesn't believe who we are."""
        if self.user is None:
            return f"{self.server} demands a login, and the resource names no user: set {self.login}. It says: {said}"
        return (
            f"{self.server} refuses the login of user {self.user!r}: check {self.login}, and that the server knows "
            f"this user with this password. It says: {said}"
        )

    def denies(self, said: object) -> str:
        """The server knows us, and doesn't let us."""
        who = "who comes without a login" if self.user is None else f"user {self.user!r}"
        return f"{self.server} doesn't let {who} do what is needed: grant {self.rights}. It says: {said}"

    def fails_tls(self, said: object) -> str:
        """One side doesn't trust the other."""
        return (
            f"{self.server} and this process don't agree on TLS: check {self.tls} (caRef must hold the authority of "
            "the server's certificate, certRef and keyRef what the server demands), and that the server speaks TLS "
            f"and its certificate names this address. The reason: {said}"
        )


def tls_fault(error: BaseException) -> str | None:
    """What TLS says, if it is to blame: some clients pass its words on, and not its error."""
    return next((str(each) for each in _causes(error) if isinstance(each, ssl.SSLError) or "[SSL: " in str(each)), None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
