"""Typed settings: what is accepted, and that every refusal says where, what, and what would be right."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from tdmpc2_core.config import (
    apply_overrides,
    check_fields,
    field_help,
    from_mapping,
    load_yaml,
    setting,
    to_mapping,
)
from tdmpc2_core.errors import UserError


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Learner:
    rate: float = setting(3e-4, unit="1/step", above=0, high=1, why="step size")
    batch_size: int = setting(256, low=1, why="samples per update")
    kind: Literal["adam", "sgd"] = setting("adam", why="optimiser")


@dataclass(frozen=True)
class Term:
    name: str = setting(why="function")
    weight: float = setting(1.0)
    params: dict[str, float] = setting(factory=dict, rest=True, low=0)


@dataclass(frozen=True)
class Run:
    name: str = setting(why="label")
    learner: Learner = setting(Learner())
    span: tuple[float, float] = setting((0.0, 1.0), low=0, unit="s")
    terms: tuple[Term, ...] = setting(())
    folder: Path | None = setting(None)
    seed: int | Literal["random"] = setting(0)
    colour: Colour = setting(Colour.RED)
    compile: bool = setting(False)
    loaded_from: str = field(default="", init=False, compare=False)

    def __post_init__(self) -> None:
        if self.span[0] > self.span[1]:
            raise ValueError(f"span must be [lowest, highest], got {self.span}")


@dataclass(frozen=True)
class Sizes:
    size: Literal["tiny", "19"] = setting("tiny")
    kernels: Literal["auto", "off"] = setting("auto")


def make(**values: object) -> Run:
    return from_mapping(Run, {"name": "x", **values}, "run.yaml")


def refusal(**values: object) -> str:
    with pytest.raises(UserError) as caught:
        make(**values)
    return str(caught.value)


def test_values_get_their_declared_types():
    run = make(
        learner={"rate": 1, "batch_size": 8.0},
        span=[0, 2],
        terms=[{"name": "a", "sigma": 2}],
        folder="out",
        seed="random",
        colour="blue",
    )
    assert run.learner == Learner(1.0, 8) and isinstance(run.learner.rate, float)
    assert isinstance(run.learner.batch_size, int)
    assert run.span == (0.0, 2.0) and run.folder == Path("out") and run.seed == "random"
    assert run.terms[0].params == {"sigma": 2.0} and run.colour is Colour.BLUE


def test_exponents_that_yaml_reads_as_text_are_numbers():
    assert make(learner={"rate": "1e-4"}).learner.rate == 1e-4
    assert make(seed="1e3").seed == 1000


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        (
            {"learner": {"bach_size": 3}},
            ["learner", "'bach_size'", "did you mean 'batch_size'", "rate, batch_size, kind"],
        ),
        ({"learner": {"batch_size": 2.5}}, ["learner.batch_size", "a whole number", "2.5"]),
        ({"learner": {"batch_size": True}}, ["learner.batch_size", "a whole number", "True"]),
        ({"learner": {"batch_size": 0}}, ["learner.batch_size", "at least 1", "got 0"]),
        ({"learner": {"rate": "fast"}}, ["learner.rate", "a number (1/step)", "text 'fast'"]),
        ({"learner": {"rate": 0}}, ["learner.rate", "greater than 0 1/step", "got 0"]),
        ({"learner": {"rate": 1.5}}, ["learner.rate", "at most 1", "got 1.5"]),
        ({"learner": {"rate": float("nan")}}, ["learner.rate", "not finite"]),
        ({"learner": {"rate": float("inf")}}, ["learner.rate", "not finite"]),
        ({"learner": {"kind": "adm"}}, ["learner.kind", "adam, sgd", "did you mean 'adam'"]),
        ({"learner": 3}, ["learner", "expected a section with keys rate, batch_size, kind", "got 3"]),
        ({"span": [1]}, ["span", "a list of 2 values", "got 1"]),
        ({"span": [0, -1]}, ["span[1]", "at least 0 s", "got -1"]),
        ({"span": [2, 1]}, ["span must be [lowest, highest]"]),
        ({"terms": [{"name": "a"}, {"weight": 1}]}, ["terms[1]", "'name' is missing", "text"]),
        ({"terms": [{"name": "a", "sigma": "wide"}]}, ["terms[0].sigma", "a number", "'wide'"]),
        ({"terms": "abc"}, ["terms", "a list", "'abc'"]),
        ({"seed": "later"}, ["seed", "a whole number or one of random", "'later'"]),
        ({"colour": "green"}, ["colour", "red, blue", "green"]),
        ({"compile": "yes please"}, ["compile", "true or false"]),
        ({"name": None}, ["name", "text", "nothing"]),
        ({"loaded_from": "x"}, ["'loaded_from'", "accepted"]),
    ],
)
def test_refusals_name_file_key_and_what_is_right(values, parts):
    text = refusal(**values)
    assert text.startswith("run.yaml: ")
    assert all(part in text for part in parts), text


def test_mapping_round_trip_leaves_absent_optionals_out():
    run = make(terms=[{"name": "a", "weight": 2, "sigma": 0.5}], colour="blue")
    mapping = to_mapping(run)
    assert mapping["terms"] == [{"name": "a", "weight": 2.0, "sigma": 0.5}]
    assert mapping["colour"] == "blue" and "folder" not in mapping and "loaded_from" not in mapping
    assert from_mapping(Run, mapping, "again") == run


@dataclass(frozen=True)
class Checked:
    kind: Literal["adam", "sgd"] = setting("adam")
    rates: tuple[float, ...] = setting((), above=0)

    def __post_init__(self) -> None:
        check_fields(self)


def test_instances_made_in_code_are_checked_and_get_their_declared_types():
    assert Checked(rates=[1, 2]).rates == (1.0, 2.0)
    with pytest.raises(ValueError, match="Checked: kind: expected one of adam, sgd; got text 'adm'"):
        Checked("adm")
    with pytest.raises(ValueError, match=r"Checked: rates\[1\]: must be greater than 0, got 0"):
        Checked(rates=(1.0, 0.0))


def test_overrides():
    run = make(terms=[{"name": "a"}, {"name": "b", "sigma": 1}])
    changed = apply_overrides(
        run,
        [
            "learner.batch_size=512",
            "terms.b.sigma=2",
            "terms.0.weight=-1e-3",
            "name=on",
            "folder=/tmp/x",
            "span=[1, 2]",
            "compile=true",
            "seed=random",
            "learner.kind=sgd",
        ],
    )
    assert changed.learner == Learner(batch_size=512, kind="sgd")
    assert changed.terms == (Term("a", -0.001), Term("b", 1.0, {"sigma": 2.0}))
    assert (changed.name, changed.folder, changed.span) == ("on", Path("/tmp/x"), (1.0, 2.0))
    assert changed.compile is True and changed.seed == "random"
    assert run.learner.batch_size == 256
    assert apply_overrides(changed, ["folder=null"]).folder is None


def test_overrides_keep_what_is_not_a_setting():
    run = make()
    object.__setattr__(run, "loaded_from", "disk")
    assert apply_overrides(run, ["learner.rate=0.1"]).loaded_from == "disk"


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("learner.batch_size", ["key=value"]),
        ("=3", ["key=value"]),
        ("lerner.rate=1", ["'lerner'", "did you mean 'learner'", "accepted"]),
        ("learner.rte=1", ["learner", "'rte'", "did you mean 'rate'"]),
        ("learner.rate=2", ["learner.rate", "at most 1"]),
        ("learner.rate.x=2", ["learner.rate", "no part 'x'"]),
        ("terms.c.weight=2", ["terms", "'c'", "accepted: a"]),
        ("span=[2, 1]", ["span must be"]),
        ("seed=[", ["seed", "expected"]),
    ],
)
def test_bad_overrides(override, parts):
    with pytest.raises(UserError) as caught:
        apply_overrides(make(terms=[{"name": "a"}]), [override])
    text = str(caught.value)
    assert text.startswith("command line: ") and all(part in text for part in parts), text


def test_yaml_files(tmp_path):
    good = tmp_path / "good.yaml"
    good.write_text("name: x\nlearner: {rate: 1e-3}\n")
    assert load_yaml(Run, good).learner.rate == 1e-3
    for text, part in [
        ("name: x\nname: y\n", "line 2: not valid YAML: key 'name' is given twice"),
        ("name: [\n", "not valid YAML"),
        ("- name\n", "expected keys and values at the top"),
        ("", "key 'name' is missing"),
    ]:
        bad = tmp_path / "bad.yaml"
        bad.write_text(text)
        with pytest.raises(UserError) as caught:
            load_yaml(Run, bad)
        assert str(bad) in str(caught.value) and part in str(caught.value)
    with pytest.raises(UserError, match="no such file"):
        load_yaml(Run, tmp_path / "none.yaml")


def test_help_shows_every_setting_with_default_unit_range_and_reason():
    lines = {line.split()[0]: line for line in field_help(Run, "run.").splitlines()}
    assert (
        "0.0003" in lines["run.learner.rate"]
        and "step size [1/step, > 0 and <= 1]" in lines["run.learner.rate"]
    )
    assert "one of adam, sgd" in lines["run.learner.kind"] and "required" in lines["run.name"]
    assert "null" in lines["run.folder"] and "false" in lines["run.compile"]
    assert "run.loaded_from" not in lines


def test_help_of_an_instance_shows_its_own_values():
    from tdmpc2_core.train.train_config import TrainConfig

    text = field_help(TrainConfig())
    (line,) = (line for line in text.splitlines() if line.strip().startswith("learner.n_step"))
    assert line.split()[-1] != "1" and f" {TrainConfig().learner.n_step} " in line


def test_a_choice_is_text_on_the_command_line_whatever_yaml_would_read():
    assert apply_overrides(Sizes(), ["size=19", "kernels=off"]) == Sizes("19", "off")
    with pytest.raises(UserError, match="size: expected one of tiny, 19; got 18"):
        apply_overrides(Sizes(), ["size=18"])
