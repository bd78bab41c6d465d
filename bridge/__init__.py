"""Durable pull-request pipelines for Brigade on Argo Workflows."""

__version__ = "0.1.0"
