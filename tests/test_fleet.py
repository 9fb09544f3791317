"""The same run on many machines: real schedulers and workers, killed, hung, cut off and refused."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cloudpickle
import psutil
import pytest

pytest.importorskip("distributed", reason="needs the extra matmulbench[fleet]")

from matmulbench.errors import UsageError
from matmulbench.fleet import Fleet, client, dispatch, execute
from matmulbench.fleet.parcel import Parcel, Source, sources
from matmulbench.fleet.units import Unit, units
from matmulbench.pipeline import Job
from matmulbench.results.folder import FleetResults, FolderError, cell_key, load_results
from matmulbench.results.schema import KEYS, TABLES, columns
from matmulbench.run import Run
from matmulbench.status import Status
from matmulbench.workload import Workload

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import tests
ENVIRONMENT = os.environ | {
    "DASK_DISTRIBUTED__WORKER__DAEMON": "True",
    "PYTHONPATH": os.pathsep.join(sys.path),
}
# The boot's id is the same for all that run here: workers named a-1 and a-2 say that they are on a computer a.
SIMULATED = """
from matmulbench.fleet import node
def dask_setup(worker):
    node.host_id = lambda: str(worker.name).partition("-")[0]
"""
OTHER_TORCH = """
from matmulbench.fleet import node
from matmulbench.results.machine import library_versions
node.library_versions = lambda: library_versions() | {"torch": "1.0"}
"""
LACKING = "import sys; sys.modules['matmulbench'] = None"
MINE = "import torch\nfrom beside import multiply\ndef matmul(a, b):\n    return multiply(a, b)\n"
BESIDE = "import torch\ndef multiply(a, b):\n    return torch.matmul(a, b)\n"


@dataclass
class Cluster:
    """A scheduler and workers, each a command of its own."""

    folder: Path
    environment: dict[str, str]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def address(self) -> str:
        for _ in range(600):
            with suppress(OSError, ValueError):
                return str(json.loads((self.folder / "scheduler.json").read_text())["address"])
            time.sleep(0.1)
        raise TimeoutError((self.folder / "scheduler.log").read_text())

    def start(self, name: str, *arguments: str, before: tuple[str, ...] = ()) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            command = [*before, sys.executable, "-m", "dask", *arguments]
            self.processes[name] = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)

    def scheduler(self, *more: str, before: tuple[str, ...] = ()) -> str:
        where = ["--scheduler-file", str(self.folder / "scheduler.json"), "--no-dashboard"]
        self.start("scheduler", "scheduler", "--port", "0", *where, *more, before=before)
        return self.address

    def workers(
        self,
        *names: str,
        more: tuple[str, ...] = ("--no-nanny",),
        preload: str = SIMULATED,
        resources: str = "machine=1",
        before: dict[str, tuple[str, ...]] | None = None,
    ) -> None:
        """Have workers of these names, at the same time; those that run already stay."""
        gone = [name for name in names if name not in self.processes or self.processes[name].poll() is not None]
        for name in gone:
            plugin = self.folder / f"{name}.py"
            plugin.write_text(preload)
            given = ["--resources", resources] if resources else []
            own = ["--name", name, "--preload", str(plugin), "--local-directory", str(self.folder / f"dask-{name}")]
            command = ["worker", self.address, "--nthreads", "1", "--no-dashboard", *own, *given, *more]
            self.start(name, *command, before=(before or {}).get(name, ()))
        for name in gone:
            log = self.folder / f"{name}.log"
            deadline = time.monotonic() + 100
            while "Registered to" not in log.read_text():
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)

    def below(self, name: str) -> list[psutil.Process]:
        """The processes below a worker in which its units are, and those that fork them."""
        found = psutil.Process(self.processes[name].pid).children(recursive=True)
        return [child for child in found if is_of_a_unit(child)]

    def end(self, *names: str) -> None:
        for process in (self.processes.pop(name) for name in names):
            with suppress(psutil.Error):
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
            process.kill()
            process.wait()

    def stop(self) -> None:
        self.end(*self.processes)


def is_of_a_unit(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.status() != psutil.STATUS_ZOMBIE and "isolation import serve" in str(process.cmdline())
    return False


def check_ended(processes: list[psutil.Process]) -> None:
    assert psutil.wait_procs(processes, timeout=30)[1] == []


@contextmanager
def cluster(folder: Path, **environment: str) -> Iterator[Cluster]:
    folder.mkdir(parents=True, exist_ok=True)
    found = Cluster(folder, ENVIRONMENT | environment)
    try:
        yield found
    finally:
        found.stop()


# --- units and files -----------------------------------------------------------------------------------


JOB = Job(
    ("numpy", "einsum"),
    threads=(1, 2),
    workloads=((Workload(8, 8, 8), 0.2), (Workload(16, 16, 16), 0.4)),
)


def test_units_have_every_cell_once_and_the_longest_comes_first() -> None:
    parts = list(units(JOB))
    whole = Counter(str(cell) for cell in Unit(JOB).cells() if cell[0] != "verification")
    assert Counter(str(cell) for unit in parts for cell in unit.cells() if cell[0] != "verification") == whole
    verified = [row for unit in parts if unit.verifies for _, row in unit.cells()]
    assert [row.kernel for row in verified] == ["numpy", "einsum", "torch"]
    assert [unit.verifies for unit in parts] == [True] * 3 + [False] * 4
    assert str(parts[3].job.workloads[0][0]) == "16x16x16"


def test_a_kernels_file_travels_with_what_it_imports_from_beside_it(tmp_path: Path) -> None:
    mine, beside = tmp_path / "here" / "mine.py", tmp_path / "here" / "beside.py"
    mine.parent.mkdir()
    mine.write_text(MINE)
    beside.write_text(BESIDE)
    (mine.parent / "private.py").write_text("secret = 1")
    source = Source.of(f"{mine}:matmul@torch")
    assert source
    assert set(source.files) == {"mine.py", "beside.py"}
    there = source.write(tmp_path / "there")
    assert there.endswith("mine.py:matmul@torch")
    assert Path(there.partition(":")[0]).with_name("beside.py").read_text() == BESIDE
    beside.write_text(BESIDE + "\n")
    changed = Source.of(f"{mine}:matmul@torch")
    assert changed
    assert changed.checksum != source.checksum, "a change of what it imports is a change of the kernel"
    assert sources(replace(JOB, kernels=(f"{mine}:matmul",))).keys() == {f"{mine}:matmul"}


def test_a_file_of_a_package_travels_with_the_package(tmp_path: Path) -> None:
    for name in ("pack/__init__.py", "pack/sub/__init__.py", "pack/sub/mine.py", "pack/other.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("from ..other import x\ndef matmul(a, b): ..." if "mine" in name else "x = 1")
    source = Source.of(f"{tmp_path}/pack/sub/mine.py:matmul")
    assert source
    assert source.path == "pack/sub/mine.py"
    assert len(source.files) == 4


# --- a real run ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A scheduler and two workers on one host, as anyone would start them."""
    with cluster(tmp_path_factory.mktemp("cluster")) as found:
        found.scheduler()
        found.workers("one", "two", preload="", more=())
        yield found


