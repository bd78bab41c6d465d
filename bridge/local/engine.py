"""The engine of one machine: executes WorkflowTemplates as Argo does, their containers as processes.

Everybody may ask at any time, from any process; one engine at a time acts, in a loop that compares what is asked
for with what is, so that it may die at any moment. What a Workflow runs is fixed when it is submitted.
"""

import fcntl
import json
import logging
import os
import shutil
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import bridge
from bridge.clocks import SystemClock
from bridge.core import names
from bridge.core.executions import Execution, Node, NodePhase
from bridge.core.runs import Run
from bridge.errors import BadPipeline, BridgeError, Conflict, EngineError, NotFound, Unavailable
from bridge.local import durable, processes, scheduling
from bridge.local.database import FILE_NAME, Database
from bridge.local.retries import DEADLINE_MESSAGE, End
from bridge.local.scheduling import Progress
from bridge.local.step_processes import Child, Key, StepProcesses, end_left_over
from bridge.local.templates import EXIT_NODE, Command, Plan, Program, Task, plan_of
from bridge.local.workflow_rows import Row, Submission, WorkflowRows
from bridge.ports import Clock

log = logging.getLogger(__name__)

STEP_COMMAND = (sys.executable, "-m", "bridge.step")
EXIT_COMMAND = (sys.executable, "-m", "bridge.exiting")
LOOK_AGAIN_SECONDS = 0.2
"""Other processes leave their wishes in the database, and this is how often it is read."""
LOOK_AT_CHILDREN_SECONDS = 0.05
TROUBLE_SECONDS = 1.0
GRACE_SECONDS = 10.0
_HOST_VARIABLES = ("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER")
"""What an ordinary container's process gets of the engine's environment."""
_SHOWN_CHARACTERS = 300
_TAIL_BYTES = 4096
_OUR_LINES = ("brig: ", "bridgectl exit: ")


