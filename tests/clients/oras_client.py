"""Acts with oras-py: `push REFERENCE FILE`, `pull REFERENCE FOLDER`, `login REGISTRY USER:PASSWORD`."""

import sys

import oras.client


def main(verb: str, where: str, what: str) -> None:
    # What a login left is read by the later runs.
    client = oras.client.OrasClient(insecure=True)
    if verb == "push":
        client.push(target=where, files=[what])
    elif verb == "pull":
        client.pull(target=where, outdir=what)
    else:
        user, password = what.split(":", 1)
        client.login(user, password, hostname=where)


if __name__ == "__main__":
    main(*sys.argv[1:])