@pytest.mark.slow
@pytest.mark.posix
@pytest.mark.timeout(600)
def test_a_run_that_is_interrupted_and_goes_on_has_the_rows_of_one_without_a_fleet(
    plain: Cluster, tmp_path: Path, brief: list[str]
) -> None:
    def start(*arguments: str) -> subprocess.Popen[str]:
        whole = [*brief, "run", "--preset", "quick", *small, *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(whole, stdout=pipe, stderr=pipe, text=True, env=ENVIRONMENT, cwd=tmp_path)

    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "beside.py").write_text(BESIDE)
    small = ["--kernel", "mine.py:matmul", "--kernel", "numpy", "--workload", "8x8x8"]
    out = ["--out", "fleet", "--scheduler", plain.address]
    client = start(*out)
    assert client.stderr
    said = []
    for line in client.stderr:
        said.append(line)
        if "train breast-cancer" in line:
            while not (running := plain.below("one") + plain.below("two")):
                time.sleep(0.05)
            client.send_signal(signal.SIGINT)
            break
    _, rest = client.communicate()
    assert client.returncode == 130, said
    assert "go on with --out fleet --resume" in rest
    check_ended(running)
    [verified] = tmp_path.glob("fleet/*/verification.csv")
    assert len(verified.read_text().splitlines()) == 4

    resumed, lonely = start(*out, "--resume"), start("--out", "alone", "-q")
    shown, said_again = resumed.communicate()
    assert (resumed.returncode, "Traceback" in said_again) == (0, False), said_again
    assert "verify" not in said_again, "what was finished is not done again"
    lonely.communicate()
    assert lonely.returncode == 0
    several, alone = load_results(tmp_path / "fleet"), load_results(tmp_path / "alone")
    assert isinstance(several, FleetResults)
    [machine] = several.machines.values()
    for table in TABLES:
        cells = [sorted(map(tuple, each.tables[table][[*KEYS[table], "status"]].values)) for each in (machine, alone)]
        assert cells[0] == cells[1]
        assert (machine.path / f"{table}.csv").read_text().splitlines()[0] == ",".join(columns(table))
    finished = Counter(cell_key(entry) for entry in machine.journal if entry["table"] in TABLES)
    assert set(finished.values()) == {1}, "nothing is measured twice"
    assert len({entry["host"] for entry in machine.journal}) == 1, "two workers on one computer are one host"
    assert machine.run["options"]["sources"].keys() == {"mine.py:matmul"}
    page = (tmp_path / "fleet" / "report.html").read_text()
    assert f'href="{machine.path.name}/report.html"' in page
    assert shown.endswith("/fleet/report.html\n")


