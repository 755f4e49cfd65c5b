"""Acts with oras-py: `push REFERENCE FILE`, `pull REFERENCE FOLDER`, `login REGISTRY USER:PASSWORD`."""

import sys

import oras.client
import oras.provider
import oras.utils

# It would try for two minutes before it says that it was refused.
oras.provider.Registry.do_request = oras.provider.Registry.do_request.__wrapped__


def main(verb: str, where: str, what: str) -> None:
    # What a login left is read by the later runs. With tokens it would push by the first that it got, which is
    # for pulling, and never fetch another.
    logged_in = oras.utils.find_docker_config() is not None
    backend = "basic" if verb == "push" and logged_in else "token"
    client = oras.client.OrasClient(insecure=True, auth_backend=backend)
    if verb == "push":
        client.push(target=where, files=[what])
    elif verb == "pull":
        client.pull(target=where, outdir=what)
    else:
        user, password = what.split(":", 1)
        client.login(user, password, hostname=where)


if __name__ == "__main__":
    main(*sys.argv[1:])
