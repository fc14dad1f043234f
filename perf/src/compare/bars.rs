//! Draws bars that lie one below the other, with the range of the runs, as SVG.

use anyhow::{Result, anyhow};
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::colors::Role;
use super::summary::Spread;

/// A bar, or a heading of those below it.
pub(super) struct Row {
    pub label: String,
    pub bold: bool,
    pub bar: Option<Bar>,
}

pub(super) struct Bar {
    pub spread: Spread,
    pub role: Role,
    /// Behind the bar.
    pub text: String,
}

/// What the axis measures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scale {
    /// From zero on.
    Amount,
    /// From one on to both sides, doubling: half as good is as far as twice as good.
    Ratio,
}

/// A plot. Pixels are those of a telephone: on wider screens all of it grows.
pub(super) struct Bars<'a> {
    pub rows: &'a [Row],
    pub scale: Scale,
    /// Of the axis, with its unit.
    pub description: &'a str,
    pub width: u32,
    pub margin: u32,
}

const AXIS: u32 = 38;
const ROW: u32 = 21;
const WHISKER: u32 = 5;
/// What of the last number at the axis stands out of it.
const LAST_TICK: u32 = 10;
/// Between a bar and the text on either side of it.
const GAP: i32 = 7;
/// As plotters counts: a quarter more than in the file.
const TEXT: f64 = 15.0;
/// Of a letter, on the wide side: which font it will be is not known here.
const LETTER: f64 = 6.9;
const BOLD_LETTER: f64 = 8.0;
/// Ticks of an axis, at most about.
const TICKS: usize = 5;

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Chart<'a, 'b, X> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, RangedCoordf64>>;
type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

impl Scale {
    /// Where it is on the axis, on which lengths are lengths.
    fn position(self, value: f64) -> f64 {
        match self {
            Scale::Amount => value,
            Scale::Ratio => value.ln(),
        }
    }

    fn value(self, position: f64) -> f64 {
        match self {
            Scale::Amount => position,
            Scale::Ratio => position.exp(),
        }
    }

    /// Where bars begin.
    fn base(self) -> f64 {
        match self {
            Scale::Amount => 0.0,
            Scale::Ratio => 1.0,
        }
    }
}

impl Bars<'_> {
    /// Draws it.
    pub(super) fn svg(&self) -> Result<String> {
        let mut svg = String::new();
        let height = self.rows.len() as u32 * ROW + AXIS + 2 * self.margin;
        {
            let area = SVGBackend::with_string(&mut svg, (self.width, height)).into_drawing_area();
            let drawn = match self.scale {
                Scale::Amount => self.draw(&area, self.range()),
                Scale::Ratio => self.draw(&area, self.range().log_scale().base(2.0)),
            };
            drawn.map_err(|error| anyhow!("drawing: {error}"))?;
        }
        Ok(svg)
    }

    fn bars(&self) -> impl Iterator<Item = (&Row, &Bar)> {
        self.rows.iter().filter_map(|row| Some((row, row.bar.as_ref()?)))
    }

    /// Pixels for what stands before the bars.
    fn label_width(&self) -> u32 {
        let widths = self.bars().map(|(row, _)| text_width(&row.label, row.bold));
        widths.fold(0.0, f64::max) as u32 + GAP.unsigned_abs()
    }

    /// From where to where the axis goes, so that there is room for what stands behind the bars.
    fn range(&self) -> std::ops::Range<f64> {
        let positions = self.bars().map(|(_, bar)| self.scale.position(bar.spread.min));
        let low = match self.scale {
            Scale::Amount => 0.0,
            Scale::Ratio => 1.1 * positions.fold(0.0, f64::min),
        };
        let pixels = f64::from(
            self.width
                .saturating_sub(2 * self.margin + LAST_TICK + self.label_width()),
        );
        let needed = self.bars().map(|(row, bar)| {
            let left = pixels - f64::from(GAP) - text_width(&bar.text, row.bold);
            // However long the text is, the bar gets some of it.
            low + (self.scale.position(bar.spread.max) - low) * pixels / left.max(pixels / 4.0)
        });
        // Of nothing: an axis all the same.
        let least = match self.scale {
            Scale::Amount => low + f64::MIN_POSITIVE,
            Scale::Ratio => 2f64.ln(),
        };
        self.scale.value(low)..self.scale.value(needed.fold(least, f64::max))
    }

    fn draw<X>(&self, area: &Area<'_>, axis: X) -> Drawn
    where
        X: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64>,
    {
        area.fill(&Role::Background.light())?;
        let (start, labels, count) = (self.range().start, self.label_width(), self.rows.len() as f64);
        let mut chart = ChartBuilder::on(area)
            .margin(self.margin)
            .margin_right(self.margin + LAST_TICK)
            .y_label_area_size(labels)
            .x_label_area_size(AXIS)
            .build_cartesian_2d(axis, 0.0..count)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .x_labels(TICKS)
            .x_label_formatter(&|value| tick(*value))
            .x_desc(self.description)
            .bold_line_style(Role::Grid.light())
            .light_line_style(TRANSPARENT)
            .axis_style(Role::Grid.light())
            .label_style(text(Role::Muted, false))
            .axis_desc_style(text(Role::Muted, false))
            .draw()?;
        for (index, row) in self.rows.iter().enumerate() {
            let bottom = count - index as f64 - 1.0;
            let start = (start, bottom + 0.5);
            match &row.bar {
                Some(bar) => {
                    write(&mut chart, start, -GAP, HPos::Right, &row.label, row.bold)?;
                    self.draw_bar(&mut chart, row, bar, bottom)?;
                }
                None => write(
                    &mut chart,
                    start,
                    -labels.cast_signed(),
                    HPos::Left,
                    &row.label,
                    row.bold,
                )?,
            }
        }
        area.present()?;
        Ok(())
    }

    fn draw_bar<X>(&self, chart: &mut Chart<'_, '_, X>, row: &Row, bar: &Bar, bottom: f64) -> Drawn
    where
        X: Ranged<ValueType = f64>,
    {
        let Spread { median, min, max } = bar.spread;
        let (base, middle) = (self.scale.base(), bottom + 0.5);
        let corners = [(base, bottom + 0.14), (median, bottom + 0.86)];
        chart.draw_series([Rectangle::new(corners, bar.role.light().filled())])?;
        if min < max {
            let style = Role::Ink.light().filled();
            let whisker = ErrorBar::new_horizontal(middle, min, median, max, style, WHISKER);
            chart.draw_series([whisker])?;
        }
        if self.scale == Scale::Ratio {
            let one = [(base, bottom), (base, bottom + 1.0)];
            chart.draw_series([PathElement::new(one, Role::Ink.light())])?;
        }
        write(
            chart,
            (max.max(base), middle),
            GAP,
            HPos::Left,
            &bar.text,
            row.bold,
        )
    }
}

