"""`python -m tests.cluster up|down|node-up|node-down|node-import|build`: the tests' control plane, for people."""

import argparse
import sys
from pathlib import Path

from tests.cluster.building import PROGRAMS, CannotBuild, binaries, cache_folder, say
from tests.cluster.control_plane import CannotStart
from tests.cluster.holding import down, hold, running, up
from tests.cluster.node import PROGRAMS as PROGRAMS_OF_NODE
from tests.cluster.node import import_image, prepare, socket_of, why_not


def main(arguments: list[str]) -> int:
    """Do what is asked; 0, or 1 after a message."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    acts = parser.add_subparsers(dest="act", required=True)
    acts.add_parser("up", help="start a control plane that runs on")
    acts.add_parser("down", help="stop it")
    acts.add_parser("node-up", help="start one with a node, on which pods really run (root only)")
    acts.add_parser("node-down", help="stop that")
    importing = acts.add_parser(
        "node-import", help="give that node the images of an archive (docker save's, or OCI's)"
    )
    importing.add_argument("archives", nargs="+", type=Path, metavar="ARCHIVE")
    building = acts.add_parser("build", help="build the binaries and print where they are")
    building.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PROGRAMS)}")
    building.add_argument("--node", action="store_true", help="and those of a node, where there can be one")
    holding = acts.add_parser("hold", help="for the tests: start one in a folder")
    holding.add_argument("folder", type=Path)
    holding.add_argument("--while-used", action="store_true")
    holding.add_argument("--own-crds", action="store_true")
    holding.add_argument("--node", action="store_true")
    asked = parser.parse_args(arguments)
    try:
        return _do(asked)
    except (CannotBuild, CannotStart) as failure:
        say(str(failure))
        return 1


def _do(asked: argparse.Namespace) -> int:
    folder, of_node = cache_folder() / "cluster", cache_folder() / "node"
    match asked.act:
        case "build":
            # All in one go: they share most of what is compiled.
            of_all = PROGRAMS_OF_NODE if asked.node and why_not() is None else ()
            for file in binaries(*(asked.names or of_all)).values():
                print(file)
        case "up":
            binaries()  # here, where its progress is seen
            control_plane = up(folder)
            print(f"API server: {control_plane.url}\nexport KUBECONFIG={control_plane.kubeconfig}")
        case "down":
            say("stopped" if down(folder) else "none was running")
        case "hold":
            hold(asked.folder, while_used=asked.while_used, own_crds=asked.own_crds, node=asked.node)
        case "node-up":
            prepare()
            control_plane = up(of_node, node=True)
            print(f"API server: {control_plane.url}\ncontainerd: {socket_of(of_node)} (namespace k8s.io)")
            print(f"export KUBECONFIG={control_plane.kubeconfig}")
        case "node-down":
            say("stopped" if down(of_node) else "none was running")
        case "node-import":
            if not running(of_node):
                raise CannotStart("no node runs: make node-up starts one")
            for archive in asked.archives:
                import_image(of_node, archive)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
