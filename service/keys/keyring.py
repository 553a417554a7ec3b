"""The keys: made, found, revoked.

A key is shown once and kept as HMAC-SHA256 with the secret. All keys are held in memory, so that a request is
authenticated by one hash and without the database. Processes that share a database ask every now and then whether the
keys' version there is still the one that they know.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import uuid
from collections.abc import Iterable, Iterator, Mapping

from service.audit import START, Action, Actor, audit_row, log_done
from service.clock import Clock
from service.errors import ConfigurationError, NotFoundError, ServiceError, UnauthenticatedError
from service.key import KEY_REVOKED, Key, NewKey, Role, key_of_owner
from service.keys.strength import SHORTEST_DEMO_KEY, SHORTEST_SECRET, is_short, weakness
from service.signal import Signal
from service.store.keys import KeyStore

_log = logging.getLogger(__name__)

KEY_PREFIX = "corral_"
_KEY_BYTES = 32
_LOOKUP_BYTES = 16
_TAG_BYTES = 8
_SECRET = "secret_key"
_VERIFIER = "secret_verifier"
DEMO_KEYS = {Role.ADMIN: "b0fd6901-d5fe-5871-b393-c2f98d201eb2", Role.USER: "820947f6-5438-59e9-bdbe-48bf15dde358"}
"""The ids of the keys that DEMO_ADMIN_KEY and DEMO_USER_KEY make: the same in every process and at every start."""
_DEMO_VARIABLES = {Role.ADMIN: "DEMO_ADMIN_KEY", Role.USER: "DEMO_USER_KEY"}
OLD_DEMO_KEYS = {Role.ADMIN: "demo-admin", Role.USER: "demo-user"}
"""Their ids where an earlier version made them; such a key keeps its id, and with it its jobs and statistics."""


class Keyring:
    """Every key there is, and when each was used last."""

    def __init__(self, store: KeyStore, secret: bytes, clock: Clock) -> None:
        self._store = store
        self._secret = secret
        self._clock = clock
        self._by_hash: dict[bytes, tuple[bytes, Key]] = {}
        self._by_id: dict[str, Key] = {}
        self._tags: dict[str, str] = {}
        self._used: dict[str, int] = {}
        self._unwritten: set[str] = set()
        self._version: str | None = None
        self._refreshing = asyncio.Lock()
        self.changed = Signal()
        """Sent when a key was made or revoked, by whomever."""
        self.weights: Mapping[str, float] = _Weights(self._by_id)
        """The weights of owners, for the order; an owner without a key has 1.0."""

    @classmethod
    async def open(cls, store: KeyStore, clock: Clock, configured_secret: str = "") -> Keyring:
        """All keys that are stored. Raises ConfigurationError when they were made with another secret."""
        keys = cls(store, await _open_secret(store, configured_secret), clock)
        await keys.refresh()
        return keys

    def derived_secret(self, purpose: str) -> bytes:
        """A secret of 32 bytes for another purpose, which does not give away the secret it is made from."""
        return hmac.digest(self._secret, purpose.encode(), "sha256")

    def find(self, text: str) -> Key | None:
        """The key with this text, also a revoked or expired one; see :meth:`check`."""
        digest = hmac.digest(self._secret, text.encode("utf-8", "replace"), "sha256")
        # Looked up by the first bytes of a keyed hash, whose timing is of no use to anybody, and compared as a whole.
        stored = self._by_hash.get(digest[:_LOOKUP_BYTES])
        return stored[1] if stored is not None and hmac.compare_digest(stored[0], digest) else None

    @property
    def has_any(self) -> bool:
        """Whether there is a key that may be used."""
        return any(map(self.is_good, self._by_id.values()))

    @property
    def has_admin(self) -> bool:
        """Whether there is a key that may make others."""
        return any(key.is_admin and self.is_good(key) for key in self._by_id.values())

    def get(self, key_id: str) -> Key | None:
        """The key with this id."""
        return self._by_id.get(key_id)

    def tag_of(self, key: Key) -> str:
        """A short text that is another one when the key has got another text. It gives nothing of the text away."""
        return self._tags.get(key.id, "")

    def is_good(self, key: Key) -> bool:
        """Whether the key may still be used, as it is stored now."""
        known = self._by_id.get(key.id)
        return known is not None and known.is_active and not known.is_expired(self._clock.now_ms())

    def concurrency_of(self, key_id: str) -> int | None:
        """How many jobs of this key may run at a time; None for as many as there are seats."""
        key = self._by_id.get(key_id)
        return key.concurrency if key is not None else None

    def check(self, key: Key) -> None:
        """Raises UnauthenticatedError for a key that is revoked or has expired."""
        if not key.is_active:
            raise UnauthenticatedError(KEY_REVOKED)
        if key.is_expired(self._clock.now_ms()):
            raise UnauthenticatedError("this API key has expired; ask an admin for another")

    def note_use(self, key: Key) -> None:
        """The key was used now; this is written to the database with the next batch."""
        self._used[key.id] = self._clock.now_ms()
        self._unwritten.add(key.id)

    async def write_uses(self) -> None:
        """Store when keys were used last, for those that were used since the last call."""
        if not self._unwritten:
            return
        unwritten, self._unwritten = self._unwritten, set()
        try:
            await self._store.touch([(key_id, self._used[key_id]) for key_id in sorted(unwritten)])
        except ServiceError:
            self._unwritten |= unwritten
            raise

    def listed(self) -> list[Key]:
        """Every key, oldest first."""
        return [self._with_last_use(key) for key in self._by_id.values()]

    def shown(self, key_id: str) -> Key:
        """The key with this id, and when it was used last. Raises NotFoundError."""
        key = self._by_id.get(key_id)
        if key is None:
            raise NotFoundError(f"there is no key {key_id[:100]!r}")
        return self._with_last_use(key)

    async def create(self, new: NewKey, *, by: Actor) -> tuple[Key, str]:
        """A new key and its text, which nobody can find out later. Raises CannotStoreError."""
        text = KEY_PREFIX + secrets.token_urlsafe(_KEY_BYTES)
        key = _made(str(uuid.uuid4()), new, self._clock.now_ms())
        done = audit_row(Action.KEY_CREATED, by, key.created_at, key.id, key.name, role=key.role)
        await self._store.insert(key, self._hash(text), _new_version(), done)
        log_done(done)
        await self.refresh()
        return key, text

    async def revoke(self, key_id: str, *, keeps_jobs: bool, by: Actor) -> Key:
        """Let nobody use the key from now on; its usage stays. Its jobs end soon, unless it ``keeps_jobs``.

        Raises NotFoundError, CannotStoreError.
        """
        done = audit_row(Action.KEY_REVOKED, by, self._clock.now_ms(), key_id, keep_jobs=keeps_jobs)
        key = await self._store.revoke(key_id, _new_version(), done, keeps_jobs=keeps_jobs)
        if key is None:
            raise NotFoundError(f"there is no key {key_id[:100]!r}")
        log_done(done._replace(subject_name=key.name))
        await self.refresh()
        # Shown as everywhere else: SQLite's RETURNING gives 1 for the weight 1.0, and uses may not be stored yet.
        return self.shown(key.id)

    async def keep_demo_key(self, role: Role, text: str) -> None:
        """Give the demo key of this role this text; "" revokes the key, when there is one, and its jobs go on.

        Raises ConfigurationError for a text that is new and short, or another key's.
        """
        key_id = OLD_DEMO_KEYS[role] if OLD_DEMO_KEYS[role] in self._by_id else DEMO_KEYS[role]
        known = self._by_id.get(key_id)
        if not text:
            if known is not None and known.is_active:
                await self.revoke(key_id, keeps_jobs=True, by=START)
            return
        found = self.find(text)
        weak = weakness(_DEMO_VARIABLES[role], text, SHORTEST_DEMO_KEY)
        if weak is not None:
            if is_short(text, SHORTEST_DEMO_KEY) and (known is None or found != known):
                raise ConfigurationError(weak)
            _log.warning("WEAK: %s", weak)
        if known is not None and known.is_active and found == known:
            return
        if found not in (None, known):
            raise ConfigurationError(f"the demo keys must differ from each other and from every other key ({key_id})")
        key = _made(key_id, NewKey(f"demo {role}", role), self._clock.now_ms())
        action = Action.KEY_CREATED if known is None else Action.KEY_CHANGED
        done = audit_row(action, START, key.created_at, key.id, key.name, role=role)
        await self._store.put(key, self._hash(text), _new_version(), done)
        log_done(done)
        await self.refresh()

    async def refresh(self) -> None:
        """Read all keys again, unless their version in the database is the one that is known."""
        # One after the other: what was read before a change must not replace what was read after it.
        async with self._refreshing:
            version = await self._store.version()
            if version is None or version != self._version:
                self._take(await self._store.all(), version)

    def _take(self, stored: Iterable[tuple[str, Key]], version: str | None) -> None:
        self._version = version
        self._by_hash.clear()
        self._by_id.clear()
        self._tags.clear()
        for hashed, key in stored:
            digest = bytes.fromhex(hashed)
            self._by_hash[digest[:_LOOKUP_BYTES]] = (digest, key)
            self._by_id[key.id] = key
            self._tags[key.id] = hmac.digest(self._secret, b"tag" + digest, "sha256")[:_TAG_BYTES].hex()
        self.changed.send()

    async def keep_fresh(self, seconds: float) -> None:
        """Look for changes that other processes made; never returns."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.refresh()
            except ServiceError as error:
                _log.warning("the keys could not be read again: %s", error)

    def _with_last_use(self, key: Key) -> Key:
        return key._replace(last_used_at=self._used.get(key.id, key.last_used_at))

    def _hash(self, text: str) -> str:
        return hmac.digest(self._secret, text.encode("utf-8", "replace"), "sha256").hex()


