//! Colours: what a piece of text means, as one of the sixteen colours every terminal has.
//!
//! No state is told by colour alone: each has a word and a sign beside it. Without colour the selection is still reversed and
//! what matters still bold.

use ratatui::style::{Color, Modifier, Style};

use super::sheet::Paint;

/// A set of colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Background {
    /// Light text on a dark ground.
    #[default]
    Dark,
    /// Dark text on a light ground.
    Light,
}

/// How meanings are painted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Theme {
    /// What the colours are made for.
    pub background: Background,
    /// No colour at all where this is false.
    pub colour: bool,
    /// Colours that were chosen otherwise: meaning and colour.
    pub overrides: Vec<(Meaning, Color)>,
}

/// The meanings a colour can be chosen for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// All is well.
    Good,
    /// Worth a look.
    Warning,
    /// A problem.
    Bad,
    /// Not known.
    Unknown,
    /// Titles and frames.
    Heading,
    /// What the eye may pass over.
    Dim,
}

/// Meanings by their words in a configuration.
const MEANINGS: [(&str, Meaning); 6] = [
    ("good", Meaning::Good),
    ("warning", Meaning::Warning),
    ("bad", Meaning::Bad),
    ("unknown", Meaning::Unknown),
    ("heading", Meaning::Heading),
    ("dim", Meaning::Dim),
];

/// The sixteen colours by name, each with the red, green and blue most terminals give it.
const COLOURS: [(&str, Color, [u8; 3]); 16] = [
    ("black", Color::Black, [0, 0, 0]),
    ("red", Color::Red, [205, 0, 0]),
    ("green", Color::Green, [0, 205, 0]),
    ("yellow", Color::Yellow, [205, 205, 0]),
    ("blue", Color::Blue, [0, 0, 238]),
    ("magenta", Color::Magenta, [205, 0, 205]),
    ("cyan", Color::Cyan, [0, 205, 205]),
    ("gray", Color::Gray, [229, 229, 229]),
    ("dark-gray", Color::DarkGray, [127, 127, 127]),
    ("light-red", Color::LightRed, [255, 0, 0]),
    ("light-green", Color::LightGreen, [0, 255, 0]),
    ("light-yellow", Color::LightYellow, [255, 255, 0]),
    ("light-blue", Color::LightBlue, [92, 92, 255]),
    ("light-magenta", Color::LightMagenta, [255, 0, 255]),
    ("light-cyan", Color::LightCyan, [0, 255, 255]),
    ("white", Color::White, [255, 255, 255]),
];

/// What text and ground have to differ by to be read (WCAG 2.1, 1.4.11).
const LEAST_CONTRAST: f64 = 3.0;

impl Default for Theme {
    fn default() -> Self {
        Self { background: Background::Dark, colour: true, overrides: Vec::new() }
    }
}

impl Theme {
    /// Chooses a colour for a meaning.
    ///
    /// # Errors
    /// There is no such meaning or colour; says which there are.
    pub fn choose(&mut self, meaning: &str, colour: &str) -> Result<(), String> {
        let Some((_, meaning)) = MEANINGS.iter().find(|(name, _)| *name == meaning) else {
            let names: Vec<&str> = MEANINGS.iter().map(|(name, _)| *name).collect();
            return Err(format!("\"{meaning}\" is nothing a colour is chosen for; there are {}", names.join(", ")));
        };
        let Some((_, colour, _)) = COLOURS.iter().find(|(name, ..)| *name == colour) else {
            let names: Vec<&str> = COLOURS.iter().map(|(name, ..)| *name).collect();
            return Err(format!("\"{colour}\" is no colour; there are {}", names.join(", ")));
        };
        self.overrides.push((*meaning, *colour));
        Ok(())
    }

    /// A chosen colour that can hardly be read on this ground, in words.
    pub fn hard_to_read(&self) -> Option<String> {
        let ground = if self.background == Background::Dark { [0, 0, 0] } else { [255, 255, 255] };
        self.overrides.iter().find_map(|(meaning, colour)| {
            let (name, _, rgb) = COLOURS.iter().find(|(_, known, _)| known == colour)?;
            let (word, _) = MEANINGS.iter().find(|(_, known)| known == meaning)?;
            let contrast = contrast(*rgb, ground);
            let place = if self.background == Background::Dark { "dark" } else { "light" };
            (contrast < LEAST_CONTRAST)
                .then(|| format!("{name} for {word} is hard to read on a {place} ground (contrast {contrast:.1} : 1)"))
        })
    }

