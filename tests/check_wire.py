"""Damages messages of all kinds and reads them: all that may happen is that one is read, or refused.

PYTHONPATH=src:tests python tests/check_wire.py [CASES] [--seed SEED]

CASES is 1,000,000 by default, which takes some minutes. Bits are flipped, parts cut out, repeated or joined with those
of another message, values of the header replaced, removed, repeated or nested, and now and then megabytes put into it.
Prints what came of the cases, and the peak of memory; ends with 1 if anything but a refusal came of one.
"""

import argparse
import re
import sys
import time
from pathlib import Path

from wire_messages import read_mutated, record_messages


def memory(name):
    """Of this process in MiB: ``VmRSS`` now, or ``VmHWM`` at most since it was reset."""
    return int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 2**10


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    kinds = sorted({message.kind for pair in record_messages() for message in pair})
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak, on Linux
    before, began = memory("VmRSS"), time.perf_counter()
    outcomes = read_mutated(given.cases, given.seed)
    print(f"{sum(outcomes.values()):,} damaged messages of {len(kinds)} kinds in {time.perf_counter() - began:.0f} s")
    for outcome, n in sorted(outcomes.items(), key=lambda item: -item[1]):
        print(f"{n:10,} {outcome}")
    print(f"peak of memory: {memory('VmHWM'):.0f} MiB, {memory('VmHWM') - before:.0f} MiB more than before")
    sys.exit(set(outcomes) - {"read", "WireFormatError"} != set())


if __name__ == "__main__":
    main()
