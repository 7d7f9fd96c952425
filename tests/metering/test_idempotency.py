"""Claims on keys: who has one, and when it is free again."""

import dataclasses
import json

from app.metering.database import Database
from app.metering.idempotency import TTL_US, Claim, Once, claim, fingerprint_of, hash_of
from app.metering.journal import admission_from, admission_json
from app.metering.keys import NewKey
from app.metering.ledger import Outcome, Usage, list_entries, open_hold, settle
from app.metering.verify import drifts
from tests.metering.test_budgets import admission

USED = Usage(input_tokens=10, output_tokens=5)


async def ask(
    database: Database, request_id: str, *, at_us: int = 1, fingerprint: str = "f", tenant_id: str = "t"
) -> Claim:
    return await database.run(
        lambda c: claim(
            c, tenant_id=tenant_id, key="k", fingerprint=fingerprint, request_id=request_id, replica_id="a", at_us=at_us
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


ONCE = (hash_of("k"), "f")


async def sold(database: Database, key: NewKey, name: str, once: Once = ONCE, usage: Usage = USED) -> int:
    """Settle what was served while the database was away; returns its cost."""
    late = dataclasses.replace(admission(key, name), once=once)
    receipt = await database.run(lambda c: settle(c, late, Outcome.FINISHED, usage, at_us=5))
    assert await database.run(lambda c: list(drifts(c))) == []
    return receipt.cost_nano


async def test_of_two_that_ran_under_one_key_while_the_database_was_away_one_is_charged(
    database: Database, key: NewKey
) -> None:
    first = await sold(database, key, "a")
    assert first > 0
    assert [await sold(database, key, "b"), await sold(database, key, "a"), await sold(database, key, "b")] == [
        0, first, 0
    ]  # fmt: skip
    assert not (await ask(database, "c", tenant_id=key.record.tenant_id)).is_mine
    assert await sold(database, key, "d", once=(ONCE[0], "another request")) == first, "it was asked for twice"
    assert {entry["output_tokens"] for entry in await database.run(list_entries)} == {USED.output_tokens}


async def test_a_key_that_was_used_before_the_database_went_is_not_charged_again(
    database: Database, key: NewKey
) -> None:
    await ask(database, "a", tenant_id=key.record.tenant_id)
    await database.run(lambda c: open_hold(c, admission(key, "a")))
    assert await sold(database, key, "b") == 0, "its first request runs, and will be charged"
    await database.run(lambda c: settle(c, admission(key, "a"), Outcome.FINISHED, USED, at_us=5))
    assert await sold(database, key, "c") == 0


async def test_a_key_whose_first_request_cost_nothing_is_charged_for_the_next(database: Database, key: NewKey) -> None:
    await ask(database, "a", tenant_id=key.record.tenant_id)
    await database.run(lambda c: settle(c, admission(key, "a"), Outcome.FAILED, Usage(), at_us=5))
    assert await sold(database, key, "b", usage=Usage()) == 0
    assert await sold(database, key, "c") > 0, "nor was it claimed by one that cost nothing"


async def test_a_late_claim_outlives_its_process_and_what_is_not_set_is_not_written(key: NewKey) -> None:
    late = dataclasses.replace(admission(key, "a"), once=ONCE)
    assert admission_from(json.loads(json.dumps(admission_json(late)))) == late
    assert "once" not in admission_json(admission(key, "a")), "an older release would not read it"
    assert admission_from(json.loads(json.dumps(admission_json(admission(key, "a"))))) == admission(key, "a")
