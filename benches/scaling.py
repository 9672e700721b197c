#!/usr/bin/env python3
"""How the time and the memory of a merge follow the table, the batch and the number of files; draws benches/scaling.svg.

    benches/scaling.py PATH/TO/parts [--most-rows 10000000] [--most-files 10000] [--rounds 3]

PATH/TO/parts is the program that `cargo bench --locked --bench parts --no-run` names. Every measurement is a process of its own
on a fresh copy of its table; the fastest of the rounds counts.
"""

import argparse
import math
import pathlib
import shutil
import subprocess
import tempfile

SIDES = {"landfall": "#0b6e4f", "landfall-on-read": "#c77700", "delta-rs": "#5b4fa3"}
NAMES = {"landfall": "Landfall, copy on write", "landfall-on-read": "Landfall, merge on read", "delta-rs": "delta-rs MERGE"}
ROWS = 1_000_000
FILES = 10
APPENDS_MAX = 100


def run(parts, *words):
    done = subprocess.run([parts, "merge", *map(str, words)], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return done.stdout


class Bench:
    def __init__(self, parts, folder, rounds):
        self.parts, self.folder, self.rounds = parts, folder, rounds

    def table(self, side, rows, files):
        """A table of `rows` rows in `files` files, made once."""
        # Appends to a table of many files take delta-rs longer and longer: those are written at once, for all sides.
        maker = "files" if files > APPENDS_MAX else "delta-rs" if side == "delta-rs" else "landfall"
        place = self.folder / f"{maker}-{rows}-{files}"
        if not place.exists():
            run(self.parts, "make", maker, place, rows, files)
        return place

    def measure(self, side, shape, rows, files):
        """Seconds and MiB of one merge."""
        copy, found = self.folder / "copy", []
        for _ in range(self.rounds):
            subprocess.run(["cp", "-al", self.table(side, rows, files), copy], check=True)
            seconds, _, mib = run(self.parts, "one", side, shape, copy, rows).split()
            found.append((float(seconds), int(mib)))
            shutil.rmtree(copy)
        return min(found)

    def curve(self, title, label, points):
        """One picture: `points` are (x, shape, rows, files)."""
        curve = {"title": title, "label": label, "sides": {side: [] for side in SIDES}}
        print(f"\n| {label} | " + " | ".join(NAMES.values()) + " |\n|---|" + "---|" * len(SIDES), flush=True)
        for x, shape, rows, files in points:
            cells = []
            for side in SIDES:
                seconds, mib = self.measure(side, shape, rows, files)
                curve["sides"][side].append((x, seconds))
                cells.append(f"{seconds:.2f} s, {mib} MiB")
            print(f"| {x:,} | " + " | ".join(cells) + " |", flush=True)
        for place in self.folder.iterdir():
            shutil.rmtree(place)
        return curve


WIDTH, HEIGHT, LEFT, TOP, PLOT_W, PLOT_H = 400, 330, 58, 46, 320, 220


def panel(curve, shift):
    points = [point for side in curve["sides"].values() for point in side]
    lows = [math.floor(math.log10(min(point[axis] for point in points)) + 1e-9) for axis in (0, 1)]
    highs = [math.ceil(math.log10(max(point[axis] for point in points)) - 1e-9) for axis in (0, 1)]
    highs = [max(high, low + 1) for low, high in zip(lows, highs)]
    x = lambda value: shift + LEFT + (math.log10(value) - lows[0]) / (highs[0] - lows[0]) * PLOT_W
    y = lambda value: TOP + PLOT_H - (math.log10(value) - lows[1]) / (highs[1] - lows[1]) * PLOT_H
    out = [f'<text x="{shift + LEFT}" y="22" font-weight="600">{curve["title"]}</text>']
    for power in range(lows[0], highs[0] + 1):
        at = x(10**power)
        out.append(f'<path d="M{at:.1f} {TOP}V{TOP + PLOT_H}" class="grid"/>')
        out.append(f'<text x="{at:.1f}" y="{TOP + PLOT_H + 18}" text-anchor="middle">{10**power:,}</text>')
    for power in range(lows[1], highs[1] + 1):
        at = y(10.0**power)
        out.append(f'<path d="M{shift + LEFT} {at:.1f}H{shift + LEFT + PLOT_W}" class="grid"/>')
        out.append(f'<text x="{shift + LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{10.0**power:g} s</text>')
    out.append(f'<text x="{shift + LEFT + PLOT_W / 2}" y="{TOP + PLOT_H + 38}" text-anchor="middle">{curve["label"]}</text>')
    for side, line in curve["sides"].items():
        path = "L".join(f"{x(at):.1f} {y(seconds):.1f}" for at, seconds in line)
        out.append(f'<path d="M{path}" fill="none" stroke="{SIDES[side]}" stroke-width="2"/>')
        out += [f'<circle cx="{x(at):.1f}" cy="{y(seconds):.1f}" r="3" fill="{SIDES[side]}"/>' for at, seconds in line]
    return out


def draw(curves, path):
    width = WIDTH * len(curves)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#222">',
        "<style>.grid{stroke:#ddd;stroke-width:1;fill:none}</style>",
        f'<rect width="{width}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for number, curve in enumerate(curves):
        out += panel(curve, number * WIDTH)
    for number, (side, color) in enumerate(SIDES.items()):
        at = LEFT + number * 210
        out.append(f'<rect x="{at}" y="{HEIGHT - 18}" width="12" height="12" fill="{color}"/>')
        out.append(f'<text x="{at + 18}" y="{HEIGHT - 8}">{NAMES[side]}</text>')
    path.write_text("\n".join([*out, "</svg>", ""]))


def powers(first, last):
    value = first
    while value <= last:
        yield value
        value *= 10


def main():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("parts", type=pathlib.Path)
    words.add_argument("--most-rows", type=int, default=10_000_000)
    words.add_argument("--most-files", type=int, default=10_000)
    words.add_argument("--rounds", type=int, default=3)
    given = words.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(given.parts.resolve(), pathlib.Path(folder), given.rounds)
        curves = [
            bench.curve(
                "10,000 spread rows into a growing table",
                "rows in the table",
                [(rows, "spread:10000", rows, FILES) for rows in powers(100_000, given.most_rows)],
            ),
            bench.curve(
                "A growing batch of spread rows into 1,000,000",
                "rows of the batch",
                [(batch, f"spread:{batch}", ROWS, FILES) for batch in powers(1_000, ROWS)],
            ),
            bench.curve(
                "The newest 1,000 of 1,000,000 rows in more files",
                "files of the table",
                [(files, "newest:1000", ROWS, files) for files in powers(10, given.most_files)],
            ),
        ]
    draw(curves, pathlib.Path(__file__).with_name("scaling.svg"))


if __name__ == "__main__":
    main()
