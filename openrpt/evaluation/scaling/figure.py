"""The figure of `openrpt scaling`: accuracy over training compute."""

from collections.abc import Sequence

from openrpt.evaluation.scaling.scaling import Series, size_words


def figure(series: Sequence[Series]) -> str:
    """Returns an SVG: points, the paper's form, and the band of its resamples, over the logarithm
    of C."""
    import altair as alt
    import vl_convert

    def name(one: Series) -> str:
        return f"{one.difficulty}{size_words(one.model_size)}"

    curve = [
        {"series": name(one), "compute": c, "accuracy": p, "low": low, "high": high}
        for one in series
        for c, p, low, high in one.curve
    ]
    points = [
        {"series": name(one), "compute": point.compute, "accuracy": point.accuracy}
        for one in series
        for point in one.points
    ]
    x = alt.X(
        "compute:Q",
        scale=alt.Scale(type="log", nice=False),
        axis=alt.Axis(format="~e"),
        title="training compute, FLOPs",
    )

    def y(field: str) -> alt.Y:
        scale, axis = alt.Scale(zero=False), alt.Axis(format="~%")
        return alt.Y(field, title="accuracy", scale=scale, axis=axis)

    color = alt.Color("series:N", sort=None, title=None)
    base = alt.Chart(alt.Data(values=curve)).encode(x=x, color=color)
    band = base.mark_area(opacity=0.15).encode(y=y("low:Q"), y2="high:Q")
    line = base.mark_line().encode(y=y("accuracy:Q"))
    dots = (
        alt.Chart(alt.Data(values=points))
        .mark_point(filled=True, size=50)
        .encode(x=x, y=y("accuracy:Q"), color=color)
    )
    chart = alt.LayerChart(layer=[band, line, dots]).properties(width=480, height=300)
    svg: str = vl_convert.vegalite_to_svg(chart.to_dict())
    return svg
