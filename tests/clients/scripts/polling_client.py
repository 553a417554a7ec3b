"""A program of the requests API: it submits, asks for the status until that is no longer pending, and lists."""

from __future__ import annotations

import sys
from datetime import datetime

import requests

from tests.clients.scripts.expecting import BREAK_OFF, MODEL, QUESTION, expect

URL = sys.argv[1]


def submit(prompt: str, **fields: str) -> int:
    reply = requests.post(f"{URL}/generate", json={"prompt": prompt, **fields}, timeout=60)
    expect(reply.status_code == 200, f"submitting: {reply.status_code} {reply.text}")
    accepted = reply.json()
    expect(accepted["status"] == "pending", f"a request that is accepted is not pending: {accepted}")
    expect(isinstance(accepted["request_id"], int), f"no integer id: {accepted}")
    return accepted["request_id"]


def finished(request_id: int) -> dict[str, object]:
    """The request, once it is no longer pending."""
    while True:
        # A user's program would pause here.
        reply = requests.get(f"{URL}/status/{request_id}", timeout=60)
        expect(reply.status_code == 200, f"polling: {reply.status_code} {reply.text}")
        request = reply.json()
        if request["status"] in ("completed", "failed"):
            return request
        expect(request["status"] == "pending", f"a status that no client knows: {request}")


def moment(text: str) -> datetime:
    # Python before 3.11 reads no Z.
    found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    expect(found.tzinfo is not None, f"a time without a zone: {text}")
    return found


answered = [finished(submit(QUESTION)), finished(submit(QUESTION, model=MODEL))]
for request in answered:
    expect(request["response"] and request["error_message"] is None, f"no response: {request}")
    expect((request["prompt"], request["model"]) == (QUESTION, MODEL), f"another request's: {request}")
    expect(moment(request["created_at"]) <= moment(request["completed_at"]), f"ended before it began: {request}")

broken = finished(submit(BREAK_OFF))
expect(broken["status"] == "failed" and broken["error_message"], f"nothing is said of a failure: {broken}")
expect(broken["completed_at"] is not None, f"a failed request that seems to go on: {broken}")

ids = [request["request_id"] for request in (broken, *reversed(answered))]
page = requests.get(f"{URL}/requests", params={"page": 1, "per_page": 2}, timeout=60).json()
expect([row["request_id"] for row in page["requests"]] == ids[:2], f"not the newest first: {page}")
expect((page["page"], page["per_page"], page["total"], page["total_pages"]) == (1, 2, 3, 2), f"not counted: {page}")
rest = requests.get(f"{URL}/requests", params={"page": 2, "per_page": 2}, timeout=60).json()
expect([row["request_id"] for row in rest["requests"]] == ids[2:], f"not the rest: {rest}")
failed = requests.get(f"{URL}/requests", params={"status": "failed"}, timeout=60).json()
expect([row["error_message"] for row in failed["requests"]] == [broken["error_message"]], f"not the failed: {failed}")

for refused, status in (
    (requests.post(f"{URL}/generate", json={}, timeout=60), 400),
    (requests.post(f"{URL}/generate", data="{", timeout=60), 400),
    (requests.get(f"{URL}/status/999999", timeout=60), 404),
):
    expect(refused.status_code == status and refused.json()["error"], f"refused without a word: {refused.text}")
