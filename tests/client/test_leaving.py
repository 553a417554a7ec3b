"""Streams that are left where a program, its loop or its client ends call their jobs off, and nothing is said."""

from __future__ import annotations

import textwrap

from service.simulated import Fault, FaultKind
from tests.support.programs import STALLED, program
from tests.support.running import service_in_process

LEFT_ALONE = "a job"
LOOK = f"""
def look(name):
    if name == {LEFT_ALONE!r}:
        [job] = watching.jobs(status="processing")
        watching.job(job["id"]).cancel()
    # Garbage is closed, and the end of a connection is noticed, by and by.
    while list(watching.jobs(status="processing")):
        pass
    says(name)

kept, watching = [], Client(url)
"""

LEFT = {
    "break": """
        async for chunk in AsyncClient(url).stream_chat(messages=messages):
            break
    """,
    "return": """
        async with AsyncClient(url) as client:
            async for chunk in client.stream_chat(messages=messages):
                return
    """,
    "an exception": """
        async for chunk in AsyncClient(url).stream_chat(messages=messages):
            raise KeyError
    """,
    "kept": """
        kept.append(AsyncClient(url).stream_chat(messages=messages))
        await anext(kept[-1])
    """,
    "a client that is closed": """
        client = AsyncClient(url)
        kept.append(client.stream_chat(messages=messages))
        await anext(kept[-1])
        await client.aclose()
        try:
            await anext(kept[-1])
        except ConfigurationError:
            return
        raise AssertionError
    """,
    "a client that is closed meanwhile": """
        client, begun = AsyncClient(url), asyncio.Event()
        async def read(call):
            try:
                async for each in call:
                    begun.set()
            except ConfigurationError:
                return True
        readers = [asyncio.create_task(read(call)) for call in (
            client.stream_chat(messages=messages), client.map(["stall", "stall"]), (await client.submit("x")).stream())]
        await begun.wait()
        call = asyncio.create_task(client.chat(messages=messages))
        while len([one async for one in client.jobs(status="processing")]) < 4:
            pass
        await client.aclose()
        assert await asyncio.gather(*readers) == [True, True, None]
        assert isinstance(call.exception(), ConfigurationError)
    """,
    "the server's own objects": """
        async for part in await AsyncClient(url).make_post_request_ollama("/api/chat", post, stream=True):
            break
    """,
    "a map": """
        async for answer in AsyncClient(url).map(["short", "stall", "stall"]):
            break
    """,
    "a list": """
        async for job in AsyncClient(url).jobs():
            break
    """,
    LEFT_ALONE: """
        job = await AsyncClient(url).submit(messages=messages)
        async for event in job.stream():
            break
    """,
}
LEFT_BY_CLIENTS = {
    "break": """
    for chunk in Client(url).stream_chat(messages=messages):
        break
    """,
    "the server's own objects": """
    for part in Client(url).make_post_request_ollama("/api/chat", post, stream=True):
        break
    """,
    "close": """
    client = Client(url)
    stream, news = client.stream_chat(messages=messages), client.submit("short").stream()
    assert next(stream) and next(news)
    client.close()
    for each in (stream, news):
        try:
            next(each)
        except ConfigurationError:
            continue
        raise AssertionError
    """,
    "with": """
    with Client(url) as client:
        answers = client.map(["short", "stall", "stall"])
        assert next(answers)
        kept.append(client.stream_chat(messages=messages))
        assert next(kept[-1])
    """,
    LEFT_ALONE: """
    news = Client(url).submit(messages=messages).stream()
    next(news)
    news.close()
    """,
}


def _left() -> str:
    """A program that leaves each of them, and says so when no job of it goes on."""
    lines = [LOOK]
    for name, text in LEFT.items():
        lines += ["async def main():", textwrap.indent(textwrap.dedent(text), "    ")]
        lines += ["try:", "    asyncio.run(main())", "except KeyError:", "    pass", f"look({name!r})"]
    for name, text in LEFT_BY_CLIENTS.items():
        lines += ["def main():", textwrap.indent(textwrap.dedent(text), "    ")]
        lines += ["main()", "gc.collect()", f"look({name!r})"]
    return "\n".join(lines)


async def test_what_is_left_is_called_off_and_nothing_is_said() -> None:
    stall = Fault(kind=FaultKind.STALL, prompt=STALLED, after_tokens=2)
    async with (
        service_in_process(faults=[stall], seats=20) as service,
        program(_left(), service.url, CORRAL_DEBUG="0") as running,
    ):
        for name in (*LEFT, *LEFT_BY_CLIENTS):
            assert await running.says() == name
        assert await running.ends() == (0, "")
