"""Predictions and evaluations -> pages for people."""
