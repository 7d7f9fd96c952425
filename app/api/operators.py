"""Every file with routes for operators."""

from app.api import (
    admin,
    admin_audit,
    admin_keys,
    admin_money,
    admin_tenants,
    admin_usage,
    admin_webhooks,
    organization_keys,
    organization_projects,
)

ROOMS = (
    admin, admin_tenants, admin_keys, admin_money, admin_usage, admin_webhooks, admin_audit,
    organization_keys, organization_projects,
)  # fmt: skip
