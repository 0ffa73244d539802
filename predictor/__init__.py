"""Joulegraph's predictor: the energy, time and carbon of a request before anything runs."""
