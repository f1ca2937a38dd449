"""Execution of node graphs: pure, without a server and without torch."""
