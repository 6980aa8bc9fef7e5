"""Every verb as a function at the top level of the package: the arguments of the command line in, results out.

`medssml.evaluate(...)` is `medssml.verbs.evaluate.evaluate`, but for what it returns: there an exit code or a path, here what
was found (`medssml.results`). What went wrong is raised: the exceptions of the verb, `Stopped` where a signal ended it.
"""

from __future__ import annotations

import functools
import inspect
import os
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from medssml.results import Checked, Evaluation, Impact, Run, Stress, Transferred, problem_table
from medssml.schema import hints_of
from medssml.studies.cohort import study_cohort as _study_cohort
from medssml.studies.methods import study_methods as _study_methods
from medssml.studies.obstacles import study_obstacles as _study_obstacles
from medssml.studies.phantom import study_phantom as _study_phantom
from medssml.verbs.cache import cache as _cache
from medssml.verbs.check import check as _check
from medssml.verbs.compare import compare as _compare
from medssml.verbs.demo import demo as _demo
from medssml.verbs.doctor import doctor as _doctor
from medssml.verbs.embed import embed as _embed
from medssml.verbs.evaluate import evaluate as _evaluate
from medssml.verbs.finetune import finetune as _finetune
from medssml.verbs.ids import ids as _ids
from medssml.verbs.impact import impact as _impact
from medssml.verbs.import_ import import_ as _import
from medssml.verbs.phantom import phantom as _phantom
from medssml.verbs.plan import plan as _plan_verb
from medssml.verbs.predict import predict as _predict
from medssml.verbs.prepare import prepare as _prepare
from medssml.verbs.pretrain import pretrain as _pretrain
from medssml.verbs.propagate import propagate as _propagate
from medssml.verbs.report import report as _report
from medssml.verbs.select import select as _select
from medssml.verbs.stress import stress as _stress
from medssml.verbs.suspects import suspects as _suspects
from medssml.verbs.transfer import transfer as _transfer
from medssml.verbs.ui import ui as _ui

if TYPE_CHECKING:
    import pandas as pd

P = ParamSpec("P")
R = TypeVar("R")


class Stopped(RuntimeError):
    """A signal ended the verb; the same call goes on from where it was saved."""

    exit_code = 75


class Outcome(typing.NamedTuple):
    """What a verb returned. value: as it is. code: of its exit. given: its arguments, defaults among them."""

    value: Any
    code: int
    given: Mapping[str, Any]


def _returning(verb: Callable[P, Any], result: Callable[[Outcome], R]) -> Callable[P, R]:
    """The verb with a result in the place of an exit code; a path may be a str, a `Path` or a folder of results."""
    signature, hints = inspect.signature(verb), hints_of(verb)

    @functools.wraps(verb)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            bound.arguments[name] = _plain(value, hints.get(name, Any))
        value = verb(*bound.args, **bound.kwargs)
        code = exit_code(value)
        if code == 130:
            raise KeyboardInterrupt
        if code == Stopped.exit_code:
            raise Stopped(
                f"{verb.__name__} was stopped by a signal and is saved; fix: the same call goes on from there"
            )
        bound.apply_defaults()
        return result(Outcome(value, code, bound.arguments))

    return called


def exit_code(value: Any) -> int:
    """The exit code that a verb's value stands for."""
    if isinstance(value, Mapping):
        return int(value.get("exit_code", 0))
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _plain(value: Any, hint: Any) -> Any:
    """Paths in the form that the verb expects; a single one where it expects several becomes a list."""
    options = {hint, *typing.get_args(hint)}
    if isinstance(value, (str, os.PathLike)):
        if Path in options:
            return Path(value)
        if str in options:
            return os.fspath(value)
    items = _items(options)
    if items is None or value is None:
        return value
    several = [value] if isinstance(value, (str, os.PathLike)) else list(value)
    return [_plain(item, items) for item in several]


def _items(options: set[Any]) -> Any:
    """The type of an item where one of the options is a list of some kind."""
    for option in options:
        origin = typing.get_origin(option)
        if isinstance(origin, type) and issubclass(origin, Sequence):
            return typing.get_args(option)[0]
    return None


