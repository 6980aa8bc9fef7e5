"""Mutation testing: changes the code in small ways, one at a time, and counts the changes that no test notices.

make mutate                                     every package, a sample of 200 mutants of each
python tools/mutate.py losses statistics -n 0   every mutant of two packages
python tools/mutate.py counterfactual.values    of one module

mutmut makes the mutants and runs the tests that reach them; the settings are in pyproject.toml. The sample is f(seed), so
that a run can be repeated and compared; what was killed before is not run again, unless its code has changed. Says the
share that was killed, and every mutant that survived: `mutmut show NAME` shows what it changes.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

PACKAGES = ("losses", "statistics", "counterfactual", "objectives", "fusion", "trainers")
#: What mutmut says of a mutant that a test noticed. A loop without end is noticed, too.
KILLED = ("killed", "timeout", "segfault", "suspicious")
MUTMUT = str(Path(sys.executable).with_name("mutmut"))


def results() -> dict[str, str]:
    """Name of every mutant -> what became of it."""
    said = subprocess.run([MUTMUT, "results", "--all", "true"], capture_output=True, text=True, check=True).stdout
    return dict(line.strip().split(": ", 1) for line in said.splitlines() if ": " in line)


def chosen(names: list[str], count: int, seed: int) -> list[str]:
    """`count` of the names at random, or all where it is 0; the same for the same seed."""
    return sorted(names) if count == 0 else sorted(random.Random(seed).sample(sorted(names), min(count, len(names))))


def main() -> int:
    """Runs the mutants of every part that was asked for and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=PACKAGES, help="packages or modules below medssml")
    parser.add_argument("-n", "--sample", type=int, default=200, help="mutants of each part; 0: all of them")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--again", action="store_true", help="also those that the tests have killed before")
    parser.add_argument("--children", type=int, default=2, help="processes")
    given = parser.parse_args()

    # A name that is none's: the mutants are made and the tests are timed, and nothing runs.
    made = subprocess.run([MUTMUT, "run", "none"], capture_output=True, text=True).stdout
    if not Path("mutants/mutmut-stats.json").exists():
        print(f"{made[-2000:]}\nthe tests fail before a mutant is tried; fix: run them, then start again")
        return 1
    known, tried = results(), {}
    for part in given.parts:
        own = [name for name in known if name.startswith(f"medssml.{part}.")]
        if not own:
            print(f"no mutant of medssml.{part}; fix: a package of only_mutate in pyproject.toml")
            return 2
        tried[part] = (len(own), chosen(own, given.sample, given.seed))
    open_ones = [name for _, names in tried.values() for name in names if given.again or known[name] not in KILLED]
    if open_ones:
        command = [MUTMUT, "run", "--max-children", str(given.children), *open_ones]
        if subprocess.run(command, stdout=subprocess.DEVNULL).returncode != 0:
            print("mutmut failed; fix: run the tests, then rm -r mutants and start again")
            return 1

    found = results()
    for part, (total, names) in tried.items():
        counts = Counter(found[name] for name in names)
        killed = sum(counts[status] for status in KILLED)
        print(f"{part}: {killed} of {len(names)} killed, {killed / len(names):.1%} ({total} mutants)")
        print(*(f"    {found[name]}: {name}" for name in names if found[name] not in KILLED), sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
