"""All SQL of the Gateway; every class works within one transaction of its caller.

`orders` and `links` serve the RPCs, `progress` serves the one process that leads the minting.
"""
