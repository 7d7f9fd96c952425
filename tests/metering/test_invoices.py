"""The page of an invoice: what a customer reads on it, and nothing that a name could smuggle in."""

from datetime import UTC, datetime

from app.clock import SystemClock
from app.metering.database import Database
from app.metering.invoices import as_page, invoice
from app.metering.tenants import create_tenant

NAME = "Acme <script>alert(1)</script> & Co"
ISSUER = "Tollgate Hosting\n12 Bridge Street"


async def test_a_page_names_both_sides_the_period_and_the_sum_and_escapes_names(database: Database) -> None:
    made = await database.run(lambda c: create_tenant(c, clock=SystemClock(), name=NAME))
    now = datetime(2028, 3, 1, tzinfo=UTC)
    for name in (NAME, made.id):
        found = await database.run(
            lambda c, name=name: invoice(c, tenant_name=name, month="2028-02", now=now, issuer=ISSUER)
        )
        assert (found["tenant"], found["last_day"], found["is_final"]) == (NAME, "2028-02-29", True)
    page = as_page(found)
    assert "<script>" not in page and "Acme &lt;script&gt;" in page
    for word in ("Tollgate Hosting", "12 Bridge Street", "2028-02-01 to 2028-02-29", "No use in this period.", "0 USD"):
        assert word in page
    assert "Preview" not in page
    early = await database.run(lambda c: invoice(c, tenant_name=NAME, month="2028-03", now=now))
    assert "Preview" in as_page(early)
