"""Protocols for encoders of time series, always beside the controls: the untrained encoder, raw values, the last value repeated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from contrapose.data.columns import Column
from contrapose.errors import ProtocolUnknown, nearest
from contrapose.evaluation.probing import LINEAR, NEAREST
from contrapose.series._forecast import ETT, FORECAST_SERIES, Forecast
from contrapose.series._probes import LABELLED_SERIES, SVM, SeriesProbe, open_probe
from contrapose.series._table import SeriesTable

Protocol = Forecast | SeriesProbe


def open_protocol(name: str, source: Any, columns: Mapping[str, str] | None, training: SeriesTable | None) -> Protocol:
    """A protocol on its data, read and checked. `training`: what the method learns from.

    "svm", "probe" and "knn" take labelled series, "forecast" series that are cut in time into 60, 20 and 20 %, "forecast_ett" hourly ones that are
    cut after 8,640, 11,520 and 14,400 steps, as the literature cuts ETTh1 and ETTh2.
    Raises ProtocolUnknown, ProtocolDataInvalid, ForecastImpossible, or what `read_data` raises.
    """
    if name not in PROTOCOLS:
        raise ProtocolUnknown(f"There is no protocol '{name}' for time series; {nearest(name, PROTOCOLS)}")
    return PROTOCOLS[name].open(source, columns, training)


def protocol_columns(names: Iterable[str]) -> set[str]:
    """The columns that the data of these protocols have; of an unknown protocol none."""
    return {column.name for name in names if name in PROTOCOLS for column in PROTOCOLS[name].columns}


class Kind(NamedTuple):
    """How a protocol is opened, and the columns of its data."""

    open: Callable[[Any, Mapping[str, str] | None, SeriesTable | None], Protocol]
    columns: Sequence[Column]


PROTOCOLS = {
    "svm": Kind(partial(open_probe, SVM), LABELLED_SERIES),
    "probe": Kind(partial(open_probe, LINEAR), LABELLED_SERIES),
    "knn": Kind(partial(open_probe, NEAREST), LABELLED_SERIES),
    "forecast": Kind(Forecast, FORECAST_SERIES),
    "forecast_ett": Kind(partial(Forecast, sizes=ETT), FORECAST_SERIES),
}
