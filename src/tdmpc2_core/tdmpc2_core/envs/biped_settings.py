"""Settings of the scripted controller of a biped."""

from __future__ import annotations

from dataclasses import dataclass

from tdmpc2_core.config import setting


@dataclass(frozen=True)
class BipedSettings:
    """Keys of a ``demonstration`` section of kind ``biped``; frequency, duty and feet are the clock's."""

    step_width: float = setting(unit="m", above=0, why="between the feet's centres")
    swing_height: float = setting(0.06, unit="m", above=0, why="height of a foot at mid swing")
    crouch: float = setting(0.02, unit="m", low=0, why="lower than the default pose while stepping")
    start_sway: float = setting(0.03, unit="m", low=0, why="shift of weight before the first step")
    ankle_gain: float = setting(1.5, unit="rad/m", low=0, why="standing: ankle pitch per capture point error")
    hip_gain: float = setting(0.5, unit="rad/m", low=0, why="standing: hip roll per capture point error")
    lean: float = setting(0.0, unit="m", why="standing: centre of mass ahead of the middle of the feet")
    capture_gain: float = setting(1.0, low=0, why="stepping: centre of pressure per capture point error")
    upright_gain: float = setting(0.5, low=0, why="stepping: over-correction of the trunk's tilt")
    lead: float = setting(0.02, unit="s", low=0, why="stepping: lag of the legs that stand, made up for")
    swing_lead: float = setting(0.03, unit="s", low=0, why="swing: lag of knee and ankle that is made up for")
    swing_lead_hip: float = setting(0.06, unit="s", low=0, why="swing: lag of the hip that is made up for")
    step_margin: float = setting(
        0.1, unit="m", above=0, why="standing: capture point error that makes it step"
    )
    velocity_gain: float = setting(1.0, above=0, why="stepping: asked per commanded velocity")
    velocity_bias: float = setting(0.0, unit="m/s", why="stepping: asked forward beside the command")
