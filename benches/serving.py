#!/usr/bin/env python3
"""How many events a second `landfall serve` makes durable, how soon it says so, and what that costs.

    benches/serving.py PATH/TO/landfall [--seconds 20] [--connections 64] [--only NAME[,NAME]] [--dir DIR]

Loads the server on loopback with wrk (Debian: wrk), on the same cores. Cases:

    single      one event a request, as fast as it goes
    half        the same at half of that rate
    unshipped   as `single`, but nothing is taken to the lake meanwhile: what is missing to `single` is what shipping costs
    batch       500 records a request, as fast as it goes
    half_batch  the same at half of that rate
    noisy       a quiet producer by itself, and beside one that sends a hundred times what it may
    burst       a steady load, then ten times that for --seconds (30 by the requirement), then the steady load until the spool
                is empty again; asked for by --only

Each prints one line of JSON: requests and records a second, percentiles of the time to the acknowledgement in milliseconds,
processor seconds of the server per 1,000 requests, its resident memory every second, and what was refused. After each case the
server ends in good order, and as many records must stand in the raw log as were acknowledged: more only by what was under way
when wrk hung up. Needs Linux, for /proc.
"""

import argparse
import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import threading
import time
import urllib.request

RECORDS_PER_BATCH = 500
QUIET_PER_SECOND = 100
QUIET_CONNECTIONS = 8

# The noisy one may send as much as the quiet one sends, and sends a hundred times that and more.
PROJECT = """lake: ./lake
serve:
  listen: 127.0.0.1:0
  admin_listen: 127.0.0.1:0
  spool: {{ segment_age: {age} }}
  tiers: {{ unbounded: {{ requests: 1000000000, bytes: 1TiB }} }}
producers:
  loader: {{ streams: ['bench.*'], tier: unbounded, tokens: {{ main: {{ hash: '{loader}' }} }} }}
  noisy: {{ streams: ['bench.*'], limits: {{ requests: {noisy}, per: 10s }}, tokens: {{ main: {{ hash: '{other}' }} }} }}
sources:
  bench:
    streams:
      orders: {{ push: {{}}, table: {{ keys: [id] }} }}
      others: {{ push: {{}}, table: {{ keys: [id] }} }}
"""

SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "{content_type}"
wrk.headers["Authorization"] = "Bearer {token}"
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
file:close()
{delay}
function done(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format(
        '\\n{{"requests":%d,"seconds":%.3f,"refused":%d,"broken":%d,"p50":%.3f,"p99":%.3f,"p999":%.3f,"most":%.3f}}\\n',
        summary.requests, summary.duration / 1e6, errors.status, errors.connect + errors.read + errors.write + errors.timeout,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3, latency.max / 1e3))