# --- what is refused -----------------------------------------------------------------------------------


def test_a_scheduler_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, matmulbench: Callable[..., Any]
) -> None:
    monkeypatch.setattr(client, "_CONNECT_S", 1.0)
    given = ["run", "--preset", "quick", "--scheduler", "tcp://127.0.0.1:9"]
    done = matmulbench(*given, "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "scheduler 'tcp://127.0.0.1:9' cannot be reached" in done.stderr.splitlines()[-1]
    assert "dask worker" in done.stderr
    assert not (tmp_path / "out").exists()
    start = time.monotonic()
    with pytest.raises(UsageError, match="cannot be reached"):
        Fleet("tcp://127.0.0.1:9")
    assert time.monotonic() - start < 10  # one second, on a quiet machine


@pytest.mark.parametrize("address", ["nowhere", "tcp://127.0.0.1:x", "tls://127.0.0.1:9", "spam://1"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(UsageError, match="cannot be reached"):
        Fleet(address)


@pytest.mark.timeout(240)
def test_workers_that_cannot_be_used_are_named_before_anything_is_timed(plain: Cluster) -> None:
    plain.workers("bare", resources="")
    plain.workers("other", preload=OTHER_TORCH)
    plain.workers("lacking", preload=LACKING)
    with pytest.raises(UsageError) as refused:
        Fleet(plain.address)
    plain.end("bare", "other", "lacking")
    *amiss, how = str(refused.value).splitlines()
    assert len(amiss) == 3, "those that can be used are not named"
    for expected in ("no resource `machine`", "torch is 1.0 there", "install the same matmulbench there"):
        assert sum(expected in line for line in amiss) == 1
    assert "--resources machine=1" in how


def test_a_scheduler_without_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_CONNECT_S", 2.0)
    with local(tmp_path, 0) as found, pytest.raises(UsageError, match="has no workers; start one"):
        Fleet(found.scheduler_address)


def certificate(folder: Path) -> dict[str, str]:
    """Make a certificate that signs itself; return the variables by which Dask finds it."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl")
    key, cert = folder / "key.pem", folder / "cert.pem"
    script = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=fleet -keyout {key} -out {cert}"
    subprocess.run(script.split(), check=True, capture_output=True)
    tls = {"CA_FILE": cert} | {
        f"{who}__{what}": path
        for who in ("CLIENT", "SCHEDULER", "WORKER")
        for what, path in (("CERT", cert), ("KEY", key))
    }
    return {f"DASK_DISTRIBUTED__COMM__TLS__{name}": str(path) for name, path in tls.items()}


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_behind_tls_the_run_works_and_a_plain_client_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dask

    variables = certificate(tmp_path)
    with cluster(tmp_path / "cluster", **variables) as found:
        address = found.scheduler("--protocol", "tls")
        assert address.startswith("tls://")
        found.workers("one")
        for refused in (address.replace("tls", "tcp"), address):  # the second without a certificate
            with monkeypatch.context() as patch:
                patch.setattr(client, "_CONNECT_S", 1.0)
                with pytest.raises(UsageError, match="cannot be reached"):
                    Fleet(refused)
        quick = {"distributed": {"comm": {"timeouts": {"connect": "3s"}}}}  # to give up a scheduler that is gone
        theirs = dask.config.merge(dask.config.config, dask.config.collect_env(variables), quick)
        with dask.config.set(theirs), Fleet(address) as one:
            execute(one, plan(1), tmp_path / "out", work=sleeps)
            check_complete(tmp_path / "out", plan(1))

            def kill(text: str, _: float) -> None:
                if "measure 2x" in text:
                    found.processes["scheduler"].kill()

            with pytest.raises(UsageError, match="is gone; what was finished is kept"):
                execute(one, plan(9), tmp_path / "ended", work=sleeps, progress=kill)
        [journal] = tmp_path.glob("ended/*/journal.jsonl")
        assert len(journal.read_text().splitlines()) == 4, "two verified, and timed on one product"


# --- simulated hosts, jobs that sleep ------------------------------------------------------------------


def sleeps(parcel: Parcel, run: str, seconds: float = 0.2) -> list[dict[str, Any]]:
    """Do nothing for as long as a unit would take, then return each of its cells."""
    time.sleep(seconds)
    known = {cell_key(entry) for entry in parcel.done}
    entries = [
        {
            "table": table,
            "row": asdict(replace(row, status=Status.OK, **{"median_s": 1e-3} if table == "measurements" else {})),
        }
        for table, row in Unit(parcel.job).cells()
    ]
    return [entry | {"samples": [1e-3]} for entry in entries if cell_key(entry) not in known]


def worker_name() -> str:
    from distributed import get_worker

    return str(get_worker().name)


def plan(count: int, kernels: tuple[str, ...] = ("numpy",)) -> Run:
    """A plan of so many workloads."""
    workloads = tuple((Workload(i, 8, 8), 0.2) for i in range(1, count + 1))
    return Run("quick", Job(kernels, workloads=workloads))


def check_complete(out: Path, planned: Run) -> FleetResults:
    """Every cell is there once, and has a figure."""
    found = load_results(out)
    assert isinstance(found, FleetResults)
    for machine in found.machines.values():
        entries = Counter(cell_key(entry) for entry in machine.journal if entry["table"] in TABLES)
        wanted = {cell_key({"table": table, "row": vars(row)}) for table, row in Unit(planned.job).cells()}
        assert entries.keys() == wanted
        assert set(entries.values()) == {1}
        assert all((frame["status"] == "ok").all() for frame in machine.tables.values())
    return found


@pytest.fixture(autouse=True)
def _no_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process: a report of what only slept takes time and shows nothing."""
    monkeypatch.setattr(dispatch, "write_report", lambda path: path / "report.html")


@contextmanager
def local(tmp_path: Path, hosts: int) -> Iterator[Any]:
    """A cluster in this process."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=hosts, threads_per_worker=1, processes=False, resources={"machine": 1}, dashboard_address=":0"
    ) as found:
        yield found


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    # After so long a silent worker is gone.
    with cluster(tmp_path_factory.mktemp("simulated"), DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL="10s") as found:
        found.scheduler()
        yield found


@pytest.fixture
def hosts(simulated: Cluster) -> Cluster:
    """Four hosts, a with two workers; those that an earlier test ended are started again."""
    simulated.workers("a-1", "a-2", "b", "c", "d")
    return simulated


@pytest.mark.timeout(240)
def test_four_equal_hosts_share_a_plan_out(hosts: Cluster, tmp_path: Path) -> None:
    """No unit ends before four are being done, so each host does a quarter, however busy it is."""
    planned, begun = plan(36), tmp_path / "begun"
    begun.mkdir()

    def claims(path: Path) -> bool:
        with suppress(FileExistsError):
            path.touch(exist_ok=False)
            return True
        return False

    def together(parcel: Parcel, run: str) -> list[dict[str, Any]]:
        if not Unit(parcel.job).verifies:
            mine, deadline = next(number for number in range(100) if claims(begun / str(number))), time.monotonic() + 60
            while len(list(begun.iterdir())) < (mine // 4 + 1) * 4:
                assert time.monotonic() < deadline, "no other is being done"
                time.sleep(0.01)
        return sleeps(parcel, run, 0.0)

    with Fleet(hosts.address) as four:
        assert (len(four.nodes), len(four.alive)) == (4, 5)
        execute(four, planned, tmp_path / "out", work=together)
    several = check_complete(tmp_path / "out", planned)
    assert len(several.machines) == 1, "equal hosts share one plan"
    shares = Counter((e["host"], e["row"]["workload"]) for e in several.journal if e["table"] == "measurements")
    assert sorted(Counter(host for host, _ in shares).values()) == [9] * 4


def test_a_folder_that_holds_another_run_is_refused(tmp_path: Path) -> None:
    mine, out = tmp_path / "mine.py", tmp_path / "out"
    mine.write_text("def matmul(a, b):\n    return a @ b\n")
    planned = plan(1, (f"{mine}:matmul",))
    with local(tmp_path, 1) as found, Fleet(found.scheduler_address) as one:
        execute(one, planned, out, work=sleeps)
        with pytest.raises(FolderError, match="--resume"):
            execute(one, planned, out, work=sleeps)
        said: list[str] = []
        execute(one, planned, out, resume=True, work=sleeps, progress=lambda text, _: said.append(text))
        assert said[0].endswith(": 0 units")
        mine.write_text("def matmul(a, b):\n    return b.t() @ a.t()\n")
        with pytest.raises(FolderError, match="options differ: sources"):
            execute(one, planned, out, resume=True, work=sleeps)
        [machine] = out.glob("*/run.json")
        with pytest.raises(FolderError, match="holds a run of one machine"):
            execute(one, planned, machine.parent, work=sleeps)


@pytest.mark.timeout(240)
def test_each_host_does_everything_if_asked_to(hosts: Cluster, tmp_path: Path) -> None:
    planned = plan(2)
    with Fleet(hosts.address) as four:
        execute(four, planned, tmp_path / "out", each="host", work=lambda parcel, run: sleeps(parcel, run, 0.0))
    several = check_complete(tmp_path / "out", planned)
    assert len(several.machines) == 4
    assert list(several.measurements.columns[:2]) == ["machine", "workload"]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_worker_that_hangs_costs_its_unit_which_another_host_does(hosts: Cluster, tmp_path: Path) -> None:
    def hangs(parcel: Parcel, run: str) -> list[dict[str, Any]]:
        """Stop the whole worker at the first unit that is no verification; one that was there before goes on."""
        mark = tmp_path / "hung"
        if not Unit(parcel.job).verifies and not mark.exists():
            mark.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGSTOP)
        return sleeps(parcel, run, 0.05)

    planned, said = plan(12), []
    with Fleet(hosts.address) as four:
        execute(four, planned, tmp_path / "out", work=hangs, progress=lambda text, _: said.append(text))
    assert any("is gone; its unit is done again" in text for text in said)
    hung = int((tmp_path / "hung").read_text())
    hosts.end(*(name for name, process in hosts.processes.items() if process.pid == hung))
    check_complete(tmp_path / "out", planned)


@pytest.mark.timeout(240)
def test_of_two_workers_on_one_host_one_is_killed(hosts: Cluster, tmp_path: Path) -> None:
    """The other hosts wait for its second worker, however long that takes."""
    killed, went_on = tmp_path / "killed", tmp_path / "went on"

    def dies_once(parcel: Parcel, run: str) -> list[dict[str, Any]]:
        if not Unit(parcel.job).verifies:
            if not worker_name().startswith("a-"):
                deadline = time.monotonic() + 60
                while not went_on.exists():
                    assert time.monotonic() < deadline, "the second worker does nothing"
                    time.sleep(0.05)
            else:
                try:
                    killed.touch(exist_ok=False)
                except FileExistsError:
                    went_on.touch()
                else:
                    os.kill(os.getpid(), signal.SIGKILL)
        return sleeps(parcel, run, 0.02)

    planned = plan(40)
    with Fleet(hosts.address) as four:
        execute(four, planned, tmp_path / "out", work=dies_once)
    check_complete(tmp_path / "out", planned)
    assert went_on.exists()


@pytest.mark.timeout(240)
def test_what_nobody_is_left_for_is_lost_and_resume_does_it(
    hosts: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_GRACE_S", 2.0)
    planned = plan(6)

    def dies(parcel: Parcel, run: str) -> list[dict[str, Any]]:
        if not Unit(parcel.job).verifies:
            os.kill(os.getpid(), signal.SIGKILL)
        return sleeps(parcel, run, 0.0)

    with Fleet(hosts.address) as all_four:
        execute(all_four, planned, tmp_path / "out", work=dies)
    lost = load_results(tmp_path / "out").measurements
    assert (lost["status"] == "lost").all()
    assert set(lost["reason"].str.replace(r"host \w{8}", "host", regex=True)) <= {
        "tried 3 times; worker of host is gone",
        "no worker of its kind is left",
    }
    assert lost["reason"].str.contains("is left").any()
    hosts.workers("e")
    with Fleet(hosts.address) as other:
        with pytest.raises(FolderError, match="continue it with --resume"):
            execute(other, planned, tmp_path / "out", work=sleeps)
        execute(other, planned, tmp_path / "out", resume=True, work=sleeps)
    assert (load_results(tmp_path / "out").measurements["status"] == "ok").all()
    hosts.end("e")


def test_what_a_node_cannot_use_ends_the_run_and_names_it(tmp_path: Path) -> None:
    def refuses(parcel: Parcel, run: str) -> list[dict[str, Any]]:
        raise UsageError("data-dir 'x': there is no such folder or file")

    with (
        local(tmp_path, 1) as found,
        Fleet(found.scheduler_address) as one,
        pytest.raises(UsageError, match=r"host \w{8}: data-dir 'x'"),
    ):
        execute(one, plan(1), tmp_path / "out", work=refuses)


# --- several hosts in earnest --------------------------------------------------------------------------


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextmanager
def namespaces(*names: str) -> Iterator[tuple[str, dict[str, tuple[str, ...]]]]:
    """Yield this side's address, and for each name what a command is begun with to run on a host of its own."""
    bridge = f"mmb{os.getpid() % 100000}"
    address = f"10.77.{os.getpid() % 250}"
    if not shutil.which("ip") or os.geteuid():
        pytest.skip("network namespaces need root and the command ip")
    with ExitStack() as stack:
        try:
            ip("link", "add", bridge, "type", "bridge")
            stack.callback(ip, "link", "delete", bridge)
            ip("address", "add", f"{address}.1/24", "dev", bridge)
            ip("link", "set", bridge, "up")
            for i, name in enumerate(names):
                space = f"{bridge}{name}"
                ip("netns", "add", space)
                stack.callback(ip, "netns", "delete", space)
                ip("link", "add", f"{space}v", "type", "veth", "peer", "name", "eth0", "netns", space)
                # The namespace lives as long as its last connection, and would keep the link.
                stack.callback(subprocess.run, ["ip", "link", "delete", f"{space}v"], check=False, capture_output=True)
                ip("link", "set", f"{space}v", "master", bridge, "up")
                ip("-n", space, "address", "add", f"{address}.{i + 2}/24", "dev", "eth0")
                ip("-n", space, "link", "set", "eth0", "up")
                ip("-n", space, "link", "set", "lo", "up")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"there are no network namespaces here: {error.stderr.decode().strip()}")
        yield address, {name: ("ip", "netns", "exec", f"{bridge}{name}") for name in names}


@dataclass
class Apart:
    """A cluster whose three hosts are network namespaces."""

    found: Cluster
    spaces: dict[str, tuple[str, ...]]

    def revive(self) -> None:
        """Have a worker on each host that can be reached."""
        for name in self.spaces:
            ip("link", "set", self.link(name), "up")
        self.found.workers(*self.spaces, before=self.spaces)

    def link(self, name: str) -> str:
        return f"{self.spaces[name][3]}v"

    def cut_off(self, name: str) -> None:
        ip("link", "set", self.link(name), "down")

    def named(self, host: str) -> str:
        """The name of a host whose name in the fleet is given."""
        return next(name for name in self.spaces if hashlib.sha256(name.encode()).hexdigest().startswith(host))


@pytest.fixture(scope="module")
def separate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apart]:
    # After so long a host that was cut off is gone; one that is merely slow is not.
    soon = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s"}
    with namespaces("a", "b", "c") as (address, spaces), cluster(tmp_path_factory.mktemp("apart"), **soon) as found:
        found.scheduler("--host", f"{address}.1")
        yield Apart(found, spaces)


@pytest.fixture
def apart(separate: Apart) -> Iterator[Apart]:
    separate.revive()
    yield separate
    separate.revive()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_of_three_hosts_one_is_cut_off_and_one_killed(apart: Apart, tmp_path: Path) -> None:
    """With real kernels."""
    planned, said, ended = plan(5), [], []

    def progress(text: str, _: float) -> None:
        said.append(text)
        if len({each.partition(":")[0] for each in said if ": measure " in each}) == 3 and not ended:
            apart.cut_off("a")
            ended.extend(apart.found.below("b"))
            apart.found.processes["b"].kill()

    with Fleet(apart.found.address) as three:
        assert len(three.nodes) == 3
        execute(three, planned, tmp_path / "out", progress=progress)
    check_complete(tmp_path / "out", planned)
    assert sum("its unit is done again" in text for text in said) == 2, said
    apart.found.end("a")
    assert ended
    check_ended(ended)


# Many workers in one process, each on a computer of its own; some are ended one after another.
CROWD = """
import asyncio, itertools, random, sys
from pathlib import Path
import dask
# What each worker would look at for itself, all do here for one process.
dask.config.set({"distributed.admin.system-monitor.interval": "1h", "distributed.worker.profile.enabled": False})
from distributed import LocalCluster
from matmulbench.fleet import node

described, numbers = node.introduce(), itertools.count()
node.host_id = lambda: str(next(numbers))  # each worker is asked once
node.describe_machine, node.library_versions = lambda: described["machine"], lambda: described["versions"]

async def main(folder, hosts, killed):
    async with LocalCluster(
        n_workers=hosts, threads_per_worker=1, processes=False, resources={"machine": 1}, dashboard_address=":0",
        asynchronous=True, protocol="tcp", memory_limit=0,
    ) as cluster:
        (folder / "address").write_text(cluster.scheduler_address)
        while not list(folder.glob("out/*/journal.jsonl")):
            await asyncio.sleep(0.1)
        for worker in random.Random(0).sample(list(cluster.workers.values()), killed):
            await asyncio.sleep(0.3)
            await worker.batched_stream.comm.close()
            await worker.close(nanny=False, executor_wait=False)
            print("ended", worker.name, flush=True)
        await asyncio.Event().wait()

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
"""


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("count", "workloads", "killed"),
    [pytest.param(100, 1111, 10, marks=pytest.mark.slow), (12, 100, 3)],
    ids=["ten thousand cells over a hundred", "a thousand over twelve"],
)
def test_of_many_hosts_some_end_and_nothing_is_lost(tmp_path: Path, count: int, workloads: int, killed: int) -> None:
    kernels = ("numpy", "einsum", "broadcasting", "row-slice", "numba", "numba-tiled", "numpy-einsum", "triple-loop")
    planned = plan(workloads, kernels)
    assert len(list(Unit(planned.job).cells())) > 9 * workloads
    with (tmp_path / "crowd.log").open("wb") as log:
        crowd = subprocess.Popen(
            [sys.executable, "-c", CROWD, str(tmp_path), str(count), str(killed)],
            env=ENVIRONMENT,
            stdout=log,
            stderr=log,
        )
    try:
        while not (tmp_path / "address").exists():
            time.sleep(0.1)
            assert crowd.poll() is None, (tmp_path / "crowd.log").read_text()
        before = psutil.Process().memory_info().rss
        with Fleet((tmp_path / "address").read_text()) as crowded:
            assert len(crowded.nodes) == count
            start = time.monotonic()
            execute(
                crowded,
                planned,
                tmp_path / "out",
                work=lambda parcel, run: sleeps(parcel, run, 0.0 if Unit(parcel.job).verifies else 0.3),
            )
            took = time.monotonic() - start
        after = psutil.Process().memory_info().rss
    finally:
        crowd.kill()
        crowd.wait()
    several = check_complete(tmp_path / "out", planned)
    print(f"{took:.0f} s, client {before / 2**20:.0f} -> {after / 2**20:.0f} MiB")
    assert len(re.findall(r"^ended \d+$", (tmp_path / "crowd.log").read_text(), re.MULTILINE)) == killed
    assert len({entry["host"] for entry in several.journal}) >= count - killed
    assert after - before < 350 * 2**20  # alone it has 140 MiB to begin with; in a process of many tests, much more


