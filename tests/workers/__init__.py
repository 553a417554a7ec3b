"""Tests of attempts and their repeats."""
