#!/usr/bin/env python3
"""What a command costs before it reaches its data: start-up, and what grows with raw batches, data files and loads.

    benches/planning.py PATH/TO/landfall [--sizes 10,1000,10000] [--loads 10,100,1000] [--runs 5] [--keep DIR]

Makes one lake for each size: a stream with so many raw batches, whose table has as many data files (one a day), and one
for each number of loads: a stream that was extracted and transformed so often. Then runs each command in each lake, and
prints its wall time and its CPU time in milliseconds (the least of the runs) and, where strace is installed, what it asked
of the lake's file system: files opened (raw log, Delta log, data) and written, folders read, and questions whether something
is there. A figure that is the same in every column does not grow.
"""

import argparse
import collections
import datetime
import http.server
import json
import pathlib
import re
import resource
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.parse

PROJECT = """lake: ./lake
sources:
  many:
    base_url: {base}
    streams:
      days:
        request: {{ path: /days }}
        records: $.data[*]
        commit: {{ pages: 1 }}
        incremental:
          cursor: $.day
          format: date
          param: from
          start: {first}
{until}        table: {{ keys: [day, id], sequence_by: [version], partition_by: [day] }}
"""

# One window for each day, and so one page and one batch.
BY_DAY = "          until: { param: to, step: 1d }\n"

COMMANDS = {
    "--version": ["--version"],
    "sql, no table": ["sql", "select 1"],
    "sql, one key": ["sql", "select version from many.days where day = '{last}' and id = 1"],
    "sql, whole table": ["sql", "select count(*), max(version) from many.days"],
    "sql, raw": ["sql", "select count(*) from many.days__raw"],
    "status": ["status"],
    "drift": ["drift"],
    "quarantine list": ["quarantine", "list"],
    "explain": ["explain", "many.days", "{last}", "1"],
    "transform, nothing new": ["transform"],
    "extract, one page": ["extract"],
    "transform, one batch": ["transform"],
}

CALLS = "openat,open,getdents64,stat,lstat,newfstatat,statx,access,faccessat2,readlink"


def serve():
    """One record for each day, of a newer version each time it is asked for; the first day has one without a key, too."""
    versions = collections.Counter()
    first = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_GET(self):
            day = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)["from"][0][:10]
            versions[day] += 1
            records = [{"id": 1, "day": day, "version": versions[day], "text": "x" * 40}]
            if first.setdefault("day", day) == day:
                records.append({"id": None, "day": day, "version": 0, "text": ""})
            body = json.dumps({"data": records}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}", first


class Lake:
    """A project, and the program to run in it."""

    def __init__(self, program, root, base, days, loads):
        self.program, self.root = program, root
        today = datetime.datetime.now(datetime.timezone.utc).date()
        first, self.last = today - datetime.timedelta(days=days), today - datetime.timedelta(days=1)
        project = lambda until: (root / "landfall.yml").write_text(PROJECT.format(base=base, first=first, until=until))
        if not root.exists():
            root.mkdir(parents=True)
            project(BY_DAY)
            self.run(["extract"])
            self.run(["transform"])
            project("")
            for _ in range(loads - 1):
                self.run(["extract"])
                self.run(["transform"])
        project("")

    def command(self, words):
        return [self.program, "--project", str(self.root), *(word.format(last=self.last) for word in words)]

    def run(self, words):
        done = subprocess.run(self.command(words), capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{words}: {done.returncode}\n{done.stderr[-4000:]}")

    def timed(self, words):
        """Wall and CPU seconds."""
        used = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
        began, before = time.perf_counter(), used()
        self.run(words)
        return time.perf_counter() - began, used() - before

    def asked(self, words):
        """What the command asks of the file system of the lake, by kind."""
        with tempfile.NamedTemporaryFile("r") as trace:
            command = ["strace", "-f", "-y", "-qq", "-o", trace.name, "-e", f"trace={CALLS}", *self.command(words)]
            subprocess.run(command, capture_output=True, check=True)
            return kinds(trace, str((self.root / "lake").resolve()))


def kinds(trace, lake):
    asked = collections.Counter()
    for line in trace:
        found = re.search(r"(\w+)\((.*)", line)
        if not found or lake not in line:
            continue
        call, rest = found.groups()
        if call == "getdents64":
            asked["listed"] += 1
        elif "open" not in call:
            asked["looked"] += 1
        elif "O_DIRECTORY" in rest:
            pass
        elif "O_CREAT" in rest:
            asked["written"] += 1
        elif "/_delta_log/" in rest:
            asked["delta"] += 1
        elif "/_log/" in rest:
            asked["log"] += 1
        else:
            asked["data"] += 1
    return asked


def table(title, lakes, runs):
    """Runs every command in every lake, and prints one line for each command."""
    print(f"\n{title + ', ms wall (CPU)':<36}" + "".join(f"{size:>16,}" for size in lakes))
    strace = shutil.which("strace")
    details = []
    for name, words in COMMANDS.items():
        least, asked = [], []
        for lake in lakes.values():
            # Each of these needs the other before it can do the same again.
            before = {"extract, one page": ["transform"], "transform, one batch": ["extract"]}.get(name, ["--version"])
            seconds = []
            for _ in range(runs):
                lake.run(before)
                seconds.append(lake.timed(words))
            least.append([min(one) * 1000 for one in zip(*seconds)])
            if strace:
                lake.run(before)
                asked.append(lake.asked(words))
        cells = "".join(f"{wall:>8.0f} {f'({cpu:.0f})':>7}" for wall, cpu in least)
        print(f"{name:<36}{cells}{least[-1][1] / least[0][1]:>8.1f} ×", flush=True)
        details.append((name, asked))
    if not strace:
        return
    print("\nasked of the lake: opened of raw log + Delta log + data, written | folders read | looked for")
    for name, asked in details:
        cells = (
            f"{one['log']}+{one['delta']}+{one['data']}, {one['written']} | {one['listed']} | {one['looked']}"
            for one in asked
        )
        print(f"{name:<24}" + "".join(f"{cell:>34}" for cell in cells))


def numbers(text):
    return [int(number) for number in text.split(",") if number]


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("landfall")
    arguments.add_argument("--sizes", type=numbers, default=[10, 1000, 10000])
    arguments.add_argument("--loads", type=numbers, default=[10, 100, 1000])
    arguments.add_argument("--runs", type=int, default=5)
    arguments.add_argument("--keep")
    options = arguments.parse_args()
    root = pathlib.Path(options.keep or tempfile.mkdtemp(prefix="landfall-planning-"))
    program = str(pathlib.Path(options.landfall).resolve())
    base, first = serve()
    try:
        sizes, loads = {}, {}
        for size in options.sizes:
            first.clear()
            sizes[size] = Lake(program, root / f"batches-{size}", base, size, 1)
        for count in options.loads:
            first.clear()
            loads[count] = Lake(program, root / f"loads-{count}", base, 1, count)
        if sizes:
            table("raw batches and files", sizes, options.runs)
        if loads:
            table("loads", loads, options.runs)
    finally:
        if not options.keep:
            shutil.rmtree(root)


if __name__ == "__main__":
    main()
