"""The controllers: each watches a few kinds and reconciles the cluster with their specs."""
