"""What a simulated Ollama is told at its start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from service.simulated.models import DEMO_MODELS, SimulatedModel
from service.simulated.versions import Behaviour, behaviour_of

AnswerStyle = Literal["words", "echo", "demo"]


@dataclass(frozen=True, slots=True)
class SimulatedSettings:
    """Names in brackets are Ollama's own settings (wire contract 4.1). Times are in seconds.

    `answer_style`: `words` gives `tokens` words that depend on the prompt, `echo` gives the prompt back, `demo` says
    in several sentences that it is simulated. `answer_text` is given as it is, whatever the style. A model with
    `tokens` None never stops by itself, as the models of the recordings do not: only `num_predict` ends its answers.
    """

    models: tuple[SimulatedModel, ...] = DEMO_MODELS
    parallel: int = 1  # [OLLAMA_NUM_PARALLEL] seats of each loaded model
    max_loaded_models: int = 3  # [OLLAMA_MAX_LOADED_MODELS]
    max_queue: int = 512  # [OLLAMA_MAX_QUEUE]
    keep_alive_seconds: float = 300.0  # [OLLAMA_KEEP_ALIVE]
    context_length: int = 4096  # [OLLAMA_CONTEXT_LENGTH]
    memory_bytes: int | None = None  # what all loaded models may take together; None: only their number counts
    unload_seconds: float = 0.0  # from the end of a runner to its memory being free
    tokens: int | None = 20
    token_seconds: float = 0.0
    flush_each_token: bool = True  # False: tokens that cost no time go out in one write, for benchmarks
    answer_style: AnswerStyle = "words"
    answer_text: str | None = None
    version: str = "0.24.0"  # what it speaks: see versions.py
    later_paths: tuple[str, ...] = ()  # what a later version may bring: they tell what they were asked
    web_search_seconds: float = 0.0  # of each search that a server makes for its model (wire contract 2.4, 2.5)
    remembered_requests: int = 1000
    is_host_checked: bool = True  # the 403 for foreign Host and Origin headers of a server bound to loopback

    @property
    def behaviour(self) -> Behaviour:
        return behaviour_of(self.version)


# Twenty-five tokens a second: an answer that a person can read along with.
DEMO_SETTINGS = SimulatedSettings(parallel=2, token_seconds=0.04, tokens=120, answer_style="demo")
