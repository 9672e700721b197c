#!/usr/bin/env python3
"""A year of daily raw whose schema changes on the way: what a proposed contract, a rebuild and a verify over it cost.

    benches/history.py PATH/TO/landfall [--days 365] [--per-day 2000] [--keep DIR]

Needs GNU time. A server on loopback answers for each day; every day is a raw batch of its own. Four in five records of a day
are new, the others newer versions of earlier ones. On the way a field comes, a value list grows, a text becomes a number, a
member of an object comes, a field goes, and one record in a thousand never fits. Prints each command's wall time, peak memory
and records per second, all from raw.
"""

import argparse
import datetime
import http.server
import json
import pathlib
import random
import re
import shutil
import subprocess
import tempfile
import threading
import urllib.parse

FIRST_DAY = datetime.date(2025, 1, 1)
WORDS = "amber basalt cedar delta ember fjord grove harbor island juniper kelp lagoon meadow north orchard prairie".split()

PROJECT = """lake: ./lake
sources:
  year:
    base_url: {base}
    streams:
      orders:
        request: {{ path: /orders }}
        records: $.data[*]
        incremental:
          cursor: $.day
          format: date
          param: from
          start: {first}
          until: {{ param: to, step: 1d }}
        table: {{ keys: [id], sequence_by: [version] }}
"""


def record(day, number, per_day):
    """Record `number` of a day: one in five is a newer version of a record of an earlier day."""
    generator = random.Random(day * per_day + number)
    words = lambda count: " ".join(generator.choice(WORDS) for _ in range(count))
    born = generator.randrange(day) if day and number % 5 == 0 else day
    statuses = ["open", "paid", "shipped", "returned"] + (["refunded"] if day >= 120 else [])
    total = generator.randrange(1, 10**6) / 100
    value = {
        "id": born * per_day + number,
        "version": day,
        "day": str(FIRST_DAY + datetime.timedelta(days=day)),
        "status": generator.choice(statuses),
        "total": total if day >= 180 else f"{total:.2f}",
        "paid": generator.random() < 0.5,
        "score": "unknown" if generator.random() < 0.001 else generator.random() * 100,
        "customer": {"id": generator.randrange(10**6), "name": words(2), "address": {"street": words(3), "city": words(1)}},
        "lines": [
            {"sku": f"SKU-{generator.randrange(10**4)}", "quantity": generator.randrange(1, 9), "price": generator.random() * 50}
            for _ in range(3)
        ],
        "tags": [generator.choice(WORDS) for _ in range(4)],
        "note": words(55),
    }
    if day >= 60:
        value["channel"] = generator.choice(["web", "shop", "phone"])
    if day >= 240:
        value["customer"]["phone"] = f"+49 30 {generator.randrange(10**7):07}"
    if day < 300:
        value["coupon"] = generator.choice([None, "TEN", "FREE"])
    return value


def serve(days, per_day, landed):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
            first = (datetime.date.fromisoformat(query["from"][0][:10]) - FIRST_DAY).days
            last = (datetime.date.fromisoformat(query["to"][0][:10]) - FIRST_DAY).days
            wanted = range(max(first, 0), min(last, days))
            page = {"data": [record(day, number, per_day) for day in wanted for number in range(per_day)]}
            body = json.dumps(page, separators=(",", ":")).encode()
            landed["bytes"] += len(body)
            landed["records"] += len(page["data"])
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}"


def timed(label, command, landed, codes=(0,)):
    done = subprocess.run(["/usr/bin/time", "-v", *command], capture_output=True, text=True)
    if done.returncode not in codes:
        raise SystemExit(f"{label}: {done.returncode}\n{done.stderr[-4000:]}")
    clock = re.search(r"Elapsed \(wall clock\) time .*: (.*)", done.stderr).group(1)
    seconds = sum(float(part) * 60**power for power, part in enumerate(reversed(clock.split(":"))))
    peak = int(re.search(r"Maximum resident set size \(kbytes\): (\d+)", done.stderr).group(1)) // 1024
    speed = f"{landed['records'] / seconds:>9,.0f} records/s  {landed['bytes'] / seconds / 1e6:>6.1f} MB/s"
    print(f"{label:<28} {seconds:>8.2f} s  peak {peak:>5} MiB  {speed}")
    return done


def reviewed(contract):
    """What a person makes of a draft: amounts are decimals, whether they come as text or not, and a score is a number."""
    for name, kind in (("total", "number\n        physicalType: decimal(12,2)"), ("score", "number")):
        contract, found = re.subn(rf"(- name: {name}\n        logicalType: )[^\n]*(\n        physicalType: [^\n]*)?", rf"\g<1>{kind}", contract)
        if found != 1:
            raise SystemExit(f"the draft has no {name}")
    return contract


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("landfall")
    arguments.add_argument("--days", type=int, default=365)
    arguments.add_argument("--per-day", type=int, default=2_000)
    arguments.add_argument("--keep")
    options = arguments.parse_args()
    root = pathlib.Path(options.keep or tempfile.mkdtemp(prefix="landfall-history-"))
    landed = {"bytes": 0, "records": 0}
    base = serve(options.days, options.per_day, landed)
    (root / "landfall.yml").write_text(PROJECT.format(base=base, first=FIRST_DAY))
    landfall = lambda *words: [str(pathlib.Path(options.landfall).resolve()), "--project", str(root), *words]
    try:
        subprocess.run(landfall("extract", "year.orders"), check=True, capture_output=True)
        print(f"{options.days} days, {landed['records']:,} records, {landed['bytes'] / 1e6:,.0f} MB")
        timed("transform, whole year", landfall("transform"), landed)
        proposed = root / "proposed.odcs.yaml"
        inferred = subprocess.run(landfall("contract", "infer", "year.orders"), check=True, capture_output=True, text=True)
        proposed.write_text(reviewed(inferred.stdout))
        timed("contract test, whole year", landfall("contract", "test", "year.orders", "--contract", str(proposed)), landed, (0, 3))
        shutil.copy(proposed, root / "contracts" / "year.orders.odcs.yaml")
        timed("rebuild --promote", landfall("rebuild", "year.orders", "--promote"), landed)
        timed("verify", landfall("verify", "year.orders"), landed)
        counts = "SELECT (SELECT count(*) FROM year.orders) AS rows, (SELECT count(*) FROM year.orders__quarantine) AS quarantined"
        print(subprocess.run(landfall("sql", "--format", "csv", counts), capture_output=True, text=True).stdout.strip())
        print(subprocess.run(["du", "-sh", *map(str, sorted((root / "lake").iterdir()))], capture_output=True, text=True).stdout.strip())
    finally:
        if not options.keep:
            shutil.rmtree(root)


if __name__ == "__main__":
    main()
