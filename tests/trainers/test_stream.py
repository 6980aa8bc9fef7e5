"""Batches of a run from any point of it to its end."""

from __future__ import annotations

from typing import Any

from medssml.batch import Batch
from medssml.trainers.stream import Stream

from .toy import ToyLoader


class Numbered(ToyLoader):
    """Batches whose one study says which batch of which epoch they are; remembers where it was sent."""

    def __init__(self) -> None:
        super().__init__(studies=6, size=1)
        self.sent: list[tuple[int, int]] = []

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sent.append((state["epoch"], state["batch"]))
        super().load_state_dict(state)

    def take(self) -> Batch:
        self.step += 1
        epoch, place = divmod(self.step - 1, len(self))
        return self.batch(self.x.new_tensor([place]).long(), epoch)


def taken(loader: Numbered, **options: int) -> list[tuple[int, list[str]]]:
    """Of each portion its place, and the studies of its group."""
    return [(place, [batch.study_id[0] for batch in group]) for place, group in Stream(loader, **options)]


def test_a_whole_run_sends_its_loader_once_and_takes_each_batch_by_itself() -> None:
    loader = Numbered()
    assert taken(loader, first=4, last=9, per_epoch=6) == [(0, [f"study-{n}"]) for n in (4, 5, 0, 1, 2)]
    assert loader.sent == [(0, 4)]
    assert taken(loader, first=7, last=8, per_epoch=6) == [(0, ["study-1"])] and loader.sent[1:] == [(1, 1)]


def test_an_epoch_of_fewer_batches_begins_again_at_its_edge() -> None:
    loader = Numbered()
    found = taken(loader, first=1, last=6, per_epoch=2)
    assert [group for _, group in found] == [[f"study-{n}"] for n in (1, 0, 1, 0, 1)]
    assert loader.sent == [(0, 1), (1, 0), (2, 0)]


def test_the_batches_of_a_step_are_taken_together() -> None:
    first, second = ["study-0", "study-1", "study-2"], ["study-3", "study-4", "study-5"]
    places = [(place, group) for group in (first, second) for place in range(3)]
    assert taken(Numbered(), first=0, last=6, per_epoch=6, accumulate=3) == places
    portion = next(iter(Stream(Numbered(), first=0, last=2, per_epoch=6, accumulate=2)))
    assert portion.batch is portion.group[0] and len(portion.group) == 2
