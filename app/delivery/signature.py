"""Standard Webhooks' signature (standardwebhooks.com): who has the secret can tell our messages from others'."""

import base64
import hmac


def signed_headers(secret: bytes, *, message_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """The three headers of a delivery: HMAC-SHA256 over id, time and body."""
    signed = hmac.digest(secret, f"{message_id}.{timestamp_s}.".encode() + body, "sha256")
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": "v1," + base64.b64encode(signed).decode(),
        "content-type": "application/json",
    }
