"""One client on the websocket: what it has subscribed to, and what it is told."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from service.api.context import CONFIG, HUB, JOBS
from service.api.live.delivery import note_sent_to
from service.api.live.feeds import FEEDS
from service.api.live.job_shape import view_fields
from service.api.live.websocket.identity import Identity
from service.api.live.websocket.messages import Authenticate, Subscription, read_message
from service.api.live.websocket.outbox import Outbox
from service.api.live.websocket.stats import STATS
from service.api.live.websocket.subscription import JobSubscription
from service.errors import (
    CONTENTS_DELETED,
    ContentsDeletedError,
    InvalidRequestError,
    LimitReachedError,
    ServiceError,
)
from service.job import Job
from service.jobs import no_prompt
from service.key import Key
from service.live.hub import JOBS as ALL_JOBS
from service.live.hub import JobChanged, Listening
from service.live.outputs import Position
from service.store.job_filters import Filter

_SNAPSHOT_ROWS = 100
UNAUTHENTICATED = 4401
"""The close code when a token or key has ended; applications choose theirs from 4000 on (RFC 6455, 7.4.2)."""


class Session:
    """A client's subscriptions. While it listens to all jobs, the session is a subscriber of the hub."""

    __slots__ = (
        "_app",
        "_closing",
        "_follows",
        "_has_stats",
        "_hears_all",
        "_identity",
        "_most",
        "_outbox",
        "_socket",
    )

    def __init__(self, request: web.Request, socket: web.WebSocketResponse) -> None:
        app = self._app = request.app
        self._socket = socket
        self._most = app[CONFIG].websocket.max_subscriptions
        self._outbox = Outbox(socket.send_str, app[CONFIG].websocket.max_outbox_messages)
        self._follows: dict[str, JobSubscription] = {}
        self._hears_all = False
        self._has_stats = False
        self._closing: asyncio.Task[bool] | None = None
        self._identity = Identity(request, self._refuse, self.lose_key)

    async def listen(self) -> None:
        """Carry out the client's messages until it is gone."""
        await self._identity.begin()
        async for message in self._socket:
            if message.type is WSMsgType.TEXT:
                await self._answer(message.data)
            elif message.type is WSMsgType.BINARY:
                self._refuse(InvalidRequestError("messages must be text: JSON objects with a type"))
            await self._outbox.has_room()

    def leave(self) -> None:
        """Close the connection, since the service stops; it is not waited for here."""
        self._closing = asyncio.create_task(
            self._socket.close(code=WSCloseCode.GOING_AWAY, message=b"the service stops")
        )

    def key(self) -> Key | None:
        """The key that the client has shown, if any."""
        return self._identity.caller.key

    def lose_key(self) -> None:
        """Close the connection, since its key or token is no longer good; it is not waited for here."""
        self._closing = asyncio.create_task(self._socket.close(code=UNAUTHENTICATED, message=b"authenticate again"))

    def close(self) -> None:
        """The client is gone: let go of everything."""
        self._identity.end()
        self._outbox.close()
        self._stop_hearing_all()
        self._app[STATS].unsubscribe(self._outbox)
        for follow in self._follows.values():
            follow.close()
        self._follows.clear()

    def receive(self, event: JobChanged) -> None:
        """Hear of any job's new status."""
        if self._hears_of(event.job):
            self._outbox.change(event)

    def _hears_of(self, job: Job) -> bool:
        return job.id not in self._follows and self._identity.caller.sees(job)

    async def _answer(self, text: str) -> None:
        try:
            message = read_message(text)
        except InvalidRequestError as error:
            self._refuse(error)
            return
        try:
            await self._carry_out(message)
        except ServiceError as error:
            self._refuse(error, message if isinstance(message, Subscription) else None)

    async def _carry_out(self, message: Subscription | Authenticate) -> None:
        match message:
            case Subscription(type="subscribe", channel="jobs"):
                await self._hear_all()
            case Subscription(type="unsubscribe", channel="jobs"):
                self._stop_hearing_all()
            case Subscription(type="subscribe", channel="job", id=str(job_id)):
                await self._follow(job_id.lower(), message.from_)
            case Subscription(type="unsubscribe", channel="job", id=str(job_id)):
                self._stop_following(job_id.lower())
            case Subscription(type="subscribe", channel="stats"):
                await self._hear_stats()
            case Subscription(type="unsubscribe", channel="stats"):
                self._has_stats = False
                self._app[STATS].unsubscribe(self._outbox)
            case Authenticate():
                await self._authenticate(message.token)

    async def _authenticate(self, token: str) -> None:
        await self._identity.authenticate(token)
        for follow in tuple(self._follows.values()):
            latest = follow.latest()
            if latest is not None and not self._identity.caller.sees(latest.job):
                self._ended(follow)

    async def _hear_all(self) -> None:
        caller = self._identity.require()
        self._check_room(is_new=not self._hears_all)
        self._stop_hearing_all()
        with Listening(self._app[HUB], ALL_JOBS, wants=self._hears_of) as heard:
            page = await self._app[JOBS].views.page(caller.only_visible(Filter()), _SNAPSHOT_ROWS, 0)
            views = await self._app[JOBS].views.views(page.jobs)
        self._hears_all = True
        self._app[HUB].subscribe(ALL_JOBS, self)
        rows = [view_fields(view) for view in views]
        self._outbox.reply({"type": "subscribed", "channel": "jobs", "jobs": rows, "total": page.total})
        shown = {view.job.id: view.job for view in views}
        for event in heard.changes.values():
            if _is_newer(event.job, shown.get(event.job.id)):
                self._outbox.change(event)

    def _stop_hearing_all(self) -> None:
        self._hears_all = False
        self._app[HUB].unsubscribe(ALL_JOBS, self)
        self._outbox.forget_changes()

    async def _hear_stats(self) -> None:
        self._identity.require()
        self._check_room(is_new=not self._has_stats)
        figures = self._app[STATS].figures()
        self._has_stats = True
        self._app[STATS].subscribe(self._outbox)
        self._outbox.reply({"type": "subscribed", "channel": "stats", "stats": figures})

    async def _follow(self, job_id: str, from_: str | None) -> None:
        caller = self._identity.require()
        position = Position.parse(from_) if from_ else None
        if from_ and position is None:
            raise InvalidRequestError(f"from: must be a position, such as 1.250 (got {from_!r})", "from")
        self._check_room(is_new=job_id not in self._follows)
        follow = JobSubscription(self._app[FEEDS], job_id, self._outbox.ready, self._ended, self._sent)
        job = await follow.open(position)
        if not caller.sees(job):
            self._drop(follow)
            raise no_prompt(job_id)
        if job.contents_deleted_at is not None:
            self._drop(follow)
            raise ContentsDeletedError(CONTENTS_DELETED)
        self._stop_following(job_id)
        self._follows[job_id] = follow

    def _stop_following(self, job_id: str) -> None:
        follow = self._follows.pop(job_id, None)
        if follow is None:
            return
        latest = follow.latest()
        self._drop(follow)
        if self._hears_all and latest is not None:
            # While the job was followed, the channel of all jobs was silent about it, so its last change may be untold.
            self.receive(latest)

    def _ended(self, follow: JobSubscription) -> None:
        if self._follows.get(follow.job_id) is follow:
            del self._follows[follow.job_id]
        self._drop(follow)

    def _sent(self, job: Job) -> None:
        note_sent_to(self._app, self._identity.caller, job)

    def _drop(self, follow: JobSubscription) -> None:
        self._outbox.forget(follow)
        follow.close()

    def _check_room(self, *, is_new: bool) -> None:
        if is_new and len(self._follows) + self._hears_all + self._has_stats >= self._most:
            raise LimitReachedError(f"at most {self._most} subscriptions on one websocket; unsubscribe from some", 0)

    def _refuse(self, error: ServiceError, about: Subscription | None = None) -> None:
        message: dict[str, Any] = {"type": "error", "error": str(error)}
        if isinstance(error, ContentsDeletedError):
            message["code"] = error.code
        if about is not None:
            message["channel"] = about.channel
            if about.id is not None:
                message["id"] = about.id
        self._outbox.reply(message)


def _is_newer(job: Job, shown: Job | None) -> bool:
    return shown is None or job.stage > shown.stage
