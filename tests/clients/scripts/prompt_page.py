"""What a page of the prompts API calls: it submits, polls until the answer is there, and lists five at a time."""

from __future__ import annotations

import sys
from datetime import datetime

import requests

from tests.clients.scripts.expecting import QUESTION, expect

URL = sys.argv[1]
ORIGIN = {"Origin": "http://pages.example"}


def get(path: str) -> dict[str, object]:
    reply = requests.get(f"{URL}{path}", headers=ORIGIN, timeout=60)
    expect(reply.ok, f"GET {path}: {reply.status_code} {reply.text}")
    expect(reply.headers["Access-Control-Allow-Origin"] in ("*", ORIGIN["Origin"]), f"GET {path}: hidden from the page")
    expect(reply.headers["Cache-Control"] == "no-store", f"GET {path}: a browser may show an old one")
    return reply.json()


asked = {**ORIGIN, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
preflight = requests.options(f"{URL}/api/v1/prompt", headers=asked, timeout=60)
expect(preflight.ok, f"preflight: {preflight.status_code}")
expect("content-type" in preflight.headers["Access-Control-Allow-Headers"].lower(), "no JSON may be sent")

for number in range(6):
    submitted = requests.post(
        f"{URL}/api/v1/prompt", json={"prompt": f"{QUESTION} {number}"}, headers=ORIGIN, timeout=60
    )
    expect(submitted.ok, f"submitting: {submitted.status_code} {submitted.text}")
    job = submitted.json()["id"]
    seen = ""
    while seen != "completed":
        # The page asks once a second.
        seen = get(f"/api/v1/prompt/{job}/status")["status"]
        expect(seen in ("queued", "processing", "completed"), f"a status that the page does not know: {seen}")
    result = get(f"/api/v1/prompt/{job}/result")
    expect((result["id"], result["status"]) == (job, "completed"), f"another result: {result}")
    expect(result["result"], f"no answer: {result}")

first = get("/api/v1/prompts?page=1&page_size=5")
second = get("/api/v1/prompts?page=2&page_size=5")
expect((len(first["prompts"]), len(second["prompts"])) == (5, 1), f"pages of another size: {first} {second}")
expect(first["prompts"][0]["id"] == job, "the newest is not the first")
for page, number in ((first, 1), (second, 2)):
    found = (page["page"], page["page_size"], page["total"], page["total_pages"])
    expect(found == (number, 5, 6, 2), f"not counted: {found}")
    for row in page["prompts"]:
        expect(row["status"] == "completed", f"another status than the prompt's: {row}")
        created, updated = (
            datetime.fromisoformat(row[name].replace("Z", "+00:00")) for name in ("created_at", "updated_at")
        )
        expect(created <= updated, f"updated before it was made: {row}")

for path in ("/", "/list"):
    shown = requests.get(f"{URL}{path}", headers={"Accept": "text/html"}, timeout=60)
    expect(shown.ok and shown.headers["Content-Type"].startswith("text/html"), f"{path} is no page")
unknown = requests.get(f"{URL}/api/v1/prompt/00000000-0000-4000-8000-000000000000/status", headers=ORIGIN, timeout=60)
expect(unknown.status_code == 404 and unknown.json()["error"], f"an unknown id: {unknown.status_code} {unknown.text}")
