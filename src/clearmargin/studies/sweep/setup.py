"""What a sweep is begun with, and from it the settings of each trial; as text, for processes that join in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from clearmargin.config import check_config, load_recipe
from clearmargin.settings import RunConfig
from clearmargin.studies.sweep.records import Plan, Trial
from clearmargin.studies.sweep.space import Choices, Range, Space, Value

RECIPE = "recipe"
"""The setting by whose value the packed images of a trial are found."""


@dataclass(frozen=True, slots=True)
class Setup:
    """The recipe as it was named, what the user changed, the settings that these make, the space and the plan."""

    recipe: str
    changes: Mapping[str, Any]
    base: RunConfig
    space: Space
    plan: Plan = field(default_factory=lambda: Plan(20))

    def baseline(self) -> dict[str, Value]:
        """The recipe's own value of every setting that is swept; what it does not have is left out."""
        values = self.base.model_dump(mode="json", exclude_none=True)
        own: dict[str, Value] = {}
        for key in self.space.keys:
            section, _, leaf = key.rpartition(".")
            place = values.get(section, {}) if section else values
            if leaf in place:
                own[key] = self.recipe if key == RECIPE else place[leaf]
        return own

    def recipes(self) -> list[str]:
        """Every recipe that a trial can have, the sweep's own first."""
        return list(dict.fromkeys((self.recipe, *self.space.recipes)))

    def recipe_of(self, trial: Trial) -> str:
        """The recipe of a trial."""
        return self.recipe if trial.is_baseline else str(trial.settings.get(RECIPE, self.recipe))

    def config_of(self, trial: Trial) -> RunConfig:
        """The settings of a run with those of a trial; data, split and seed are always those of the sweep.

        Raises:
            ConfigError: they do not go together.
        """
        if trial.is_baseline:
            return self.base
        own = {key: value for key, value in trial.settings.items() if key != RECIPE}
        return self.with_recipe(self.recipe_of(trial), own)

    def with_recipe(self, recipe: str, own: Mapping[str, Value]) -> RunConfig:
        """The settings of a run by another recipe, with changes of its own."""
        config, base = load_recipe(recipe, {**self.changes, **own}), self.base
        kept = {"data": base.data, "split": base.split, "seed": base.seed, "deterministic": base.deterministic}
        return config.model_copy(update=kept)

    def to_json(self) -> str:
        """All of it as one line."""
        ranges = [
            {"key": each.key, "values": each.values}
            if isinstance(each, Choices)
            else {name: getattr(each, name) for name in Range.__slots__}
            for each in self.space.parameters
        ]
        plan = {name: getattr(self.plan, name) for name in Plan.__slots__}
        base = self.base.model_dump(mode="json", exclude_none=True)
        content = {"recipe": self.recipe, "changes": dict(self.changes), "base": base, "space": ranges, "plan": plan}
        return json.dumps(content)


def read_setup(text: str) -> Setup:
    """What `Setup.to_json` wrote."""
    content = json.loads(text)
    parameters = [
        Choices(each["key"], tuple(each["values"])) if "values" in each else Range(**each) for each in content["space"]
    ]
    return Setup(
        content["recipe"],
        content["changes"],
        check_config(content["base"]),
        Space(tuple(parameters)),
        Plan(**content["plan"]),
    )
