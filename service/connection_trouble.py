"""Why a server could not be reached, in words that do not name its address."""

from __future__ import annotations

import os
import socket
import ssl

_OF_ANOTHER_HOST = (62, 64)
"""X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH, whose words name the host."""


def what_hinders(problem: OSError | ValueError) -> str:
    """What was in the way of a connection. Callers read it, who may know the server by its name only."""
    match problem:
        case ssl.SSLCertVerificationError(verify_code=code) if code in _OF_ANOTHER_HOST:
            return f"{problem.reason}: the certificate is for another name"
        case ssl.SSLCertVerificationError():
            return f"{problem.reason}: {problem.verify_message}"
        case ssl.SSLError():
            return problem.reason or "TLS failed"
        case socket.gaierror():
            return problem.strerror or "its name has no address"
        case OSError():
            return os.strerror(problem.errno) if problem.errno else "no connection could be made"
        case _:
            return str(problem)
