"""Claims on keys: who has one, and when it is free again."""

from app.metering.database import Database
from app.metering.idempotency import TTL_US, Claim, claim, fingerprint_of, hash_of
from app.metering.keys import NewKey
from app.metering.ledger import Outcome, Usage, open_hold, settle
from tests.metering.test_budgets import admission


async def ask(database: Database, request_id: str, *, at_us: int = 1, fingerprint: str = "f") -> Claim:
    return await database.run(
        lambda c: claim(
            c, tenant_id="t", key="k", fingerprint=fingerprint, request_id=request_id, replica_id="a", at_us=at_us
        )
    )


async def test_a_key_of_a_request_that_crashed_uncharged_is_free(database: Database, key: NewKey) -> None:
    assert (await ask(database, "a")).is_mine
    await database.run(lambda c: open_hold(c, admission(key, "a")))
    assert (await ask(database, "b")).request_id == "a"
    await database.run(lambda c: settle(c, admission(key, "a"), Outcome.CRASHED, Usage(), at_us=2))
    assert not (await ask(database, "b", fingerprint="other")).is_mine
    assert (await ask(database, "b")).is_mine


async def test_a_key_of_a_request_that_crashed_charged_is_done(database: Database, key: NewKey) -> None:
    await ask(database, "a")
    usage = Usage(input_tokens=3)
    await database.run(lambda c: settle(c, admission(key, "a"), Outcome.CRASHED, usage, at_us=2))
    found = await ask(database, "b")
    assert (found.is_mine, found.is_done, found.request_id) == (False, True, "a")


async def test_a_key_is_free_after_a_day(database: Database) -> None:
    await ask(database, "a")
    assert not (await ask(database, "b", at_us=TTL_US)).is_mine
    assert (await ask(database, "c", at_us=TTL_US + 1)).is_mine


def test_neither_key_nor_body_is_kept() -> None:
    kept = hash_of("secret-key") + fingerprint_of("secret-key", path="/v1/x", body=b"a prompt")
    assert "secret" not in kept and "prompt" not in kept
    assert fingerprint_of("a", path="/v1/x", body=b"b") != fingerprint_of("a", path="/v1/y", body=b"b")
