//! The colours of page and plots. Each has a role, so that a style sheet can give it another shade in the dark.

use plotters::style::RGBColor;

/// What a colour stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Background,
    Ink,
    Muted,
    Grid,
    Ringway,
    BestPeer,
    Peer,
    Reference,
    Floor,
}

impl Role {
    const ALL: [Role; 9] = [
        Role::Background,
        Role::Ink,
        Role::Muted,
        Role::Grid,
        Role::Ringway,
        Role::BestPeer,
        Role::Peer,
        Role::Reference,
        Role::Floor,
    ];

    fn name(self) -> &'static str {
        match self {
            Role::Background => "background",
            Role::Ink => "ink",
            Role::Muted => "muted",
            Role::Grid => "grid",
            Role::Ringway => "ringway",
            Role::BestPeer => "best-peer",
            Role::Peer => "peer",
            Role::Reference => "reference",
            Role::Floor => "floor",
        }
    }

    /// In the light, which plots are drawn for, and in the dark.
    fn shades(self) -> [RGBColor; 2] {
        let [light, dark]: [u32; 2] = match self {
            Role::Background => [0xFFFFFF, 0x12171E],
            Role::Ink => [0x1B2430, 0xE7ECF2],
            Role::Muted => [0x5A6675, 0x9DA9B8],
            Role::Grid => [0xE4E8EE, 0x2A333F],
            Role::Ringway => [0x2B6BE4, 0x6BA5FF],
            Role::BestPeer => [0xD97F16, 0xEBA047],
            Role::Peer => [0xA8B3C1, 0x637084],
            Role::Reference => [0xD0D7E0, 0x424D5C],
            Role::Floor => [0x86BBA0, 0x3E7D61],
        };
        let color = |rgb: u32| RGBColor((rgb >> 16) as u8, (rgb >> 8) as u8, rgb as u8);
        [color(light), color(dark)]
    }

    pub(super) fn light(self) -> RGBColor {
        self.shades()[0]
    }
}

/// The colours as variables of a style sheet, and the rules that put them into plots.
pub(super) fn style() -> String {
    let variables = |shade: usize| {
        let one = |role: &Role| format!("--{}: {};", role.name(), hexadecimal(role.shades()[shade]));
        Role::ALL.iter().map(one).collect::<Vec<_>>().join(" ")
    };
    let rules = Role::ALL.map(|role| {
        let (color, name) = (hexadecimal(role.light()), role.name());
        format!("svg [fill=\"{color}\"] {{ fill: var(--{name}); }} svg [stroke=\"{color}\"] {{ stroke: var(--{name}); }}\n")
    });
    format!(
        ":root {{ {} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {} }} }}\n{}",
        variables(0),
        variables(1),
        rules.concat()
    )
}

/// As it stands in SVG.
pub(super) fn hexadecimal(RGBColor(red, green, blue): RGBColor) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}
