"""What shows bridge at work on one machine: a GitHub to talk to."""
