"""Tests of the routes, whatever is behind them."""
