"""The client library of Corral."""
