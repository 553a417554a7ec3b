"""Which jobs a list shows, and the statements that find them.

Each statement walks one index in its order, newest first, and stops after its page. Where further conditions are to be
looked up in the rows, that is done in slices of the index, each of two short statements: so a search that finds nothing
can be ended at any moment, and delays no other for longer than a slice.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from service.job import Status
from service.store.job_statements import COLUMNS, NEWEST_FIRST
from service.store.texts import storable

_DEEP = 1_000
"""Entries that are walked over among the quick statements."""

STATUSES, MODEL, OWNER = "statuses", "model_key", "owner"
"""The conditions that have an index, by their names in a filter."""

_STATUSES = frozenset(Status)
_UNCOUNTED = ("text", "key_id", "anonymous_owner", "whose", "created_from", "created_to")
_PLACE, _SHIFT = NEWEST_FIRST.removesuffix(" DESC"), 2
"""The order of the indexes, and what it adds to a job's number."""
_TEXT = "(SELECT {contains_text} FROM bodies WHERE bodies.seq = jobs.seq)"
"""It is a value for each row, since PostgreSQL would read all bodies for EXISTS. Each database has its own words for
"contains".
"""


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
    whose: str | None = None
    """Finds the jobs of this owner, whether they were made with a key or without."""
    created_from: int | None = None
    """Finds the jobs that were made at this moment or later (milliseconds since the epoch)."""
    created_to: int | None = None
    """Finds the jobs that were made before this moment."""

    @property
    def is_counted(self) -> bool:
        """Whether the gauges know how many jobs it finds."""
        return all(getattr(self, name) is None for name in _UNCOUNTED)

    @property
    def is_plain(self) -> bool:
        """Whether one index finds its jobs, and no others."""
        return self.is_counted and len(self.alone()) <= 1

    def alone(self) -> dict[str, Filter]:
        """Each condition that has an index, as a filter of its own."""
        return {
            name: Filter()._replace(**{name: getattr(self, name)})
            for name in (STATUSES, MODEL, OWNER)
            if getattr(self, name) not in (None, ())
        }


class ListStatement(NamedTuple):
    """A SELECT of jobs."""

    sql: str
    parameters: dict[str, Any]
    is_scan: bool = True


def page_statement(
    which: Filter, limit: int, offset: int, total: int | None = None, before: int | None = None
) -> ListStatement:
    """The jobs of a page, in no certain order. The filter is plain. With its ``total``, the last pages are walked to
    from the oldest job. ``before``: only jobs with smaller numbers.
    """
    arms = _Arms(which, next(iter(which.alone()), ""), before)
    order = "DESC"
    if before is None and total is not None and 2 * offset > total:
        limit = max(0, min(limit, total - offset))
        order, offset = "ASC", max(0, total - offset - limit)
    if len(arms.where) == 1:
        [where] = arms.where
        sql = f"SELECT {COLUMNS} FROM jobs WHERE {where} ORDER BY {arms.place} {order} LIMIT :limit OFFSET :offset"
    else:
        found = arms.merged(order)
        sql = (
            f"SELECT {COLUMNS} FROM jobs WHERE seq IN (SELECT seq FROM ({found} LIMIT :limit OFFSET :offset) AS found)"
        )
    return ListStatement(sql, {**arms.parameters, "limit": limit, "offset": offset}, offset > _DEEP)


def edge_statement(which: Filter, by: str, before: int | None, size: int) -> ListStatement:
    """Number, id and time of the last of the newest ``size`` entries of the index of one condition (``by``; "" for the
    whole table) with smaller numbers than ``before``; no row where there are fewer.
    """
    arms = _Arms(which, by, before)
    found = arms.merged("DESC")
    sql = f"""
        SELECT seq, id, created_at FROM jobs WHERE seq = (SELECT seq FROM ({found} LIMIT 1 OFFSET :most) AS found)
    """
    return ListStatement(sql, {**arms.parameters, "most": size - 1})


