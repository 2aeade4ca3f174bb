"""Our NFT contracts: FunC sources, compiled code, and the hashes that tie them together.

The message layouts stand at the top of each .fc file. After a change of a source, run
`npm install && npm run build` here and commit the results; `python -m chain_gateway.contracts`
says whether they match.
"""

import base64
from importlib.resources import files
from typing import Literal

from pytoniq_core.boc.cell import Cell


def code(name: Literal["collection", "item", "sbt"]) -> Cell:
    """The compiled code of a contract."""
    text = (files(__name__) / f"{name}.boc").read_text()
    return Cell.one_from_boc(base64.b64decode(text))
