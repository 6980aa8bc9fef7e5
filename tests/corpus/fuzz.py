"""Seeded mutation fuzzing of every reader, header and whole file, each input under a time limit and a memory gauge.

    python -m tests.corpus.fuzz --inputs 20000 --seed 0

Inputs are the readable files of the fault corpus, broken in ways that f(seed, number) decides. A reader may accept what is
left or refuse it with a `ReadError`; any other exception, 5 s of computing, or 1 GiB over the base is a failure. Inputs
run in a process of their own, so that a hang or a crash is a line in the result and not the end of the run.
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import resource
import shutil
import tempfile
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np

LIMIT_S = 5.0
LIMIT_BYTES = 1 << 30
#: A process that says nothing for so long hangs; what ends is measured in the time it computed, not in that it waited.
_SILENCE_S = 60.0
#: So that a reader that asks for everything hurts this run and not the machine.
_ADDRESS_SPACE = 6 << 30
_WARM_UP_S = 300.0
_PNG = b"\x89PNG\r\n\x1a\n"
_EXTREMES = (
    b"\0" * 8,
    b"\xff" * 8,
    b"\x7f" + b"\xff" * 7,
    b"\xff" * 7 + b"\x7f",
    b"\0" * 7 + b"\x80",
    b"\0\0\xc0\x7f" * 2,
)
_TEXTS = (b"-1", b"0", b"1e308", b"nan", b"99999999999", b"%s%n", b"\xc3\x28", b"<", b'"', b"\\", b"]]>", b"&a;", b"\n")


class Seed(NamedTuple):
    """A readable input. format: what the table of results calls it."""

    kind: str
    format: str
    path: Path


class Result(NamedTuple):
    """What became of one input. outcome: read, refused, a name of an exception, hang or crash."""

    number: int
    format: str
    outcome: str
    seconds: float
    over_base: int
    detail: str = ""


@dataclass
class Summary:
    """Counts per format and outcome, and the worst of time and memory."""

    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    slowest_s: float = 0.0
    most_bytes: int = 0
    failures: list[Result] = field(default_factory=list)

    def add(self, result: Result) -> None:
        self.counts[result.format][result.outcome] += 1
        self.slowest_s = max(self.slowest_s, result.seconds)
        self.most_bytes = max(self.most_bytes, result.over_base)
        if result.outcome not in ("read", "refused") or result.seconds > LIMIT_S or result.over_base > LIMIT_BYTES:
            self.failures.append(result)


def seeds(folder: Path) -> list[Seed]:
    """Every input of the fault corpus that a reader accepts, written below `folder`."""
    from medssml.readers import READERS, ReadError
    from tests.corpus import eeg, kinds, radiographs, texts, values, volumes

    found = []
    for number, case in enumerate(
        case for part in (volumes, radiographs, eeg, texts, values, kinds) for case in part.cases()
    ):
        place = folder / f"{number:04d}"
        place.mkdir()
        path = case.make(place)
        try:
            READERS[case.family](path)
        except ReadError:
            continue
        if size(path) < 4 << 20:
            found.append(Seed(case.family, format_of(path, case.family), path))
    return found


def size(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*")) if path.is_dir() else path.stat().st_size


def format_of(path: Path, kind: str) -> str:
    """nii.gz, dicom series, dicom, png, edf, ...: by the first bytes where they say it, else by the ending."""
    if path.is_dir():
        return "dicom series"
    if path.read_bytes()[128:132] == b"DICM":
        return "dicom"
    name = path.name.lower()
    ending = next((end for end in ("nii.gz", "fif.gz") if name.endswith(end)), path.suffix.lower().lstrip("."))
    return f"table, {ending}" if kind == "table" else ending or "text without an ending"


def mutated(seed: Seed, others: list[Seed], rng: np.random.Generator, folder: Path) -> Path:
    """A copy of `seed` in `folder`, one of its files broken."""
    place = folder / "input"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(seed.path.parent, place)
    target = place / seed.path.name
    near = (
        sorted(p for p in place.rglob("*") if p.is_file()) if target.is_dir() or len(list(place.iterdir())) > 1 else []
    )
    file = near[int(rng.integers(len(near)))] if near and (target.is_dir() or rng.random() < 0.5) else target
    data = file.read_bytes()
    # Behind compression and checksums too: a broken stream alone would hide what lies behind it from most inputs.
    packed = data[:2] == b"\x1f\x8b" and rng.random() < 0.7
    body = gzip.decompress(data) if packed else data
    for _ in range(int(rng.choice([1, 1, 1, 2, 4]))):
        body = _MUTATIONS[int(rng.integers(len(_MUTATIONS)))](body, rng, others)
    body = _with_checksums(body) if body[:8] == _PNG and rng.random() < 0.7 else body
    file.write_bytes(gzip.compress(body, 1) if packed else body)
    return target


def _with_checksums(png: bytes) -> bytes:
    """A broken PNG whose chunks have the checksum of what they hold now."""
    out, at = bytearray(png), 8
    while at + 12 <= len(out):
        end = at + 8 + int.from_bytes(out[at : at + 4], "big")
        if end + 4 > len(out):
            break
        out[end : end + 4] = zlib.crc32(out[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(out)


def _where(data: bytes, rng: np.random.Generator) -> int:
    """A position, in the first KiB half of the time: that is where headers are."""
    return int(rng.integers(max(1, min(len(data), 1024) if rng.random() < 0.5 else len(data))))


def _bits(data: bytes, rng: np.random.Generator, _: list[Seed]) -> bytes:
    out = bytearray(data)
    for _bit in range(int(rng.integers(1, 9)) if out else 0):
        out[_where(data, rng)] ^= 1 << int(rng.integers(8))
    return bytes(out)


def _noise(data: bytes, rng: np.random.Generator, _: list[Seed]) -> bytes:
    at = _where(data, rng)
    return data[:at] + rng.bytes(int(rng.integers(1, 33))) + data[at + int(rng.integers(0, 33)) :]


def _extreme(data: bytes, rng: np.random.Generator, _: list[Seed]) -> bytes:
    at, width = _where(data, rng), int(rng.choice([1, 2, 4, 8]))
    return data[:at] + _EXTREMES[int(rng.integers(len(_EXTREMES)))][:width] + data[at + width :]


def _word(data: bytes, rng: np.random.Generator, _: list[Seed]) -> bytes:
    at, word = _where(data, rng), _TEXTS[int(rng.integers(len(_TEXTS)))]
    return data[:at] + word + data[at + (len(word) if rng.random() < 0.5 else 0) :]


def _digits(data: bytes, rng: np.random.Generator, _: list[Seed]) -> bytes:
    places = [i for i in range(min(len(data), 4096)) if 48 <= data[i] < 58]
    out = bytearray(data)
    for at in rng.choice(places, min(len(places), 4)) if places else ():
        out[at] = int(rng.integers(48, 58))
    return bytes(out)


def _truncate(data: bytes, rng: np.random.Generator, _: list[Seed]) -> bytes:
    return data[: _where(data, rng)]


def _remove(data: bytes, rng: np.random.Generator, _: list[Seed]) -> bytes:
    at = _where(data, rng)
    return data[:at] + data[at + int(rng.integers(1, 1 + max(1, len(data) // 4))) :]


def _repeat(data: bytes, rng: np.random.Generator, _: list[Seed]) -> bytes:
    at, length = _where(data, rng), int(rng.integers(1, 257))
    return data[:at] + data[at : at + length] * int(rng.integers(2, 20)) + data[at + length :]


def _splice(data: bytes, rng: np.random.Generator, others: list[Seed]) -> bytes:
    """The beginning of this file and the end of another of the same kind."""
    other = others[int(rng.integers(len(others)))].path
    end = (sorted(p for p in other.rglob("*") if p.is_file())[0] if other.is_dir() else other).read_bytes()
    return data[: _where(data, rng)] + end[_where(end, rng) :]


Mutation = Callable[[bytes, np.random.Generator, list[Seed]], bytes]
_MUTATIONS: tuple[Mutation, ...] = (
    _bits, _bits, _noise, _extreme, _extreme, _word, _digits, _truncate, _remove, _repeat, _splice,
)  # fmt: skip


def attempt(number: int, seed: int, every: dict[str, list[Seed]], folder: Path) -> tuple[str, str, str]:
    """(format, outcome, detail) of input `number`. Formats take turns, so that each gets its share of the inputs."""
    from medssml.readers import HEADERS, READERS, ReadError

    rng = np.random.default_rng([seed, number])
    formats = sorted(every)
    mine = every[formats[number % len(formats)]]
    chosen = mine[int(rng.integers(len(mine)))]
    others = [other for part in every.values() for other in part if other.kind == chosen.kind]
    path = mutated(chosen, others, rng, folder)
    outcome, detail = "read", ""
    for reader in (HEADERS[chosen.kind], READERS[chosen.kind]):
        try:
            reader(path)
        except ReadError:
            outcome = "refused"
        except BaseException as error:
            return chosen.format, type(error).__name__, f"{reader.__name__}: {error}"[:300]
    return chosen.format, outcome, detail


def _worker(pipe: Connection, source: Path, first: int, last: int, seed: int) -> None:
    """Tries the inputs `first` to `last` - 1; sends their results, before each its number."""
    from medssml.readers import HEADERS, READERS

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    every: dict[str, list[Seed]] = defaultdict(list)
    for kind, format_, path in json.loads((source / "seeds.json").read_text()):
        every[format_].append(Seed(kind, format_, source / path))
    for some in every.values():  # everything is imported and has run once before anything is measured
        for reader in (HEADERS[some[0].kind], READERS[some[0].kind]):
            reader(some[0].path)
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + _ADDRESS_SPACE, hard))
    base = _status("VmRSS")
    with tempfile.TemporaryDirectory() as folder:
        pipe.send("ready")
        for number in range(first, last):
            _forget_peak()
            start = time.process_time()
            format_, outcome, detail = attempt(number, seed, every, Path(folder))
            seconds = time.process_time() - start
            pipe.send(Result(number, format_, outcome, seconds, _status("VmHWM") - base, detail))
    pipe.send("done")


def _status(name: str) -> int:
    """A line of /proc/self/status in bytes."""
    text = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name}:"))) * 1024


def _forget_peak() -> None:
    """VmHWM starts anew where the system allows it; elsewhere it is the peak of the whole run, which is as good a bound."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def results(inputs: int, seed: int, source: Path, kind: str = "") -> Iterator[Result]:
    """The results of all inputs, in order; a process that hangs or dies is replaced and goes on behind that input."""
    found = [seed for seed in seeds(source) if kind in ("", seed.kind)]
    lines = [(seed.kind, seed.format, str(seed.path.relative_to(source))) for seed in found]
    (source / "seeds.json").write_text(json.dumps(lines))
    context = multiprocessing.get_context("spawn")
    number = 0
    while number < inputs:
        ours, theirs = context.Pipe()
        process = context.Process(target=_worker, args=(theirs, source, number, inputs, seed), daemon=True)
        process.start()
        theirs.close()
        limit = _WARM_UP_S
        while True:
            lost = ""
            try:
                message = ours.recv() if ours.poll(limit) else None
                lost = "hang" if message is None else ""
            except EOFError:
                message, lost = None, "crash"
            if lost and limit == _WARM_UP_S:
                raise RuntimeError(f"the process that reads ended before its first input ({lost})")
            if message == "done":
                break
            if lost:
                process.kill()
                yield Result(number, "?", lost, _SILENCE_S, 0)
                number += 1
                break
            limit = _SILENCE_S
            if message != "ready":
                yield message
                number = message.number + 1
        process.join()