def slice_statement(which: Filter, by: str, before: int | None, last: int) -> ListStatement:
    """The numbers of the jobs from ``last`` on, and before ``before``, that the filter finds, in no certain order."""
    arms = _Arms(which, by, before, last)
    rest = "".join(f" AND {one}" for one in arms.rest(which))
    sql = " UNION ALL ".join(f"SELECT seq FROM jobs WHERE {one}{rest}" for one in arms.where)
    return ListStatement(sql, arms.parameters)


def ids_statement(which: Filter, first: int, last: int, most: int) -> ListStatement:
    """Numbers and ids of the jobs of one status between two numbers, the oldest first. All of them are looked at."""
    arms = _Arms(which, STATUSES)
    [where] = arms.where
    where = " AND ".join([where, *arms.rest(which)])
    sql = f"SELECT seq, id FROM jobs WHERE {where} AND seq BETWEEN :first AND :last ORDER BY seq LIMIT :most"
    return ListStatement(sql, {**arms.parameters, "first": first, "last": last, "most": most})


class _Arms:
    """The conditions of one SELECT for each index that is walked; that is one for each status. Only numbers below
    ``before``, and from ``last`` on.
    """

    def __init__(self, which: Filter, by: str, before: int | None = None, last: int | None = None) -> None:
        self._by = by
        self.place = _PLACE if by else "seq"
        self.parameters: dict[str, Any] = {}
        bounds = []
        if before is not None:
            bounds.append(f"{self.place} < :before")
            self.parameters["before"] = before + _SHIFT if by else before
        if last is not None:
            bounds.append(f"{self.place} >= :last")
            self.parameters["last"] = last + _SHIFT if by else last
        self.where = [" AND ".join([index, *bounds]) for index in self._indexes(which)]

    def merged(self, order: str) -> str:
        """The numbers of what all of them find, in this order."""
        if len(self.where) == 1:
            return f"SELECT seq FROM jobs WHERE {self.where[0]} ORDER BY {self.place} {order}"
        # Without an order of its own, PostgreSQL would read and sort the whole of an arm.
        arms = (
            f"SELECT * FROM (SELECT seq, {self.place} AS place FROM jobs WHERE {one} ORDER BY place {order}) AS arm"
            for one in self.where
        )
        return f"{' UNION ALL '.join(arms)} ORDER BY place {order}"

    def _indexes(self, which: Filter) -> list[str]:
        match self._by:
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

    def rest(self, which: Filter) -> list[str]:
        """The conditions that are looked up in the rows, written so that no index serves them."""
        clauses, parameters = [], self.parameters
        if which.statuses and self._by != STATUSES:
            known = [f"'{Status(one)}'" for one in which.statuses if one in _STATUSES]
            clauses.append(f"status || '' IN ({', '.join(known)})" if known else "1 = 0")
        for column in (MODEL, OWNER, "key_id"):
            value = getattr(which, column)
            if value is not None and self._by != column:
                clauses.append(f"{column} || '' = :{column}")
                parameters[column] = storable(value)
        if which.owner is not None and self._by != OWNER:
            clauses.append("coalesce(key_id, '') <> ''")
        if which.anonymous_owner is not None:
            clauses.append("key_id IS NULL AND owner || '' = :anonymous_owner")
            parameters["anonymous_owner"] = storable(which.anonymous_owner)
        if which.whose is not None:
            clauses.append("owner || '' = :whose")
            parameters["whose"] = storable(which.whose)
        if which.created_from is not None:
            clauses.append("created_at >= :created_from")
            parameters["created_from"] = which.created_from
        if which.created_to is not None:
            clauses.append("created_at < :created_to")
            parameters["created_to"] = which.created_to
        if which.text is not None:
            clauses.append(_TEXT)
            parameters["text"] = storable(which.text)
        return clauses
