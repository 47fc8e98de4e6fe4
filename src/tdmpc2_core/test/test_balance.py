"""A biped whose planner dies in mid stride is balanced by the prior in NumPy, which is that of the model."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tdmpc2_core.agent import Agent
from tdmpc2_core.control.balance import Balance, NumpyPrior
from tdmpc2_core.control.supervision import COMMANDING, Supervision
from tdmpc2_core.envs.robot.env import EnvOptions, RobotEnv
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots import Embodiment

HUMANOID = Embodiment.load("humanoid")


@pytest.mark.parametrize("name", ["quadruped", "humanoid", "arm"])
def test_the_prior_without_torch_is_that_of_the_model(name):
    prior, model = NumpyPrior(Path(name)), Agent.load(name).model
    observed = 3.0 * np.random.default_rng(0).normal(size=(20, model.config.obs_dim)).astype(np.float32)
    with torch.no_grad():
        wanted = model.policy(model.encode(torch.from_numpy(observed))).mean.numpy()
    np.testing.assert_allclose(np.stack([prior(row) for row in observed]), wanted, atol=5e-6)


def test_it_loads_without_torch():
    code = "import sys; from tdmpc2_core.control.balance import NumpyPrior; from pathlib import Path\n"
    code += "NumpyPrior(Path('humanoid')); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_bundle_of_another_robot_is_refused_by_name():
    with pytest.raises(UserError, match="a bundle of 'quadruped' for a 'humanoid'"):
        NumpyPrior(Path("quadruped")).check_robot(HUMANOID)


class Walk:
    """A humanoid that walked for 1.7 s and lost its planner; `balance` has followed it."""

    def __init__(self, number: int) -> None:
        agent, self.env = Agent.load("humanoid"), RobotEnv(HUMANOID, number, EnvOptions(randomise=True))
        env, prior = self.env, NumpyPrior(Path("humanoid"))
        self.balance = Balance(HUMANOID, prior, env.sensors, lambda: env.simulation.time)
        env.set_command(np.array([0.3, 0.0, 0.0]))
        observed = env.reset()
        for step in range(85):
            action = agent.act(observed[None], np.array([step == 0]), evaluate=True, use_prior=True).action[0]
            self.balance.clock(env.assembler.clock)
            self.balance.follow(env.mapper.targets(action))
            observed = env.step(action).observation

    def stays_up(self, balanced: bool) -> bool:
        env, simulation = self.env, self.env.simulation
        supervision = Supervision(HUMANOID, balance=self.balance if balanced else None)
        supervision.heartbeat(0.0, COMMANDING)
        supervision.command(0.0, env.targets)
        supervision.died()
        for tick in range(120):
            assert supervision.decide(0.02 * tick).name == "planner_died"
            env.advance(supervision.targets(0.02 * tick)[0])
            for source in simulation.sources:
                env.sensors.store(source, simulation.time, simulation.read(source))
            if simulation.fallen():
                return False
        return True


def test_a_biped_in_mid_stride_is_balanced_where_its_posture_falls():
    falls = [number for number in range(4) if not Walk(number).stays_up(balanced=False)]
    assert falls, "none falls: the comparison shows nothing"
    assert all(Walk(number).stays_up(balanced=True) for number in falls)


def test_stale_sensors_end_the_balance_in_the_posture():
    walk = Walk(0)
    supervision = Supervision(HUMANOID, balance=walk.balance)
    supervision.heartbeat(0.0, COMMANDING)
    supervision.command(0.0, walk.env.targets)
    supervision.died()
    supervision.decide(0.0)
    assert supervision.targets(0.0).shape == (1, 12)
    walk.balance._now = lambda: walk.env.simulation.time + 1.0  # no sample has come for a second
    supervision.decide(0.02)
    way = supervision.targets(0.02)
    np.testing.assert_allclose(way[-1], HUMANOID.default_position)  # reached in 0.2 s
    assert supervision.targets(0.04).shape == way.shape
