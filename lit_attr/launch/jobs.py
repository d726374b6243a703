"""The job scripts of a harvest."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from lit_attr.errors import LaunchError
from lit_attr.files.roots import output_root
from lit_attr.launch.code import Code
from lit_attr.launch.render import render, template
from lit_attr.launch.request import Request

CONFIGURATION = "config.yaml"
_CODE = "code"
_FOLDER = "slurm_jobs"
_SUBRUN = "da-%Y%m%d_%H%M%S"


@dataclass(frozen=True)
class Harvest:
    """What the jobs compute.

    Attributes:
        configuration: The complete configuration of `lit-attr predict`, as YAML.
        run_id: Id of the decomposition run.
        results: Folder of that run's harvests.
        out_dir: The configuration's `writer.out_dir`.
        subrun_id: The configuration's `writer.subrun_id`, where an earlier harvest is to go on.
        on_cpu: Whether the accelerator is the CPU.
        target_shards: Among how many shards the targets are dealt out.
    """

    configuration: str
    run_id: str
    results: Path
    out_dir: str | None = None
    subrun_id: str | None = None
    on_cpu: bool = False
    target_shards: int = 1


@dataclass(frozen=True)
class Jobs:
    """Jobs that could be submitted.

    Attributes:
        request: The machines that are asked for.
        harvest: What is computed.
        code: The code that computes it.
        folder: Folder of scripts, configuration, code and logs; not made yet.
        subrun_id: Id of the harvest.
        scripts: Texts of the job scripts by name, in the order of submission; each needs the success of the one before.
    """

    request: Request
    harvest: Harvest
    code: Code
    folder: Path
    subrun_id: str
    scripts: dict[str, str]

    @classmethod
    def plan(cls, request: Request, harvest: Harvest, code: Code) -> "Jobs":
        """Choose the names, and fill in the scripts; writes nothing.

        Raises:
            LaunchError: If the devices do not divide among the target shards.
        """
        if request.n_gpus % harvest.target_shards:
            raise LaunchError(
                f"--n_gpus {request.n_gpus} is no multiple of --data.target_shards {harvest.target_shards}: every "
                "target shard has as many workers"
            )
        parent = output_root(harvest.out_dir) / _FOLDER
        name = base = harvest.subrun_id or datetime.now().strftime(_SUBRUN)
        number = 0
        while (parent / name).exists():  # another submission of this second, or an earlier one of this harvest
            number += 1
            name = f"{base}_{number:02d}"
        folder, subrun_id = parent / name, harvest.subrun_id or name
        jobs = cls(request, harvest, code, folder, subrun_id, {})
        for script in ("predict",) if request.mode == "ddp" else ("array", "merge"):
            jobs.scripts[script] = jobs._render(script)
        return jobs

    @property
    def branch(self) -> str:
        """Name of the snapshot."""
        return f"lit-attr-{self.folder.name}"

    @property
    def code_folder(self) -> Path:
        """Where the snapshot is checked out."""
        return self.folder / _CODE

    @property
    def result(self) -> Path:
        """The file that all this is for."""
        return self.harvest.results / self.subrun_id / "dataset_attributions.pt"

    @property
    def result_options(self) -> list[str]:
        """Options by which other commands find the results."""
        return [] if self.harvest.out_dir is None else ["--out_dir", self.harvest.out_dir]

    def script_path(self, name: str) -> Path:
        """Where a script is put."""
        return self.folder / f"{name}.sbatch"

    def log(self, name: str, job: str, task: str = "") -> str:
        """Path of a job's log; job and task may be SLURM's patterns."""
        kind = "merge" if name == "merge" else "predict"
        return f"{kind}-{job}_{task}.log" if name == "array" else f"{kind}-{job}.log"

    def _render(self, name: str) -> str:
        request, harvest = self.request, self.harvest
        is_merge = name == "merge"
        log = self.log(name, "%A" if name == "array" else "%j", "%a")
        options: dict[str, str | None] = {
            "job-name": request.job_name("lit-attr-merge" if is_merge else "lit-attr"),
            "chdir": os.getcwd(),
            "output": f"{str(self.folder).replace('%', '%%')}/{log}",
        }
        times = {"partition": request.partition, "time": request.merge_time if is_merge else request.time}
        options |= {option: value for option, value in times.items() if value is not None}
        if is_merge and request.merge_mem is not None:
            options["mem"] = request.merge_mem
        if name == "array":
            options["array"] = request.array
        if name == "predict":
            options |= {"nodes": str(request.n_nodes), "ntasks-per-node": str(request.devices_per_node)}
            options["gpus-per-node"] = str(request.devices_per_node)
        if harvest.on_cpu and not is_merge:
            options["gpus-per-node"] = None
        arguments = ["--config", str(self.folder / CONFIGURATION)]
        if is_merge:
            arguments = [harvest.run_id, *self.result_options]
        variables: dict[str, str | Sequence[str]] = {
            "subrun_id": self.subrun_id,
            "program": self.code.program(),
            "code_dir": self.code.import_path(self.code_folder),
            "out_dir": str(output_root()),
            "arguments": arguments,
        }
        if not is_merge:
            variables["script"] = str(self.script_path(name))
        if name == "array":
            variables |= {"world_size": str(request.n_gpus), "target_shards": str(harvest.target_shards)}
        return render(template(name), options, variables)
