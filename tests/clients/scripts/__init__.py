"""One script for each further client library; ``tests/clients/test_others.py`` installs the library and runs it.

A script is given the service's address, talks to it as an application would, and ends with 0 when everything went well.
A prompt with "break off" in it is answered with a stream that Ollama cuts: the library must raise.
"""
