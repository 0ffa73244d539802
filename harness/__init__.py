"""Joulegraph's harness: measure the energy of LLM inference, per phase and per kernel."""

__version__ = "0.1.0"
