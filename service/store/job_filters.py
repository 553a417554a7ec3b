"""Which jobs a list shows, and the statements that find them.

Each statement walks one index in its order, newest first, and stops after its page. Where further conditions are to be
looked up in the rows, only the newest MOST_LOOKED_AT entries of that index are looked at: a search that finds nothing
would read the whole table otherwise.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from service.job import Status
from service.store.job_statements import COLUMNS, EXACT_TOTAL, NEWEST_FIRST
from service.store.texts import storable

MOST_LOOKED_AT = 100_000
"""Jobs that a search looks at, the newest of those that its narrowest condition finds."""

_DEEP = 1_000
"""Entries that are walked over among the quick statements."""

STATUSES, MODEL, OWNER = "statuses", "model_key", "owner"
"""The conditions that have an index, by their names in a filter."""

_STATUSES = frozenset(Status)
_PLACE = NEWEST_FIRST.removesuffix(" DESC")
_TEXT = "(SELECT lower(prompt) LIKE lower(:text) ESCAPE '!' FROM bodies WHERE bodies.seq = jobs.seq)"
"""It is a value for each row, since PostgreSQL would read all bodies for EXISTS."""


class Filter(NamedTuple):
    """Which jobs a list shows. A field that is None, or empty, admits all."""

    statuses: tuple[str, ...] = ()
    model_key: str | None = None
    owner: str | None = None
    """Finds only jobs that were made with a key, since a list is narrowed to an owner only for callers with a key."""
    text: str | None = None
    key_id: str | None = None
    """Finds the jobs of one key, whoever of the people behind it has made them."""
    anonymous_owner: str | None = None
    """Finds the jobs that were made without a key, from this address."""

    @property
    def is_counted(self) -> bool:
        """Whether the gauges know how many jobs it finds."""
        return self.text is None and self.key_id is None and self.anonymous_owner is None

    def alone(self) -> dict[str, Filter]:
        """Each condition that has an index, as a filter of its own."""
        return {
            name: Filter()._replace(**{name: getattr(self, name)})
            for name in (STATUSES, MODEL, OWNER)
            if getattr(self, name) not in (None, ())
        }


class Walk(NamedTuple):
    """How the jobs of a filter are found."""

    by: str = ""
    """The condition whose index is walked; "" for the first one, or for the table where there is none."""
    is_whole: bool = False
    """Whether all entries of that index may be looked at, since they are few."""
    total: int | None = None
    """How many jobs the filter finds, where that is known: the last pages are walked to from the oldest job."""


class ListStatement(NamedTuple):
    """A SELECT of jobs in no certain order."""

    sql: str
    parameters: dict[str, Any]
    is_scan: bool


def page_statement(which: Filter, limit: int, offset: int, walk: Walk) -> ListStatement:
    """The jobs of a page, newest first."""
    arms = _Arms(which, walk)
    order = "DESC"
    if arms.is_plain and walk.total is not None and 2 * offset > walk.total:
        limit = max(0, min(limit, walk.total - offset))
        order, offset = "ASC", max(0, walk.total - offset - limit)
    if len(arms.where) == 1:
        [where] = arms.where
        sql = f"SELECT {COLUMNS} FROM jobs WHERE {where} ORDER BY {arms.place} {order} LIMIT :limit OFFSET :offset"
    else:
        # Without an order of its own, PostgreSQL would read and sort the whole of an arm.
        found = " UNION ALL ".join(
            f"SELECT * FROM (SELECT seq, {arms.place} AS place FROM jobs WHERE {one} ORDER BY place {order}) AS arm"
            for one in arms.where
        )
        sql = f"""
            SELECT {COLUMNS} FROM jobs WHERE seq IN (
                SELECT seq FROM ({found} ORDER BY place {order} LIMIT :limit OFFSET :offset) AS found
            )
        """
    parameters = {**arms.parameters, "limit": limit, "offset": offset}
    return ListStatement(sql, parameters, not arms.is_plain or offset > _DEEP)


def count_statement(which: Filter, walk: Walk) -> ListStatement:
    """How many jobs the filter finds, up to EXACT_TOTAL."""
    arms = _Arms(which, walk)
    found = " UNION ALL ".join(f"SELECT 1 FROM jobs WHERE {one}" for one in arms.where)
    sql = f"SELECT count(*) FROM ({found} LIMIT {EXACT_TOTAL}) AS found"
    return ListStatement(sql, arms.parameters, is_scan=True)


def ids_statement(which: Filter, first: int, last: int, most: int) -> ListStatement:
    """Numbers and ids of the jobs of one status between two numbers, the oldest first. All of them are looked at."""
    arms = _Arms(which, Walk(STATUSES, is_whole=True))
    [where] = arms.where
    sql = f"SELECT seq, id FROM jobs WHERE {where} AND seq BETWEEN :first AND :last ORDER BY seq LIMIT :most"
    return ListStatement(sql, {**arms.parameters, "first": first, "last": last, "most": most}, is_scan=True)


class _Arms:
    """The conditions of one SELECT for each index that is walked; that is one for each status."""

    def __init__(self, which: Filter, walk: Walk) -> None:
        by = walk.by or next(iter(which.alone()), "")
        self.place = _PLACE if by else "seq"
        self.parameters: dict[str, Any] = {}
        rest = self._rest(which, by)
        self.is_plain = not rest
        self.where = [" AND ".join([index, *self._bound(index, walk), *rest]) for index in self._indexes(which, by)]

    def _indexes(self, which: Filter, by: str) -> list[str]:
        match by:
            case "statuses":
                # A status is a literal, since each has an index of its own.
                return [f"status = '{Status(one)}'" if one in _STATUSES else "1 = 0" for one in which.statuses]
            case "model_key":
                self.parameters["model_key"] = storable(which.model_key or "")
                return ["model_key = :model_key"]
            case "owner":
                self.parameters["owner"] = storable(which.owner or "")
                return ["owner = :owner AND key_id IS NOT NULL"]
            case _:
                return ["1 = 1"]

    def _bound(self, index: str, walk: Walk) -> list[str]:
        if self.is_plain or walk.is_whole:
            return []
        last = f"SELECT {self.place} FROM jobs WHERE {index} ORDER BY {self.place} DESC LIMIT 1"
        return [f"{self.place} >= coalesce(({last} OFFSET {MOST_LOOKED_AT - 1}), 0)"]

    def _rest(self, which: Filter, by: str) -> list[str]:
        """The conditions that are looked up in the rows, written so that no index serves them."""
        clauses = []
        if which.statuses and by != STATUSES:
            known = [f"'{Status(one)}'" for one in which.statuses if one in _STATUSES]
            clauses.append(f"status || '' IN ({', '.join(known)})" if known else "1 = 0")
        for column in (MODEL, OWNER, "key_id"):
            value = getattr(which, column)
            if value is not None and by != column:
                clauses.append(f"{column} || '' = :{column}")
                self.parameters[column] = storable(value)
        if which.owner is not None and by != OWNER:
            clauses.append("key_id IS NOT NULL")
        if which.anonymous_owner is not None:
            clauses.append("key_id IS NULL AND owner || '' = :anonymous_owner")
            self.parameters["anonymous_owner"] = storable(which.anonymous_owner)
        if which.text is not None:
            clauses.append(_TEXT)
            escaped = storable(which.text).replace("!", "!!").replace("%", "!%").replace("_", "!_")
            self.parameters["text"] = f"%{escaped}%"
        return clauses
