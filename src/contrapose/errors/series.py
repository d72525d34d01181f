"""Time series that cannot be read, learned from or encoded."""

from __future__ import annotations

from contrapose.errors.base import ContraposeError


class SeriesInvalid(ContraposeError):
    """A time series that cannot be used: not of two dimensions, shorter than four steps, with a missing or infinite value, of other channels.

    **Why it matters.** A missing value that is taken for a number spreads over every step that the encoder's convolutions reach.

    **Example.** A CSV with an empty cell; an array of shape (n, t) for an encoder of three channels.

    **Mend.** The message names file, series, step and channel. Missing values on purpose: `--set encoder.missing=mask` hides such steps from
    the encoder, `encoder.missing=zero` reads them as 0 after scaling.
    """

    code = "CL-DATA-090"


class SeriesUnordered(ContraposeError):
    """A long table whose rows do not make series: times that go backwards, a series in two places, a label that changes within a series.

    **Why it matters.** Steps are taken in the order of the rows; a shuffled table would teach an order that never was.

    **Example.** Rows sorted by value, or two sensors under one `series_id`.

    **Mend.** Sort by `series_id` and `time`; the message names the line. Another column holds the name or the time:
    `--map series_id=sensor --map time=date`.
    """

    code = "CL-DATA-091"


class StepsUnavailable(ContraposeError):
    """A network of one's own that does not give a vector for every time step.

    **Why it matters.** The methods compare windows of a series, and forecasts start from the last step: both need (b, t, d).

    **Example.** `encoder=module` whose last layer is a pooling.

    **Mend.** Return (b, t, d) for (b, t, c); contrapose pools over time itself.
    """

    code = "CL-MODEL-090"


class ForecastImpossible(ContraposeError):
    """A series that is too short for the forecasts asked of it, or a horizon below 1.

    **Why it matters.** A forecast of h steps is scored only where h steps follow within the same part of the series.

    **Example.** `--on forecast=series.csv` with 100 rows, whose last fifth has 20 steps: fewer than the shortest forecast of 24.

    **Mend.** The message says how many steps each part has and needs: give a longer series.
    """

    code = "CL-EVAL-090"
