"""Side-by-side measurements on a real API server: `make bench`, or `make bench WHAT=accept|step|reconcile`.

Nothing here is a test: no figure makes anything fail. What is compared is measured in one run, so that a slow or busy
machine slows both. docs/performance.md says how to read the figures.
"""
