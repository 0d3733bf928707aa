"""Queues, workers and the loop that turns a key into observe, plan, act, publish."""
