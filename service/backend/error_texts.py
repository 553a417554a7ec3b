"""The texts of Ollama's errors, and whose fault each one is: the rows of wire contract 3.2, as one table.

The first row that fits decides. A text that begins as a row says comes before one that says it somewhere, since most
texts quote what somebody else wrote: a caller, a template, the model, a dying runner.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from service.errors import Fault


class Row(NamedTuple):
    """Texts that mean the same."""

    fault: Fault
    rows: str
    """Where they stand in the contract's table."""
    pattern: re.Pattern[str]


def _row(fault: Fault, rows: str, pattern: str) -> Row:
    return Row(fault, rows, re.compile(pattern, re.VERBOSE | re.DOTALL))


_DIED = r"(\bEOF\b|connection\ reset|broken\ pipe|forcibly\ closed)"
"""The connection to the runner ended in the middle of this request."""

_OF_RUNNER = r'^(do\ embedding\ request:\ |[\w -]+\ error:\ )?(Post|Get)\ "http://127\.0\.0\.1:\d+/'
"""Go's own words for a call to the runner that failed, with what Ollama may put before them."""

_IN_CHAT = r"^(llama-server\ chat\ error:\ map\[code:\d+\ message:)?"
"""What the runner says in the middle of a chat, as Go prints it."""

ROWS = (
    # The request's: refused before anything was generated.
    _row(
        Fault.PERMANENT,
        "2 to 20",
        r"""
          ^(invalid\ think\ value|invalid\ thinking\ value|think\ must\ be\b|invalid\ reasoning\ value)
        | ^[Ff]ailed\ to\ create\ new\ sequence:  # an image that is none, found by the runner
        | ^model\ is\ required | ^invalid\ model\ name | ^use\ either\ :local\ or\ :cloud
        | ^model\ ('.*'|".*")\ not\ found
        | ^(\S+|this\ model|raw\ mode|This\ server)\ does\ not\ support\b
        | ^top_logprobs\ must\ be | ^image\ generation\ models\ are\ not | ^this\ model\ only\ supports\ one\ image
        | ^option\ ".*"\ must\ be\ of\b
        | ^invalid\ format:
        | ^invalid\ JSON\ schema\ in\ format | ^JSON\ schema\ conversion\ failed
        | ^template\b | ^llama-server\ template\ error:
        # What the built-in renderers refuse.
        | ^no\ (messages\ provided|user\ query\ found) | ^\w+\ message\ cannot\ contain\ images
        | ^unsupported\ .*\ reasoning\ effort
        | ^Assistant\ response\ prefill\ is\ incompatible
        | ^Cannot\ have\ 2\ or\ more\ assistant\ messages
        """,
    ),
    _row(
        Fault.PERMANENT,
        "21 to 25",
        r"""
          ^the\ prompt\ is\ longer\ than\ the\ context | ^the\ input\ length\ exceeds\ the\ context
        | ^input\ length\ \(\d+\ tokens\)\ exceeds | ^invalid\ input\ type
        """,
    ),
    _row(
        Fault.PERMANENT,
        "36, 45 to 47, 50, 51",
        r"""
          ^'.*'\ is\ no\ longer\ compatible
        | ^ollama\ cloud\ is\ disabled | ^unauthorized\b | ^this\ server\ cannot\ run\ this\ remote\ model
        | ^pull\ model\ manifest:\ (file\ does\ not\ exist|412\b) | ^insecure\ protocol
        """,
    ),
    _row(Fault.BUSY, "29", r"^server\ busy,\ please\ try\ again"),
    # What the model wrote, in the words of Ollama's parsers and of the runner's. Those of Go's decoders are the
    # request's where the status says so.
    _row(
        Fault.OUTPUT,
        "43",
        rf"""
          {_IN_CHAT}(Failed\ to\ parse\ input\ at\ pos | The\ model\ produced\ output\ that\ does\ not\ match)
        | ^error\ parsing\ tool\ call | ^llama-server\ returned\ invalid\ tool\ call | ^invalid\ tool\ call
        | ^failed\ to\ parse\ (XML|JSON|Laguna|function\ call|arguments|value\ for)
        | ^incomplete\ GLM\ tool\ call | ^mismatched\ arg_key | ^tool\ ('.*'|".*")\ (not\ found|is\ not\ declared)
        | ^required\ argument\ ".*"\ is\ missing | ^empty\ (argument|function|Glimmer|Laguna)\b
        | ^undeclared\ Glimmer | ^parse\ Glimmer\ call | ^Glimmer\ recipient | ^(missing|malformed|unterminated)\ ATEM
        | ^no\ tool\ calls?\ found | ^unterminated\ string | ^invalid\ function\ call\ format | ^invalid\ format$
        | ^invalid\ (argument|argument\ format|object\ entry): | ^expected\ '.*(prefix|in\ tool\ call)$
        | ^repair\ failed\ to\ produce | ^XML\ syntax\ error | ^expected\ element\ type\ < | ^EOF$
        | ^web_search\ (exceeded\ the\ maximum|requires\ a\ non-empty|call\ disappeared)
        | ^invalid\ character\ ' | ^unexpected\ end\ of\ JSON | ^json:\ cannot\ unmarshal
        """,
    ),
    _row(Fault.OUTPUT, "39b", r"^prediction\ aborted,\ token\ repeat\ limit"),
    # The request's once more, in the words of the runner and of its templates.
    _row(Fault.PERMANENT, "20b", r"Jinja\ Exception | While\ executing\ \w+\ at\ line"),
    _row(
        Fault.PERMANENT,
        "19, 21 to 24, 34",
        r"""
          failed\ to\ parse\ grammar
        | longer\ than\ the\ context\ length | exceeds\ the\ available\ context\ size
        | exceeds\ the\ context\ length | exceeds\ (the\ model's\ )?maximum\ context\ length
        | Context\ size\ has\ been\ exceeded
        | may\ be\ incompatible\ with\ your\ version | (unknown|unsupported)\ (model\ )?architecture
        """,
    ),
    # A dying runner's last words may be about anything.
    _row(
        Fault.RUNNER,
        "32, 39, 41",
        r"""
          ^(llama-server|llama\ runner)\ process\ has\ terminated | ^mlx\ runner\ (failed|exited)
        | ^an\ error\ was\ encountered\ while\ running\ the\ model
        | ^error\ (unmarshalling|reading|closing)\ llama-server\b.*response
        """,
    ),
    _row(
        Fault.PERMANENT,
        "10 to 13",
        r"""
          does\ not\ support\ (generate|chat|completion|embedding|thinking|tools|insert|vision|audio|image|decision)
        | is\ too\ large\ to\ process
        """,
    ),
    # The runner's: it died or failed over a request. A second time it would most likely do so again.
    _row(
        Fault.RUNNER,
        "26 to 28, 38",
        rf"""
          contains\ NaN\ or\ Inf
        | {_OF_RUNNER}(completion":|.*{_DIED})
        | ^(do\ embedding\ request|error\ reading\ embed\ response|(de)?tokenize\ error):.*{_DIED}
        | ^unmarshal\ embedding | ^empty\ embedding\ response
        | ^(llama-server\ apply-template\ error|failed\ reading\ llama-server\ \w+\ response):.*{_DIED}
        | ^model\ runner\ has\ unexpectedly\ stopped | ^unexpected\ EOF$
        """,
    ),
    _row(
        Fault.RUNNER,
        "31 to 34, 40",
        r"""
          out[ -]of[ -]memory | cudaMalloc\ failed | failed\ to\ allocate
        | requires\ .*\ (than\ is|but\ only\ .*)\ available | unable\ to\ load\ full\ model
        | process\ has\ terminated | (unable\ to\ load|error\ loading)\ model | ^model\ failed\ to\ load
        | ^tensor\ .*\ exceeds\ file\ size
        | timed\ out\ waiting\ for\ .*\ to\ start | ^timeout\ waiting\ for\ mlx\ runner
        | mlx\ runner\ (failed|exited)
        """,
    ),
    _row(Fault.RUNNER, "41", r"event\ exceeded\ .*limit"),
    # What the model wrote, in the words of the runner's decoders, which name a place in it and never quote it whole.
    _row(
        Fault.OUTPUT,
        "43",
        r"does\ not\ match\ the\ expected\ [\w-]+\ format | (invalid|incomplete|ill-formed)\ UTF-8",
    ),
    _row(Fault.RUNNER, "41", r"^llama-server\ chat\ error:"),
    # The server's, or a runner's that was not there for the request: it passes.
    _row(
        Fault.TRANSIENT,
        "27, 30, 35, 37, 44, 48",
        rf"""
          {_OF_RUNNER} | ^do\ embedding\ request: | ^error\ reading\ embed\ response | ^(de)?tokenize\ error
        | connection\ refused | ^server\ not\ responding | ^(read\ )?health\ (resp|unmarshal)
        | ^request\ canceled | ^error\ starting\ llama-server
        | ^unexpected\ server\ status: | no\ slots\ available | no\ longer\ running | ^llama-server\ error:
        | ^llama-server\ apply-template\ error | ^failed\ reading\ llama-server
        | ^web\ search\ (request\ failed|returned\ status) | ^failed\ to\ \w+\ web\ search
        | ^open\ / | ^model\ list\ cache\ unavailable | \bdial\ tcp\b
        """,
    ),
)

OF_EMBEDDING_RUNNER = re.compile(
    rf"""
      {_OF_RUNNER} | ^do\ embedding\ request: | ^error\ reading\ embed\ response | ^(de)?tokenize\ error
    | contains\ NaN\ or\ Inf | ^unmarshal\ embedding | ^empty\ embedding\ response
    | ^unexpected\ server\ status: | no\ slots\ available | no\ longer\ running | ^llama-server\ error:
    | connection\ refused | ^server\ not\ responding | ^(read\ )?health\ (resp|unmarshal)
    | ^model\ runner\ has\ unexpectedly\ stopped | process\ has\ terminated
    | mlx\ runner\ (failed|exited) | out[ -]of[ -]memory | cudaMalloc\ failed | failed\ to\ allocate
    """,
    re.VERBOSE | re.DOTALL,
)
"""What ``/api/embed`` says of its runner with status 400, as of everything that has no status (rows 26 and 27)."""


def found(message: str, *, is_refused: bool) -> Row | None:
    """The row that knows this text. ``is_refused``: the status says that the request was refused."""
    for row in ROWS:
        if (row.fault is Fault.PERMANENT or not is_refused) and row.pattern.search(message):
            return row
    return None
