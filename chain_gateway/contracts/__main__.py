"""Check the committed contracts; recompile them too where npm has installed the compiler."""

import sys

from chain_gateway.contracts.verify import differences, recompiled


def main() -> int:
    found = differences()
    same = recompiled()
    if same is False:
        found.append("compiling the sources gives other code than the committed one")
    for line in found:
        print(line, file=sys.stderr)
    if not found:
        how = "no compiler here; `npm install` brings it" if same is None else "recompiled"
        print(f"the contracts match their sources and hashes ({how})")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
