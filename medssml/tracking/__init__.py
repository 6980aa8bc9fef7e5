"""MLflow: the config, manifest hash, presence statistics, metrics, results and report of a run, and nothing else.

What is sent is an allow list: no path, no login name, no study id; of its folder a run has the last name alone. The store
of a run folder names no place either, so that it can be moved and shared. MLflow takes seconds to import and may wait for
a server, so all of it happens in a thread of its own. Only this package imports it.
"""

from __future__ import annotations

from medssml.tracking.allowed import allowed_params
from medssml.tracking.join import add_artifact, add_results, parent_tags
from medssml.tracking.one_store import one_store
from medssml.tracking.results import add_evaluation, add_impact, add_predictions
from medssml.tracking.server import server_command, store_of
from medssml.tracking.tracker import MlflowTracker

__all__ = [
    "MlflowTracker",
    "add_artifact",
    "add_evaluation",
    "add_impact",
    "add_predictions",
    "add_results",
    "allowed_params",
    "one_store",
    "parent_tags",
    "server_command",
    "store_of",
]
