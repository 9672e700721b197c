#!/usr/bin/env python3
"""Moves N GB of records of about 900 bytes from a server on loopback through extract and transform into one table.

    benches/soak.py PATH/TO/landfall [--gigabytes 10] [--memory 256MiB] [--keep DIR]

Every record has a key of its own, so the table grows with them. Prints for each tenth of the loads how fast they were and how
much memory the process held, and the percentiles of the time a load took: what grows with what was loaded before shows there.
Needs Linux, for /proc.
"""

import argparse
import http.server
import pathlib
import random
import re
import statistics
import subprocess
import tempfile
import threading
import time

import end_to_end

PER_PAGE = 1000

PROJECT = """lake: ./lake
memory: {memory}
sources:
  bench:
    base_url: {base}
    streams:
      orders:
        request: {{ path: /pages }}
        records: $.data[*]
        paginate: {{ type: next_url, from: $.next }}
        table: {{ keys: [id], sequence_by: [version] }}
"""


class Pages:
    """Pages of one and the same thousand records, but for their keys."""

    def __init__(self):
        records = [end_to_end.record(number, 1, random.Random(number)) for number in range(PER_PAGE)]
        self.texts = [end_to_end.json.dumps(record, separators=(",", ":")) for record in records]
        self.heads = [f'{{"id":{number},' for number in range(PER_PAGE)]
        self.tails = [text[len(head) :] for text, head in zip(self.texts, self.heads)]
        self.bytes = sum(map(len, self.texts))

    def page(self, number, last, base):
        first = number * PER_PAGE
        records = ",".join(f'{{"id":{first + at},{tail}' for at, tail in enumerate(self.tails))
        more = "null" if number == last else f'"{base}/pages?page={number + 1}"'
        return f'{{"data":[{records}],"next":{more}}}'.encode()


def serve(pages, last):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            number = int(self.path.partition("page=")[2] or 0)
            body = pages.page(number, last, f"http://127.0.0.1:{self.server.server_port}")
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def resident(pid, field):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB", status, re.M)
    return int(found[1]) / 1024 if found else 0.0


def run(program, project, wanted):
    """Runs it, and returns when each load ended, how long it took in ms, what memory was held then, and the peak."""
    process = subprocess.Popen(
        [program, "--project", project, "-v", "run"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    began, loads, peak, errors = time.monotonic(), [], 0.0, []
    for line in process.stderr:
        if "load ended" not in line:
            errors.append(line)
            del errors[:-20]
            continue
        told = {name: int(value) for name, value in re.findall(r"(read|merge_ms|commit_ms)=(\d+)", line)}
        peak = max(peak, resident(process.pid, "VmHWM"))
        loads.append(
            {
                "at": time.monotonic() - began,
                "rows": told["read"],
                "ms": told["merge_ms"] + told["commit_ms"],
                "memory": resident(process.pid, "VmRSS"),
            }
        )
    if process.wait() != 0:
        raise SystemExit("".join(errors))
    rows = sum(load["rows"] for load in loads)
    if rows != wanted:
        raise SystemExit(f"{rows} rows loaded, {wanted} were served")
    return loads, peak, time.monotonic() - began


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def main():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("landfall", type=pathlib.Path)
    words.add_argument("--gigabytes", type=float, default=10)
    words.add_argument("--memory", default="256MiB")
    words.add_argument("--keep", type=pathlib.Path)
    given = words.parse_args()
    pages = Pages()
    count = max(1, round(given.gigabytes * 1e9 / pages.bytes))
    server = serve(pages, count - 1)
    with tempfile.TemporaryDirectory() as folder:
        project = given.keep or pathlib.Path(folder)
        project.mkdir(parents=True, exist_ok=True)
        base = f"http://127.0.0.1:{server.server_port}"
        (project / "landfall.yml").write_text(PROJECT.format(base=base, memory=given.memory))
        loads, peak, wall = run(given.landfall.resolve(), project, count * PER_PAGE)
    rows = count * PER_PAGE
    print(f"{rows} rows, {count * pages.bytes / 1e9:.2f} GB in {wall:.0f} s: {rows / wall:,.0f} rows/s, peak {peak:.0f} MiB")
    print("| tenth of the loads | rows/s | merge and commit, median | memory after a load, greatest |\n|---|---|---|---|")
    tenth = max(1, len(loads) // 10)
    for first in range(0, len(loads), tenth):
        part = loads[first : first + tenth]
        before = loads[first - 1]["at"] if first else 0.0
        speed = sum(load["rows"] for load in part) / max(part[-1]["at"] - before, 1e-9)
        median = statistics.median(load["ms"] for load in part)
        print(f"| {first // tenth + 1} | {speed:,.0f} | {median:.0f} ms | {max(load['memory'] for load in part):.0f} MiB |")
    times = [load["ms"] for load in loads]
    print(f"merge and commit of {len(loads)} loads: " + ", ".join(f"p{share * 100:g} {percentile(times, share)} ms" for share in (0.5, 0.99, 0.999)))


if __name__ == "__main__":
    main()
