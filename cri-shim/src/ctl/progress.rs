//! Progress of a pull on a terminal: a bar a layer. Elsewhere nothing, so that logs stay short.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::sync::{Mutex, PoisonError};

use coracle_image_store::{Digest, Event, Progress};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

const RUNNING: &str = "{prefix} {bar:24} {bytes:>10}/{total_bytes:<10} {msg}";
const FINISHED: &str = "{prefix} {msg}";

/// Bars on standard error when it is a terminal and nobody asked for quiet.
pub(super) fn bars(quiet: bool) -> Progress {
    if quiet || !std::io::stderr().is_terminal() {
        return Progress::default();
    }
    let bars = Bars { screen: MultiProgress::new(), layers: Mutex::default() };
    Progress::to(move |event| bars.show(event))
}

struct Bars {
    screen: MultiProgress,
    layers: Mutex<HashMap<Digest, ProgressBar>>,
}

impl Bars {
    fn show(&self, event: &Event) {
        match event {
            Event::Resolved { layers, .. } => layers.iter().for_each(|(layer, size)| self.add(layer, *size)),
            Event::LayerExists { layer } => self.finish(layer, "already there"),
            Event::LayerDone { layer } => self.finish(layer, "done"),
            Event::Fetched { layer, bytes } => self.with(layer, |bar| bar.set_position(*bytes)),
            Event::Unpacked { layer, bytes } => {
                self.with(layer, |bar| bar.set_message(format!("unpacked {}", super::output::size(*bytes))));
            }
            Event::Retry { what, reason, delay_ms } => {
                let what: String = what.chars().take(19).collect();
                let _ = self
                    .screen
                    .println(format!("{what}: {reason}; again in {:.1} s", *delay_ms as f64 / 1000.0));
            }
        }
    }

    fn add(&self, layer: &Digest, size: u64) {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        layers.entry(*layer).or_insert_with(|| {
            let bar = self.screen.add(ProgressBar::new(size));
            bar.set_style(style(RUNNING));
            bar.set_prefix(layer.hex()[..12].to_owned());
            bar
        });
    }

    fn finish(&self, layer: &Digest, message: &'static str) {
        self.with(layer, |bar| {
            bar.set_style(style(FINISHED));
            bar.finish_with_message(message);
        });
    }

    fn with(&self, layer: &Digest, act: impl FnOnce(&ProgressBar)) {
        if let Some(bar) = self.layers.lock().unwrap_or_else(PoisonError::into_inner).get(layer) {
            act(bar);
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
