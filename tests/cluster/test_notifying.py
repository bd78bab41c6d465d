"""The controller tells endpoints of its runs: with records on a real API server, and killed in between."""

import base64
import json
import signal

from bridge.core.runs import Told
from tests.outbound.receiving import Hook

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


def endpoints(folder, *found):
    (folder / "secret").write_text(SECRET)
    path = folder / "endpoints.yaml"
    path.write_text(json.dumps({"endpoints": list(found)}))
    return path


def test_what_a_closed_run_owes_is_paid_by_whoever_leads_next(realm, playing_brigade, tmp_path):
    realm.pipeline()
    with Hook(otherwise=503) as hook:
        file = endpoints(tmp_path, {"name": "ops", "url": hook.url, "secretFile": "secret", "timeout": "30s"})
        told = {"BRIDGE_NOTIFY_FILE": str(file), "BRIDGE_PUBLIC_URL": "https://ci.example"}
        first = realm.process(log="first.log", **told)
        second = None
        try:
            run = realm.accept()
            realm.end_workflow(run)
            closed = realm.until_closed(run)
            # Nothing waited for the endpoint, and the record says that it does.
            assert closed.state.reported.state == "success"
            assert closed.state.notified["ops"] == Told(waits=True)
            realm.until(lambda: hook.came, "the endpoint to be asked")
            first.send_signal(signal.SIGKILL)
            first.wait(60)
            hook.otherwise = 204
            second = realm.process(log="second.log", **told)
            done = realm.until_run(
                run, lambda now: not now.owes_notifications, "to have told everything to its endpoint"
            )
            assert done.state.notified["ops"] == Told(upto=4)
        finally:
            for process in filter(None, (first, second)):
                process.kill()
                process.wait(60)
        wanted = [f"{run}:{what}" for what in ("accepted", "1:started", "1:test:finished", "1:closed")]
        assert list(dict.fromkeys(hook.ids())) == wanted
        event = json.loads(hook.came[-1].body)
        assert (event["source"], event["data"]["url"]) == ("https://ci.example", f"https://ci.example/runs/{run}")
        # Secrets and URLs are nobody's business but the endpoint's.
        said = realm.said("first.log") + realm.said("second.log")
        assert "endpoint ops was not told of run" in said
        assert "/hooks/bridge" not in said
        assert SECRET not in said


def test_many_runs_behind_a_dead_endpoint_cost_it_few_requests_and_others_nothing(
    realm, playing_brigade, tmp_path
):
    realm.pipeline()
    with Hook() as well, Hook(otherwise="reset") as dead:
        file = endpoints(
            tmp_path,
            {"name": "well", "url": well.url, "secretFile": "secret", "timeout": "30s"},
            {"name": "dead", "url": dead.url, "secretFile": "secret", "timeout": "30s"},
        )
        with realm.controlled(notify_file=file) as controller:
            runs = [realm.accept() for _ in range(10)]
            for run in runs:
                realm.end_workflow(run)
            for run in runs:
                realm.until_closed(run)
            last = {f"{run}:1:closed" for run in runs}
            realm.until(lambda: last <= set(well.ids()), "the one to be told of everything")
            realm.until(lambda: len(controller.index.owing()) == 10, "all to wait for the other")
            counted = {"bridge_notifications_delivered_total": 40, "bridge_notifications_waiting": 10}
            realm.until(lambda: counted.items() <= controller.values().items(), f"the metrics to be {counted}")
            # It would be 40 and more; after each failure it is left alone for longer.
            assert 1 <= len(dead.came) < 15
            dead.otherwise = 204
            realm.until(lambda: not controller.index.owing(), "the other to be told, too")
        assert last <= set(dead.ids())
