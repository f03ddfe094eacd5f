//! `docs/performance.md`: its head is this program's, each chapter after it some program's; one is replaced, the others stay.

/// The page with `text` as its head, or as the chapter that begins with the heading in `text`.
pub fn placed(page: &str, text: &str) -> String {
    let first = page.find("\n## ").unwrap_or(page.len());
    let heading =
        text.strip_prefix('\n').filter(|text| text.starts_with("## ")).and_then(|text| text.lines().next());
    let Some(heading) = heading else { return format!("{text}{}", &page[first..]) };
    let (start, end) = match page.find(&format!("\n{heading}\n")) {
        Some(start) => {
            let after = start + 1 + heading.len();
            (start, page[after..].find("\n## ").map_or(page.len(), |next| after + next))
        }
        None => (first, first),
    };
    format!("{}{text}{}", &page[..start], &page[end..])
}

#[cfg(test)]
mod tests {
    use super::placed;

    #[test]
    fn one_part_is_replaced() {
        let page = "# P\nold\n\n## A\na\n\n## B\nb\n";
        assert_eq!(placed(page, "# P\nnew\n"), "# P\nnew\n\n## A\na\n\n## B\nb\n");
        assert_eq!(placed(page, "\n## A\nnew\n"), "# P\nold\n\n## A\nnew\n\n## B\nb\n");
        assert_eq!(placed(page, "\n## B\nnew\n"), "# P\nold\n\n## A\na\n\n## B\nnew\n");
        assert_eq!(placed(page, "\n## C\nc\n"), "# P\nold\n\n## C\nc\n\n## A\na\n\n## B\nb\n");
        assert_eq!(placed("", "# P\n"), "# P\n");
    }
}
