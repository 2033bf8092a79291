"""Reads our own code once, for the process whose forks are kernels: every page asks what its artefacts are made by."""

from kn_core.fingerprint import code

code("kn_core.study.run")
