"""Kubernetes: the ports over Secrets, Argo Workflows and Brigade v1, by own raw calls on plain dicts.

Everything here is light enough for a step's process: urllib3, and PyYAML only where a kubeconfig is read
(facts: docs/decisions/dependencies.md).
"""
