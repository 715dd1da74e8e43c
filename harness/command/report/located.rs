//! A mistake in a file, drawn where it is.

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use relapse_core::error::Located;

/// Draws the mistake with its line, in colors.
pub fn render(located: &Located) -> String {
    let end = located.text.len();
    let span = located.span.start.min(end)..located.span.end.clamp(located.span.start.min(end), end);
    // A span over a whole table says less than its first line.
    let line_end = located.text[span.start..span.end].find('\n').map_or(span.end, |length| span.start + length);
    let snippet = Snippet::source(located.text.as_str())
        .path(located.path.as_str())
        .annotation(AnnotationKind::Primary.span(span.start..line_end));
    let mut group = Level::ERROR.primary_title(located.message.as_str()).element(snippet);
    if let Some(help) = &located.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    Renderer::styled().render(&[group])
}