def _value(outcome: Outcome) -> Any:
    return outcome.value


def _path(outcome: Outcome) -> Path:
    """What was written."""
    return Path(outcome.value)


def _nothing_wrong(outcome: Outcome) -> bool:
    return outcome.code == 0


def _run(outcome: Outcome) -> Run | Any:
    """The run folder; of a dry run, or where something is only shown, what was found out."""
    if any(outcome.given.get(only) for only in ("dry_run", "print_config", "print_slurm")):
        return outcome.value
    return Run(outcome.given["out"], too_many_lost=outcome.code == 4)


def _transferred(outcome: Outcome) -> Transferred:
    return Transferred(outcome.given["out"])


def _demonstrated(outcome: Outcome) -> Run:
    return Run(outcome.value if outcome.code == 0 else outcome.given["out"] or "runs/demo")


def _evaluated(outcome: Outcome) -> Evaluation:
    return Evaluation(outcome.given["out"], too_many_lost=outcome.code == 4)


def _measured(outcome: Outcome) -> Impact | bool:
    """What was measured; of the self-test whether all agree."""
    if outcome.given["self_test"]:
        return outcome.code == 0
    return Impact(outcome.given["out"], too_many_lost=outcome.code == 4)


def _stressed(outcome: Outcome) -> Stress:
    return Stress(outcome.given["out"], too_many_lost=outcome.code == 4)


def _list(outcome: Outcome, name: str, *texts: str) -> pd.DataFrame:
    """The list of studies that was written."""
    import pandas as pd

    return pd.read_csv(Path(outcome.given["out"]) / name, dtype=dict.fromkeys(("study_id", "subject_id", *texts), str))


def _suspected(outcome: Outcome) -> pd.DataFrame:
    return _list(outcome, "suspects.csv", "label", "likeliest")


def _propagated(outcome: Outcome) -> pd.DataFrame:
    return _list(outcome, "propagated.csv", "label")


def _selected(outcome: Outcome) -> pd.DataFrame:
    return _list(outcome, "select.csv")


def _checked(outcome: Outcome) -> Checked:
    told = outcome.value.get("problems") if isinstance(outcome.value, Mapping) else None
    path = outcome.given["problems"] or (told if isinstance(told, (str, Path)) else "problems.csv")
    return Checked(problem_table(Path(path)), outcome.code)


def _predicted(outcome: Outcome) -> pd.DataFrame:
    import pandas as pd

    return pd.read_csv(outcome.given["out"], dtype={"study_id": str}, keep_default_na=False)


def _embedded(outcome: Outcome) -> pd.DataFrame:
    import pandas as pd

    return pd.read_parquet(outcome.given["out"])


pretrain = _returning(_pretrain, _run)
finetune = _returning(_finetune, _run)
transfer = _returning(_transfer, _transferred)
demo = _returning(_demo, _demonstrated)
evaluate = _returning(_evaluate, _evaluated)
impact = _returning(_impact, _measured)
stress = _returning(_stress, _stressed)
suspects = _returning(_suspects, _suspected)
propagate = _returning(_propagate, _propagated)
select = _returning(_select, _selected)
predict = _returning(_predict, _predicted)
embed = _returning(_embed, _embedded)
check = _returning(_check, _checked)
phantom = _returning(_phantom, _path)
report = _returning(_report, _path)
compare = _returning(_compare, _path)
ids = _returning(_ids, _path)
study_cohort = _returning(_study_cohort, _path)
study_methods = _returning(_study_methods, _path)
study_obstacles = _returning(_study_obstacles, _path)
study_phantom = _returning(_study_phantom, _path)
import_ = _returning(_import, _value)
plan = _returning(_plan_verb, _value)
prepare = _returning(_prepare, _value)
cache = _returning(_cache, _value)
doctor = _returning(_doctor, _nothing_wrong)
ui = _returning(_ui, _nothing_wrong)
