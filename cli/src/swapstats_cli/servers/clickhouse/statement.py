"""What an HTTP request asks of the engine: pure parsing, as ClickHouse's own HTTP handler does it.

The query is the URL's ``query`` and the body, in this order. Every URL parameter that isn't about the transport is a
setting of this one statement. An INSERT with a FORMAT carries its rows behind that clause.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

HEAD_BYTES: Final = 65_536
"""How far into a request an INSERT's FORMAT clause is looked for."""

_TRANSPORT: Final = frozenset(
    {
        "query",
        "query_id",
        "database",
        "default_format",
        "user",
        "password",
        "quota_key",
        "session_id",
        "session_timeout",
        "session_check",
        "compress",
        "decompress",
        "enable_http_compression",
        "wait_end_of_query",
        "buffer_size",
        "client_protocol_version",  # unsupported: clients probe for it, and get plain Native blocks
        "send_progress_in_http_headers",
        "http_headers_progress_interval_ms",
    }
)
_SETTING: Final = re.compile(r"[a-z][a-z0-9_]*")
_PARAMETER: Final = "param_"
_INSERT: Final = re.compile(
    rb"""\A\s*
    (?P<insert>INSERT\s+INTO\s(?:(?!\b(?:SELECT|VALUES|WITH|INFILE)\b).)+?)\s+
    FORMAT\s+(?P<format>[A-Za-z]\w*)[ \t]*(?:\r?\n)?""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)

_LITERALS: Final = re.compile(r"""'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`""", re.DOTALL)
_OUTSIDE: Final = re.compile(
    r"\b(?:(?P<function>file|python|executable|catboostEvaluate)\(|(?P<clause>INTO\s+OUTFILE|FROM\s+INFILE)\b)",
    re.IGNORECASE,
)


class BadRequestError(Exception):
    """A request that no ClickHouse would take; ``code`` is ClickHouse's number for it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Target:
    """A request's URL: the statement's beginning (if it is there), its database, settings and parameters."""

    query: str
    database: str
    format: str
    query_id: str
    settings: dict[str, str]
    parameters: dict[str, str]


@dataclass(frozen=True, slots=True)
class InsertHead:
    """The statement part of an INSERT whose rows follow at ``data_offset`` in ``format``."""

    insert: str
    format: str
    data_offset: int


def parse_target(arguments: Iterable[tuple[str, str]], default_format: str) -> Target:
    """The `Target` of a URL's decoded arguments. Raises BadRequestError for a name that can't be a setting."""
    transport: dict[str, str] = {}
    settings: dict[str, str] = {}
    parameters: dict[str, str] = {}
    for name, value in arguments:
        if name in _TRANSPORT:
            transport[name] = value
        elif name.startswith(_PARAMETER):
            parameters[name.removeprefix(_PARAMETER)] = value
        elif _SETTING.fullmatch(name):
            settings[name] = value
        else:
            raise BadRequestError(115, f"Unknown setting {name!r}")
    return Target(
        transport.get("query", ""),
        transport.get("database", ""),
        transport.get("default_format", default_format),
        transport.get("query_id", ""),
        settings,
        parameters,
    )


def parse_insert(head: bytes) -> InsertHead | None:
    """The INSERT at the beginning of a request whose rows follow inline, or None for any other statement."""
    match = _INSERT.match(head)
    if match is None:
        return None
    return InsertHead(_text(match["insert"]), match["format"].decode("ascii"), match.end())


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise BadRequestError(62, f"Syntax error: the statement is not UTF-8 ({error})") from None


def statement_text(raw: bytes) -> str:
    """A whole statement as text, without its closing semicolon. Raises BadRequestError."""
    text = _text(raw).strip().removesuffix(";").rstrip()
    if not text:
        raise BadRequestError(62, "Syntax error: Empty query")
    return text


def parse_clause(sql: str) -> str:
    """A query for a statement as the engine understands it, in one spelling: no comment, no needless quotation marks.
    More than one statement is a syntax error.
    """
    return f"SELECT formatQuery({_quoted(sql)})"


def refusal(parsed: str) -> str | None:
    """Why a statement in the engine's spelling isn't run, though the engine's grants allow it; None: it is."""
    found = _OUTSIDE.search(_LITERALS.sub("''", parsed))
    if found is None:
        return None
    what = f"function {found['function']}" if found["function"] else str(found["clause"])
    return f"{what} reaches files or programs of this machine: this server only serves its tables"


def set_clause(settings: dict[str, str]) -> str:
    """``SET`` that gives a statement its settings."""
    return "SET " + ", ".join(f"{name} = {_quoted(value)}" for name, value in settings.items())


def reset_clause(settings: dict[str, str]) -> str:
    """``SET`` that takes them back."""
    return "SET " + ", ".join(f"{name} = DEFAULT" for name in settings)


def use_clause(database: str) -> str:
    """``USE`` of a database by name."""
    name = database.replace("\\", "\\\\").replace("`", "\\`")
    return f"USE `{name}`"


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