class _Weights(Mapping[str, float]):
    """Weights by owner, read from the keys."""

    def __init__(self, by_id: Mapping[str, Key]) -> None:
        self._by_id = by_id

    def __getitem__(self, owner: str) -> float:
        key_id = key_of_owner(owner)
        key = self._by_id.get(key_id) if key_id is not None else None
        return key.weight if key is not None else 1.0

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


async def _open_secret(store: KeyStore, configured: str) -> bytes:
    settings = await store.settings()
    secret = configured or settings.get(_SECRET) or secrets.token_urlsafe(32)
    verifier = _verifier(secret)
    if (weak := weakness("SECRET_KEY", secret, SHORTEST_SECRET)) is not None:
        if is_short(secret, SHORTEST_SECRET) and settings.get(_VERIFIER) != verifier and not await store.all():
            raise ConfigurationError(weak)
        _log.warning("WEAK: %s", weak)
    if settings.get(_VERIFIER, verifier) != verifier:
        demo_ids = {*DEMO_KEYS.values(), *OLD_DEMO_KEYS.values()}
        if any(key.is_active and key.id not in demo_ids for _, key in await store.all()):
            problem = "is not the one" if configured else "is not set, and there was one when"
            raise ConfigurationError(
                f"SECRET_KEY (auth.secret_key) {problem} {'with which ' if configured else ''}"
                "the stored keys were made; set it back, or revoke those keys first: "
                "python -m service keys list, python -m service keys revoke"
            )
        await store.set(_VERIFIER, verifier)
    if not configured and _SECRET not in settings:
        await store.set_once(_SECRET, secret)
        # Several processes may start together: the secret that was stored first counts.
        secret = (await store.settings())[_SECRET]
    await store.set_once(_VERIFIER, _verifier(secret))
    return secret.encode()


def _verifier(secret: str) -> str:
    return hmac.digest(secret.encode(), b"corral: is this the secret?", "sha256").hex()


def _new_version() -> str:
    return secrets.token_hex(8)


def _made(key_id: str, new: NewKey, now: int) -> Key:
    return Key(id=key_id, **new._asdict(), is_active=True, keeps_jobs=False, created_at=now, last_used_at=None)
