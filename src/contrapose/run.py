"""A run as an object: its folder, its figures, its model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from contrapose.evaluation.result import Result
from contrapose.export.model_folder import Model, load
from contrapose.training.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas


class Run:
    """A finished or stopped run. `run.model` encodes; `run.results` and `run.metrics` are what it measured; `run.report` is to look at."""

    def __init__(self, folder: RunFolder, model: Model | None = None) -> None:
        self.folder = folder
        self._model = model

    @property
    def path(self) -> Path:
        return self.folder.path

    @property
    def config(self) -> dict[str, Any]:
        """config.yaml: everything that repeats the run."""
        return self.folder.config

    @property
    def model(self) -> Model:
        """The trained model, loaded when first asked for. Raises ModelFolderInvalid when the run has not finished."""
        if self._model is None:
            self._model = load(self.folder.path)
        return self._model

    @property
    def results(self) -> list[Result]:
        """A result a protocol: every system's scores with their 95 % intervals."""
        return [Result.from_record(entry["result"]) for entry in self.folder.results()]

    @property
    def metrics(self) -> pandas.DataFrame:
        """metrics.jsonl as a table, nested names joined by dots."""
        import pandas

        return pandas.json_normalize(self.folder.metrics())

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.folder.report

    def show(self) -> None:
        """Print the results and where everything is."""
        console = Console()
        for result in self.results:
            console.print(result.table())
        console.print(f"report  {self.folder.report}\nmodel   {self.folder.model}", markup=False, highlight=False)

    def __repr__(self) -> str:
        config = self.config
        return f"Run({str(self.path)!r}: {config['method']} on {config['data']['source']})"
