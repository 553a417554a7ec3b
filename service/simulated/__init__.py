"""A simulated Ollama: a real HTTP server that behaves as Ollama does, for the tests and for `python -m service demo`.

Serve it in this process with `SimulatedServer(SimulatedSettings(...))`, or as a process of its own with
`python -m service.simulated --port 0`. Make it go wrong with `server.arm(Fault(kind=FaultKind.STALL, after_tokens=3))`
or `POST /simulated/faults`; see what it did in `server.observations` or `GET /simulated/state`.
"""

from service.simulated.app import build_simulated_app
from service.simulated.faults import ArmedFault, Fault, FaultKind, Faults, busy
from service.simulated.models import DEMO_MODELS, RECORDED_MODELS, SimulatedModel
from service.simulated.observations import Observations, SeenRequest
from service.simulated.server import SimulatedServer
from service.simulated.settings import DEMO_SETTINGS, SimulatedSettings
from service.simulated.simulation import SIMULATION, Simulation

__all__ = [
    "DEMO_MODELS",
    "DEMO_SETTINGS",
    "RECORDED_MODELS",
    "SIMULATION",
    "ArmedFault",
    "Fault",
    "FaultKind",
    "Faults",
    "Observations",
    "SeenRequest",
    "SimulatedModel",
    "SimulatedServer",
    "SimulatedSettings",
    "Simulation",
    "build_simulated_app",
    "busy",
]
