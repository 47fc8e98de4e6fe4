"""The layouts for Foxglove and PlotJuggler name topics and fields that the planner and its robot have."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from workspace_support import ROOT, SOURCE

CONFIG = SOURCE / "tdmpc2_bringup" / "config"
STANDARD = {"cmd_vel": {"linear", "angular"}, "diagnostics": {"status"}, "robot_description": {"data"}}
MESSAGES = {"plan": "PlanChunk", "status": "PlannerStatus", "trust": "TrustState"}


def fields(message: str) -> set[str]:
    text = (SOURCE / "tdmpc2_msgs" / "msg" / f"{message}.msg").read_text(encoding="utf-8")
    return set(re.findall(r"^[\w/]+(?:\[\])? (\w+)(?:\s|$)", text, re.M))


def strings(content: Any) -> Iterator[str]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield key
            yield from strings(value)
    elif isinstance(content, list):
        for value in content:
            yield from strings(value)
    elif isinstance(content, str):
        yield content


def named(path: Path) -> list[str]:
    """Topics, with their fields where a curve is drawn."""
    if path.suffix == ".json":
        words = strings(json.loads(path.read_text(encoding="utf-8")))
        return [word.replace(".", "/") for word in words if word.startswith("/")]
    return [curve.attrib["name"] for curve in ElementTree.parse(path).iter("curve")]


@pytest.mark.parametrize("file", ["foxglove.json", "plotjuggler.xml"])
def test_a_layout_names_only_topics_and_fields_that_exist(file):
    page = (ROOT / "docs/reference/ros-interface.md").read_text(encoding="utf-8")
    found = named(CONFIG / file)
    assert len(found) >= 8
    for name in found:
        parts = name.strip("/").split("/")
        if parts[0] == "planner":
            assert f"`~/{parts[1]}`" in page
            known, rest = fields(MESSAGES[parts[1]]), parts[2:]
        else:
            known, rest = STANDARD[parts[0]], parts[1:]
        assert not rest or rest[0] in known, name