# --- one training by several hosts ---------------------------------------------------------------------


def trained(apart: Apart, *more: str, **started: Any) -> subprocess.Popen[str]:
    given = ["train", "torch", "--task", "digits", "--scheduler", apart.found.address]
    command = [sys.executable, "-m", "matmulbench", *given, "--format", "json", *more]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=pipe, stderr=pipe, text=True, **started)


@pytest.mark.timeout(240)
def test_workers_of_a_training_on_a_host_each_learn_what_one_process_does(apart: Apart, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "beside.py").write_text(BESIDE)
    few = ["mine.py:matmul", "--epochs", "1", "--budget", "4"]
    client = trained(apart, *few, "--workers", "2", cwd=tmp_path)
    out, said = client.communicate()
    assert client.returncode == 0, said
    check_ended([each for name in apart.spaces for each in apart.found.below(name)])
    four = trained(apart, "--workers", "4").communicate()[1]
    assert four.endswith("workers 4: expected 3 at most, the hosts of the cluster\n")
    rows = {row["kernel"]: row for row in json.loads(out)}
    assert rows.keys() == {"mine.py:matmul", "torch", "torch.nn"}
    for row in rows.values():
        assert (row["status"], row["workers"]) == ("ok", 2)
        assert row["loss_deviation"] < 1e-5  # of all its losses from those of one process, in float64
        assert row["communication_share"] is None or 0 < row["communication_share"] < 1  # None: hardly had a turn


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("what", ["rank killed", "client killed", "cut off", "worker killed"])
def test_a_host_that_is_lost_ends_a_training_with_the_reason(apart: Apart, what: str) -> None:
    client = trained(apart, "--workers", "2", "--epochs", "200", "--budget", "6")
    assert client.stderr
    serves, trains = (apart.named(client.stderr.readline().split()[1].strip(":")) for _ in range(2))
    # Two kernels take part, below two processes that fork and one that serves: each has its rank when it begins.
    while len(apart.found.below(serves)) < 5:
        assert client.poll() is None
        time.sleep(0.05)
    ranks = apart.found.below(serves)
    running = ranks + apart.found.below(trains)
    start = time.monotonic()
    if what == "worker killed":
        apart.found.processes[serves].kill()
    elif what == "cut off":
        apart.cut_off(serves)
    elif what == "rank killed":
        next(one for one in ranks if not one.children()).kill()
    else:
        client.kill()
    out, said = client.communicate()
    assert time.monotonic() - start < 90, said
    rows = json.loads(out or "[]")
    if what == "rank killed":
        assert {row["status"] for row in rows} == {"ok"}, [row["reason"] for row in rows]
    elif what != "client killed":
        assert {row["kernel"] for row in rows} == {"torch"}
        for row in rows:
            assert row["status"] == "lost"
            assert re.match(r"rank 1 of 2: host 10\.77\.[\d.]+ (is gone|cannot be reached)", row["reason"])
    if what == "cut off":
        apart.found.end(serves)
    check_ended(running)
