"""The run folder: where everything of a run is, whose run it is, and whether it is done.

RUN/config.yaml  manifest.sha256  presence.json  labels.json  problems.csv  log.txt  history.csv
    checkpoints/  model/  mlflow.db  mlartifacts/
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from medssml.files import write_json, write_text
from medssml.foreign_text import LogLine, logging_to, printable
from medssml.manifest.problems import Problem, read_problems, write_problems

#: What a run writes and `fresh` removes: nothing else of the folder is touched.
OWN = (
    "config.yaml", "manifest.sha256", "presence.json", "training_subjects.json", "labels.json", "problems.csv", "log.txt",
    "history.csv", "metrics.json", "provenance.json", "checkpoints", "model", "mlflow.db", "mlartifacts", "mlflow_run.txt",
)  # fmt: skip

#: Keys of a config that may change between a run and its resumption: they do not touch a number.
VOLATILE = (
    "privacy",
    "data.num_workers",
    "data.prepare_workers",
    "data.timeout_s",
    "shards.gib",
    "trainer.log_every",
    "trainer.save_every_steps",
)


class RunFolderError(ValueError):
    """A run folder that belongs to another run."""

    exit_code = 5


class RunFolder:
    """Paths of one run, and what makes it that run and no other.

    Args:
        path: the folder.
        writes: whether this process does: of several that train together, the first one; see `medssml.trainers.ranks`.
    """

    def __init__(self, path: str | Path, *, writes: bool = True) -> None:
        self.path = Path(path)
        self.writes = writes
        #: What the run is found by where it is tracked: its verb, config and parent run.
        self.tags: dict[str, str] = {}
        self._new = False
        self._made: list[Path] = []

    @property
    def model(self) -> Path:
        """The model folder; it is written last, so that a run that has one is done."""
        return self.path / "model"

    @property
    def done(self) -> bool:
        """Whether the run has ended."""
        return (self.model / "config.json").exists()

    def clear(self, keep: str = "") -> None:
        """Removes what a run has written here, but for the file `keep`."""
        for name in OWN:
            if name == keep:
                continue
            target = self.path / name
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)

    def begin(self, config: Mapping[str, Any], manifest_sha256: str, *, fresh: bool = False) -> None:
        """Starts or resumes: writes config.yaml and manifest.sha256, or checks that they are the same.

        Raises:
            RunFolderError: the folder holds a run with another config or manifest; says what differs.
        """
        if not self.writes:
            return
        self._restore()
        self._made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        if fresh:
            self._set_aside()
        saved, recorded = self.path / "config.yaml", self.path / "manifest.sha256"
        if saved.exists() and recorded.exists():
            differing = differences(read_yaml(saved), plain(config))
            if recorded.read_text(encoding="utf-8").split()[0] != manifest_sha256:
                differing.append("the manifest's content")
            if differing:
                raise RunFolderError(
                    f"{self.path} holds a run with another config: {'; '.join(differing[:5])}; fix: "
                    f"{_way_back(differing)} continues it, another --out starts a second run, --fresh starts over here"
                )
            return
        self._new = not any((self.path / name).exists() for name in OWN)
        write_text(recorded, manifest_sha256 + "\n")
        write_text(saved, to_yaml(config))

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """Inside, a run starts; one that fails before its first checkpoint leaves nothing behind but problems.csv, and what
        `fresh` was to remove is there again."""
        try:
            yield
        except BaseException:
            if self._new and not (self.path / "checkpoints").exists():
                keep = "problems.csv" if self._problems() else ""
                self.clear(keep)
                self._restore(keep)
                for folder in self._made:
                    if any(folder.iterdir()):
                        break
                    folder.rmdir()
            raise

    def started(self) -> None:
        """The run can be trained: what an earlier one left here goes now, where it is to start over."""
        if self.writes:
            shutil.rmtree(self._aside, ignore_errors=True)

    @property
    def _aside(self) -> Path:
        return self.path / ".before_fresh"

    def _set_aside(self) -> None:
        """What a run has written here waits until the next one has started: it may be refused."""
        self._aside.mkdir(exist_ok=True)
        for name in OWN:
            if os.path.lexists(self.path / name):
                (self.path / name).rename(self._aside / name)

    def _restore(self, keep: str = "") -> None:
        """What was set aside for a run that failed or was killed before it started comes back; else it goes."""
        if self._aside.exists() and not (self.path / "checkpoints").exists():
            self.clear(keep)
            for kept in self._aside.iterdir():
                if kept.name != keep:
                    kept.rename(self.path / kept.name)
        shutil.rmtree(self._aside, ignore_errors=True)

    def remember(self, remarks: Iterable[str]) -> None:
        """Adds lines to log.txt that were said to the user otherwise."""
        if self.writes:
            with (self.path / "log.txt").open("a", encoding="utf-8") as stream:
                stream.writelines(
                    f"{time.strftime('%Y-%m-%d %H:%M:%S')} WARNING {printable(said)}\n" for said in remarks
                )

    def write_problems(self, problems: Iterable[Problem]) -> None:
        """problems.csv, one row per file or study that was left out or flagged."""
        if self.writes:
            write_problems(problems, self.path / "problems.csv")

    def write_labels(self, account: Mapping[str, Any]) -> None:
        """labels.json: of each task and split the labels, their classes and subjects."""
        if self.writes:
            write_json(self.path / "labels.json", {"tasks": account})

    def flag_studies(self, studies: Iterable[str], code: str, problem: str, fix: str) -> None:
        """Adds studies to problems.csv that training could not use, once each."""
        known = self._problems()
        have = {(one.study_id, one.code) for one in known}
        new = [Problem(0, study, "", "", code, problem, fix) for study in studies if (study, code) not in have]
        if new:
            self.write_problems([*known, *new])

    def _problems(self) -> list[Problem]:
        path = self.path / "problems.csv"
        return read_problems(path) if path.exists() else []

    @contextlib.contextmanager
    def logging(self) -> Iterator[None]:
        """Inside, what medssml logs is written to log.txt as well, and what libraries warn of or log, there alone."""
        if not self.writes:
            yield
            return
        logger = logging.getLogger("medssml")
        handler = logging.FileHandler(self.path / "log.txt", encoding="utf-8")
        handler.setFormatter(LogLine("%(asctime)s %(levelname)s %(message)s"))
        level = logger.level
        if level == logging.NOTSET or level > logging.INFO:
            logger.setLevel(logging.INFO)
        logger.addHandler(handler)
        try:
            with logging_to(handler):
                yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
            handler.close()


def plain(value: Any) -> Any:
    """`value` as YAML and JSON hold it: tuples as lists, paths as texts."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return str(value) if isinstance(value, os.PathLike) else value


