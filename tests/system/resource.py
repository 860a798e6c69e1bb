"""The resource of these tests' system."""

from __future__ import annotations

WINDOWS = {"1m": 1, "5m": 5, "1h": 60, "24h": 1440}
RESOURCE = """
apiVersion: swapstats.io/v1alpha1
kind: SwapStats
metadata: {name: system}
spec:
  source: {topic: {partitions: 6}, start: earliest, sessionTimeout: 6s}
  windows: [1m, 5m, 1h, 24h]
  snapshots: {interval: 1s}
  shards: {replicas: 2, failoverAfter: 10m}  # here whoever is gone comes back
  api: {replicas: 2, http: {port: 0}}
"""
