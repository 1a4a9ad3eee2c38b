"""The federation across institutions as an app on FeatureCloud: every instance is a site, one also the coordinator.

FeatureCloud's controllers carry the messages; what both ends do is in :mod:`fedscgen.deployment`. Needs the extra
``featurecloud`` and, installed without its dependencies, the app engine of the package ``FeatureCloud``. Nothing is
imported here, so that the command line starts without either.
"""
