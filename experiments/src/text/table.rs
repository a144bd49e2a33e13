//! Aligned tables, for the terminal and as Markdown.

use super::escape::markdown;

/// Rows under a heading; every row has as many cells as the heading.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    heading: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub(crate) fn new(heading: impl IntoIterator<Item: ToString>) -> Self {
        Self { heading: heading.into_iter().map(|cell| cell.to_string()).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn push(&mut self, row: impl IntoIterator<Item = String>) {
        self.rows.push(row.into_iter().collect());
        debug_assert_eq!(self.rows.last().map(Vec::len), Some(self.heading.len()));
    }

    /// Whether there is no row.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The heading's cells.
    pub(crate) fn heading(&self) -> &[String] {
        &self.heading
    }

    /// The rows.
    pub(crate) fn rows(&self) -> &[Vec<String>] {
        &self.rows
    }

    /// Text for a terminal: words to the left, numbers to the right.
    pub(crate) fn to_text(&self) -> String {
        let widths = self.widths();
        let rule = widths.iter().map(|&width| "─".repeat(width)).collect::<Vec<_>>().join("  ");
        let mut lines = vec![self.line(&self.heading, &widths, "  "), rule];
        lines.extend(self.rows.iter().map(|row| self.line(row, &widths, "  ")));
        lines.join("\n")
    }

    /// A Markdown table, in which nothing is read as markup.
    pub(crate) fn to_markdown(&self) -> String {
        let escape = |row: &Vec<String>| row.iter().map(|cell| markdown(cell)).collect();
        let escaped = Self { heading: escape(&self.heading), rows: self.rows.iter().map(escape).collect() };
        escaped.aligned_markdown()
    }

    fn aligned_markdown(&self) -> String {
        let widths = self.widths();
        let rule = |(column, &width): (usize, &usize)| match self.is_numeric(column) {
            false => "-".repeat(width),
            true => "-".repeat(width - 1) + ":",
        };
        let rules: Vec<String> = widths.iter().enumerate().map(rule).collect();
        let mut lines = vec![self.line(&self.heading, &widths, " | "), rules.join(" | ")];
        lines.extend(self.rows.iter().map(|row| self.line(row, &widths, " | ")));
        lines.iter().map(|line| format!("| {line} |\n")).collect()
    }

    fn widths(&self) -> Vec<usize> {
        let cells = |column: usize| self.rows.iter().map(move |row| row[column].chars().count());
        (0..self.heading.len())
            .map(|column| cells(column).chain([self.heading[column].chars().count(), 3]).max().unwrap_or(0))
            .collect()
    }

    fn line(&self, row: &[String], widths: &[usize], between: &str) -> String {
        let cell = |(column, (cell, &width)): (usize, (&String, &usize))| match self.is_numeric(column) {
            false => format!("{cell:<width$}"),
            true => format!("{cell:>width$}"),
        };
        let cells: Vec<String> = row.iter().zip(widths).enumerate().map(cell).collect();
        cells.join(between).trim_end().to_owned()
    }

    /// Whether a column holds numbers, empty cells and words that say why there is no number aside.
    pub(crate) fn is_numeric(&self, column: usize) -> bool {
        let mut cells = self.rows.iter().map(|row| row[column].as_str()).filter(|cell| !cell.is_empty());
        let mut numbers = 0;
        let fits = cells.all(|cell| {
            let is_number =
                cell.starts_with(|c: char| c.is_ascii_digit() || ['-', '−', '+', '<'].contains(&c));
            numbers += usize::from(is_number);
            is_number || cell.starts_with("not ") || cell.starts_with("failed: ")
        });
        fits && numbers > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_in_both_forms() {
        let mut table = Table::new(["variant", "CIDEr"]);
        table.push(vec!["all".to_owned(), "1.25".to_owned()]);
        table.push(vec!["freeze_vit".to_owned(), "not run".to_owned()]);
        insta::assert_snapshot!(table.to_text(), @r"
        variant       CIDEr
        ──────────  ───────
        all            1.25
        freeze_vit  not run
        ");
        insta::assert_snapshot!(table.to_markdown(), @r"
        | variant    |   CIDEr |
        | ---------- | ------: |
        | all        |    1.25 |
        | freeze_vit | not run |
        ");
    }
}
