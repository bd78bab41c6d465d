"""What `bridgectl doctor` asks for is what the chart grants."""

from bridge.core.permissions import RIGHTS, Place
from tests.chart.granted import NOWHERE, Grant, granted
from tests.chart.helming import rendered

PLACES = {Place.RELEASE: "release", Place.RUNS: "Workflows", Place.BRIGADE: "Brigade", Place.CLUSTER: "cluster"}


def test_the_rights_that_doctor_looks_for_are_those_of_the_chart():
    objects = rendered(NOWHERE.values(), namespace=NOWHERE.home)
    wanted = {Grant(one.account.name, PLACES[one.place], str(one), verb) for one in RIGHTS for verb in one.verbs}
    assert wanted == granted(objects, NOWHERE)
