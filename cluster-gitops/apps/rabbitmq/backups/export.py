"""Exports the definitions of RabbitMQ to a bucket, and deletes the exports that are no longer kept."""

import base64
import datetime
import json
import os
import urllib.request

import boto3

FOLDER = "rabbitmq/"


def definitions() -> bytes:
    """What RabbitMQ has, without messages."""
    login = f"{os.environ['RABBITMQ_USER']}:{os.environ['RABBITMQ_PASSWORD']}"
    headers = {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()}
    request = urllib.request.Request(os.environ["RABBITMQ_URL"] + "/api/definitions", headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        content: bytes = answer.read()
    if missing := {"users", "vhosts", "permissions", "queues"} - json.loads(content).keys():
        raise SystemExit(f"the answer is no export: it has no {', '.join(sorted(missing))}")
    return content


def main() -> None:
    """Export, then delete what is too old: a failed export deletes nothing."""
    content, bucket = definitions(), os.environ["BUCKET"]
    store = boto3.client("s3", endpoint_url=os.environ["ENDPOINT"] or None)
    name = f"{FOLDER}definitions-{datetime.datetime.now(datetime.timezone.utc):%Y%m%dT%H%M%SZ}.json"
    store.put_object(Bucket=bucket, Key=name, Body=content, ContentType="application/json")
    pages = store.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{FOLDER}definitions-")
    keys = sorted(entry["Key"] for page in pages for entry in page.get("Contents", ()))
    old = keys[: -int(os.environ["KEEP"])]
    for key in old:
        store.delete_object(Bucket=bucket, Key=key)
    print(f"{name}: {len(content)} bytes; {len(keys) - len(old)} kept, {len(old)} deleted")


if __name__ == "__main__":
    main()
