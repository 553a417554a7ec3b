"""`python -m service.simulated`: the simulated Ollama as a process of its own. Prints its address, then serves."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from service.simulated.models import DEMO_MODELS, RECORDED_MODELS, SimulatedModel
from service.simulated.server import SimulatedServer
from service.simulated.settings import DEMO_SETTINGS, SimulatedSettings


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m service.simulated", description=__doc__)
    add = parser.add_argument
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=11434, help="0: any that is free; the address is printed either way")
    add(
        "--models",
        default="demo",
        help='"demo", "recorded", or JSON (or a file of it): a list of objects with the fields of SimulatedModel',
    )
    add("--version", help="of Ollama, whose ways it then has: 0.24.0 (the default), 0.33.0, 0.40.0 or any other")
    add("--parallel", type=int, help="seats of each loaded model")
    add("--max-loaded", type=int, dest="max_loaded_models", help="models that fit together")
    add("--max-queue", type=int, help="requests that may wait for a load")
    add("--memory-bytes", type=int, help="what all loaded models may take together")
    add("--keep-alive", type=float, dest="keep_alive_seconds", help="seconds")
    add("--load-seconds", type=float, help="of every model")
    add("--token-seconds", type=float)
    add("--tokens", type=int, help="of each answer; 0: the model never stops by itself")
    add("--answer", choices=("words", "echo", "demo"), dest="answer_style")
    add("--text", dest="answer_text", help="every answer, as it is")
    add("--together", action="store_true", help="tokens that cost no time go out in one write")
    add("--demo", action="store_true", help="begin from the settings of the demo: a human pace, plain words")
    return parser


def _models(given: str) -> tuple[SimulatedModel, ...]:
    if given in ("demo", "recorded"):
        return DEMO_MODELS if given == "demo" else RECORDED_MODELS
    text = given if given.lstrip().startswith("[") else Path(given).read_text(encoding="utf-8")
    return tuple(
        SimulatedModel(
            **{
                **each,
                "capabilities": tuple(each.get("capabilities", ("completion",))),
                "families": tuple(each.get("families", ())),
                "parameters": tuple((each.get("parameters") or {}).items()),
            }
        )
        for each in json.loads(text)
    )


def _settings(arguments: argparse.Namespace) -> SimulatedSettings:
    named = (
        "version",
        "parallel",
        "max_loaded_models",
        "max_queue",
        "memory_bytes",
        "keep_alive_seconds",
        "token_seconds",
        "tokens",
        "answer_style",
        "answer_text",
    )
    changes = {name: getattr(arguments, name) for name in named if getattr(arguments, name) is not None}
    if changes.get("tokens") == 0:
        changes["tokens"] = None
    models = _models(arguments.models)
    if arguments.load_seconds is not None:
        models = tuple(replace(model, load_seconds=arguments.load_seconds) for model in models)
    base = DEMO_SETTINGS if arguments.demo else SimulatedSettings()
    return replace(base, models=models, flush_each_token=not arguments.together, **changes)


async def _serve(arguments: argparse.Namespace) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with SimulatedServer(_settings(arguments), host=arguments.host, port=arguments.port) as server:
        print(server.url, flush=True)
        await stopping.wait()


def main(given: Sequence[str] | None = None) -> None:
    parser = _parser()
    arguments = parser.parse_args(given)
    try:
        try:
            import uvloop
        except ImportError:
            asyncio.run(_serve(arguments))
        else:
            uvloop.run(_serve(arguments))
    except (OSError, ValueError, TypeError) as error:
        parser.exit(1, f"The simulated Ollama cannot start: {error}\n")


if __name__ == "__main__":
    main()