def to_yaml(config: Mapping[str, Any]) -> str:
    """A resolved config as a file that can be read again."""
    import yaml

    return yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True, width=120)


def read_yaml(path: Path) -> dict[str, Any]:
    """A config.yaml that a run has written."""
    import yaml

    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


def differences(old: Any, new: Any, key: str = "") -> list[str]:
    """What differs between two configs, as "optim.lr was 0.001, now 0.002"; keys of `VOLATILE` do not count.

    A setting of None is as good as none, so that a run continues with a version that knows one more.
    """
    if key in VOLATILE:
        return []
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        both = [*old, *(name for name in new if name not in old)]
        names = [name for name in both if old.get(name) is not None or new.get(name) is not None]
        found = (differences(old.get(n, "absent"), new.get(n, "absent"), f"{key}.{n}" if key else n) for n in names)
        return [difference for part in found for difference in part]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        found = (differences(a, b, f"{key}.{place}") for place, (a, b) in enumerate(zip(old, new, strict=True)))
        return [difference for part in found for difference in part]
    return [] if old == new else [f"{key} was {_brief(old)}, now {_brief(new)}"]


def _way_back(differing: list[str]) -> str:
    """What makes the configs equal again: "auto" chooses by the processor, so the same command may not."""
    key, _, rest = differing[0].partition(" was ")
    if len(differing) == 1 and key == "trainer.precision":
        return f"--precision {rest.partition(', now ')[0]}"
    return "the same command"


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
