"""Pushes or pulls one file with oras-py: `push REFERENCE FILE` or `pull REFERENCE FOLDER`."""

import sys

import oras.client


def main(verb: str, reference: str, path: str) -> None:
    client = oras.client.OrasClient(insecure=True)
    if verb == "push":
        client.push(target=reference, files=[path])
    else:
        client.pull(target=reference, outdir=path)


if __name__ == "__main__":
    main(*sys.argv[1:])
