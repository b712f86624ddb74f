"""Which card each actor gets, where several actors share each of several cards.

Invariant: every card has one layout actor and its engines, whoever asks Ray first. Left alone, Ray puts a share of a card where
it fits most tightly: two layout actors of a tenth each landed on the first of two cards, where the engines' nine tenths then
did not fit, and one engine of two (or of six) waited for as long as the run lasted (seen in 2.60). A bundle a card settles it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from pipelines.cluster.pools import Pool, bundles


class Cards:
    """A run's cards: reserved whole, and given out in turn to the actors of each pool that shares them."""

    def __init__(self, pools: Sequence[Pool], gpus: int) -> None:
        """Reserves nothing where there is one card, or engines alone: any placement is right there."""
        self._bundles = bundles(pools, gpus)
        self._group: PlacementGroup | None = placement_group(self._bundles) if self._bundles else None

    def given_out(self, pool: Pool) -> Callable[[], dict[str, Any]] | None:
        """For Ray Data, which asks it once for each actor of the pool; None: Ray may choose."""
        if self._group is None or not pool.gpus:
            return None
        strategies = itertools.cycle(
            [PlacementGroupSchedulingStrategy(self._group, number) for number in range(len(self._bundles))]
        )
        return lambda: {"scheduling_strategy": next(strategies)}

    def give_back(self) -> None:
        if self._group is not None and ray.is_initialized():
            remove_placement_group(self._group)
        self._group = None