/// Writes beside a point.
fn write<X>(
    chart: &mut Chart<'_, '_, X>,
    at: (f64, f64),
    aside: i32,
    anchor: HPos,
    words: &str,
    bold: bool,
) -> Drawn
where
    X: Ranged<ValueType = f64>,
{
    let style = text(Role::Ink, bold).pos(Pos::new(anchor, VPos::Center));
    let words = Text::new(words.to_owned(), (aside, 0), style);
    chart.draw_series([EmptyElement::at(at) + words])?;
    Ok(())
}

fn text(role: Role, bold: bool) -> TextStyle<'static> {
    let style = if bold { FontStyle::Bold } else { FontStyle::Normal };
    ("sans-serif", TEXT, style).into_font().color(&role.light())
}

/// A number at an axis, without zeros that say nothing.
fn tick(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn text_width(text: &str, bold: bool) -> f64 {
    let letter = if bold { BOLD_LETTER } else { LETTER };
    text.chars().count() as f64 * letter
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(label: &str, value: f64) -> Row {
        Row {
            label: label.to_owned(),
            bold: false,
            bar: Some(Bar {
                spread: Spread {
                    median: value,
                    min: value * 0.9,
                    max: value * 1.1,
                },
                role: Role::Peer,
                text: "text".to_owned(),
            }),
        }
    }

    fn bars(rows: &[Row], scale: Scale) -> Bars<'_> {
        Bars {
            rows,
            scale,
            description: "Gbit/s",
            width: 380,
            margin: 2,
        }
    }

    #[test]
    fn there_is_room_behind_the_longest_bar_and_the_axis_begins_at_zero() {
        let rows = [row("one", 10.0), row("two", 5.0)];
        let bars = bars(&rows, Scale::Amount);
        let range = bars.range();
        assert!(
            range.start == 0.0 && range.end > 11.0 && range.end < 16.0,
            "{range:?}"
        );
        let svg = bars.svg().unwrap();
        for expected in ["one", "two", "Gbit/s", "text"] {
            assert!(svg.contains(expected), "{expected} is missing:\n{svg}");
        }
    }

    #[test]
    fn ratios_go_to_both_sides_of_one() {
        let rows = [row("half", 0.5), row("four times", 4.0)];
        let range = bars(&rows, Scale::Ratio).range();
        assert!(range.start < 0.5 && range.end > 4.0, "{range:?}");
        let svg = bars(&rows, Scale::Ratio).svg().unwrap();
        for tick in [
            ">
0.5
<", ">
1
<", ">
2
<", ">
4
<",
        ] {
            assert!(
                svg.contains(tick),
                "{tick} is missing:
{svg}"
            );
        }
    }

    #[test]
    fn nothing_can_be_drawn_too() {
        for scale in [Scale::Amount, Scale::Ratio] {
            assert!(bars(&[], scale).svg().unwrap().starts_with("<svg"));
        }
    }

    #[test]
    fn ticks_are_short() {
        assert_eq!([0.0, 0.25, 10.0, 0.1 + 0.2].map(tick), ["0", "0.25", "10", "0.3"]);
    }
}