end
"""

# Each connection pauses between requests, by chance, so that they do not come in step.
DELAY = "function delay() return math.random() * {pause} * 2 end"


def record(number):
    return {
        "id": number,
        "updated_at": "2026-11-22T12:00:00Z",
        "customer": {"id": number % 1000, "email": f"customer{number % 1000}@shop.example", "country": "DE"},
        "lines": [{"sku": f"sku-{number % 97}", "quantity": 1 + number % 5, "price": "19.99"}],
        "note": "leave it at the door if nobody is at home",
    }


class Server:
    def __init__(self, binary, work, age):
        self.binary, self.work = binary, work
        made = [subprocess.run([binary, "token"], capture_output=True, text=True, check=True) for _ in range(2)]
        self.tokens = [run.stdout.strip() for run in made]
        loader, other = (run.stderr.strip().removeprefix("hash: ") for run in made)
        project = PROJECT.format(age=age, loader=loader, other=other, noisy=QUIET_PER_SECOND * 10)
        (work / "landfall.yml").write_text(project)
        command = [binary, "--project", work, "serve"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.url = None
        for line in self.process.stderr:
            if line.startswith("producers "):
                self.url = line.split()[1]
            if line.startswith("health and metrics "):
                self.admin = line.split()[-1]
                break
        else:
            raise SystemExit("the server does not start")
        threading.Thread(target=lambda: list(self.process.stderr), daemon=True).start()
        self.resident = []
        self.watching = threading.Event()
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self):
        while not self.watching.wait(1):
            try:
                status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
            except OSError:
                return
            found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.M)
            if found:
                self.resident.append(int(found[1]) // 1024)

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def metric(self, name):
        with urllib.request.urlopen(f"{self.admin}/metrics", timeout=60) as answer:
            found = re.search(rf"^{name} (\S+)$", answer.read().decode(), re.M)
        return float(found[1])

    def stop(self):
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(600) != 0:
            raise SystemExit("the server did not end well")
        self.watching.set()
        return round(time.monotonic() - began, 2)

    def landed(self, stream):
        query = f"SELECT count(*) n FROM bench.{stream}__raw"
        command = [self.binary, "--project", self.work, "sql", "--format", "json", query]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(run.stdout.splitlines()[0])["n"]


class Load:
    """One wrk with one body."""

    def __init__(self, server, stream, token, body, content_type, connections, seconds, pause=0.0):
        name = server.work / f"wrk-{stream}"
        name.with_suffix(".body").write_text(body)
        delay = DELAY.format(pause=pause) if pause else ""
        script = SCRIPT.format(content_type=content_type, token=token, body=name.with_suffix(".body"), delay=delay)
        name.with_suffix(".lua").write_text(script)
        url = f"{server.url}/v1/streams/bench/{stream}/records"
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", name.with_suffix(".lua"), url]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def result(self):
        told, _ = self.process.communicate()
        return json.loads(told.strip().splitlines()[-1])


def case(arguments, name, records, pause=0.0, age="3s"):
    body = "".join(json.dumps(record(number)) + "\n" for number in range(records))
    content_type = "application/x-ndjson" if records > 1 else "application/json"
    with tempfile.TemporaryDirectory(prefix="landfall-serving-", dir=arguments.dir) as work:
        server = Server(arguments.binary, pathlib.Path(work), age)
        shape = (server.tokens[0], body, content_type, arguments.connections, arguments.seconds, pause)
        before = server.cpu_seconds()
        result = Load(server, "orders", *shape).result()
        cpu = server.cpu_seconds() - before
        stopped = server.stop()
        landed = server.landed("orders")
        taken = result["requests"] - result["refused"]
        if not taken * records <= landed <= (taken + arguments.connections) * records:
            raise SystemExit(f"{name}: {taken * records} records acknowledged, {landed} landed")
        told = {
            "case": name,
            "requests_per_second": round(taken / result["seconds"]),
            "records_per_second": round(taken * records / result["seconds"]),
            "body_bytes": len(body),
            **{key: result[key] for key in ("p50", "p99", "p999", "most", "refused", "broken")},
            "cpu_seconds_per_1000": round(cpu / max(taken, 1) * 1000, 3),
            "resident_mib": server.resident,
            "stopped_in_s": stopped,
        }
        print(json.dumps(told), flush=True)
        return taken / result["seconds"]


def noisy(arguments):
    body = json.dumps(record(1))
    pause = 1000 * QUIET_CONNECTIONS / QUIET_PER_SECOND
    with tempfile.TemporaryDirectory(prefix="landfall-serving-", dir=arguments.dir) as work:
        server = Server(arguments.binary, pathlib.Path(work), "3s")

        def quiet():
            shape = (server.tokens[0], body, "application/json", QUIET_CONNECTIONS, arguments.seconds, pause)
            return Load(server, "orders", *shape)

        alone = quiet().result()
        spread = 1000 * arguments.connections / (QUIET_PER_SECOND * 100)
        flood = (server.tokens[1], body, "application/json", arguments.connections, arguments.seconds, spread)
        loads = [quiet(), Load(server, "others", *flood)]
        beside, flooded = (load.result() for load in loads)
        server.stop()
    told = {
        "case": "noisy",
        "quiet_alone": {key: alone[key] for key in ("requests", "p50", "p99", "p999", "refused")},
        "quiet_beside": {key: beside[key] for key in ("requests", "p50", "p99", "p999", "refused")},
        "p99_ratio": round(beside["p99"] / alone["p99"], 2),
        "noisy_per_second": round(flooded["requests"] / flooded["seconds"]),
        "noisy_refused": flooded["refused"],
    }
    print(json.dumps(told), flush=True)


def burst(arguments, steady=200):
    body = json.dumps(record(1))
    with tempfile.TemporaryDirectory(prefix="landfall-serving-", dir=arguments.dir) as work:
        server = Server(arguments.binary, pathlib.Path(work), "3s")

        def load(rate, seconds):
            pause = 1000 * arguments.connections / rate
            shape = (server.tokens[0], body, "application/json", arguments.connections, seconds, pause)
            result = Load(server, "orders", *shape).result()
            result["spool_bytes"] = server.metric("landfall_spool_bytes")
            return result

        before, burst, after = load(steady, 5), load(10 * steady, arguments.seconds), load(steady, 5)
        began = time.monotonic()
        while server.metric("landfall_spool_segments") > 0 and time.monotonic() - began < 600:
            time.sleep(0.1)
        drained = round(time.monotonic() - began, 2)
        server.stop()
        taken = sum(result["requests"] - result["refused"] for result in (before, burst, after))
        landed = server.landed("orders")
        if not taken <= landed <= taken + 3 * arguments.connections:
            raise SystemExit(f"burst: {taken} records acknowledged, {landed} landed")
    shown = ("requests", "seconds", "p50", "p99", "p999", "refused", "broken", "spool_bytes")
    told = {"case": "burst", "drained_in_s": drained}
    for name, result in (("before", before), ("burst", burst), ("after", after)):
        told[name] = {key: result[key] for key in shown}
    print(json.dumps(told), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--only", help="these cases alone")
    parser.add_argument("--dir", help="where spool and lake are; by default where temporary files are")
    arguments = parser.parse_args()
    wanted = set((arguments.only or "single,half,unshipped,batch,half_batch,noisy").split(","))

    def paced(rate):
        return 1000 * arguments.connections / (rate / 2)

    if wanted & {"single", "half"}:
        rate = case(arguments, "single", 1)
        if "half" in wanted:
            case(arguments, "half", 1, paced(rate))
    if "unshipped" in wanted:
        case(arguments, "unshipped", 1, age="600s")
    if wanted & {"batch", "half_batch"}:
        rate = case(arguments, "batch", RECORDS_PER_BATCH)
        if "half_batch" in wanted:
            case(arguments, "half_batch", RECORDS_PER_BATCH, paced(rate))
    if "noisy" in wanted:
        noisy(arguments)
    if "burst" in wanted:
        burst(arguments)


if __name__ == "__main__":
    main()
