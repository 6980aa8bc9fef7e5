"""`medssml doctor`: is this machine fit for medssml, and if not, which command makes it so."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from medssml.runs import console

#: Transfer syntaxes of DICOM pixel data that hospitals use.
CODECS = {
    "RLE lossless": "1.2.840.10008.1.2.5",
    "JPEG baseline": "1.2.840.10008.1.2.4.50",
    "JPEG lossless": "1.2.840.10008.1.2.4.70",
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
    "JPEG 2000": "1.2.840.10008.1.2.4.90",
    "HTJ2K": "1.2.840.10008.1.2.4.201",
}
GIB = 1 << 30


class Finding(NamedTuple):
    """One thing that was looked at. state: ok, note (works, but could be better) or missing (medssml will fail)."""

    topic: str
    what: str
    state: Literal["ok", "note", "missing"]
    value: str
    fix: str = ""


def doctor(*, folder: Path = Path(".")) -> dict[str, Any]:
    """Versions, network, codecs, GPU, memory, disk, open files, sqlite: what is missing and the command that fixes it.

    Args:
        folder: where runs will be written; its disk and its locks are tried.

    Returns:
        {"findings": [...], "exit_code": 0, or 2 where something that medssml needs is missing}.
    """
    findings: list[Finding] = []
    for look in (
        _python,
        _network,
        _packages,
        _codecs,
        _compute,
        _memory,
        lambda: _disk(folder),
        lambda: _sqlite(folder),
    ):
        for finding in look():
            findings.append(finding)
            console.say(f"{finding.state:<8}{finding.topic:<10}{finding.what:<26}{finding.value}")
    wanting = [finding for finding in findings if finding.state != "ok"]
    console.say("")
    for finding in wanting:
        console.say(f"{finding.state}: {finding.what}: {finding.value}; fix: {finding.fix}")
    missing = sum(finding.state == "missing" for finding in findings)
    console.say("ready" if not missing else f"{missing} thing{'s' * (missing > 1)} missing, see above")
    return {"findings": [finding._asdict() for finding in findings], "exit_code": 2 if missing else 0}


def _python() -> Iterator[Finding]:
    fine = sys.version_info >= (3, 11)
    fix = "install Python 3.11 or newer, then make install"
    yield Finding("python", "version", "ok" if fine else "missing", platform.python_version(), "" if fine else fix)
    yield Finding("python", "system", "ok", f"{platform.system()} {platform.machine()}")
    if sys.dont_write_bytecode:
        what = "set: large imports take twice as long"
        yield Finding("python", "PYTHONDONTWRITEBYTECODE", "note", what, "unset PYTHONDONTWRITEBYTECODE")
    found = shutil.which("medssml")
    activate = Path(sys.prefix) / "bin" / "activate"
    way = f"source {activate}" if activate.exists() else f"export PATH={Path(sys.executable).parent}:$PATH"
    yield Finding(
        "python", "medssml on the PATH", "ok" if found else "note", "yes" if found else "no", "" if found else way
    )
    encoding = sys.getfilesystemencoding()
    fine = encoding.lower().replace("-", "") == "utf8"
    yield Finding("python", "file names", "ok" if fine else "note", encoding, "" if fine else "export PYTHONUTF8=1")


def _network() -> Iterator[Finding]:
    """What might be asked for over a network. medssml itself fetches nothing and reports nothing."""
    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
    said = "on" if offline else "off; export HF_HUB_OFFLINE=1 keeps transformers from asking for files by name"
    yield Finding("network", "HF_HUB_OFFLINE", "ok", said)
    server = os.environ.get("MLFLOW_TRACKING_URI")
    yield Finding(
        "network", "MLflow", "ok", "a file in each run folder" if server is None else "MLFLOW_TRACKING_URI is set"
    )


def _packages() -> Iterator[Finding]:
    """Every dependency and its installed version against the floor that medssml asks for."""
    from packaging.requirements import Requirement

    yield Finding("package", "medssml", "ok", importlib.metadata.version("medssml"))
    for text in importlib.metadata.requires("medssml") or []:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        floor = f"needs {requirement.specifier}" if requirement.specifier else "needs any version"
        fix = f"{sys.executable} -m pip install '{requirement.name}{requirement.specifier}'"
        found = _version(requirement.name)
        if found is None:
            yield Finding("package", requirement.name, "missing", f"not installed, {floor}", fix)
        elif not requirement.specifier.contains(found, prereleases=True):
            yield Finding("package", requirement.name, "missing", f"{found}, {floor}", fix)
        else:
            yield Finding("package", requirement.name, "ok", found)
    for extra in sorted(set(importlib.metadata.metadata("medssml").get_all("Provides-Extra") or ()) - {"dev"}):
        names = _extra(extra)
        installed = [f"{name} {version}" for name in names if (version := _version(name))]
        complete = (
            ", ".join(installed) if len(installed) == len(names) else f"not installed (pip install {' '.join(names)})"
        )
        yield Finding("extra", extra, "ok", complete)


def _extra(extra: str) -> list[str]:
    """The packages that the optional extra adds."""
    from packaging.requirements import Requirement

    requirements = [Requirement(text) for text in importlib.metadata.requires("medssml") or []]
    markers = [(r.name, r.marker) for r in requirements if r.marker is not None]
    return [name for name, m in markers if m.evaluate({"extra": extra}) and not m.evaluate({"extra": ""})]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _codecs() -> Iterator[Finding]:
    """Which compressed DICOM can be read. Uncompressed DICOM always can."""
    if _version("pydicom") is None:
        return
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    for name, uid in CODECS.items():
        decoder = get_decoder(UID(uid))
        if decoder.is_available:
            yield Finding("codec", name, "ok", "readable")
        else:
            fix = f"{sys.executable} -m pip install {' '.join(_extra('dicom'))}"
            yield Finding("codec", name, "note", "DICOM compressed this way cannot be read", fix)


def _compute() -> Iterator[Finding]:
    if _version("torch") is None:
        return
    import torch

    cores, usable = os.cpu_count() or 1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    yield Finding("compute", "CPU", "ok", f"{usable} of {cores} cores, {torch.get_num_threads()} threads")
    if torch.get_num_threads() > usable:
        fix = f"export OMP_NUM_THREADS={usable}"
        yield Finding("compute", "threads", "note", f"{torch.get_num_threads()} threads on {usable} cores", fix)
    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU build"
        yield Finding(
            "compute", "GPU", "ok", f"none in use (torch {torch.__version__}, {built}); the CPU does the work"
        )
        return
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        yield Finding("compute", f"GPU {index}", "ok", f"{card.name}, {card.total_memory / GIB:.0f} GiB, {bf16}")


def _memory() -> Iterator[Finding]:
    from medssml.runs.memory import memory_of_machine

    usable = memory_of_machine()
    fine = usable >= 6 * GIB
    fix = "" if fine else "the demo needs 6 GiB; close other programs or use a smaller batch (--set data.batch_size=4)"
    yield Finding("memory", "RAM", "ok" if fine else "note", f"{usable / GIB:.1f} GiB", fix)
    shared = Path("/dev/shm")
    if shared.is_dir():
        size = shutil.disk_usage(shared).total
        fine = size >= GIB
        fix = "" if fine else "docker run --shm-size=2g, or --set data.num_workers=0"
        yield Finding("memory", "shared memory", "ok" if fine else "note", f"{size / GIB:.2f} GiB", fix)
    import resource

    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    fine = files >= 1024 or files == resource.RLIM_INFINITY
    fix = "" if fine else "ulimit -n 4096"
    yield Finding("memory", "open files", "ok" if fine else "note", str(files), fix)


def _disk(folder: Path) -> Iterator[Finding]:
    here = folder.resolve()
    while not here.exists():
        here = here.parent
    free = shutil.disk_usage(here).free
    fine = free >= 5 * GIB
    fix = "" if fine else "free some space, or write runs to another disk with --out"
    yield Finding("disk", "free for runs", "ok" if fine else "note", f"{free / GIB:.1f} GiB", fix)
    writable = os.access(here, os.W_OK)
    fix = "" if writable else "choose another folder with --out"
    yield Finding("disk", "writable", "ok" if writable else "missing", "yes" if writable else "no", fix)


def _sqlite(folder: Path) -> Iterator[Finding]:
    """Tracking writes a sqlite file beside the run; some network disks cannot lock one."""
    try:
        with tempfile.TemporaryDirectory(dir=folder if folder.is_dir() else None) as place:
            connection = sqlite3.connect(Path(place) / "probe.db", timeout=5)
            with connection:
                connection.execute("create table probe (value real)")
                connection.execute("insert into probe values (1.0)")
            connection.close()
        yield Finding("sqlite", "write and lock", "ok", sqlite3.sqlite_version)
    except (sqlite3.Error, OSError) as error:
        fix = "write runs to a local disk with --out, or set MLFLOW_TRACKING_URI"
        yield Finding("sqlite", "write and lock", "missing", type(error).__name__, fix)
