"""The gateway: webhooks in, runs out, and pages and an API to look at them (design.md, On the wire)."""
