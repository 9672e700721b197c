#!/usr/bin/env python3
"""Kills `landfall serve` while producers send, again and again, and says whether anything was lost or landed twice.

    benches/kills.py PATH/TO/landfall [--kills 1000] [--producers 6] [--seed 1] [--keep DIR]

Each producer sends batches with an Idempotency-Key and repeats the one that was not answered. Most servers are killed in the
middle of that; every tenth while it reads its spool, and some of them a moment after they were told to end. What was
acknowledged must stand in the raw log, and everything that stands there must stand there once; so must the rows of the table.
Ends with 1 if that is not so. Needs nothing but Python.
"""

import argparse
import collections
import http.client
import json
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time

PROJECT = """lake: ./lake
serve:
  listen: 127.0.0.1:0
  admin_listen: 127.0.0.1:0
  spool: { segment_age: 100ms }
sources:
  bench:
    streams:
      orders: { push: {}, table: { keys: [id] } }
"""

# No server and no answer takes so long, in seconds.
PATIENCE = 120


class Server:
    """A server of its own process."""

    def __init__(self, binary, project):
        command = [binary, "--project", project, "serve"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.said = []
        self.port = None
        for line in self.process.stderr:
            self.said.append(line)
            if line.startswith("producers "):
                self.port = int(line.rsplit(":", 1)[1])
            if line.startswith("health and metrics "):
                break
        # Read on, or the server could not say more.
        threading.Thread(target=lambda: self.said.extend(self.process.stderr), daemon=True).start()
        if self.port is None:
            raise SystemExit(f"the server does not start: {''.join(self.said)}")

    def kill(self):
        self.process.kill()
        self.process.wait(PATIENCE)


class Producer:
    """Sends batches of one record, each with a key, until its server is gone."""

    def __init__(self, name):
        self.name = name
        self.number = 0
        self.unanswered = None
        self.acknowledged = []
        self.refusal = None
        self.last = None

    def send(self, port, count):
        try:
            self.send_all(port, count.add)
        finally:
            count.leave()

    def send_all(self, port, answered):
        self.last = None
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        while True:
            if self.unanswered is None:
                self.unanswered = f"{self.name}-{self.number}"
                self.number += 1
            key = self.unanswered
            headers = {"Content-Type": "application/json", "Idempotency-Key": key}
            try:
                connection.request("POST", "/v1/streams/bench/orders/records", json.dumps([{"id": key}]), headers)
                answer = connection.getresponse()
                status, body = answer.status, answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.last = f"{key}: {error!r}"
                return
            if status == 202:
                self.acknowledged.append(key)
                self.unanswered = None
                answered()
            else:
                # A server that is about to end says so by 503; nothing else is in order.
                self.last = f"{key}: {status} {body}"
                self.refusal = None if status == 503 else self.last
                return


class Count:
    """Waits for a number of answers."""

    def __init__(self, senders):
        self.count = 0
        self.senders = senders
        self.more = threading.Condition()

    def add(self):
        with self.more:
            self.count += 1
            self.more.notify_all()

    def leave(self):
        """One who gave answers gives no more."""
        with self.more:
            self.senders -= 1
            self.more.notify_all()

    def reach(self, count):
        """Whether there were so many; false at once if nobody is left who could add to them."""
        with self.more:
            self.more.wait_for(lambda: self.count >= count or self.senders == 0, PATIENCE)
            return self.count >= count


def one_life(server, producers, answers, end):
    """Has `producers` send to `server` until `answers` were given, then ends it with `end`."""
    count = Count(len(producers))
    threads = [threading.Thread(target=producer.send, args=(server.port, count)) for producer in producers]
    for thread in threads:
        thread.start()
    if not count.reach(answers):
        lasts = [(thread.is_alive(), producer.last) for thread, producer in zip(threads, producers)]
        raise SystemExit(
            f"{count.count} of {answers} answers in time, {server.process.poll()=}: {lasts}, {''.join(server.said)}"
        )
    end(server)
    for thread in threads:
        thread.join(PATIENCE)
        if thread.is_alive():
            raise SystemExit("a producer waits for ever")
    for producer in producers:
        if producer.refusal is not None:
            raise SystemExit(producer.refusal)


def told_then_killed(luck):
    def end(server):
        server.process.send_signal(signal.SIGTERM)
        time.sleep(luck.uniform(0, 0.05))
        server.kill()

    return end


def stopped(server):
    server.process.send_signal(signal.SIGTERM)
    code = server.process.wait(PATIENCE)
    if code != 0:
        raise SystemExit(f"it ends with {code}: {''.join(server.said)}")


def landfall(binary, project, *arguments):
    run = subprocess.run([binary, "--project", project, *arguments], capture_output=True, text=True)
    if run.returncode != 0:
        raise SystemExit(f"landfall {arguments}: {run.stderr}")
    return run.stdout


def rows(binary, project, query):
    return [json.loads(line) for line in landfall(binary, project, "sql", "--format", "json", query).splitlines()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--producers", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", help="work here and leave everything there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="landfall-kills-") as scratch:
        run(arguments, arguments.keep or scratch)


def run(arguments, work):
    project = pathlib.Path(work)
    project.mkdir(parents=True, exist_ok=True)
    (project / "landfall.yml").write_text(PROJECT)
    luck = random.Random(arguments.seed)
    producers = [Producer(f"p{number}") for number in range(arguments.producers)]

    began = time.monotonic()
    for kill in range(arguments.kills):
        server = Server(arguments.binary, work)
        if kill % 10 == 9:
            time.sleep(luck.uniform(0, 0.02))
            server.kill()
            continue
        end = told_then_killed(luck) if kill % 7 == 6 else Server.kill
        one_life(server, producers, luck.randrange(1, 120), end)
        if kill % 100 == 99:
            print(f"{kill + 1} kills, {time.monotonic() - began:.0f} s", file=sys.stderr)
    # The last one ends in good order.
    server = Server(arguments.binary, work)
    one_life(server, producers, 10 * len(producers), stopped)
    elapsed = time.monotonic() - began

    landed = collections.Counter(
        json.loads(row["record"])["id"] for row in rows(arguments.binary, work, "SELECT record FROM bench.orders__raw")
    )
    acknowledged = {key for producer in producers for key in producer.acknowledged}
    lost = acknowledged - landed.keys()
    twice = {key: count for key, count in landed.items() if count > 1}
    landfall(arguments.binary, work, "transform")
    table = rows(arguments.binary, work, "SELECT count(*) n, count(DISTINCT id) d FROM bench.orders")[0]
    result = {
        "kills": arguments.kills,
        "acknowledged": len(acknowledged),
        "landed": len(landed),
        "lost": len(lost),
        "twice": len(twice),
        "rows": table["n"],
        "seconds": round(elapsed, 1),
    }
    print(json.dumps(result))
    if lost or twice or not table["n"] == table["d"] == len(landed):
        print(f"lost: {sorted(lost)[:20]}\ntwice: {dict(list(twice.items())[:20])}", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
