"""The federation across institutions on Flower: a ServerApp for the coordinator and a ClientApp for the sites.

Flower carries the messages and authenticates who sends them; what both ends do is in :mod:`fedscgen.deployment`. Needs
the extra ``flower``. Nothing is imported here: Flower starts a process for every message, and the command line must
start without Flower.
"""