class LocalEngine:
    """The port Engine on one machine.

    Making one touches nothing. The methods of the port may be called in any process and thread; `run_forever` and
    `pass_once` act, in one thread that lives as long as the steps that it starts.

    Args:
        state: the state folder; the engine's are `engine.lock` and `steps/` in it, and tables in the database.
        template: the WorkflowTemplate of a pipeline, by name. Raises NotFound, BadPipeline.
        parallel_steps: how many steps run at once, and how many exit handlers beside them.
        environment: variables by which steps and exit handlers find their world; they win over a template's.
        run_on_host: run ordinary containers' commands as they are, without isolation.
        step_command: what `brig run` is here, before its arguments.
        exit_command: what `bridgectl exit` is here, before its arguments.
        database: the file; `bridge.sqlite3` in the state folder if not given.
        grace_seconds: how long a process that must end may take after SIGTERM.

    """

    def __init__(
        self,
        state: Path,
        template: Callable[[str], Mapping[str, Any]],
        *,
        parallel_steps: int = 4,
        environment: Mapping[str, str] | None = None,
        run_on_host: bool = False,
        step_command: Sequence[str] = STEP_COMMAND,
        exit_command: Sequence[str] = EXIT_COMMAND,
        database: Path | None = None,
        clock: Clock | None = None,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self._state = state.absolute()
        self._template = template
        self._parallel_steps = parallel_steps
        self._environment = dict(environment or {})
        self._run_on_host = run_on_host
        self._commands = {Program.STEP: tuple(step_command), Program.EXIT: tuple(exit_command), Program.HOST: ()}
        self._rows = WorkflowRows(Database(database or self._state / FILE_NAME))
        self._clock: Clock = clock or SystemClock()
        self._children = StepProcesses(grace_seconds=grace_seconds)
        self._plans: dict[str, tuple[str, Plan]] = {}
        self._began: dict[Key, float] = {}
        self._wake = threading.Event()
        self._lock: int | None = None

    def submit(self, run: Run, attempt: int) -> str:
        """Create the attempt's Workflow; see the port. Its template is judged whole before it is accepted."""
        name = names.workflow_name(run.id, attempt)
        known = self._rows.uid(name, accepted=run.accepted)
        if known is not None:
            return known
        try:
            template = self._template(run.pipeline)
        except NotFound as exc:
            raise BadPipeline(f"pipeline {run.pipeline} cannot be run: {exc}") from exc
        one = Submission(
            name=name,
            uid=str(uuid.uuid4()),
            run=run.id,
            attempt=attempt,
            accepted=run.accepted,
            template=template,
            arguments={"run": run.id, "attempt": str(attempt)},
            created=self._clock.now(),
        )
        self._planned(one.name, one.uid, one.template, one.arguments)
        try:
            uid = self._rows.insert(one)
        except (TypeError, ValueError) as exc:
            raise BadPipeline(f"pipeline {run.pipeline} cannot be run: its template is no JSON ({exc})") from exc
        self._wake.set()
        return uid

    def observe(self, run: Run, attempt: int) -> Execution | None:
        """What is there now."""
        row = self._rows.read(names.workflow_name(run.id, attempt))
        if row is None or row.deleted:
            return None
        nodes = tuple(
            Node(node.name, node.phase, node.exit_code, node.message, node.started, node.ended)
            for node in row.progress.nodes.values()
            if node.name != EXIT_NODE
        )
        return Execution(
            uid=row.uid,
            root=row.progress.root,
            message=row.progress.message,
            nodes=nodes,
            finished=row.progress.finished is not None,
        )

    def touch(self, run: Run, attempt: int) -> None:
        """Make the loop look again, which it does anyway."""
        self._rows.touch(names.workflow_name(run.id, attempt), self._clock.now())
        self._wake.set()

    def stop(self, run: Run, attempt: int) -> None:
        """End its steps, run its exit handler."""
        self._rows.shut_down(names.workflow_name(run.id, attempt), scheduling.STOP)
        self._wake.set()

    def terminate(self, run: Run, attempt: int) -> None:
        """End its steps and its exit handler."""
        self._rows.shut_down(names.workflow_name(run.id, attempt), scheduling.TERMINATE)
        self._wake.set()

    def delete(self, run: Run, attempt: int) -> None:
        """Remove it with its logs. Its name is not used again, except by a run that was accepted anew."""
        self._rows.delete(names.workflow_name(run.id, attempt))
        self._wake.set()

    def end_all(self, run_id: str) -> list[int]:
        """End whatever there is of a run that cannot be read; answers the attempts that it ever had."""
        found = self._rows.of_run(run_id)
        for name, _ in found:
            self._rows.shut_down(name, scheduling.TERMINATE)
        self._wake.set()
        return [attempt for _, attempt in found]

    def run_forever(self, stop: threading.Event) -> None:
        """Execute Workflows until `stop` is set, then end the processes; what they were at goes on next time.

        While another engine holds the state folder, this one waits for it.
        """
        try:
            self._hold_in_time(stop)
            while not stop.is_set():
                self._wake.clear()
                self._wake.wait(self._passed_safely())
        finally:
            self.close()

    def pass_once(self) -> bool:
        """Do what can be done now, without waiting; whether something is left that is not finished.

        Raises Conflict while another engine holds the state folder, and Unavailable.
        """
        self._hold()
        self._children.look()
        rows = self._rows.due()
        troubles = [trouble for row in rows if (trouble := self._advanced(row)) is not None]
        if troubles:
            raise troubles[0]
        return bool(rows)

    def close(self) -> None:
        """End the processes and let go of the state folder. Nothing is forgotten: Running nodes are run again."""
        for child in self._children.end_all():
            if child.exited and child.code == 0:
                with suppress(BridgeError):
                    self._record_success(child)
            self._forget(child)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _hold_in_time(self, stop: threading.Event) -> None:
        """Hold the state folder, as soon as that can be, or stop."""
        told = ""
        while not stop.is_set():
            try:
                self._hold()
            except BridgeError as exc:
                if str(exc) != told:
                    log.warning("the engine waits: %s", exc)
                told = str(exc)
                stop.wait(LOOK_AGAIN_SECONDS)
            else:
                return

    def _passed_safely(self) -> float:
        """One pass; how long to wait for the next."""
        try:
            self.pass_once()
        except EngineError as exc:
            log.warning("the engine cannot go on: %s (trying again)", exc)
            return TROUBLE_SECONDS
        except Exception:
            # A defect that no single Workflow is to blame for; steps that run must still be watched.
            log.exception("a pass of the engine failed")
            return TROUBLE_SECONDS
        return LOOK_AT_CHILDREN_SECONDS if any(self._children.count(node=EXIT_NODE)) else LOOK_AGAIN_SECONDS

    def _hold(self) -> None:
        """Be the one engine of the state folder, and clear away what is left of the one before."""
        if self._lock is not None:
            return
        path = self._state / "engine.lock"
        try:
            durable.make_folder(self._state)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, durable.PRIVATE_FILE)
        except OSError as exc:
            raise Unavailable(
                f"{path} cannot be made ({exc.strerror}); check that this user may write there"
            ) from exc
        try:
            self._take_over(handle)
        except BaseException:
            os.close(handle)
            raise
        self._lock = handle

    def _take_over(self, lock: int) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise Conflict(
                f"another engine (process {holder}) runs the steps of {self._state}; "
                "stop that one, or give this one a state folder of its own"
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        end_left_over([leader for row in self._rows.due() for leader in _leaders(row)])

    def _advanced(self, row: Row) -> EngineError | None:
        """Take one Workflow further; the trouble that it met, if the world and not the Workflow is to blame."""
        try:
            self._advance(row)
        except EngineError as exc:
            return exc
        except Exception as exc:
            log.exception("workflow %s cannot go on", row.name)
            reason = str(exc) if isinstance(exc, BridgeError) else f"a defect: {type(exc).__name__}, see the log"
            self._rows.give_up(row.name, reason[:_SHOWN_CHARACTERS])
        return None

    def _advance(self, row: Row) -> None:
        """Take one Workflow as far as it goes now."""
        children = self._children.of(row.name)
        if row.deleted:
            self._remove(row, children)
            return
        if row.broken:
            self._abandon(row, children)
            return
        plan = self._plan(row)
        progress = self._with_ends(row, plan, children)
        left = {name: child for name, child in children.items() if not child.exited}
        steps, exits = self._children.count(node=EXIT_NODE)
        move = scheduling.moved(
            plan,
            progress,
            alive=frozenset(left),
            now=self._clock.now(),
            room=self._parallel_steps - steps,
            exit_room=self._parallel_steps - exits,
        )
        # Written before it is done: whoever comes after a crash starts it again, and loses nothing.
        self._rows.write(row.name, progress, move.progress)
        for name in move.end:
            self._children.end(left[name])
        self._end_overdue(plan, left)
        self._start(row, move)
        if move.progress.finished is not None:
            self._plans.pop(row.name, None)

    def _with_ends(self, row: Row, plan: Plan, children: Mapping[str, Child]) -> Progress:
        """The progress with the ends of processes in it, on record."""
        before = progress = row.progress
        now = self._clock.now()
        tasks = {task.name: task for task in plan.all_tasks}
        ended = [child for child in children.values() if child.exited]
        for child in ended:
            name = child.key[1]
            node = progress.nodes[name]
            stopping = scheduling.why_ending(plan, progress, now=now)
            if name == EXIT_NODE and progress.shutdown != scheduling.TERMINATE:
                stopping = ""
            progress = progress.with_node(
                scheduling.ended(tasks[name], node, _end_of(child), stopping=stopping, now=now)
            )
        self._rows.write(row.name, before, progress)
        for child in ended:
            self._forget(child)
        return progress

    def _end_overdue(self, plan: Plan, children: Mapping[str, Child]) -> None:
        """End those whose template's own timeout has passed, as far as this engine has seen them run."""
        now = self._clock.monotonic()
        for task in plan.all_tasks:
            child = children.get(task.name)
            if child is None or task.timeout_seconds is None:
                continue
            if now >= self._began.get(child.key, now) + task.timeout_seconds:
                self._children.end(child, timed_out=True)

    def _start(self, row: Row, move: scheduling.Move) -> None:
        """Start processes, each not before it is written down who it is: so the next engine finds what it left."""
        progress = move.progress
        started = []
        try:
            for task in move.start:
                child = self._started(row, task, progress)
                started.append(child)
                if child.identity is not None:
                    process = json.dumps(child.identity.as_dict())
                    progress = progress.with_node(replace(progress.nodes[task.name], process=process))
            self._rows.write(row.name, move.progress, progress)
        except BaseException:
            for child in started:
                self._children.discard(child)
            raise
        for child in started:
            self._began[child.key] = self._clock.monotonic()
            self._children.release(child)

    def _started(self, row: Row, task: Task, progress: Progress) -> Child:
        tried = progress.nodes[task.name].tried
        command = task.command(tried=tried, status=progress.root or "")
        return self._children.start(
            (row.name, task.name),
            (*self._commands[command.program], *command.words),
            env=self._environment_of(command),
            folder=self._folder(row.name, task, command, tried=tried),
            log=self._folder_of(row.name) / f"{task.name}.{tried + 1}.log",
        )

    def _folder_of(self, workflow: str) -> Path:
        return self._state / "steps" / workflow

    def _folder(self, workflow: str, task: Task, command: Command, *, tried: int) -> Path:
        """Where a process starts: an ordinary container's has a folder of its own."""
        folder = self._folder_of(workflow)
        if command.program is Program.HOST:
            folder /= f"{task.name}.{tried + 1}.work"
        try:
            durable.make_folder(folder)
        except OSError as exc:
            raise Unavailable(f"{folder} cannot be made ({exc.strerror}); see to its disk") from exc
        return folder

    def _environment_of(self, command: Command) -> dict[str, str]:
        """The engine's own variables without bridge's settings (some are secret), the template's, the wiring's."""
        if command.program is Program.HOST:
            inherited = {name: os.environ[name] for name in _HOST_VARIABLES if name in os.environ}
            return {**inherited, **command.environment}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}
        ours = str(Path(bridge.__file__).parents[1])
        path = os.pathsep.join(filter(None, (ours, inherited.get("PYTHONPATH"))))
        return {**inherited, "PYTHONPATH": path, **command.environment, **self._environment}

    def _remove(self, row: Row, children: Mapping[str, Child]) -> None:
        if self._ended(children):
            with suppress(FileNotFoundError):
                shutil.rmtree(self._folder_of(row.name))
            self._rows.empty(row.name)
            self._plans.pop(row.name, None)

    def _abandon(self, row: Row, children: Mapping[str, Child]) -> None:
        """A Workflow that was given up: end what is left of it. Argo runs no exit handler then either."""
        if self._ended(children):
            now = self._clock.now()
            progress = replace(row.progress, finished=now)
            for node in row.progress.nodes.values():
                if not node.phase.ended:
                    given_up = replace(node, phase=NodePhase.ERROR, message=row.broken, ended=now, process="")
                    progress = progress.with_node(given_up)
            self._rows.write(row.name, row.progress, progress)

    def _ended(self, children: Mapping[str, Child]) -> bool:
        """End the children; whether none is left."""
        for child in children.values():
            if child.exited:
                self._forget(child)
            else:
                self._children.end(child)
        return all(child.exited for child in children.values())

    def _forget(self, child: Child) -> None:
        self._began.pop(child.key, None)
        self._children.forget(child)

    def _record_success(self, child: Child) -> None:
        """A step that was told to end because the engine ends, and had just succeeded."""
        workflow, name = child.key
        row = self._rows.read(workflow)
        node = row.progress.nodes.get(name) if row is not None else None
        if row is None or node is None or node.phase.ended:
            return
        after = replace(node, phase=NodePhase.SUCCEEDED, exit_code=0, process="", ended=self._clock.now())
        self._rows.write(workflow, row.progress, row.progress.with_node(after))

    def _plan(self, row: Row) -> Plan:
        known = self._plans.get(row.name)
        if known is None or known[0] != row.uid:
            known = row.uid, self._planned(row.name, row.uid, *self._rows.contents(row.name))
            self._plans[row.name] = known
        return known[1]

    def _planned(self, name: str, uid: str, template: Mapping[str, Any], arguments: Mapping[str, str]) -> Plan:
        return plan_of(template, name=name, uid=uid, arguments=arguments, run_on_host=self._run_on_host)


def _leaders(row: Row) -> Iterator[processes.Identity]:
    for node in row.progress.nodes.values():
        # What cannot be read is nobody's that is known.
        with suppress(ValueError):
            if node.process:
                yield processes.Identity.from_dict(json.loads(node.process))


def _end_of(child: Child) -> End:
    if child.code == 0:
        return End(NodePhase.SUCCEEDED, 0, "")
    if child.timed_out:
        return End(NodePhase.FAILED, child.code, DEADLINE_MESSAGE)
    if child.code is None:
        return End(NodePhase.ERROR, None, "its process is gone and nobody knows its exit code")
    message = f"Error (exit code {child.code})"
    said = _last_words(child.log)
    return End(NodePhase.FAILED, child.code, f"{message}: {said}" if said else message)


def _last_words(path: Path) -> str:
    """The last line of a log if it is bridge's own; others' are nobody's business in a status."""
    try:
        with path.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _TAIL_BYTES, 0))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    last = next((line for line in reversed(lines) if line.strip()), "")
    if not last.startswith(_OUR_LINES):
        return ""
    return "".join(character if character.isprintable() else "?" for character in last[:_SHOWN_CHARACTERS])
