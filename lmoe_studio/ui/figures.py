"""Answers of `analysis` as Plotly figures, for the page, the report and notebooks.

    usage_figure(expert_usage(frame, by=("layer",))).show()

Every figure takes the frame that one question gives. An expert has the colour and letter it has in
every view; figures are transparent with mid-grey text, so they stand on light and on dark.
"""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lmoe_studio.ui.palette import expert_colour, expert_glyph

INK, GRID = "#8a8f98", "rgba(128,128,128,.25)"
LINE, QUIET = "#996BFF", "#8a8f98"
_CHANGE = [[0, "#2166ac"], [0.5, "#f7f7f7"], [1, "#e08214"]]
_PATTERNS = ("", "/", "\\", "x", "-", "|", "+", ".")
_MARGIN = {"l": 8, "r": 8, "t": 40, "b": 8}


def usage_figure(usage: pd.DataFrame) -> go.Figure:
    """Shares of `expert_usage`: bars with their intervals, or stacked by layer if it has layers."""
    names = _experts(usage["expert"])
    if "layer" not in usage:
        low, high = (usage.get(name, usage["share"]) for name in ("share_low", "share_high"))
        codes = usage["expert"].cat.codes
        bars = go.Bar(
            x=usage["share"],
            y=[names[code] for code in codes],
            orientation="h",
            marker={"color": [expert_colour(code) for code in codes]},
            error_x={"array": high - usage["share"], "arrayminus": usage["share"] - low,
                     "color": INK, "thickness": 1.2},
            customdata=usage["load"],
            hovertemplate="%{y}: share %{x:.3f}, load %{customdata:.3f}<extra></extra>",
        )  # fmt: skip
        figure = _figure([bars], "Share of the routing", height=70 + 26 * len(names))
        return figure.update_xaxes(rangemode="tozero").update_yaxes(autorange="reversed")
    bars = [
        go.Bar(
            x=rows["layer"],
            y=rows["share"],
            name=names[code],
            marker={"color": expert_colour(code),
                    "pattern": {"shape": _PATTERNS[code % len(_PATTERNS)], "solidity": 0.2,
                                "fillmode": "overlay", "fgcolor": "rgba(255,255,255,.45)"}},
            hovertemplate=f"{names[code]}, layer %{{x}}: %{{y:.3f}}<extra></extra>",
        )
        for code, rows in _by_expert(usage)
    ]  # fmt: skip
    figure = _figure(bars, "Share of the routing, by layer", height=340)
    return figure.update_layout(barmode="stack", bargap=0.08).update_xaxes(
        **_layer_axis(usage["layer"])
    )


def entropy_figure(entropies: pd.DataFrame) -> go.Figure:
    """`routing_entropy` by layer: of one token, and of all tokens together."""
    lines = [
        _line(entropies["layer"], entropies["overall"], "all tokens together", QUIET, dash="dot"),
        _line(entropies["layer"], entropies["token"], "one token", LINE),
    ]
    figure = _figure(lines, "Entropy of the routing (nats)", height=280)
    return figure.update_xaxes(**_layer_axis(entropies["layer"])).update_yaxes(rangemode="tozero")


def active_figure(table: pd.DataFrame) -> go.Figure:
    """`active_experts` by layer: numbers of experts, and below them sums of weights and silent shares."""
    layers = table["layer"]
    band = go.Scatter(
        x=pd.concat([layers, layers[::-1]]), y=pd.concat([table["p90"], table["p10"][::-1]]),
        fill="toself", fillcolor=_see_through(LINE), line={"width": 0}, name="of 80 % of the tokens",
        hoverinfo="skip",
    )  # fmt: skip
    lines = [
        _line(layers, table["active"], "experts that act", LINE),
        _line(layers, table["mass"], "sum of the weights", QUIET, dash="dot").update(yaxis="y2"),
        _line(layers, table["silent"], "tokens without any", "#E73256", dash="dash").update(yaxis="y2"),
    ]  # fmt: skip
    figure = _figure([band, *lines], "How many experts act", height=380)
    below = {"domain": [0, 0.42], "anchor": "x", "gridcolor": GRID, "automargin": True}
    figure.update_layout(yaxis2=below | {"zeroline": False})
    figure.update_yaxes(rangemode="tozero").update_xaxes(**_layer_axis(layers), anchor="y2")
    return figure.update_layout(
        yaxis={"domain": [0.54, 1], "title": {"text": "experts"}}, yaxis2_title_text="sum, share"
    )


def specialisation_figure(table: pd.DataFrame) -> go.Figure:
    """`specialisation` by layer, above what shuffled labels give."""
    lines = [
        _line(table["layer"], table["maximum"], "the most there can be", QUIET, dash="dot"),
        _line(table["layer"], table["information"], "label and expert", LINE),
        _line(table["layer"], table["baseline_95"], "95 % of shuffled labels", "#C6B307", dash="dash"),
    ]  # fmt: skip
    figure = _figure(lines, "What the routing says about the label (bits)", height=300)
    return figure.update_xaxes(**_layer_axis(table["layer"])).update_yaxes(rangemode="tozero")


