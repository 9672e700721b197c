#!/usr/bin/env python3
"""Judging beside arrow-json and serde_json, in turns: a machine that changes its speed changes it for all of them.

    benches/turns.py PATH/TO/parts [--rounds 30]

PATH/TO/parts is the program that `cargo bench --locked --bench parts --no-run` names. Each round measures every side for a moment, one
behind the other, and gives the ratio of that moment to arrow-json at its fastest batch size of the same round. Printed are the medians
of the rounds, and the middle half of the ratios.
"""

import argparse
import re
import statistics
import subprocess

FORMS = ["Plain", "Pretty", "Odd"]
# A line of the table: the form of the records, and the fastest time.
TIME = re.compile(r"[├╰]─ (\w+) +([\d.]+) (ns|µs|ms|s) ")
SECONDS = {"ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1.0}


def fastest(parts, side):
    """The fastest time of a side in seconds by form; of all its batch sizes, if it has several."""
    command = [parts, "--bench", f"judge::{side}(::|$)", "--sample-count", "3", "--color", "never"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {form: [] for form in FORMS}
    for form, time, unit in TIME.findall(told):
        found[form].append(float(time) * SECONDS[unit])
    return {form: min(times) for form, times in found.items()}


def main():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("parts")
    words.add_argument("--rounds", type=int, default=30)
    given = words.parse_args()
    sides = {"Landfall": "landfall", "arrow-json": "arrow_json", "serde_json values": "serde_json_values"}
    rounds = [{name: fastest(given.parts, side) for name, side in sides.items()} for _ in range(given.rounds)]
    print("| form | " + " | ".join(f"{name}, ms" for name in sides) + " | ratio to arrow-json | middle half |")
    print("|---|" + "---|" * (len(sides) + 2))
    for form in FORMS:
        ratios = [once["arrow-json"][form] / once["Landfall"][form] for once in rounds]
        low, middle, high = statistics.quantiles(ratios, n=4)
        times = " | ".join(f"{statistics.median(once[name][form] for once in rounds) * 1000:.2f}" for name in sides)
        print(f"| {form.lower()} | {times} | {middle:.2f} | {low:.2f} to {high:.2f} |")


if __name__ == "__main__":
    main()