def fuzz(inputs: int, seed: int = 0, progress: Callable[[int], None] | None = None, kind: str = "") -> Summary:
    """Runs `inputs` inputs, of one kind of modality or of all, and says what became of them."""
    summary = Summary()
    with tempfile.TemporaryDirectory() as folder:
        for done, result in enumerate(results(inputs, seed, Path(folder), kind), start=1):
            summary.add(result)
            if progress is not None:
                progress(done)
    return summary


def main(arguments: list[str] | None = None) -> int:
    """Prints a table; exit code 1 where any input failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", default="", help="ct, xray, eeg, report or table; all without it")
    parser.add_argument("--out", type=Path, help="the results as JSON as well")
    told = parser.parse_args(arguments)
    start = time.monotonic()
    said = lambda done: print(f"{done} inputs", flush=True) if done % 1000 == 0 else None  # noqa: E731
    summary = fuzz(told.inputs, told.seed, said, told.kind)
    outcomes = sorted({name for counts in summary.counts.values() for name in counts})
    print("| format | inputs |", " | ".join(outcomes), "|")
    print("|---" * (2 + len(outcomes)) + "|")
    for name, counts in sorted(summary.counts.items()):
        print(f"| {name} | {sum(counts.values())} |", " | ".join(str(counts[o]) for o in outcomes), "|")
    print(f"slowest {summary.slowest_s:.2f} s; most memory over base {summary.most_bytes / 2**20:.0f} MiB; "
          f"{time.monotonic() - start:.0f} s in all; {len(summary.failures)} failures")  # fmt: skip
    for failure in summary.failures:
        print(failure)
    if told.out is not None:
        told.out.write_text(json.dumps({"counts": summary.counts, "failures": summary.failures}, indent=1))
    return 1 if summary.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
