"""Flows order the core's decisions and the ports' calls; they decide nothing themselves."""