def label_figure(shares: pd.DataFrame) -> go.Figure:
    """`label_shares`: a label a row, an expert a column; labels in the order of their experts."""
    names = _experts(shares["expert"])
    table = shares.pivot(index="label", columns="expert", values="share")
    table = table.iloc[np.argsort(table.to_numpy().argmax(axis=1), kind="stable")]
    return _heat_figure(
        table.to_numpy(), names, _plain(table.index), "Share of each expert, by label", unit="share"
    )


def depth_figure(shares: pd.DataFrame, owners: pd.DataFrame) -> go.Figure:
    """`label_shares` by layer: the share of each label's owner, layer by layer."""
    names = dict(zip(shares["expert"].cat.categories, _experts(shares["expert"]), strict=True))
    owner = owners.set_index("label")["expert"]
    own = shares[shares["expert"].astype(str) == shares["label"].map(owner).astype(str)]
    table = own.pivot(index="label", columns="layer", values="share").loc[_by_owner(owners)]
    rows = [f"{_shown(label)} → {names[owner[label]]}" for label in table.index]
    title = "Where in the network: share of each label's owner"
    figure = _heat_figure(table.to_numpy(), list(table.columns), rows, title, unit="share")
    return figure.update_xaxes(**_layer_axis(table.columns))


def coactivation_figure(table: pd.DataFrame) -> go.Figure:
    """`coactivation` with `by=()`: lift of each pair; white is chance."""
    names = _experts(table["expert"])
    square = table.pivot(index="expert", columns="other", values="lift")
    values = np.log2(square.to_numpy(dtype=float).clip(min=2**-4, max=2**4))
    title = "Experts that act together, against chance"
    return _heat_figure(values, names, names, title, unit="log₂ lift", limits=(-2, 2))


def transitions_figure(table: pd.DataFrame) -> go.Figure:
    """`layer_transitions` as a flow; select some layers first, as all of them are too many."""
    names, layers = _experts(table["expert"]), sorted({*table["layer"], *table["to_layer"]})
    count = len(names)
    source = [layers.index(layer) for layer in table["layer"]]
    target = [layers.index(layer) for layer in table["to_layer"]]
    colours = [expert_colour(code) for code in range(count)]
    used = table["expert"].cat.codes
    flow = go.Sankey(
        arrangement="snap",
        node={
            "label": [name.split(" ")[0] for name in names] * len(layers),
            "customdata": [f"{name}, layer {layer}" for layer in layers for name in names],
            "hovertemplate": "%{customdata}: %{value} tokens<extra></extra>",
            "color": colours * len(layers),
            "pad": 8, "thickness": 12, "line": {"width": 0},
        },
        link={
            "source": np.array(source) * count + used,
            "target": np.array(target) * count + table["to_expert"].cat.codes,
            "value": table["tokens"],
            "color": [_see_through(colours[code]) for code in used],
            "hovertemplate": "%{value} tokens<extra></extra>",
        },
    )  # fmt: skip
    shown = ", ".join(map(str, layers))
    figure = _figure([flow], f"Top expert of each token, layers {shown}", 420)
    key = "   ".join(names)
    figure.add_annotation(
        text=key, showarrow=False, x=0, xanchor="left", y=-0.06, xref="paper", yref="paper"
    )
    return figure.update_layout(margin={**_MARGIN, "b": 40})


def tokens_figure(table: pd.DataFrame, *, most: int = 5) -> go.Figure:
    """`expert_tokens`: the tokens with the highest lift for each expert."""
    names = _experts(table["expert"])
    best = table.groupby("expert", observed=True, sort=False).head(most).reset_index(drop=True)
    codes = best["expert"].cat.codes
    bars = go.Bar(
        x=best["lift"],
        y=best.index,
        orientation="h",
        marker={"color": [expert_colour(code) for code in codes]},
        customdata=[
            f"{names[code]}: {_shown(row.token)}, {row.occurrences} times"
            for code, row in zip(codes, best.itertuples(), strict=True)
        ],
        hovertemplate="%{customdata}, lift %{x:.2f}<extra></extra>",
    )
    figure = _figure([bars], "Tokens that experts are for (lift)", 70 + 17 * len(best))
    labels = [
        f"{_shown(token)}  {expert_glyph(code)}"
        for token, code in zip(best["token"], codes, strict=True)
    ]
    figure.update_yaxes(tickvals=list(best.index), ticktext=labels, autorange="reversed")
    return figure.add_vline(x=1, line_color=INK, line_width=1, line_dash="dot")


