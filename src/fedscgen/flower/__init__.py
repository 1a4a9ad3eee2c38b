"""The federation across institutions, on Flower: a ServerApp for the coordinator and a ClientApp for the sites.

Flower carries the messages and authenticates who sends them. Client, server and aggregation are those of
:mod:`fedscgen.federation`. Needs the extra ``flower``.
"""
