//! The screen's state on a terminal of any size; made for 80 columns and 24 lines.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Cell as TableCell, Clear, Paragraph, Row as TableRow, Table, TableState},
};

use vipa_model::calendar::span;

use super::screen::{Column, Row, Screen, Tone, View, short};

/// Lines of the head: the router, its packets, what is wrong, and the views.
const HEAD: u16 = 4;

const HELP: &[(&str, &str)] = &[
    ("Tab  1 2 3 4", "next view; VIPAs, targets, drops, workers"),
    ("F6  > <", "order by the next column, or the one before"),
    ("I", "the other way round"),
    ("F4  /", "show rows with this text only; Esc ends that"),
    ("up down PgUp PgDn Home End", "another row"),
    ("Space  Z", "stand still, and go on"),
    ("F1  h  ?", "this help"),
    ("F10  q  Ctrl-C", "end"),
];

pub(crate) fn draw(frame: &mut Frame<'_>, screen: &mut Screen) {
    let areas = Layout::vertical([Constraint::Length(HEAD), Constraint::Min(1), Constraint::Length(1)]);
    let [head, body, foot] = areas.areas(frame.area());
    frame.render_widget(Paragraph::new(head_lines(screen)), head);
    let rows = screen.rows();
    screen.selected = screen.selected.min(rows.len().saturating_sub(1));
    draw_rows(frame, screen, &rows, body);
    frame.render_widget(Paragraph::new(foot_line(screen, rows.len())), foot);
    if screen.is_helping {
        draw_help(frame, body);
    }
}

fn head_lines(screen: &Screen) -> Vec<Line<'static>> {
    let Some(sample) = &screen.sample else { return vec![Line::raw("waiting for the router")] };
    let status = &sample.status;
    let uptime = span(status.uptime_ms);
    let first = format!(
        "vipactl top: {} of {}, up {uptime}; {} of {} connections",
        status.node,
        status.cluster,
        short(status.connections as f64),
        short(status.capacity as f64)
    );
    let rate = |prefix: &str| -> f64 {
        let rates = screen.rates.iter().flat_map(|rates| &rates.total);
        rates.filter(|(name, _)| name.starts_with(prefix)).map(|(_, rate)| rate).sum()
    };
    let exact = |name: &str| screen.rates.as_ref().map_or(0.0, |rates| rates.of(name));
    let second = format!(
        "packets/s: in {}, forwarded {}, answered {}, dropped {}",
        short(exact("received")),
        short(exact("forwarded")),
        short(rate("replied.")),
        short(rate("dropped."))
    );
    let alarm = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
    let third = match (&screen.failure, &status.unfit) {
        (Some(why), _) => Line::styled(format!("NO ANSWER: {why}"), alarm),
        (None, Some(why)) => Line::styled(format!("UNFIT: {why}"), alarm),
        _ if screen.is_paused => Line::raw("standing still; Space goes on"),
        _ => Line::raw(""),
    };
    let mut tabs = Vec::new();
    for (number, view) in (1..).zip(View::ALL) {
        let style = if view == screen.view { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
        tabs.push(Span::styled(format!(" {number} {} ", view.name()), style));
    }
    if screen.is_typing || !screen.filter.is_empty() {
        let cursor = if screen.is_typing { "_" } else { "" };
        tabs.push(Span::raw(format!("  only: {}{cursor}", screen.filter)));
    }
    vec![Line::raw(first), Line::raw(second), third, Line::from(tabs)]
}

fn draw_rows(frame: &mut Frame<'_>, screen: &Screen, rows: &[Row], area: Rect) {
    let columns = screen.view.columns();
    let (ordered, descends) = screen.order();
    let heading = columns.iter().enumerate().map(|(index, column)| {
        let arrow = match (index == ordered, descends) {
            (true, true) => "▽",
            (true, false) => "△",
            (false, _) => "",
        };
        cell(column, format!("{}{arrow}", column.name))
    });
    let heading = TableRow::new(heading).style(Style::new().fg(Color::Black).bg(Color::Green));
    let body = rows.iter().map(|row| {
        let style = match row.tone {
            Tone::Plain => Style::new(),
            Tone::Warning => Style::new().fg(Color::Yellow),
            Tone::Bad => Style::new().fg(Color::Red),
        };
        TableRow::new(columns.iter().zip(&row.cells).map(|(column, of)| cell(column, of.text.clone()))).style(style)
    });
    let last = columns.len() - 1;
    // The last column takes what is left if it is text.
    let widths = columns.iter().enumerate().map(|(index, column)| {
        let widest = rows.iter().map(|row| row.cells[index].text.chars().count()).max().unwrap_or_default();
        let named = u16::try_from(column.name.len() + 1).unwrap_or(u16::MAX);
        let width = column.width.max(named).max(u16::try_from(widest).unwrap_or(u16::MAX).min(40));
        if index == last && !column.is_number { Constraint::Min(4) } else { Constraint::Length(width) }
    });
    let table =
        Table::new(body, widths).header(heading).row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected((!rows.is_empty()).then_some(screen.selected));
    frame.render_stateful_widget(table, area, &mut state);
}

fn cell(column: &Column, text: String) -> TableCell<'static> {
    let line = Line::raw(text);
    TableCell::new(if column.is_number { line.right_aligned() } else { line })
}

fn foot_line(screen: &Screen, rows: usize) -> Line<'static> {
    let keys = [("F1", "Help"), ("Tab", "View"), ("F4", "Filter"), ("F6", "Order"), ("I", "Invert"), ("F10", "Quit")];
    let mut spans = Vec::new();
    for (key, does) in keys {
        spans.push(Span::raw(key));
        spans.push(Span::styled(format!("{does} "), Style::new().fg(Color::Black).bg(Color::Cyan)));
    }
    let place = if rows == 0 { 0 } else { screen.selected + 1 };
    spans.push(Span::raw(format!(" {place} of {rows}")));
    Line::from(spans)
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let lines = HELP.iter().map(|(keys, does)| Line::raw(format!(" {keys:<27} {does}")));
    let lines: Vec<Line<'_>> = std::iter::once(Line::raw(" Keys; any of them leaves this help")).chain(lines).collect();
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines), area);
}
