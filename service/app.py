"""The composition root: everything is built here, in the order it starts; its undoing is the same in reverse."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from aiohttp import web

from service.api.access.auth import AUTH, Auth
from service.api.access.request_log import REQUEST_LOGGING, RequestLogging
from service.api.body_room import BodyRoom
from service.api.context import (
    AUDIT,
    BODY_ROOM,
    CLOCK,
    CONFIG,
    HUB,
    JOBS,
    METRICS,
    MODEL_LIMITS,
    POOL,
    QUEUE,
    REVOCATIONS,
    QueueSettings,
)
from service.api.http.trailing_slash import accept_trailing_slashes
from service.api.management.metrics import show_metrics
from service.api.routes import add_routes
from service.audit import Audit
from service.backend.http.connections import Connections
from service.backend.pool import Pool, build_backend
from service.clock import Clock
from service.config import Config
from service.dispatcher import Dispatcher
from service.errors import ServiceError
from service.job import new_job_id
from service.jobs import Jobs
from service.jobs.attempts import Attempts
from service.jobs.cancelling import Cancelling
from service.jobs.ledger import Ledger
from service.jobs.other_processes import OtherProcesses
from service.jobs.purging import Purging
from service.jobs.repeats import KEPT_DAYS, Repeats
from service.jobs.retention import Retention
from service.jobs.row_cache import RowCache
from service.jobs.submission import Submission
from service.jobs.upkeep import Upkeep
from service.jobs.views import Views
from service.key import Role
from service.keys.keyring import Keyring
from service.keys.rate_limits import RateLimits
from service.live.held_replies import HeldReplies
from service.live.hub import Hub
from service.maintenance.fit_keeping import FitKeeping
from service.maintenance.list_keeping import ListKeeping
from service.maintenance.loops import beat_and_rescue, delete_contents, hear_others, keep_news, prune_regularly
from service.maintenance.order_keeping import OrderKeeping
from service.maintenance.revocations import Revocations
from service.metrics.values import Metrics
from service.model_limits import ModelLimits
from service.queue import Order
from service.queue.backlog import Backlog
from service.queue.key_limits import KeyLimits
from service.reloading import Reloading, boosts_ms_of, limits_of
from service.request_log import RequestLog
from service.scheduling.assignment import Assignment
from service.scheduling.estimates import Estimates
from service.scheduling.scheduler import Scheduler
from service.store.audit import AuditStore
from service.store.contents import ContentStore
from service.store.database import Database
from service.store.jobs import JobStore
from service.store.keys import KeyStore
from service.store.model_fits import ModelFitStore
from service.store.model_lists import ModelListStore
from service.store.opening import open_database
from service.store.order import OrderStore
from service.store.processes import ProcessStore
from service.store.request_log import RequestLogStore
from service.workers.workers import Workers

_log = logging.getLogger(__name__)

RELOADING = web.AppKey("reloading", Reloading)
REPLIES = web.AppKey("replies", HeldReplies)
_DISPATCHER = web.AppKey("dispatcher", Dispatcher)
_WORKERS = web.AppKey("workers", Workers)


def build_app(config: Config) -> web.Application:
    """The whole service as an application: its start opens the database and begins to work, its cleanup undoes that.

    Raises StartError when the installed aiohttp is not as this service knows it; the start, when the database cannot be
    used.
    """
    app = web.Application(client_max_size=config.server.max_body)
    app[CONFIG] = config
    app[QUEUE] = QueueSettings(config.queue)
    app[MODEL_LIMITS] = ModelLimits(config.models)
    app[METRICS] = Metrics()
    app[BODY_ROOM] = BodyRoom(config.server.max_bodies_bytes)
    app.cleanup_ctx.append(_engine)
    # Jobs are drained before anybody who watches them is sent away.
    app.on_shutdown.append(_drain)
    add_routes(app)
    accept_trailing_slashes(app, answering=[app.router.add_get("/metrics", show_metrics)], redirecting=())
    return app


async def _engine(app: web.Application) -> AsyncIterator[None]:
    config = app[CONFIG]
    async with AsyncExitStack() as started:
        clock = Clock()
        database = await open_database(config.database)
        app[METRICS].commit_seconds = database.commit_seconds
        started.push_async_callback(database.close)
        await database.prepare()
        own_name = new_job_id(clock.now_ms())
        store = JobStore(database, own_name)
        clock.not_before(await store.queries.latest_time())
        keys, rate_limits = await _access(config, database, clock)
        hub = Hub()
        audit = app[AUDIT] = await started.enter_async_context(Audit(AuditStore(database), clock).kept_to_the_end())
        request_log = RequestLog(RequestLogStore(database), keys, clock)
        await started.enter_async_context(request_log.listening(hub))
        work = asyncio.Event()
        connections = await started.enter_async_context(Connections())
        pool = Pool([build_backend(one, connections, config, clock) for one in config.backends], config, clock, work)
        lists, fits = await _recalled(pool, database, clock)
        backlog = Backlog(
            Order(boosts_ms_of(config), keys.weights),
            KeyLimits(keys.concurrency_of),
            limits_of(config),
            clock,
            process=own_name,
            is_exclusive=store.is_exclusive,
            work=work,
        )
        scheduler = Scheduler(backlog, pool, clock)
        hand_off: asyncio.Queue[Assignment] = asyncio.Queue()
        contents = ContentStore(database)
        jobs = _jobs(store, contents, config, backlog, pool, scheduler, hand_off, hub, clock, app[METRICS], work)
        app[REVOCATIONS] = Revocations(keys, jobs, config.database.poll_interval_seconds if database.is_shared else 0.0)
        order_keeping = OrderKeeping(backlog, OrderStore(database))
        await order_keeping.load()
        await jobs.upkeep.recount()
        processes = ProcessStore(database, own_name)
        if database.is_shared:
            await processes.beat()
            started.push_async_callback(_leave, processes)
        rescued = await jobs.upkeep.rescue(await processes.lost(config.database.dead_after_seconds))
        if rescued:
            _log.info("%d jobs of a process that is gone are queued again", rescued)

        started.push_async_callback(order_keeping.save)
        started.push_async_callback(lists.save, is_last=True)
        started.push_async_callback(fits.save)
        dispatcher = Dispatcher(jobs, pool, scheduler, hand_off, work, clock, config.database.poll_interval_seconds)
        app[REPLIES] = HeldReplies(config.server.max_replies_bytes, config.server.max_replies_bytes // 2)
        workers = _workers(config, jobs, pool, hand_off, clock, app[REPLIES])
        for name, part in (
            ("workers", workers.run()),
            ("dispatcher", dispatcher.run()),
            ("health", pool.watch()),
            *_forgetting(config, jobs, clock),
            *_logs(config, request_log, audit, clock),
            ("order", order_keeping.keep()),
            ("news of backends", keep_news(pool.lists_told, lists, fits)),
            *_shared_work(config, database, processes, jobs),
            *_access_work(config, keys, rate_limits, app[REVOCATIONS]),
        ):
            await started.enter_async_context(_running(name, part))

        app[CLOCK], app[HUB], app[JOBS], app[POOL] = clock, hub, jobs, pool
        app[AUTH] = Auth(keys, rate_limits, clock, config, audit)
        app[REQUEST_LOGGING], app[_DISPATCHER], app[_WORKERS] = RequestLogging(request_log, clock), dispatcher, workers
        taking = connections, clock, backlog, pool, workers, app[MODEL_LIMITS], app[QUEUE], audit
        app[RELOADING] = Reloading(config, *taking)
        yield


async def _access(config: Config, database: Database, clock: Clock) -> tuple[Keyring, RateLimits]:
    """Who may do what, and how often."""
    keys = await Keyring.open(KeyStore(database), clock, config.auth.secret_key)
    await keys.keep_demo_key(Role.ADMIN, config.auth.demo_admin_key)
    await keys.keep_demo_key(Role.USER, config.auth.demo_user_key)
    rate_limits = RateLimits(KeyStore(database), keys, clock)
    await rate_limits.recall()
    return keys, rate_limits


async def _recalled(pool: Pool, database: Database, clock: Clock) -> tuple[ListKeeping, FitKeeping]:
    """What keeps the news of backends; they know again what was kept."""
    lists, fits = ListKeeping(pool, ModelListStore(database), clock), FitKeeping(pool, ModelFitStore(database), clock)
    await lists.recall()
    await fits.recall()
    return lists, fits


def _jobs(
    store: JobStore,
    contents: ContentStore,
    config: Config,
    backlog: Backlog,
    pool: Pool,
    scheduler: Scheduler,
    hand_off: asyncio.Queue[Assignment],
    hub: Hub,
    clock: Clock,
    metrics: Metrics,
    work: asyncio.Event,
) -> Jobs:
    """The core, each part with what it needs."""
    row_cache = RowCache(is_enabled=store.is_exclusive)
    ledger = Ledger(store, backlog, row_cache, hub, clock, metrics)
    views = Views(store.queries, backlog, row_cache, Estimates(backlog, pool, clock), clock)
    submission = Submission(store, ledger, backlog, row_cache, views, scheduler, hand_off, hub, clock)
    upkeep = Upkeep(store, ledger, backlog, row_cache, clock)
    return Jobs(
        backlog,
        ledger,
        views,
        submission,
        Cancelling(store.queries, submission),
        Purging(store, contents, ledger, backlog, row_cache, submission, clock),
        Retention(contents, ledger, row_cache, clock, config.database.max_bytes),
        Repeats(store, ledger, submission, views, clock),
        Attempts(store, ledger, backlog, clock),
        upkeep,
        OtherProcesses(store, ledger, backlog, upkeep, clock, work),
    )


def _workers(
    config: Config, jobs: Jobs, pool: Pool, hand_off: asyncio.Queue[Assignment], clock: Clock, replies: HeldReplies
) -> Workers:
    holds_busy = config.queue.hold_busy
    return Workers(jobs, pool, hand_off, clock, config.timeouts, config.retry, replies, holds_busy=holds_busy)


def _shared_work(
    config: Config, database: Database, processes: ProcessStore, jobs: Jobs
) -> tuple[tuple[str, Coroutine[Any, Any, None]], ...]:
    """Living with the other processes that share the database, where there may be any."""
    if not database.is_shared:
        return ()
    times = config.database
    return (
        ("heartbeat", beat_and_rescue(processes, jobs, times.heartbeat_seconds, times.dead_after_seconds)),
        ("hearing of others", hear_others(database, jobs, times.poll_interval_seconds)),
    )


def _forgetting(config: Config, jobs: Jobs, clock: Clock) -> tuple[tuple[str, Coroutine[Any, Any, None]], ...]:
    """Jobs that are old go, and contents before them."""
    return (
        ("pruning", prune_regularly(jobs.upkeep.prune, clock, config.database.retention_days)),
        ("retention", delete_contents(jobs.retention, clock)),
        ("pruning of repeats", prune_regularly(jobs.repeats.prune_repeats, clock, KEPT_DAYS)),
    )


def _logs(
    config: Config, request_log: RequestLog, audit: Audit, clock: Clock
) -> tuple[tuple[str, Coroutine[Any, Any, None]], ...]:
    """What is written down of requests and of what admins do, each for the same time."""
    days = config.database.log_retention_days
    return (
        ("log of requests", request_log.keep_writing()),
        ("pruning of the log", prune_regularly(request_log.prune, clock, days)),
        ("audit", audit.keep_writing()),
        ("pruning of the audit", prune_regularly(audit.prune, clock, days)),
    )


async def _leave(processes: ProcessStore) -> None:
    try:
        await processes.leave()
    except ServiceError as error:
        _log.warning("this process could not say that it leaves: %s", error)


def _access_work(
    config: Config, keys: Keyring, rate_limits: RateLimits, revocations: Revocations
) -> tuple[tuple[str, Coroutine[Any, Any, None]], ...]:
    """What follows when a key is revoked, and what other processes do with keys, where there may be others."""
    always = (("jobs of revoked keys", revocations.keep_ending()),)
    if not config.database.url:
        return always
    seconds = config.database.poll_interval_seconds
    return (
        *always,
        ("look at the keys", keys.keep_fresh(seconds)),
        ("count of requests", rate_limits.keep_recalling(seconds)),
    )


async def _drain(app: web.Application) -> None:
    if _WORKERS not in app:
        return
    app[JOBS].submission.stop_accepting()
    app[_DISPATCHER].stop()
    unstored = await app[_WORKERS].drain(app[CONFIG].server.drain_seconds)
    if unstored:
        _log.critical("%d outcomes could not be stored; those jobs will run again after the next start", unstored)
        asyncio.get_running_loop().call_exception_handler({"message": "outcomes were not stored", "fatal": True})


@asynccontextmanager
async def _running(name: str, work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Keep a part going until the service stops; if it ends by itself the whole service must."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_end_with)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))


def _end_with(task: asyncio.Task[None]) -> None:
    """A part that failed leaves the service deaf or idle: stop, and let the supervisor start it again. No job is lost
    by that.
    """
    if task.cancelled():
        return
    _log.critical("the %s ended unexpectedly; the service stops", task.get_name(), exc_info=task.exception())
    task.get_loop().call_exception_handler({"message": f"the {task.get_name()} ended", "fatal": True})
