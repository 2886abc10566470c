"""Federated learning beyond one round: algorithms, cohorts, training loops."""
