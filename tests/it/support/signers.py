"""Signs webhooks with the libraries of those who send them: signers.py, one request a line on stdin, one answer on stdout.

    {"signer": NAME, "secret": TEXT, "id": TEXT, "timestamp": SECONDS, "body": BASE64}
    {"headers": {NAME: VALUE}}

`standardwebhooks`, `svix`, `stripe` and `slack` are PyPI's packages of their senders, and sign text. `github`, `shopify`
and `hmac_sha1`, `hmac_sha512` are Python's own hmac, as their senders describe it.
"""

import base64
import hashlib
import hmac
import json
import sys
from datetime import datetime, timezone

import stripe
from slack_sdk.signature import SignatureVerifier
from standardwebhooks.webhooks import Webhook as StandardWebhook
from svix.webhooks import Webhook as SvixWebhook


def standard(family, webhook, one, body):
    at = datetime.fromtimestamp(one["timestamp"], tz=timezone.utc)
    return {
        f"{family}-id": one["id"],
        f"{family}-timestamp": str(one["timestamp"]),
        f"{family}-signature": webhook(one["secret"]).sign(one["id"], at, body.decode()),
    }


def stripes(one, body):
    header = stripe.WebhookSignature.generate_signature_header(body.decode(), one["secret"], one["timestamp"])
    return {"Stripe-Signature": header}


def slack(one, body):
    at = str(one["timestamp"])
    signature = SignatureVerifier(one["secret"]).generate_signature(timestamp=at, body=body)
    return {"X-Slack-Signature": signature, "X-Slack-Request-Timestamp": at}


def mac(one, message, algorithm):
    return hmac.new(one["secret"].encode(), message, algorithm)


def github(one, body):
    return {
        "X-GitHub-Event": "push",
        "X-GitHub-Delivery": one["id"],
        "X-Hub-Signature": "sha1=" + mac(one, body, hashlib.sha1).hexdigest(),
        "X-Hub-Signature-256": "sha256=" + mac(one, body, hashlib.sha256).hexdigest(),
    }


def shopify(one, body):
    return {
        "X-Shopify-Topic": "orders/create",
        "X-Shopify-Webhook-Id": one["id"],
        "X-Shopify-Hmac-Sha256": base64.b64encode(mac(one, body, hashlib.sha256).digest()).decode(),
    }


SIGNERS = {
    "standardwebhooks": lambda one, body: standard("webhook", StandardWebhook, one, body),
    "svix": lambda one, body: standard("svix", SvixWebhook, one, body),
    "stripe": stripes,
    "slack": slack,
    "github": github,
    "shopify": shopify,
    "hmac_sha1": lambda one, body: {"X-Signature": mac(one, body, hashlib.sha1).hexdigest().upper()},
    "hmac_sha512": lambda one, body: {
        "X-Id": one["id"],
        "X-Timestamp": f"{one['timestamp']}000",
        "X-Signature": "sig="
        + base64.b64encode(
            mac(one, f"{one['id']}:{one['timestamp']}000:".encode() + body, hashlib.sha512).digest()
        ).decode(),
    },
}

for line in sys.stdin:
    one = json.loads(line)
    headers = SIGNERS[one["signer"]](one, base64.b64decode(one["body"]))
    print(json.dumps({"headers": headers}), flush=True)
