"""`medssml ui`: MLflow's own pages on a run folder's store."""

from __future__ import annotations

from pathlib import Path


def ui(run: Path, *, port: int = 5000, browser: bool = False) -> int:
    """Serves MLflow's pages of a run, with its curves, results and report, to this machine alone, until Ctrl+C.

    MLflow's reports of its use are switched off. The folder may have been moved or copied since the run was trained.

    Args:
        run: run folder, or a folder with the mlflow.db of several runs.
        port: the first one to try.
        browser: open the page.

    Returns:
        exit code: 0; 1 where the server ended by itself.

    Raises:
        ValueError: no run was tracked there, or no port is free.
    """
    from medssml.bounds import bounded
    from medssml.runs import console
    from medssml.tracking.server import free_port, page_of, serving, store_of

    bounded("--port", port, least=1, most=65535)
    store = store_of(run)
    port = free_port(port)
    console.say(f"{store}: MLflow starts ...")
    with serving(store, port) as server:
        if server.answers():
            console.say(f"open {page_of(run, port)} in a browser; Ctrl+C ends it")
            if browser:
                import webbrowser

                webbrowser.open(page_of(run, port))
        if server.wait():
            console.warn(f"MLflow ended by itself: {server.last_words()}")
            return 1
    return 0
