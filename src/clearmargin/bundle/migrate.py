"""model.json of earlier versions, brought up to today's step by step before it is checked.

A new field that is optional needs no step. A step is needed when a field changes its name, its meaning or its default:
then SCHEMA goes up by one, and the function here says how the version before becomes it. A bundle of any version then
means what it meant when it was written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

SCHEMA = 2
"""Of what is written today."""


def _from_1(content: dict[str, Any]) -> dict[str, Any]:
    """Version 2 lets the network give features beside the logit; whatever version 1 holds means the same."""
    return content


STEPS: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1}
"""From this version to the next."""


def migrate(content: Mapping[str, Any]) -> dict[str, Any]:
    """The contents as the current version writes them.

    >>> migrate({"schema": 1, "temperature": 1.5})
    {'schema': 2, 'temperature': 1.5}

    Args:
        content: of a model.json whose `schema` is from 1 to SCHEMA.
    """
    migrated = dict(content)
    for version in range(content["schema"], SCHEMA):
        migrated = STEPS[version](migrated) | {"schema": version + 1}
    return migrated
