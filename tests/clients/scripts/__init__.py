"""One script for each further client library, which ``tests/clients/test_others.py`` installs and runs; three more do
what the users of the owner's documents do, which ``tests/clients/test_documents.py`` runs.

A script is given the service's address, talks to it as an application would, and ends with 0 when everything went well.
A prompt with "break off" in it is answered with a stream that Ollama cuts: the library must raise.
"""