def comparison_figure(table: pd.DataFrame) -> go.Figure:
    """`compare_runs` by layer, by label, or by both."""
    value = "jsd" if "jsd" in table else "jsd_of_means"
    title = "How far the runs differ (bits; 0 the same, 1 disjoint)"
    keys = [name for name in ("label", "layer") if name in table]
    if len(keys) == 2:
        square = table.pivot(index="label", columns="layer", values=value)
        rows = _plain(square.index)
        figure = _heat_figure(square.to_numpy(), list(square.columns), rows, title, unit="bits")
        return figure.update_xaxes(**_layer_axis(square.columns))
    key = keys[0] if keys else table.columns[0]
    places = table[key] if key == "layer" else _plain(table[key])
    bars = go.Bar(x=places, y=table[value], marker={"color": LINE}, hovertemplate="%{x}: %{y:.3f}<extra></extra>")  # fmt: skip
    return _figure([bars], title, 280).update_xaxes(title_text=key).update_yaxes(rangemode="tozero")


def geometry_figure(cosines: pd.DataFrame) -> go.Figure:
    """`BankGeometry.cosines`: how alike the experts' updates are."""
    names = [f"{expert_glyph(i)} {_shown(name)}" for i, name in enumerate(cosines)]
    title = "Likeness of the experts' updates"
    return _heat_figure(cosines.to_numpy(), names, names, title, unit="cosine", limits=(-1, 1))


def _figure(traces: Sequence[Any], title: str, height: int) -> go.Figure:
    figure = go.Figure(list(traces))
    figure.update_layout(
        title={"text": title, "font": {"size": 14}, "x": 0, "xref": "paper", "xanchor": "left"},
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": INK, "size": 12},
        margin=_MARGIN,
        height=height,
        legend={"orientation": "v", "font": {"size": 11}, "traceorder": "normal"},
        hoverlabel={"align": "left"},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": INK, "activecolor": LINE},
    )
    axes = {"gridcolor": GRID, "zeroline": False, "automargin": True}
    return figure.update_xaxes(**axes).update_yaxes(**axes)


def _layer_axis(layers: Any) -> dict[str, Any]:
    """Whole numbers only; left alone, Plotly also marks the half ones."""
    return {"title_text": "layer", "dtick": 1 if max(layers) - min(layers) <= 12 else 5}


def _line(x: Any, y: Any, name: str, colour: str, *, dash: str = "solid") -> go.Scatter:
    return go.Scatter(
        x=x, y=y, name=name, mode="lines", line={"color": colour, "width": 2, "dash": dash},
        hovertemplate=f"{name}, layer %{{x}}: %{{y:.3f}}<extra></extra>",
    )  # fmt: skip


def _heat_figure(
    values: Any,
    columns: Sequence[Any],
    rows: Sequence[str],
    title: str,
    *,
    unit: str,
    limits: tuple[float, float] | None = None,
) -> go.Figure:
    """A heatmap, first row on top: from 0 up in one direction, or around 0 with `limits`.

    Places are numbers and names only their labels: Plotly would merge rows of the same name.
    """
    places = [column if isinstance(column, int) else i for i, column in enumerate(columns)]
    top = float(np.nanmax(values)) if np.isfinite(values).any() else 1.0
    heat = go.Heatmap(
        z=values,
        x=places,
        y=list(range(len(rows))),
        zmin=limits[0] if limits else 0,
        zmax=limits[1] if limits else top,
        colorscale=_CHANGE if limits else "Cividis",
        xgap=1,
        ygap=1,
        colorbar={"title": {"text": unit}, "thickness": 10, "outlinewidth": 0},
        text=[[f"{row} · {column}" for column in columns] for row in rows],
        hovertemplate="%{text}: %{z:.3f}<extra></extra>",
    )
    figure = _figure([heat], title, 110 + 28 * len(rows))
    figure.update_yaxes(tickvals=list(range(len(rows))), ticktext=rows, autorange="reversed")
    figure.update_xaxes(showgrid=False).update_yaxes(showgrid=False)
    if places != list(columns):
        figure.update_xaxes(tickvals=places, ticktext=list(columns))
    return figure


def _by_expert(table: pd.DataFrame) -> list[tuple[int, pd.DataFrame]]:
    codes = table["expert"].cat.codes
    return [(code, table[codes == code]) for code in sorted(set(codes))]


def _by_owner(owners: pd.DataFrame) -> list[Any]:
    """Labels in the order of the experts that own them."""
    return list(owners.sort_values("expert", kind="stable")["label"])


def _experts(column: "pd.Series[Any]") -> list[str]:
    """Letter and name of each expert, in the bank's order."""
    return [f"{expert_glyph(i)} {_shown(name)}" for i, name in enumerate(column.cat.categories)]


def _plain(values: Any) -> list[str]:
    return [_shown(value) for value in values]


def _shown(text: object) -> str:
    """Text in a figure: Plotly reads tags and a few entities, and hides what is invisible."""
    visible = str(text).replace("\n", "⏎").replace("\t", "⇥").replace("\r", "␍")
    visible = "".join(letter if letter.isprintable() else "\ufffd" for letter in visible)
    short = visible if len(visible) <= 40 else f"{visible[:39]}…"
    # Quotation marks as they are: their entities are none of the few.
    return escape(short.replace(" ", "␣") if not short.strip() else short, quote=False)


def _see_through(colour: str) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},.35)"