    /// How a meaning is painted.
    pub(crate) fn style(&self, paint: Paint) -> Style {
        let style = modifiers(paint);
        if !self.colour {
            return style;
        }
        self.colour_of(paint).map_or(style, |colour| style.fg(colour))
    }

    /// The colour of a meaning; none where it has the terminal's own.
    fn colour_of(&self, paint: Paint) -> Option<Color> {
        let meaning = match paint {
            Paint::Plain | Paint::Strong => return None,
            Paint::Good => Meaning::Good,
            Paint::Warning => Meaning::Warning,
            Paint::Bad => Meaning::Bad,
            Paint::Unknown => Meaning::Unknown,
            Paint::Heading => Meaning::Heading,
            Paint::Dim => Meaning::Dim,
        };
        let chosen = self.overrides.iter().rev().find(|(known, _)| *known == meaning);
        Some(chosen.map_or_else(|| usual(meaning, self.background), |(_, colour)| *colour))
    }
}

/// Colours that can be read on the ground.
const fn usual(meaning: Meaning, background: Background) -> Color {
    match (meaning, background) {
        (Meaning::Good, Background::Dark) => Color::Green,
        (Meaning::Warning, Background::Dark) => Color::Yellow,
        (Meaning::Bad, Background::Dark) => Color::LightRed,
        (Meaning::Unknown, Background::Dark) => Color::LightMagenta,
        (Meaning::Heading, Background::Dark) => Color::Cyan,
        (Meaning::Dim, Background::Dark) => Color::Gray,
        // Yellow, cyan and green cannot be read on white.
        (Meaning::Good | Meaning::Heading, Background::Light) => Color::Blue,
        (Meaning::Warning | Meaning::Unknown, Background::Light) => Color::Magenta,
        (Meaning::Bad, Background::Light) => Color::Red,
        (Meaning::Dim, Background::Light) => Color::DarkGray,
    }
}

/// What holds without colour too.
const fn modifiers(paint: Paint) -> Style {
    let style = Style::new();
    match paint {
        Paint::Plain | Paint::Good | Paint::Unknown | Paint::Dim => style,
        Paint::Strong | Paint::Warning | Paint::Bad | Paint::Heading => style.add_modifier(Modifier::BOLD),
    }
}

/// How much two colours differ (WCAG 2.1: relative luminance).
fn contrast(one: [u8; 3], other: [u8; 3]) -> f64 {
    let (one, other) = (luminance(one), luminance(other));
    (one.max(other) + 0.05) / (one.min(other) + 0.05)
}

/// How bright a colour is, from 0 to 1. Also decides whether a ground is dark.
pub fn luminance([red, green, blue]: [u8; 3]) -> f64 {
    let linear = |part: u8| {
        let part = f64::from(part) / 255.0;
        if part <= 0.03928 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)
}

#[cfg(test)]
mod tests {
    use super::{Background, COLOURS, LEAST_CONTRAST, Meaning, Theme, contrast, usual};

    #[test]
    fn every_colour_of_a_theme_can_be_read_on_its_ground() {
        let meanings =
            [Meaning::Good, Meaning::Warning, Meaning::Bad, Meaning::Unknown, Meaning::Heading, Meaning::Dim];
        for (background, ground) in [(Background::Dark, [0, 0, 0]), (Background::Light, [255, 255, 255])] {
            for meaning in meanings {
                let colour = usual(meaning, background);
                let (_, _, rgb) = COLOURS.iter().find(|(_, known, _)| *known == colour).unwrap();
                assert!(contrast(*rgb, ground) >= LEAST_CONTRAST, "{meaning:?} on {background:?}");
            }
        }
    }

    #[test]
    fn a_chosen_colour_that_cannot_be_read_is_named() {
        let mut theme = Theme::default();
        theme.choose("bad", "red").unwrap();
        assert_eq!(theme.hard_to_read(), None);
        theme.choose("good", "blue").unwrap();
        assert!(theme.hard_to_read().unwrap().starts_with("blue for good"), "{:?}", theme.hard_to_read());
        assert!(theme.choose("good", "pink").unwrap_err().contains("light-cyan"));
        assert!(theme.choose("joy", "red").unwrap_err().contains("warning"));
    }
}
