"""The endpoints of API keys: list, create and revoke them, with a key of the scope `admin`.

A key that leaks must not be able to make its equal: what revokes it would then end nothing. So keys with the scope
`admin`, the first one included, are made by `seqrec keys create` alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import closing
from typing import TypeVar

from fastapi import APIRouter, Request

from index.keys.base import ApiKey, KeyStore, read_key
from seqrec.errors import InputError
from service.http.dependencies import WRITE, AuditDep, problems
from service.http.operation_schemas import CreatedKey, KeysAnswer, NewKey, StoredKey
from service.keys.key_ring import KeyRing

T = TypeVar("T")
_COMMAND = "`seqrec keys create NAME --scope admin`, on the machine of the service, makes it"

router = APIRouter(tags=["operation"])


@router.get("/keys", responses=problems(503))
async def list_keys(request: Request) -> KeysAnswer:
    """All API keys; their secrets are stored nowhere."""
    return KeysAnswer(keys=[_stored(key) for key in await _in_store(request, lambda store: store.all())])


@router.post("/keys", status_code=201, responses=WRITE)
async def create_key(body: NewKey, request: Request, audit: AuditDep) -> CreatedKey:
    """Create a key. The answer has its secret, this once."""
    if request.state.key is None:
        raise InputError(f"the first key has the scope admin: {_COMMAND}")
    if "admin" in body.scopes:
        raise InputError(f"a key with the scope admin is not made over HTTP: {_COMMAND}", "scopes")
    key, secret = read_key(body.name, body.scopes, body.expires, body.rate, body.quota)
    await _in_store(request, lambda store: store.add(key))
    audit["name"], audit["scopes"] = key.name, sorted(key.scopes)
    return CreatedKey(**_stored(key).model_dump(), key=secret)


@router.delete("/keys/{name}", responses=problems(422, 503))
async def revoke_key(name: str, request: Request, audit: AuditDep) -> StoredKey:
    """Revoke a key: every worker and host refuses it within 250 ms."""
    own: ApiKey | None = request.state.key
    if own is not None and own.name == name:
        raise InputError("it is the key of this request; `seqrec keys revoke`, or another key, revokes it", "name")
    audit["name"] = name
    return _stored(await _in_store(request, lambda store: store.revoke(name, time.time())))


async def _in_store(request: Request, work: Callable[[KeyStore], T]) -> T:
    ring: KeyRing = request.app.state.keys

    def run() -> T:
        with closing(ring.open_store()) as store:
            return work(store)

    return await asyncio.to_thread(run)


def _stored(key: ApiKey) -> StoredKey:
    return StoredKey(
        name=key.name,
        state=key.state(time.time()),
        scopes=sorted(key.scopes),
        created=key.created,
        expires=key.expires,
        revoked=key.revoked,
        rate=key.rate,
        quota=key.quota,
    )
