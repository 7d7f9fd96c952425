"""Keys, projects, rate limits and spend limits as OpenAI's own SDK manages them."""

from collections.abc import AsyncIterator

import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError, PermissionDeniedError

from tests.fixtures.server import Running


@pytest.fixture
async def sdk(server: Running) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=server.url + "/v1", admin_api_key=server.admin_key, api_key="none") as client:
        yield client


async def status(server: Running, key: str | None) -> int:
    headers = {"authorization": f"Bearer {key}"}
    label = {"model": "tiny-bert-classifier", "input": "hello"}
    return (await server.client.post("/v1/classifications", json=label, headers=headers)).status_code


async def test_admin_keys_are_made_listed_shown_and_deleted(server: Running, sdk: AsyncOpenAI) -> None:
    keys = sdk.admin.organization.admin_api_keys
    made = await keys.create(name="ci", expires_in_seconds=3600)
    assert made.value.startswith("sk-tg-adm-") and made.expires_at == made.created_at + 3600
    names = [key.name async for key in keys.list(limit=1)]
    assert names == ["boss", "ci"]
    assert [key.name async for key in keys.list(limit=1, order="desc")] == ["ci", "boss"]
    shown = await keys.retrieve(made.id)
    assert shown.redacted_value.startswith("sk-tg-adm-") and made.value not in shown.to_json()
    assert (shown.owner.name, shown.last_used_at) == ("acme", None)
    async with AsyncOpenAI(base_url=server.url + "/v1", admin_api_key=made.value, api_key="none") as other:
        assert (await other.admin.organization.admin_api_keys.retrieve(made.id)).name == "ci"
        deleted = await keys.delete(made.id)
        assert (deleted.id, deleted.deleted) == (made.id, True)
        with pytest.raises(Exception, match="revoked"):
            await other.admin.organization.admin_api_keys.list()
    with pytest.raises(NotFoundError):
        await keys.retrieve(made.id)
    [customer] = [key async for key in sdk.admin.organization.projects.list()]
    [first] = [key async for key in sdk.admin.organization.projects.api_keys.list(customer.id)]
    with pytest.raises(NotFoundError):
        await keys.delete(first.id)


async def test_a_project_is_a_tenant_and_a_service_account_its_key(server: Running, sdk: AsyncOpenAI) -> None:
    projects = sdk.admin.organization.projects
    made = await projects.create(name="zeta")
    assert (await projects.update(made.id, name="zenith")).name == "zenith"
    account = await projects.service_accounts.create(made.id, name="web", expires_in_seconds=60)
    assert account.api_key is not None
    assert await status(server, account.api_key.value) == 200
    [key] = [one async for one in projects.api_keys.list(made.id)]
    assert (key.id, key.name, key.owner_project_access) == (account.id, "web", "active")
    assert key.expires_at == key.created_at + 60 and account.api_key.value not in key.to_json()
    assert [one.name async for one in projects.service_accounts.list(made.id)] == ["web"]
    other = (await projects.create(name="other")).id
    with pytest.raises(NotFoundError):
        await projects.api_keys.retrieve(key.id, project_id=other)
    assert (await projects.archive(made.id)).status == "archived"
    assert await status(server, account.api_key.value) == 403
    assert [one.name async for one in projects.list(limit=1)] == ["acme", "other"]
    assert [one.name async for one in projects.list(include_archived=True)] == ["acme", "zenith", "other"]
    assert (await projects.api_keys.retrieve(key.id, project_id=made.id)).owner_project_access == "inactive"
    assert (await projects.api_keys.delete(key.id, project_id=made.id)).deleted
    assert await status(server, account.api_key.value) == 401
    answer = await server.client.get("/admin/audit", headers={"authorization": f"Bearer {server.admin_key}"})
    acts = [row["act"] for row in answer.json()["data"] if row["tenant_id"] == made.id]
    assert acts == ["tenant.create", "tenant.update", "key.create", "tenant.suspend", "key.revoke"]


async def test_rate_and_spend_limits_are_the_tenants(server: Running, sdk: AsyncOpenAI) -> None:
    projects = sdk.admin.organization.projects
    [acme] = [one async for one in projects.list()]
    [limit] = [one async for one in projects.rate_limits.list_rate_limits(acme.id)]
    assert (limit.model, limit.max_requests_per_1_minute) == ("*", None)
    await projects.rate_limits.update_rate_limit(limit.id, project_id=acme.id, max_tokens_per_1_minute=50_000)
    changed = await projects.rate_limits.update_rate_limit(limit.id, project_id=acme.id, max_requests_per_1_minute=1)
    assert (changed.max_requests_per_1_minute, changed.max_tokens_per_1_minute) == (1, 50_000)
    assert [await status(server, server.key) for _ in range(2)] == [200, 429]
    with pytest.raises(BadRequestError):
        await projects.rate_limits.update_rate_limit(limit.id, project_id=acme.id, max_images_per_1_minute=1)
    spend = projects.spend_limit
    with pytest.raises(NotFoundError):
        await spend.retrieve(acme.id)
    made = await spend.update(acme.id, threshold_amount=2500, currency="USD", interval="month")
    assert (made.threshold_amount, made.enforcement.status) == (2500, "inactive")
    assert (await spend.update(acme.id, threshold_amount=0, currency="USD", interval="month")).threshold_amount == 0
    assert (await spend.retrieve(acme.id)).enforcement.status == "enforcing"
    assert (await spend.delete(acme.id)).deleted


async def test_customers_manage_nothing(server: Running) -> None:
    async with AsyncOpenAI(base_url=server.url + "/v1", admin_api_key=server.key, api_key="none") as client:
        organization = client.admin.organization
        with pytest.raises(PermissionDeniedError):
            await organization.admin_api_keys.create(name="mine")
        with pytest.raises(PermissionDeniedError):
            await organization.projects.list()
