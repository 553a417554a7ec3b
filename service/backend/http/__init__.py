"""An HTTP/1.1 client for the backends: connections, calls and their deadlines.

It is our own because it is in the way of every token: a library's client costs as much for a stream as all else that
the service does for it (``tests/bench``).
"""
